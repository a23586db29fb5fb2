"""Claims on a model's heads, judged: `interp.report(model)`.

The room is called as the function is, so that `interp.report(…)` works whichever of its modules was imported first.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["Claim", "Measured", "Report", "report"]  # pyright: ignore[reportUnsupportedDunderAll]

_HOMES = {
    "Claim": "interp.report.claim",
    "Measured": "interp.report.claim",
    "Report": "interp.report.results",
    "report": "interp.report.make",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


class _Callable(ModuleType):
    """The module as the function it is named for."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return import_module("interp.report.make").report(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
