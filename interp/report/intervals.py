"""95% intervals over items, and what becomes of them where every item gave the same: resampling then never differs,
which would pass for certainty."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.report.claim import Measured, Missing
from interp.stats import bootstrap_interval, item_means

__all__ = [
    "EXACT",
    "NO_SPREAD",
    "clopper_pearson",
    "ends_of",
    "from_items",
    "is_share",
    "of_cells",
    "of_items",
    "row_ends",
    "said",
]

Grid = NDArray[np.floating]
_ALIKE = 1e-9
EXACT = "every item gave the same; exact binomial interval over items"
NO_SPREAD = "every item gave the same value, so resampling items gives no interval"


def clopper_pearson(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share of `n` independent items (Clopper & Pearson 1934): each end is where as many
    `right` ones, or more (fewer) of them, have half of what `level` leaves."""
    half = (1 - level) / 2
    low = 0.0 if right == 0 else _crossing(lambda p: 1 - _at_most(right - 1, n, p), half)
    high = 1.0 if right == n else 1 - _crossing(lambda p: _at_most(right, n, 1 - p), half)
    return low, high


def _at_most(k: int, n: int, p: float) -> float:
    """Probability of at most `k` of `n`."""
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


def _crossing(rising: Callable[[float], float], target: float) -> float:
    """Where a function that rises from 0 to 1 on [0, 1] reaches a value."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


def ends_of(value: float, low: float, high: float, n_items: int | None, *, share: bool) -> tuple[float, float]:
    """An interval as it was, if it has a width. Of a share that is 0, or 1, for every item: the exact binomial one
    (attention and the like lie between 0 and 1, so it bounds their mean too). Else there is none, NaN."""
    if math.isnan(low) or math.isnan(high) or abs(high - low) > _ALIKE:
        return low, high
    whole = min((0, 1), key=lambda end: abs(value - end))
    if share and n_items and abs(value - whole) <= _ALIKE:
        return clopper_pearson(whole * n_items, n_items)
    return math.nan, math.nan


def is_share(unit: str) -> bool:
    """Whether a unit says that the value is a share."""
    return unit.startswith(("of ", "share "))


def from_items(found: Sequence[float], unit: str, note: str = "") -> Measured:
    """What `of_items` gave, with its unit; where every item gave the same, that is said."""
    value, low, high, n_items = found
    return said(Measured(value, low, high, unit, int(n_items), note))


def said(measured: Measured) -> Measured:
    """The same; where every item gave the same, with a note that says so."""
    value, low, high = measured.value, measured.low, measured.high
    if math.isnan(low):
        return measured.plus(NO_SPREAD) if (measured.n_items or 0) > 1 else measured
    n = measured.n_items or 0
    if value in (0, 1) and n and (low, high) == clopper_pearson(int(value) * n, n):
        return measured.plus(EXACT)
    return measured


def of_items(
    values: NDArray, items: Sequence[str], *, seed: int = 0, divisor: Grid | None = None, share: bool = True
) -> list[float]:
    """[mean, low, high, items] of one value per prompt, by item; with `divisor` of the ratio of the means. `share`
    says whether the value is one; see `ends_of` for what follows where every item gave the same."""
    named = np.array(items)
    by_item = item_means(np.asarray(values, dtype=float)[:, None], named)
    under = None if divisor is None else item_means(np.asarray(divisor, dtype=float)[:, None], named)
    there = ~np.isnan(by_item[:, 0])
    by_item, under = by_item[there], None if under is None else under[there]
    if not len(by_item):
        raise Missing("no prompt has this")
    mean = float(by_item.mean() if under is None else by_item.mean() / under.mean())
    if len(by_item) < 2:
        return [mean, math.nan, math.nan, float(len(by_item))]
    low, high = bootstrap_interval(by_item, seed=seed, divisor=under)
    ends = ends_of(mean, float(low[0]), float(high[0]), len(by_item), share=share)
    return [mean, *ends, float(len(by_item))]


def of_cells(by_item: Grid, *, seed: int = 0) -> tuple[Grid, Grid]:
    """Intervals of many shares `[item cell]`, each as `of_items` gives it."""
    low, high = bootstrap_interval(by_item, seed=seed)
    for cell in np.flatnonzero(~(high - low > _ALIKE)):
        n = int((~np.isnan(by_item[:, cell])).sum())
        if n:
            mean = float(np.nanmean(by_item[:, cell]))
            low[cell], high[cell] = ends_of(mean, float(low[cell]), float(high[cell]), n, share=True)
    return low, high


def row_ends(row: Mapping[Any, Any], name: str, n_items: int | None, *, share: bool) -> tuple[float, float]:
    """The ends of one of a row's figures."""
    value, low, high = (_float(row.get(column)) for column in (name, f"{name}_low", f"{name}_high"))
    return ends_of(value, low, high, n_items, share=share)


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)
