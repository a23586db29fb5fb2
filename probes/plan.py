"""What a sweep fits: which rows, folds, labels and controls, decided before anything is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.errors import InputError
from probes.controls import control_task, exchange_unit, permuted
from probes.data import ProbeDataset
from probes.fitting.fit import ALPHAS, CLOSED, ESTIMATORS
from probes.fitting.tasks import Task, task_of
from probes.splits import grouped_folds, missing_class, random_folds

__all__ = ["RowSet", "Settings", "plan"]

_MIXED = 32  # classes of several labels together, beyond which a joint split is not tried
METHOD = 2  # raised whenever the same call would give other numbers


@dataclass(frozen=True)
class Settings:
    """How probes are fitted and judged."""

    estimator: str
    alphas: tuple[float, ...]
    rigor: str
    n_folds: int
    seed: int
    alpha: float
    n_controls: int
    n_permutations: int

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise InputError(f"There is no estimator {self.estimator!r} for sweeps. Choose {', '.join(ESTIMATORS)}.")
        if self.rigor not in ("quick", "full"):
            raise InputError(f'rigor is {self.rigor!r}. Choose "quick" or "full".')
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha is {self.alpha!r}. Give a probability between 0 and 1, e.g. 0.05.")
        for name, least in (("n_controls", 1), ("n_permutations", 1), ("n_folds", 2), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InputError(f"{name} is {value!r}. Give a whole number, at least {least}.")
        wrong = [one for one in self.alphas if not np.isfinite(one) or one <= 0]
        if self.estimator != "difference" and (wrong or not self.alphas):
            raise InputError(f"alphas are {list(self.alphas)}. Give weights of the penalty, each a number above 0.")

    @classmethod
    def of(cls, estimator: str, alphas: Sequence[float] | None, **more: Any) -> Settings:
        """With the estimator's own grid where none is given; λ in ascending order."""
        given = ALPHAS.get(estimator, ()) if alphas is None or estimator == "difference" else alphas
        try:
            weights = tuple(sorted({float(one) for one in given}))
        except (TypeError, ValueError) as error:
            raise InputError(f"alphas are {given!r}. Give a list of numbers above 0.") from error
        return cls(estimator, weights, **more)


@dataclass(frozen=True, eq=False)
class RowSet:
    """Targets whose labels stand on the same rows, so that one reading of the activations and the same folds serve all
    of them. `folds` and `shuffled` (a split that ignores groups) run over all rows of the data, −1 without a label;
    `controls` and `units` (what permutations exchange) are those of each task."""

    targets: tuple[str, ...]
    tasks: tuple[Task, ...]
    rows: NDArray
    folds: NDArray
    shuffled: NDArray
    groups: NDArray
    controls: tuple[tuple[Task, ...], ...]
    units: tuple[tuple[str, NDArray], ...]

    @cached_property
    def of(self) -> NDArray:
        """The fold of each labelled row."""
        return self.folds[self.rows]

    def permutations(self, at: int, settings: Settings) -> list[Task]:
        return permuted(self.tasks[at], self.units[at], n=settings.n_permutations, seed=settings.seed)


def plan(dataset: ProbeDataset, targets: Sequence[str], settings: Settings) -> list[RowSet]:
    """Row sets for the targets asked for. Raises `InputError` for what cannot be split or fitted."""
    by_rows: dict[bytes, list[tuple[Task, NDArray]]] = {}
    for target in targets:
        rows = np.flatnonzero(dataset.labelled(target))
        if not len(rows):
            raise InputError(f"No row has a label of {target!r}. Labels and rows may not be aligned.")
        task = task_of(pd.Series(dataset.labels[target]), rows)
        if not task.classes and settings.estimator in ("lda", "difference", "logistic"):
            raise InputError(
                f"{target!r} has numbers, and {settings.estimator!r} needs classes. Use "
                "ridge or mlp, or give names of classes."
            )
        by_rows.setdefault(rows.tobytes(), []).append((task, rows))
    return [one for tasks in by_rows.values() for one in _row_sets(dataset, tasks, settings)]


def _row_sets(dataset: ProbeDataset, found: list[tuple[Task, NDArray]], settings: Settings) -> list[RowSet]:
    """One set where one split serves all targets, else one for each."""
    tasks, rows = [task for task, _ in found], found[0][1]
    groups = dataset.table["group"].to_numpy()[rows]
    if len(tasks) == 1:
        return [_row_set(dataset, tasks, rows, _folds(groups, tasks[0], settings), settings)]
    joint = _joint(tasks)
    try:
        folds = grouped_folds(groups, joint, n_folds=settings.n_folds, seed=settings.seed, name=tasks[0].name)
    except InputError:
        folds = None
    if folds is None or any(one.classes and missing_class(folds, one.values) for one in tasks):
        return [one for task in tasks for one in _row_sets(dataset, [(task, rows)], settings)]
    for task in tasks:  # what is wrong with a label is said of that label
        _folds(groups, task, settings)
    return [_row_set(dataset, tasks, rows, folds, settings)]


def _folds(groups: NDArray, task: Task, settings: Settings) -> NDArray:
    labels = np.array(task.classes)[task.values] if task.classes else None
    return grouped_folds(groups, labels, n_folds=settings.n_folds, seed=settings.seed, name=task.name)


def _joint(tasks: list[Task]) -> NDArray | None:
    """All classes of a row together, to spread them evenly; those of the first label where there are too many."""
    with_classes = [task for task in tasks if task.classes]
    if not with_classes:
        return None
    codes = np.unique(np.stack([task.values for task in with_classes], axis=1), axis=0, return_inverse=True)[1]
    return codes if codes.max() < _MIXED else with_classes[0].values


def _row_set(dataset: ProbeDataset, tasks: list[Task], rows: NDArray, folds: NDArray, settings: Settings) -> RowSet:
    table = dataset.table.iloc[rows]
    groups, types = table["group"].to_numpy(), table["type"].to_numpy()
    controls, units = [], []
    n = settings.n_controls if settings.estimator in CLOSED else 1
    for task in tasks:
        made = [control_task(task, types, seed=settings.seed * 1000 + i) for i in range(n)]
        controls.append(tuple(one for one in made if one is not None))
        units.append(exchange_unit(task.values, groups, types))
    shuffled = random_folds(_joint(tasks), len(rows), n_folds=settings.n_folds, seed=settings.seed)
    spread = [np.full(len(dataset), -1) for _ in range(2)]
    for one, of in zip(spread, (folds, shuffled), strict=True):
        one[rows] = of
    names = tuple(task.name for task in tasks)
    return RowSet(names, tuple(tasks), rows, spread[0], spread[1], groups, tuple(controls), tuple(units))
