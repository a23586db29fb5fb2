"""Models with hand-set weights whose circuits are known: to test causal methods on, and to learn them with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.planted.base import Planted, Truth, circuits, make, names
from interp.planted.random_models import null

if TYPE_CHECKING:
    EPSILON: dict[str, float]

__all__ = ["EPSILON", "Planted", "Truth", "make", "names", "null"]


def __getattr__(name: str) -> object:
    if name == "EPSILON":  # made on use: the circuits import this package
        return {one.name: one.epsilon for one in circuits().values()}
    raise AttributeError(f"module 'interp.planted' has no attribute {name!r}")
