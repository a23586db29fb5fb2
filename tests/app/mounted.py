"""What a page mounted, without a browser: the data of its components, its bar, and the code of that bar, run."""

from __future__ import annotations

import json
from typing import Any

import torch
from streamlit.testing.v1 import AppTest

__all__ = ["bar", "drawn", "run_code"]

_BAR = "interp.toolbar"


def drawn(at: AppTest) -> list[dict[str, Any]]:
    """The data of each component but the bar, in the page's order."""
    return [json.loads(one.proto.json) for one in at.get("bidi_component") if one.proto.component_name != _BAR]


def bar(at: AppTest) -> dict[str, Any]:
    """The data of the page's one bar."""
    (found,) = [one for one in at.get("bidi_component") if one.proto.component_name == _BAR]
    return json.loads(found.proto.json)


def run_code(at: AppTest) -> dict[str, Any]:
    """The names that the page's Python defines when it is run as it is."""
    names: dict[str, Any] = {}
    was = torch.is_grad_enabled()  # the code is a whole program and turns gradients off
    try:
        exec(compile(bar(at)["code"], "<the page's code>", "exec"), names)
    finally:
        torch.set_grad_enabled(was)
    return names
