"""What a probe is compared with: random labels per word, permuted labels, the mean."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.fitting.tasks import Task

__all__ = ["control_task", "exchange_unit", "permuted", "training_means"]


def control_task(task: Task, types: NDArray, *, seed: int) -> Task | None:
    """A label drawn at random for each word type, with the classes as frequent among rows as in the task (Hewitt &
    Liang 2019); for numbers, the numbers of randomly drawn rows. A probe can only learn it by heart. None where there
    are fewer than two types per class: such labels would be the task's own too often."""
    codes, names = pd.factorize(types)
    n_types = len(names)
    if n_types < 2 * max(2, task.n_classes):
        return None
    generator = np.random.default_rng([seed, *b"control"])
    if not task.classes:
        return Task(f"control of {task.name}", generator.choice(task.values, n_types)[codes])
    rows_of = np.bincount(codes, minlength=n_types)
    wanted = np.bincount(task.values, minlength=task.n_classes).astype(float)
    label = np.empty(n_types, dtype=np.int64)
    order = generator.permutation(n_types)
    first = generator.permutation(task.n_classes)  # each class has a type, however rare it is
    for place, one in enumerate(order):
        label[one] = first[place] if place < task.n_classes else _fullest(wanted, generator)
        wanted[label[one]] -= rows_of[one]
    return Task(f"control of {task.name}", label[codes], task.classes)


def exchange_unit(values: NDArray, groups: NDArray, types: NDArray) -> tuple[str, NDArray]:
    """The largest unit within which the label does not vary (group, word of a group, else row), and that of each row.
    Rows of one unit are no independent evidence, so a permutation keeps them together."""
    by_group, by_word = pd.factorize(groups)[0], pd.factorize(types)[0]
    both = by_group.astype(np.int64) * (by_word.max() + 1) + by_word
    for name, unit in (("group", by_group), ("word of a group", np.unique(both, return_inverse=True)[1])):
        if pd.Series(values).groupby(unit).nunique().max() == 1:
            return name, unit
    return "row", np.arange(len(values))


def permuted(task: Task, unit: NDArray, *, n: int, seed: int) -> list[Task]:
    """The task with its labels exchanged between units at random, `n` times."""
    generator = np.random.default_rng([seed, *b"permute"])
    n_units = int(unit.max()) + 1
    first = np.zeros(n_units, dtype=int)
    first[unit[::-1]] = np.arange(len(unit))[::-1]
    labels = task.values[first]
    return [Task(f"{task.name} permuted", labels[generator.permutation(n_units)][unit], task.classes) for _ in range(n)]


def training_means(values: NDArray, folds: NDArray) -> NDArray:
    """The mean of each fold's training rows `[row]`: what R² compares with."""
    return np.array([values[folds != fold].mean() for fold in range(int(folds.max()) + 1)])[folds]


def _fullest(wanted: NDArray, generator: np.random.Generator) -> int:
    """A class that still lacks rows, more likely the more it lacks."""
    lacking = np.maximum(wanted, 0)
    total = lacking.sum()
    return int(generator.choice(len(wanted), p=lacking / total if total > 0 else None))
