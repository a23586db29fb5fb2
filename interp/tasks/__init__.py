"""Inputs whose answer or structure is known, one file per task: `interp.tasks.load(name, model)`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.tasks.base import Task as Task
    from interp.tasks.load import from_csv as from_csv
    from interp.tasks.load import load as load
    from interp.tasks.load import names as names

_HOMES = {name: "interp.tasks.load" for name in ("from_csv", "load", "names")} | {"Task": "interp.tasks.base"}
__all__ = ["Task", "from_csv", "load", "names"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'interp.tasks' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
