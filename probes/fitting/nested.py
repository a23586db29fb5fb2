"""Held-out predictions with λ chosen inside the training groups, for all heads and tasks of one tensor at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from probes.fitting.moments import as_rows
from probes.fitting.tasks import Columns

__all__ = ["HeldOut", "Models", "excluded_folds", "held_out"]

Out = tuple[int, ...]  # folds left out of a fit


@runtime_checkable
class Models(Protocol):
    """Probes fitted without some folds."""

    def scores(self, out: Out, x: Float[Tensor, "row head d"]) -> Float[Tensor, "alpha head row column"]: ...


@dataclass(frozen=True, eq=False)
class HeldOut:
    """`predicted [head task row]`: codes or numbers, each row by the probe fitted without its fold. `alpha [fold head
    task]`: which λ the inner folds chose. `whole [head task]`: which one all folds together prefer."""

    predicted: NDArray
    alpha: NDArray
    whole: NDArray


def excluded_folds(n_folds: int, n_alphas: int) -> list[Out]:
    """Every set of folds that some fit leaves out: none (the probe that is kept), one (to be tested), and with more
    than one λ two (one to be tested, one to choose λ)."""
    pairs = list(combinations(range(n_folds), 2)) if n_alphas > 1 and n_folds > 2 else []
    return [(), *((fold,) for fold in range(n_folds)), *pairs]


def held_out(
    models: Models,
    blocks: Callable[[], Iterable[tuple[slice, NDArray]]],
    folds: NDArray,
    columns: Columns,
    n_alphas: int,
) -> HeldOut:
    """Every labelled row predicted by a probe that saw neither it nor its fold; nor did the choice of that probe's λ.

    λ is the one with the most rows right (least squared error) over the inner folds: fold j judged by the fit without
    i and j, for each j ≠ i. Of equally good ones the largest. With two folds there is no third to judge by, and the
    middle λ is taken.
    """
    n_folds = int(folds.max()) + 1
    chosen = whole = None
    if n_alphas > 1 and n_folds > 2:
        inner = None
        for x, of, rows in _labelled(blocks(), folds):
            for i, j in combinations(range(n_folds), 2):
                for tested, other in ((i, j), (j, i)):
                    here = of == tested
                    if not here.any():
                        continue
                    merit = columns.merit(columns.predicted(models.scores((i, j), x[here])), rows[here])
                    inner = torch.zeros(n_folds, *merit.shape, dtype=torch.float64) if inner is None else inner
                    inner[other] += merit
        assert inner is not None
        chosen, whole = _best(inner), _best(inner.sum(dim=0))
    predicted = None
    for x, of, rows in _labelled(blocks(), folds):
        for fold in of.unique().tolist():
            here = of == fold
            every = columns.predicted(models.scores((fold,), x[here]))  # alpha head row task
            if chosen is None:
                middle = torch.full(every.shape[1::2], (n_alphas - 1) // 2)
                chosen, whole = middle.expand(n_folds, *middle.shape), middle
            at = chosen[fold][None, :, None].expand(1, *every.shape[1:])
            if predicted is None:
                predicted = torch.empty(every.shape[1], every.shape[3], len(columns.values), dtype=every.dtype)
            predicted[..., rows[here]] = every.gather(0, at)[0].mT
    assert predicted is not None and chosen is not None and whole is not None
    return HeldOut(predicted.numpy(), chosen.numpy(), whole.numpy())


def _best(merit: Tensor) -> Tensor:
    """The largest λ of those with the highest merit: along the axis `alpha`, which is the third from the end."""
    n = merit.shape[-3]
    return n - 1 - merit.flip(-3).argmax(dim=-3)


def _labelled(blocks: Iterable[tuple[slice, NDArray]], folds: NDArray) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The rows of each block that have a fold: activations, folds, and their number among all such rows."""
    seen = 0
    for part, block in blocks:
        here = folds[part]
        used = np.flatnonzero(here >= 0)
        if len(used):
            rows = torch.arange(seen, seen + len(used))
            seen += len(used)
            yield as_rows(block[used]), torch.from_numpy(here[used]), rows
