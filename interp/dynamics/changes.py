"""When a measured series changed over a training, how sharply, and how sure that is: bootstrap over rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from interp.errors import InputError

__all__ = ["Change", "change_of", "crossing", "resampled"]

Series = Float[ndarray, "row checkpoint"]


@dataclass(frozen=True)
class Change:
    """A series from its first checkpoint (`start`) to its last (`end`), with 95% intervals of rows.

    `step`: where it first passes halfway, between two checkpoints on a log scale. `octaves`: doublings of the step from
    a tenth of the way to nine tenths; the smaller, the sharper. Both are NaN where the interval of end − start holds 0.
    `peak_step`: the checkpoint farthest from the start, for what rises and falls again.
    """

    start: float
    end: float
    change_low: float
    change_high: float
    step: float
    step_low: float
    step_high: float
    octaves: float
    peak: float
    peak_step: int


def change_of(values: Series, steps: Float[ndarray, " checkpoint"], *, n_resamples: int, seed: int) -> Change:
    """The change of a series of rows over the steps of its checkpoints."""
    if values.shape[1] < 2 or not len(values):
        raise InputError(f"A change takes at least two checkpoints and one row; this is {values.shape}.")
    mean, draws = values.mean(axis=0), resampled(values, n_resamples, seed)
    low, high = np.quantile(draws[:, -1] - draws[:, 0], [0.025, 0.975])
    changed = bool(low > 0 or high < 0)
    at = crossing(mean, steps, 0.5) if changed else np.nan
    crossed = np.array([crossing(one, steps, 0.5) for one in draws]) if changed else np.array([np.nan])
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
        peak=float(mean[far]),
        peak_step=int(steps[far]),
    )


def crossing(series: Float[ndarray, " checkpoint"], steps: Float[ndarray, " checkpoint"], share: float) -> float:
    """The step at which a series first has this share of its way from first to last value behind it; between two
    checkpoints linear in log2(1 + step). NaN for a series that ends where it began."""
    way = series[-1] - series[0]
    if way == 0:
        return float("nan")
    gone = (series - series[0]) / way
    after = int((gone >= share).argmax())  # the last one is 1, and the first 0
    part = (share - gone[after - 1]) / (gone[after] - gone[after - 1])
    scale = np.log2(1 + steps)
    return float(2 ** (scale[after - 1] + part * (scale[after] - scale[after - 1])) - 1)


def resampled(values: Series, n_resamples: int, seed: int) -> Float[ndarray, "resample checkpoint"]:
    """Means over rows drawn with replacement; a row's values at all checkpoints stay together."""
    generator = np.random.default_rng([seed, *b"rows"])
    weights = generator.multinomial(len(values), np.full(len(values), 1 / len(values)), size=n_resamples)
    return weights.astype(float) @ values / len(values)
