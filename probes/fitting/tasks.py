"""What probes are fitted to: labels, their controls and permutations, side by side as columns of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import InputError

__all__ = ["Columns", "Task", "task_of"]


@dataclass(frozen=True, eq=False)
class Task:
    """One thing to be predicted. `values [row]`: codes of `classes`, or numbers where there are no classes."""

    name: str
    values: NDArray
    classes: tuple[str, ...] = ()

    @property
    def n_columns(self) -> int:
        """Two classes and numbers need one column, more classes one each."""
        return len(self.classes) if len(self.classes) > 2 else 1

    @property
    def n_classes(self) -> int:
        return len(self.classes)


def task_of(labels: pd.Series, rows: NDArray) -> Task:
    """A column of labels on the rows that have one. Numbers (not bool) are a regression, all else names of classes.
    Raises `InputError` for numbers that are infinite or all the same."""
    name, known = str(labels.name), labels.iloc[rows]
    numeric = all(isinstance(one, int | float | np.number) and not isinstance(one, bool | np.bool_) for one in known)
    if not numeric:
        names, codes = np.unique(known.astype(str).to_numpy(dtype=object).astype(str), return_inverse=True)
        return Task(name, codes.astype(np.int64), tuple(map(str, names)))
    values = known.to_numpy(dtype=float)
    if not np.isfinite(values).all():
        raise InputError(f"{name!r} is infinite in row {int(rows[np.flatnonzero(~np.isfinite(values))[0]])}.")
    if len(values) and (values == values[0]).all():
        raise InputError(f"All numbers of {name!r} are {values[0]:g}: there is nothing to predict.")
    return Task(name, values)


@dataclass(frozen=True, eq=False)
class Columns:
    """Tasks over the same rows as one matrix `y [row column]`: −1 or 1 for classes, the numbers themselves else."""

    tasks: tuple[Task, ...]

    @cached_property
    def starts(self) -> list[int]:
        return np.cumsum([0, *(task.n_columns for task in self.tasks)]).tolist()

    @cached_property
    def y(self) -> Tensor:
        parts = []
        for task in self.tasks:
            if not task.classes:
                parts.append(task.values[:, None].astype(float))
            elif task.n_classes == 2:
                parts.append(2.0 * task.values[:, None] - 1)
            else:
                parts.append(2.0 * (task.values[:, None] == np.arange(task.n_classes)) - 1)
        return torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float64))

    @cached_property
    def values(self) -> Tensor:
        """`[row task]`: codes or numbers."""
        return torch.from_numpy(np.stack([task.values.astype(float) for task in self.tasks], axis=1))

    @cached_property
    def kinds(self) -> list[tuple[int, Tensor, Tensor]]:
        """Tasks of one number of classes (0: numbers): that number, the tasks, and their columns `[task column]`."""
        found = []
        for n_classes in sorted({task.n_classes for task in self.tasks}):
            which = [i for i, task in enumerate(self.tasks) if task.n_classes == n_classes]
            width = n_classes if n_classes > 2 else 1
            columns = torch.tensor([[self.starts[i] + k for k in range(width)] for i in which])
            found.append((n_classes, torch.tensor(which), columns))
        return found

    def predicted(self, scores: Tensor) -> Tensor:
        """Scores `[… row column]` to codes or numbers `[… row task]`."""
        out = torch.empty(*scores.shape[:-1], len(self.tasks), dtype=scores.dtype)
        for n_classes, which, columns in self.kinds:
            part = scores[..., columns]
            if n_classes == 0:
                out[..., which] = part[..., 0]
            elif n_classes == 2:
                out[..., which] = (part[..., 0] > 0).to(scores.dtype)
            else:
                out[..., which] = part.argmax(dim=-1).to(scores.dtype)
        return out

    def merit(self, predicted: Tensor, rows: Tensor) -> Tensor:
        """Sum over rows `[… task]` of what is good: rows predicted right, or minus the squared error."""
        truth = self.values[rows].to(predicted.dtype)
        out = torch.empty(*predicted.shape[:-2], len(self.tasks), dtype=torch.float64)
        for n_classes, which, _ in self.kinds:
            part, wanted = predicted[..., which], truth[:, which]
            good = (part == wanted).double() if n_classes else -(part - wanted).double().square()
            out[..., which] = good.sum(dim=-2)
        return out
