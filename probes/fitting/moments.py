"""Sufficient statistics of one tensor and its labels, by fold: all that ridge, LDA and means need of the rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import InputError

__all__ = ["Centred", "Moments", "as_rows", "moments"]


@dataclass(frozen=True, eq=False)
class Centred:
    """The training rows of one split: their number, means, and products about the means."""

    n: float
    mean: Float[Tensor, "head d"]
    y_mean: Float[Tensor, " column"]
    gram: Float[Tensor, "head d d"]
    cross: Float[Tensor, "head d column"]

    @property
    def scale(self) -> Float[Tensor, " head"]:
        """n times the mean variance of a feature: what λ is counted in. 1 where every feature is constant."""
        total = self.gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
        return torch.where(total > 0, total, torch.ones_like(total))


@dataclass(frozen=True, eq=False)
class Moments:
    """n, Σx, Σy, XᵀX and XᵀY of each fold, in float64, of x − shift. The shift is the first row, so that a constant
    feature is exactly 0 and large means cost no digits."""

    n: Float[Tensor, " fold"]
    x: Float[Tensor, "fold head d"]
    y: Float[Tensor, "fold column"]
    xx: Float[Tensor, "fold head d d"]
    xy: Float[Tensor, "fold head d column"]
    shift: Float[Tensor, "head d"]

    @cached_property
    def _total(self) -> tuple[Tensor, ...]:
        return tuple(one.sum(dim=0) for one in (self.n, self.x, self.y, self.xx, self.xy))

    def without(self, folds: Iterable[int] = ()) -> Centred:
        """All rows but those of some folds, by subtracting the folds' sums."""
        out = list(folds)
        sums = (self.n, self.x, self.y, self.xx, self.xy)
        left = list(self._total)
        for fold in out:
            left = [total - one[fold] for total, one in zip(left, sums, strict=True)]
        n, x, y, xx, xy = left
        mean, y_mean = x / n, y / n
        gram = torch.baddbmm(xx, mean[:, :, None], mean[:, None, :], alpha=-float(n))
        cross = xy - n * mean[:, :, None] * y_mean
        return Centred(float(n), mean + self.shift, y_mean, gram, cross)


def moments(
    blocks: Iterable[tuple[slice, NDArray]], folds: NDArray, y: Tensor, *, n_folds: int, name: str = "the activations"
) -> Moments:
    """Statistics of one tensor, its rows read in blocks. `folds [row]` counts all rows, −1 for those left out; `y
    [labelled row, column]` only those that are not. Raises `InputError` for a value that is not finite."""
    sums: list[Tensor] = []
    shift, seen = torch.empty(0, 0), 0
    for part, block in blocks:
        here = folds[part]
        used = np.flatnonzero(here >= 0)
        if not len(used):
            continue
        x = as_rows(block[used], rows=part.start + used, name=name)
        if not sums:
            shift = x[0].clone()
            sums = _zeros(n_folds, len(shift), shift.shape[1], y.shape[1])
        _add(sums, x - shift, y[seen : seen + len(used)], torch.from_numpy(here[used]))
        seen += len(used)
    if not sums:
        raise InputError("No row has a label, so there is nothing to fit.")
    n, x, y, xx, xy = sums
    return Moments(n, x, y, xx, xy, shift)


def as_rows(block: NDArray, *, rows: NDArray | None = None, name: str = "the activations") -> Tensor:
    """Activations as float64 `[row head d]`. Raises `InputError` that names place and row for NaN and infinities."""
    x = np.array(block, dtype=np.float64)
    if not np.isfinite(x).all():
        at = np.argwhere(~np.isfinite(x))[0]
        row = int(at[0] if rows is None else rows[at[0]])
        place = f"{name}, head {at[1]}," if x.ndim == 3 else name
        raise InputError(
            f"{place} is {x[tuple(at)]} in row {row}, feature {at[-1]}. Leave that row out, or find out why the model "
            "gives no finite value there."
        )
    return torch.from_numpy(x if x.ndim == 3 else x[:, None])


def _zeros(n_folds: int, heads: int, d: int, columns: int) -> list[Tensor]:
    shapes = ((n_folds,), (n_folds, heads, d), (n_folds, columns), (n_folds, heads, d, d), (n_folds, heads, d, columns))
    return [torch.zeros(shape, dtype=torch.float64) for shape in shapes]


def _add(sums: list[Tensor], x: Tensor, y: Tensor, folds: Tensor) -> None:
    """One block into the sums of its folds."""
    for fold in folds.unique().tolist():
        chosen = folds == fold
        rows, labels = x[chosen].permute(1, 0, 2), y[chosen]
        sums[0][fold] += len(labels)
        sums[1][fold] += rows.sum(dim=1)
        sums[2][fold] += labels.sum(dim=0)
        sums[3][fold] += rows.mT @ rows
        sums[4][fold] += rows.mT @ labels
