"""A claim that can fail: what is measured, the cutoff it is held against, and how the interval decides."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from interp.report.evidence import Evidence

__all__ = ["CANNOT_TELL", "DOES_NOT_HOLD", "HOLDS", "Claim", "Measured", "Missing", "Pilot", "judged"]

HOLDS, DOES_NOT_HOLD, CANNOT_TELL = "holds", "does not hold", "cannot tell"


@dataclass(frozen=True)
class Measured:
    """A quantity with its 95% interval, over `n_items` independent items. NaN ends: there is no interval."""

    value: float | int
    low: float | int
    high: float | int
    unit: str = ""
    n_items: int | None = None
    note: str = ""

    def plus(self, note: str) -> Measured:
        """The same with a further note."""
        said = "; ".join(part for part in (self.note, note) if part)
        return Measured(self.value, self.low, self.high, self.unit, self.n_items, said)


class Missing(Exception):
    """Why a quantity was not measured, or means nothing here."""


@dataclass(frozen=True)
class Pilot:
    """What was measured once before, without an interval, on the model that a claim is about."""

    value: float | int
    set_up: str  # what was different there
    source: str = "METHODS pilot, SmolLM2-135M"


@dataclass(frozen=True)
class Claim:
    """One sentence that a measurement can refute. `side` and `cutoff` say what the quantity must be; `text` says the
    same in words. `explain` is what to think of the outcome, whichever it is."""

    id: str
    kind: str
    text: str
    measure: Callable[[Evidence], Measured]
    side: Literal["≥", "≤"]
    cutoff: float | int
    pilot: Pilot | None = None
    explain: str = ""


def judged(measured: Measured, side: str, cutoff: float | int) -> str:
    """*holds* if the whole interval is on the claim's side (its end may lie on the cutoff), *does not hold* if all of
    it is on the other, else *cannot tell*; so without an interval."""
    low, high = measured.low, measured.high
    if math.isnan(low) or math.isnan(high):
        return CANNOT_TELL
    if side == "≤":
        low, high, cutoff = -high, -low, -cutoff
    if low >= cutoff:
        return HOLDS
    return DOES_NOT_HOLD if high < cutoff else CANNOT_TELL
