"""All that is measured of one tensor: probes of every head, target, λ and fold, their controls and permutations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.controls import training_means
from probes.data import ProbeDataset
from probes.fitting.fit import ALPHAS, CLOSED, LinearModels, fit_site
from probes.fitting.moments import as_rows
from probes.fitting.nested import HeldOut, Models
from probes.fitting.tasks import Columns, Task
from probes.plan import RowSet, Settings

__all__ = ["Parts", "measure_site", "scores_of"]

Parts = dict[str, NDArray]  # "target.what"
_MOST_COLUMNS = 700  # of permuted labels at once


def measure_site(dataset: ProbeDataset, site: str, sets: list[RowSet], settings: Settings, *, bare: bool) -> Parts:
    """By target: `predicted [head row]`, `controls [control head row]`, `shuffled [head]` (the controls' score where
    the split ignores groups), `alpha [fold head]`, `direction`s, class `means`, `stability [head]`, and with
    rigor="full" `permuted [permutation head]` beside `observed [head]`. `bare`: predictions only (a baseline)."""
    parts: Parts = {}

    def blocks() -> Iterable[tuple[slice, NDArray]]:
        return dataset.blocks(site)

    def fit(tasks: list[Task], folds: NDArray, estimator: str, alphas: tuple[float, ...]) -> tuple[HeldOut, Models]:
        return fit_site(blocks, folds, Columns(tuple(tasks)), estimator, alphas, name=site, seed=settings.seed)

    for one in sets:
        controls = [] if bare else [task for tasks in one.controls for task in tasks]
        tasks = [*one.tasks, *controls]
        held, models = fit(tasks, one.folds, settings.estimator, settings.alphas)
        _predictions(parts, one, held, bare)
        if bare:
            continue
        _directions(parts, one, held, models, Columns(tuple(tasks)), settings)
        _means(parts, one, blocks())
        if controls:
            leaky, _ = fit(controls, one.shuffled, settings.estimator, (_usual(held, one, settings),))
            folds = one.shuffled[one.rows]
            scores = [scores_of(leaky.predicted[:, i], task, folds) for i, task in enumerate(controls)]
            for target, own in _split(scores, one):
                parts[f"{target}.shuffled"] = np.mean(own, axis=0)
        if settings.rigor == "full":
            name, alphas = _permutation_probe(settings)
            for i, target in enumerate(one.targets):
                permuted = one.permutations(i, settings)
                merits: list[NDArray] = []
                size = max(1, _MOST_COLUMNS // one.tasks[i].n_columns)
                for start in range(0, len(permuted), size):
                    some = [one.tasks[i], *permuted[start : start + size]]
                    found, _ = fit(some, one.folds, name, alphas)
                    every = [_excess(found.predicted[:, j], task, one.of) for j, task in enumerate(some)]
                    parts[f"{target}.observed"] = every[0]
                    merits += every[1:]
                parts[f"{target}.permuted"] = np.stack(merits)
    return parts


def scores_of(predicted: NDArray, task: Task, folds: NDArray) -> Any:
    """Accuracy, or R² against the mean of the training rows, along the last axis `[… row]`."""
    if task.classes:
        return (predicted == task.values).mean(axis=-1)
    base = ((task.values - training_means(task.values, folds)) ** 2).sum()
    return 1 - ((task.values - predicted) ** 2).sum(axis=-1) / base


def _excess(predicted: NDArray, task: Task, folds: NDArray) -> Any:
    """The score above that of the commonest class: permuted labels may be of other frequencies than the labels."""
    constant = np.bincount(task.values).max() / len(task.values) if task.classes else 0.0
    return scores_of(predicted, task, folds) - constant


def _usual(held: HeldOut, one: RowSet, settings: Settings) -> float:
    """The λ that the labels themselves choose most often at this site: what their probes could learn by heart."""
    counts = np.bincount(held.alpha[..., : len(one.targets)].astype(int).ravel(), minlength=len(settings.alphas))
    return settings.alphas[int(counts.argmax())]


def _permutation_probe(settings: Settings) -> tuple[str, tuple[float, ...]]:
    """The probe that labels are permuted for: itself where it is solved in closed form, else ridge."""
    if settings.estimator in CLOSED:
        return settings.estimator, settings.alphas
    return "ridge", ALPHAS["ridge"]


def _predictions(parts: Parts, one: RowSet, held: HeldOut, bare: bool) -> None:
    for i, target in enumerate(one.targets):
        parts[f"{target}.predicted"] = held.predicted[:, i].astype(np.float32)
        parts[f"{target}.alpha"] = held.alpha[:, :, i]
    if not bare:
        rest = held.predicted[:, len(one.targets) :].swapaxes(0, 1).astype(np.float32)
        for target, own in _split(list(rest), one):
            parts[f"{target}.controls"] = np.stack(own)


def _split(items: list[NDArray], one: RowSet) -> list[tuple[str, list[NDArray]]]:
    """What belongs to the controls of each target that has some."""
    found, start = [], 0
    for target, controls in zip(one.targets, one.controls, strict=True):
        if controls:
            found.append((target, items[start : start + len(controls)]))
        start += len(controls)
    return found


def _directions(parts: Parts, one: RowSet, held: HeldOut, models: Models, columns: Columns, settings: Settings) -> None:
    """Weights of the fit on all rows with the λ that the folds prefer, and how alike those of the folds are."""
    if not isinstance(models, LinearModels):
        return
    for i, target in enumerate(one.targets):
        at = slice(columns.starts[i], columns.starts[i + 1])
        whole, folds = models.by_out[()], [models.by_out[(fold,)] for fold in range(settings.n_folds)]
        heads = torch.arange(whole.coef.shape[1])
        chosen = torch.from_numpy(held.whole[:, i])
        parts[f"{target}.coef"] = whole.coef[chosen, heads][..., at].mT.numpy()
        parts[f"{target}.intercept"] = whole.intercept[chosen, heads][..., at].numpy()
        each = torch.stack([one.coef[chosen, heads][..., at] for one in folds])  # fold head d column
        parts[f"{target}.stability"] = _mean_cosine(each).numpy()


def _mean_cosine(each: Tensor) -> Tensor:
    """Mean cosine between the directions `[fold head d column]` of different folds, over columns `[head]`."""
    unit = torch.nn.functional.normalize(each.double() - _shared(each), dim=2)
    n = len(unit)
    total = unit.sum(dim=0).square().sum(dim=1) - n  # head column: the sum of all cosines but those with itself
    return (total / (n * (n - 1))).mean(dim=-1)


def _shared(each: Tensor) -> Tensor:
    """What all classes' weights have in common changes no prediction."""
    return each.double().mean(dim=-1, keepdim=True) if each.shape[-1] > 1 else torch.zeros(())


def _means(parts: Parts, one: RowSet, blocks: Iterable[tuple[slice, NDArray]]) -> None:
    """Mean activation of each class `[head class d]`; of numbers, of the rows below and above the median."""
    codes = {
        target: task.values if task.classes else (task.values > np.median(task.values)).astype(int)
        for target, task in zip(one.targets, one.tasks, strict=True)
    }
    sums: dict[str, Tensor] = {}
    seen = 0
    for part, block in blocks:
        used = np.flatnonzero(one.folds[part] >= 0)
        if not len(used):
            continue
        x = as_rows(block[used])
        for target, code in codes.items():
            hot = torch.nn.functional.one_hot(
                torch.from_numpy(code[seen : seen + len(used)]).long(), int(code.max()) + 1
            ).double()
            added = torch.einsum("rhd,rc->hcd", x, hot)
            sums[target] = sums[target] + added if target in sums else added
        seen += len(used)
    for target, total in sums.items():
        counts = np.bincount(codes[target])
        parts[f"{target}.means"] = (total.numpy() / counts[:, None]).astype(np.float32)
