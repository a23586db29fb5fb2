"""How much of a label a representation gives, in bits: online code length and V-information, by logistic probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import InputError
from probes.fitting.fit import logistic_models, scales
from probes.fitting.logistic import fit_logistic, turned
from probes.fitting.nested import excluded_folds
from probes.fitting.tasks import Columns, Task

__all__ = ["Code", "online_code", "v_information"]

_SHARES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
_FIRST = 8  # rows at least in the first block, and two for each class


@dataclass(frozen=True)
class Code:
    """`bits` of all labels given the rows; `uniform`: without them, n log2 K. `compression` is their ratio: 1 when
    rows say nothing."""

    bits: float
    uniform: float
    blocks: tuple[int, ...]

    @property
    def compression(self) -> float:
        return self.uniform / self.bits


def online_code(
    x: Float[Tensor, "row d"], task: Task, groups: NDArray, alphas: Sequence[float], *, seed: int = 0
) -> Code:
    """Minimum description length by online coding (Voita & Titov 2020): L = t₁ log2 K − Σ log2 p(block | before).

    Rows come group by group in a random order, and blocks end where a group ends, at .1, .2, .4, … 25, 50, 100% of the
    rows (shares of fewer than 8 rows are left out). A class not seen yet must have a probability: p is mixed with the
    uniform one, (t p + 1) / (t + K) after t rows. The λ of the shortest code is taken, and log2 of their number paid.
    Raises `InputError` for numbers and for fewer than two blocks.
    """
    if not task.classes:
        raise InputError(f"{task.name!r} has numbers: a code needs classes.")
    order, ends = _blocks(groups, task.n_classes, seed)
    if len(ends) < 2:
        raise InputError(f"{task.name!r} has too few groups for a code of two blocks. Give more groups.")
    x, labels = x[torch.from_numpy(order)], torch.from_numpy(task.values[order]).long()
    n_alphas, k = len(alphas), task.n_classes
    seen = torch.arange(len(x)) < torch.tensor(ends[:-1])[:, None]
    weights = seen.double().repeat_interleave(n_alphas, dim=0)
    scale = scales(x, seen.double())
    alpha = (scale[:, None] * torch.tensor(alphas, dtype=torch.float64)).flatten()
    data = turned(x, dtype=torch.float32)
    fits = fit_logistic(data, labels.expand(len(alpha), -1), alpha, weights, k, tol=1e-4, max_iter=300)
    bits = torch.full((n_alphas,), ends[0] * float(np.log2(k)), dtype=torch.float64)
    for i, (start, end) in enumerate(pairwise(ends)):
        at = slice(i * n_alphas, (i + 1) * n_alphas)
        scores = torch.einsum("rd,adc->arc", x[start:end], fits.coef[at]) + fits.intercept[at, None]
        p = _log_p(scores, labels[start:end]).exp()
        bits -= ((start * p + 1) / (start + k)).log2().sum(dim=-1)
    return Code(float(bits.min()) + float(np.log2(n_alphas)), len(x) * float(np.log2(k)), tuple(ends))


def v_information(
    x: Float[Tensor, "row d"], task: Task, folds: NDArray, alphas: Sequence[float]
) -> tuple[float, float]:
    """V-information of logistic probes, H(Y) − H(Y | X), and H(Y), in bits per row on held-out groups (Xu 2020). May
    lie below 0 where a probe does worse than the frequencies of its training rows. λ has the least cross-entropy over
    inner folds. Raises `InputError` for numbers."""
    if not task.classes:
        raise InputError(f"{task.name!r} has numbers: V-information is measured for classes.")
    columns, n_folds = Columns((task,)), int(folds.max()) + 1
    outs = excluded_folds(n_folds, len(alphas))
    of, labels = torch.from_numpy(folds), torch.from_numpy(task.values).long()
    models = logistic_models(x[:, None], of, columns, alphas, outs)
    inner = torch.zeros(n_folds, len(alphas), dtype=torch.float64)
    for out in (out for out in outs if len(out) == 2):
        for tested, other in (out, out[::-1]):
            here = of == tested
            scores = models.scores(out, x[here][:, None])[:, 0]
            inner[other] += _log_p(scores.double(), labels[here]).sum(dim=-1)
    given = blind = 0.0
    for fold in range(n_folds):
        here = of == fold
        best = len(alphas) - 1 - int(inner[fold].flip(0).argmax()) if inner.any() else (len(alphas) - 1) // 2
        log_p = _log_p(models.scores((fold,), x[here][:, None])[:, 0].double(), labels[here])[best]
        share = torch.bincount(labels[~here], minlength=task.n_classes).double() / (~here).sum()
        given -= float(log_p.sum())
        blind -= float(share.clamp(min=1e-12).log()[labels[here]].sum())
    per = len(labels) * float(np.log(2))
    return (blind - given) / per, blind / per


def _blocks(groups: NDArray, n_classes: int, seed: int) -> tuple[NDArray, list[int]]:
    """Rows group by group in a random order, and where blocks end."""
    keys = np.unique(groups, return_inverse=True)[1]
    rank = np.random.default_rng([seed, *b"online code"]).permutation(keys.max() + 1)
    order = np.argsort(rank[keys], kind="stable")
    last = np.flatnonzero(np.diff(rank[keys][order], append=-1)) + 1  # where a group ends
    n, ends = len(keys), []
    for share in _SHARES:
        end = int(last[np.searchsorted(last, share * n - 1e-9)])
        if end >= max(_FIRST, 2 * n_classes) and (not ends or end > ends[-1]):
            ends.append(end)
    return order, ends


def _log_p(scores: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of each row's own class, from `[alpha row column]`."""
    if scores.shape[-1] == 1:
        return torch.nn.functional.logsigmoid(scores[..., 0] * (2 * labels - 1))
    log_p = scores.log_softmax(dim=-1)
    return log_p.gather(-1, labels.expand(len(scores), -1)[..., None])[..., 0]
