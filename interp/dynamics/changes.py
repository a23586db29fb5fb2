"""When a measured series changed over a training, how sharply, and how sure that is: bootstrap over rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from interp.errors import InputError

__all__ = ["Change", "beside_loss", "change_of", "crossing", "left_at", "onsets", "resampled"]

Series = Float[ndarray, "row checkpoint"]
Mean = Float[ndarray, " checkpoint"]
_ERRORS = 3.0  # standard errors that a value must be away from the first one to have left it


@dataclass(frozen=True)
class Change:
    """A series from its first checkpoint (`start`) to its last (`end`), with 95% intervals of rows.

    `step`: where it first passes halfway, between two checkpoints on a log scale. `octaves`: doublings of the step from
    a tenth of the way to nine tenths; the smaller, the sharper. Both are NaN where the interval of end − start holds 0.
    `left`: the first checkpoint from which on the series is always at least 3 standard errors away from where it
    started, on the side where it ends: an onset that does not depend on how far the series goes on to rise.
    `peak_step`: the checkpoint farthest from the start, for what rises and falls again.

    A series of one row (scores of weights, say) has no intervals and no `left`; it changed where end − start is more
    than the noise that it came with.
    """

    start: float
    end: float
    change_low: float
    change_high: float
    step: float
    step_low: float
    step_high: float
    octaves: float
    left: float
    peak: float
    peak_step: int


def change_of(values: Series, steps: Mean, *, n_resamples: int, seed: int, noise: float = 0.0) -> Change:
    """The change of a series of rows over the steps of its checkpoints."""
    if values.shape[1] < 2 or not len(values):
        raise InputError(f"A change takes at least two checkpoints and one row; this is {values.shape}.")
    mean, nothing = values.mean(axis=0), np.array([np.nan])
    if len(values) == 1:
        low = high = np.nan
        changed, draws = bool(abs(mean[-1] - mean[0]) > noise), values[:0]
    else:
        draws = resampled(values, n_resamples, seed)
        low, high = np.quantile(draws[:, -1] - draws[:, 0], [0.025, 0.975])
        changed = bool(low > 0 or high < 0)
    at = crossing(mean, steps, 0.5) if changed else np.nan
    crossed = onsets(draws, steps, 0.5) if changed and len(draws) else nothing
    step_low, step_high = np.quantile(crossed, [0.025, 0.975])
    ends = [np.log2(1 + crossing(mean, steps, share)) for share in (0.1, 0.9)] if changed else [np.nan, np.nan]
    far = int(np.abs(mean - mean[0]).argmax())
    return Change(
        start=float(mean[0]),
        end=float(mean[-1]),
        change_low=float(low),
        change_high=float(high),
        step=float(at),
        step_low=float(step_low),
        step_high=float(step_high),
        octaves=float(ends[1] - ends[0]),
        left=left_at(values, steps) if changed else float("nan"),
        peak=float(mean[far]),
        peak_step=int(steps[far]),
    )


def crossing(series: Mean, steps: Mean, share: float) -> float:
    """The step at which a series first has this share of its way from first to last value behind it; between two
    checkpoints linear in log2(1 + step). NaN for a series that ends where it began."""
    return float(onsets(series[None], steps, share)[0])


def onsets(series: Float[ndarray, "draw checkpoint"], steps: Mean, share: float) -> Float[ndarray, " draw"]:
    """`crossing` of many series at once."""
    way = series[:, -1:] - series[:, :1]
    flat = way[:, 0] == 0
    gone = (series - series[:, :1]) / np.where(way == 0, 1.0, way)
    gone[:, -1] = 1.0
    after = (gone >= share).argmax(axis=1)  # the last one is 1, and the first 0
    rows = np.arange(len(series))
    before = gone[rows, after - 1]
    part = (share - before) / (gone[rows, after] - before)
    scale = np.log2(1 + steps)
    found = 2 ** (scale[after - 1] + part * (scale[after] - scale[after - 1])) - 1
    return np.where(flat, np.nan, found)


def left_at(values: Series, steps: Mean, errors: float = _ERRORS) -> float:
    """The first checkpoint from which on the mean is `errors` standard errors of the difference away from the first
    one's, on the side where it ends. NaN for fewer than two rows, or a series that never stays away."""
    if len(values) < 2:
        return float("nan")
    away = values - values[:, :1]
    error = away.std(axis=0, ddof=1) / np.sqrt(len(values))
    mean = away.mean(axis=0) * np.sign(away[:, -1].mean())
    far = (mean > errors * error) & (mean > 0)
    stays = np.logical_and.accumulate(far[::-1])[::-1]
    return float(steps[stays.argmax()]) if stays.any() else float("nan")


def beside_loss(loss: Mean, steps: Mean, first: float, at: float, last: float) -> tuple[float, float]:
    """The share of a loss's whole change that falls between two steps, and that is behind it at a third. NaN where
    there is no step, or the loss ends where it began."""
    way = loss[-1] - loss[0]
    if way == 0 or np.isnan([first, at, last]).any():
        return float("nan"), float("nan")
    first, at, last = (np.interp(np.log2(1 + one), np.log2(1 + steps), loss) for one in (first, at, last))
    return float((last - first) / way), float((at - loss[0]) / way)


def resampled(values: Series, n_resamples: int, seed: int) -> Float[ndarray, "resample checkpoint"]:
    """Means over rows drawn with replacement; a row's values at all checkpoints stay together."""
    generator = np.random.default_rng([seed, *b"rows"])
    weights = generator.multinomial(len(values), np.full(len(values), 1 / len(values)), size=n_resamples)
    return weights.astype(float) @ values / len(values)
