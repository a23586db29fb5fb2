"""How often something is right, with an interval over items that does not shrink to nothing where all items agree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.stats import bootstrap_interval, item_means

__all__ = ["share_above_zero"]

_TAIL = 0.025  # on either side of a 95% interval


def share_above_zero(values: NDArray[np.floating], items: NDArray, name: str) -> dict[str, Any]:
    """The share of prompts whose value is above 0, by item, under `name`; the mean value; the numbers of both. Where
    every item gives the same the interval is the exact binomial one (Clopper & Pearson 1934): resampling items would
    never differ, and pass for certainty."""
    by_item = item_means((values > 0).astype(float)[:, None], items)
    share, n = float(by_item.mean()), len(by_item)
    low, high = (float(end[0]) for end in bootstrap_interval(by_item))
    if share in (0.0, 1.0):
        low, high = (_TAIL ** (1 / n), 1.0) if share else (0.0, 1 - _TAIL ** (1 / n))
    return {
        "n_items": n,
        "n_prompts": len(values),
        name: share,
        f"{name}_low": low,
        f"{name}_high": high,
        "mean": float(item_means(values[:, None], items).mean()),
    }
