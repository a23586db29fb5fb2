"""Probes of one tensor, by any estimator: all heads, tasks, λ and sets of folds that are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.fitting.closed import Linear, difference_of_means, lda, ridge
from probes.fitting.logistic import Turned, fit_logistic, turned
from probes.fitting.mlp import Networks, fit_networks
from probes.fitting.moments import as_rows, moments
from probes.fitting.nested import HeldOut, Models, Out, excluded_folds, held_out
from probes.fitting.tasks import Columns

__all__ = ["ALPHAS", "CLOSED", "ESTIMATORS", "LinearModels", "fit_site", "logistic_models", "scales"]

Blocks = Callable[[], Iterable[tuple[slice, NDArray]]]
CLOSED = {"ridge": ridge, "lda": lda, "difference": difference_of_means}
_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
ALPHAS = {"ridge": _GRID, "lda": _GRID, "logistic": _GRID, "difference": (0.0,), "mlp": (1e-3,)}
ESTIMATORS = tuple(ALPHAS)
_CHUNK = 50_000_000  # networks × rows × features at once
_TOL = 1e-4  # of a sweep's logistic fits, in float32


@dataclass(frozen=True, eq=False)
class LinearModels:
    """Linear probes by the folds left out."""

    by_out: Mapping[Out, Linear]

    def scores(self, out: Out, x: Tensor) -> Tensor:
        return self.by_out[out].scores(x.to(self.by_out[out].coef.dtype))


@dataclass(frozen=True, eq=False)
class NetworkModels:
    """Networks by the columns they score; those of one set of folds left out stand together, task by task, λ by λ."""

    parts: list[tuple[Tensor, Networks]]  # columns `[task column]`
    outs: list[Out]
    shape: tuple[int, int]  # λ, columns

    def scores(self, out: Out, x: Tensor) -> Tensor:
        found = torch.empty(self.shape[0], x.shape[1], len(x), self.shape[1], dtype=torch.float64)
        for columns, networks in self.parts:
            size = len(columns) * self.shape[0]
            at = self.outs.index(out) * size
            said = networks.scores(x, slice(at, at + size))  # head task·alpha row column
            said = said.unflatten(1, (len(columns), self.shape[0])).permute(2, 0, 3, 1, 4)
            found[..., columns] = said.double()
        return found


def fit_site(
    blocks: Blocks,
    folds: NDArray,
    columns: Columns,
    estimator: str,
    alphas: Sequence[float],
    *,
    name: str,
    seed: int = 0,
) -> tuple[HeldOut, Models]:
    """Held-out predictions for one tensor, and the probes. `folds [row]`, −1 for rows left out; `columns` has only the
    others. Closed forms read the rows in blocks, twice; logistic probes and networks hold one tensor's rows."""
    n_folds = int(folds.max()) + 1
    outs = excluded_folds(n_folds, len(alphas))
    models: Models
    if estimator in CLOSED:
        sums = moments(blocks(), folds, columns.y, n_folds=n_folds, name=name)
        solve = CLOSED[estimator]
        models = LinearModels({out: _single(solve(sums.without(out), columns, alphas)) for out in outs})
    else:
        x = torch.cat([as_rows(b[folds[p] >= 0], rows=_at(folds, p), name=name) for p, b in blocks()])
        used = torch.from_numpy(folds[folds >= 0])
        if estimator == "logistic":
            models = logistic_models(x, used, columns, alphas, outs)
        else:
            models = _network_models(x, used, columns, alphas, outs, seed)
    return held_out(models, blocks, folds, columns, len(alphas)), models


def logistic_models(
    x: Tensor, folds: Tensor, columns: Columns, alphas: Sequence[float], outs: list[Out]
) -> LinearModels:
    """Logistic probes; α = λ · n · mean variance of a feature over the training rows, as for ridge."""
    shape = (len(outs), len(alphas), x.shape[1], columns.y.shape[1])
    coef, intercept = torch.zeros(*shape[:3], x.shape[2], shape[3]), torch.zeros(shape)
    keep = torch.stack([~torch.isin(folds, torch.tensor(out, dtype=folds.dtype)) for out in outs]).double()
    for head in range(x.shape[1]):
        data, scale = turned(x[:, head], dtype=torch.float32), scales(x[:, head], keep)
        alpha = (scale[:, None] * torch.tensor(alphas, dtype=torch.float64)).flatten()  # out alpha
        for n_classes, which, columns_of in columns.kinds:
            labels = columns.values[:, which].mT.long()
            fits = _fit(data, labels, alpha, keep, len(alphas), n_classes)
            at = columns_of.flatten()
            coef[:, :, head][..., at] = _by_task(fits[0], shape[:2], len(which))
            intercept[:, :, head][..., at] = _by_task(fits[1][:, None], shape[:2], len(which))[..., 0, :]
    return LinearModels({out: Linear(coef[i], intercept[i]) for i, out in enumerate(outs)})


def _fit(
    data: Turned, labels: Tensor, alpha: Tensor, keep: Tensor, n_alphas: int, n_classes: int
) -> tuple[Tensor, Tensor]:
    """Problems run over folds left out, λ, task."""
    n_problems, n_tasks = len(alpha), len(labels)
    weights = keep.repeat_interleave(n_alphas * n_tasks, dim=0)
    fits = fit_logistic(
        data, labels.repeat(n_problems, 1), alpha.repeat_interleave(n_tasks), weights, n_classes, tol=_TOL, max_iter=300
    )
    return fits.coef, fits.intercept


def _by_task(fits: Tensor, sizes: tuple[int, ...], n_tasks: int) -> Tensor:
    """`[problem d column]` to `[out alpha d task·column]`."""
    per = fits.reshape(*sizes, n_tasks, *fits.shape[1:]).movedim(2, 3)
    return per.flatten(-2).float()


def scales(x: Tensor, keep: Tensor) -> Tensor:
    """n times the mean variance of a feature, of each set of rows."""
    n, x = keep.sum(dim=1, keepdim=True), x - x[0]
    total = (keep @ x.square() - (keep @ x).square() / n).mean(dim=1)
    return torch.where(total > 0, total, torch.ones_like(total))


def _network_models(
    x: Tensor, folds: Tensor, columns: Columns, alphas: Sequence[float], outs: list[Out], seed: int
) -> NetworkModels:
    keep = torch.stack([~torch.isin(folds, torch.tensor(out, dtype=folds.dtype)) for out in outs]).double()
    parts = []
    for n_classes, which, columns_of in columns.kinds:
        each = max(1, _CHUNK // (len(outs) * len(alphas) * x.numel()))  # tasks
        for i in range(0, len(which), each):
            labels = columns.values[:, which[i : i + each]].mT
            n_tasks = len(labels)
            weights = keep.repeat_interleave(n_tasks * len(alphas), dim=0)
            y = labels.repeat_interleave(len(alphas), dim=0).repeat(len(outs), 1)
            decay = torch.tensor(alphas).repeat(len(outs) * n_tasks)
            parts.append((columns_of[i : i + each], fit_networks(x, y, weights, decay, n_classes=n_classes, seed=seed)))
    return NetworkModels(parts, outs, (len(alphas), columns.y.shape[1]))


def _single(found: Linear) -> Linear:
    """In float32: there may be many, and only their products with rows are needed."""
    return Linear(found.coef.float(), found.intercept.float())


def _at(folds: NDArray, part: slice) -> NDArray:
    return part.start + np.flatnonzero(folds[part] >= 0)
