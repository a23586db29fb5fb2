"""Which head does what, over all kinds: `interp.atlas(model)`, and what moved between two atlases.

The room is called as the function is, so that `interp.atlas(…)` works whichever of its modules was imported first.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["Atlas", "Comparison", "atlas", "compare"]  # pyright: ignore[reportUnsupportedDunderAll]

_HOMES = {
    "Atlas": "interp.atlas.results",
    "Comparison": "interp.atlas.comparison",
    "atlas": "interp.atlas.make",
}


def __getattr__(name: str) -> Any:
    if name == "compare":
        return import_module("interp.atlas.compare").compare
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


class _Callable(ModuleType):
    """The module as the function it is named for."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return import_module("interp.atlas.make").atlas(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
