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
    """What a permutation keeps together, as rows of one unit are no independent evidence, and the unit of each row:
    "groups" or "words of groups", whose labels are exchanged where none has more than one; else "classes within
    groups": each group keeps its labels, but what stands for what is drawn anew."""
    by_group, by_word = pd.factorize(groups)[0], pd.factorize(types)[0]
    both = by_group.astype(np.int64) * (by_word.max() + 1) + by_word
    for name, unit in (("groups", by_group), ("words of groups", np.unique(both, return_inverse=True)[1])):
        if int(np.max(pd.Series(values).groupby(unit).nunique())) == 1:
            return name, unit
    return "classes within groups", by_group


def permuted(task: Task, exchange: tuple[str, NDArray], *, n: int, seed: int) -> list[Task]:
    """The task with its labels exchanged at random, `n` times: between units, or, within groups, one class for another
    (of numbers: turned about their mean)."""
    generator = np.random.default_rng([seed, *b"permute"])
    name, unit = exchange
    n_units, made = int(unit.max()) + 1, []
    for _ in range(n):
        if name != "classes within groups":
            values = task.values[np.unique(unit, return_index=True)[1]][generator.permutation(n_units)][unit]
        elif task.classes:
            drawn = generator.permuted(np.tile(np.arange(task.n_classes), (n_units, 1)), axis=1)
            values = drawn[unit, task.values]
        else:
            mean = task.values.mean()
            values = mean + generator.choice([-1.0, 1.0], n_units)[unit] * (task.values - mean)
        made.append(Task(f"{task.name} permuted", values, task.classes))
    return made


def training_means(values: NDArray, folds: NDArray) -> NDArray:
    """The mean of each fold's training rows `[row]`: what R² compares with."""
    return np.array([values[folds != fold].mean() for fold in range(int(folds.max()) + 1)])[folds]


def _fullest(wanted: NDArray, generator: np.random.Generator) -> int:
    """A class that still lacks rows, more likely the more it lacks."""
    lacking = np.maximum(wanted, 0)
    total = lacking.sum()
    return int(generator.choice(len(wanted), p=lacking / total if total > 0 else None))
