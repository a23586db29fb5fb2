"""From a linear probe's weights to what an intervention needs: a unit direction, a threshold, the classes' distance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["directions_of"]


def directions_of(parts: Mapping[str, NDArray], target: str, head: int, *, numbers: bool) -> dict[str, NDArray]:
    """`direction [width]`, `threshold`, `means [class width]`, `spread`, and of more than two classes `directions
    [class width]`. `numbers`: the cut is then half-way between the two means. A network has no weights to point along:
    the difference of means stands in."""
    means = parts[f"{target}.means"][head].astype(np.float64)
    found = {"means": means}
    if f"{target}.coef" in parts:
        coef = parts[f"{target}.coef"][head].astype(np.float64)
        intercept = parts[f"{target}.intercept"][head].astype(np.float64)
    else:
        coef = means if len(means) > 2 else means[1:] - means[:1]
        intercept = -(means**2).sum(axis=1) / 2
        intercept = intercept if len(means) > 2 else intercept[1:] - intercept[:1]
    if len(coef) == 1:
        length = float(np.linalg.norm(coef[0]))
        found["direction"] = coef[0] / length if length > 0 else coef[0]
        cut = -float(intercept[0]) / length if length > 0 else np.nan
        if numbers:
            cut = float((means @ found["direction"]).mean())
        found["threshold"] = np.array(cut)
    else:
        apart = coef - coef.mean(axis=0)
        length = np.linalg.norm(apart, axis=1, keepdims=True)
        found["directions"] = np.divide(apart, length, out=np.zeros_like(apart), where=length > 0)
        first = np.linalg.svd(apart, full_matrices=False)[2][0]
        at = means @ first
        found["direction"] = first if abs(at.max() - at.mean()) >= abs(at.min() - at.mean()) else -first
        found["threshold"] = np.array(np.nan)
    at = means @ found["direction"]
    found["spread"] = np.array(at.max() - at.min() if len(at) > 2 else at[1] - at[0])
    return found
