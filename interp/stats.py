"""How sure: bootstrap over items, sign flips, the max-statistic over many cells, false discovery.

The unit of evidence is the item (a noun, a name pair, a random sequence), never the prompt: average prompts of one
item before they come here. Arrays are `[item, cell]`; cells are heads, layers or anything tested side by side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from interp.errors import InputError

__all__ = ["benjamini_hochberg", "bootstrap_interval", "item_means", "sign_flip", "smallest_p"]

Values = NDArray[np.floating]
_MIN_FLIPS = 10_000
_CHUNK = 2_000_000  # flips × items held at once
_CHUNK_WEIGHTS = 10_000_000  # resamples × items held at once


def item_means(values: Values, items: NDArray) -> Values:
    """Means of the prompts `[prompt, cell]` of each item, in the items' sorted order; NaN prompts are left out."""
    names, index = np.unique(items, return_inverse=True)
    values = np.asarray(values, dtype=float)
    present = ~np.isnan(values)
    total, count = np.zeros((len(names), values.shape[1])), np.zeros((len(names), values.shape[1]))
    np.add.at(total, index, np.where(present, values, 0.0))
    np.add.at(count, index, present)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def bootstrap_interval(
    values: Values,
    *,
    level: float = 0.95,
    n_resamples: int = 2_000,
    seed: int = 0,
    divisor: Values | None = None,
) -> tuple[Values, Values]:
    """Percentile interval of each cell's mean, by resampling items. NaN items are left out of their cell's mean.
    With `divisor [item, cell]` it is the ratio of the two means, both resampled."""
    values = _checked(values)
    if not 0 < level < 1:
        raise InputError(f"level is {level!r}. Give a share between 0 and 1, e.g. 0.95.")
    generator = _generator(seed, "bootstrap")
    n_items = len(values)
    present, parts = ~np.isnan(values), []
    step = max(1, _CHUNK_WEIGHTS // n_items)
    for start in range(0, n_resamples, step):  # so that tens of thousands of items fit
        size = min(step, n_resamples - start)
        weights = generator.multinomial(n_items, np.full(n_items, 1 / n_items), size=size).astype(float)
        total, count = weights @ np.where(present, values, 0.0), weights @ present
        below = count if divisor is None else weights @ np.where(present, divisor, 0.0)
        parts.append(np.divide(total, below, out=np.full_like(total, np.nan), where=below != 0))
    means = np.concatenate(parts)
    with np.errstate(all="ignore"):
        low, high = np.nanquantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def sign_flip(
    values: Values, *, side: str = "greater", n_flips: int = _MIN_FLIPS, seed: int = 0
) -> tuple[Values, Values]:
    """p of each cell's mean under random signs of whole items, and the same corrected over all cells by the
    distribution of the largest scaled mean (Westfall & Young 1993). Both count the observed signs as one flip.

    `side`: "greater" (mean > 0), "less", or "two". Items must be independent and symmetric about 0 under the null.
    """
    values = _checked(values)
    if np.isnan(values).any():
        raise InputError("Sign flips need a value for every item and cell. Leave out cells that were not measured.")
    n_items, n_cells = values.shape
    # The root mean square does not change under flips, so each cell has unit variance under its own null. The
    # standard deviation about the mean would let one cell with a large mean swamp the maximum.
    scale = np.sqrt((values**2).mean(axis=0) / n_items)
    scale = np.where(scale > 0, scale, np.inf)
    signs = _signs(n_items, n_flips, seed)
    observed = _one_sided(values.mean(axis=0) / scale, side)
    beaten, beaten_max = np.ones(n_cells), np.ones(n_cells)
    step = max(1, _CHUNK // max(n_cells, n_items))
    for start in range(0, len(signs), step):
        flipped = _one_sided(signs[start : start + step] @ values / n_items / scale, side)
        beaten += (flipped >= observed - 1e-12).sum(axis=0)
        beaten_max += (flipped.max(axis=1, keepdims=True) >= observed - 1e-12).sum(axis=0)
    return beaten / (len(signs) + 1), beaten_max / (len(signs) + 1)


def smallest_p(n_items: int, n_flips: int = _MIN_FLIPS) -> float:
    """The smallest one-sided p that sign flips over this many items can give."""
    return max(0.5**n_items, 1 / (n_flips + 1))


def benjamini_hochberg(p: Values) -> Values:
    """q-values: the smallest false discovery rate at which each p would be rejected (Benjamini & Hochberg 1995).
    NaN (not tested) stays NaN and does not count."""
    p = np.asarray(p, dtype=float)
    q = np.full_like(p, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    if len(tested) == 0:
        return q
    order = tested[np.argsort(p.flat[tested])]
    ranked = p.flat[order] * len(order) / np.arange(1, len(order) + 1)
    q.flat[order] = np.minimum(np.minimum.accumulate(ranked[::-1])[::-1], 1.0)
    return q


def _signs(n_items: int, n_flips: int, seed: int) -> Values:
    generator = _generator(seed, "signs")
    return generator.integers(0, 2, size=(n_flips, n_items), dtype=np.int8).astype(float) * 2 - 1


def _generator(seed: int, purpose: str) -> np.random.Generator:
    """A stream of its own: data drawn from the same seed must not be correlated with its own test."""
    return np.random.default_rng([seed, *purpose.encode()])


def _one_sided(statistic: Values, side: str) -> Values:
    if side == "greater":
        return statistic
    if side == "less":
        return -statistic
    if side == "two":
        return np.abs(statistic)
    raise InputError(f'side is {side!r}. Choose "greater", "less" or "two".')


def _checked(values: Values) -> Values:
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or not values.size:
        raise InputError(
            f"Statistics take [item, cell] arrays with at least one item and cell; this is {values.shape}."
        )
    if np.isinf(values).any():
        raise InputError("Statistics need finite values; some of these are infinite. Look for an overflow before them.")
    return values
