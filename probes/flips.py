"""Which class a vector is of by a probe, and the changes that would make it of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.errors import InputError
from probes.data import Place, ProbeDataset
from probes.erasure import INLP, LEACE, Eraser
from probes.fitting.tasks import task_of
from probes.steering import Change

__all__ = ["Flips", "FoundLike", "erasers", "random_directions"]

Rows = NDArray[np.floating]
_INLP_STEPS, _INLP_HOLDOUT, _INLP_MARGIN = 20, 0.25, 0.02


@runtime_checkable
class FoundLike(Protocol):
    """What is needed of a probe that was found (`ProbeResults.at(place)`)."""

    @property
    def place(self) -> Place: ...
    @property
    def target(self) -> str: ...
    @property
    def classes(self) -> Any: ...
    @property
    def direction(self) -> Any: ...
    @property
    def threshold(self) -> Any: ...
    @property
    def means(self) -> Any: ...
    @property
    def spread(self) -> Any: ...
    @property
    def row(self) -> Mapping[str, Any]: ...
    @property
    def dataset(self) -> ProbeDataset | None: ...


@dataclass(frozen=True, eq=False)
class Flips:
    """A probe's classes and directions. `own` and `other` are classes by pair, as indices: what the pair is of at the
    position, and what it is steered to. `centre` is the mean that the direction is set to where it is ablated."""

    classes: tuple[str, ...]
    means: Rows
    units: Rows  # [class width] for more than two classes, [width] for two
    threshold: float
    own: NDArray[np.integer]
    other: NDArray[np.integer]
    centre: Rows

    @classmethod
    def of(cls, found: FoundLike, clean: Rows, corrupt: Rows, labels: Any = None) -> Flips:
        """`clean` and `corrupt` are what stands at the position in both runs `[pair width]`; `labels` the class of each
        pair there, read off by the probe unless given. The other class is the corrupt run's where that is another, else
        the next of the classes."""
        classes = tuple(str(one) for one in found.classes)
        if len(classes) < 2:
            raise InputError(f"{found.target} has no classes to steer between. Use a probe of a target with classes.")
        means = np.asarray(found.means, dtype=float)
        if means.shape != (len(classes), clean.shape[1]):
            raise InputError(
                f"The probe's class means have shape {means.shape}; {found.place} of this model needs "
                f"({len(classes)}, {clean.shape[1]}). Use a probe that was fitted on this model."
            )
        several = getattr(found, "directions", None)
        units = np.asarray(found.direction if len(classes) == 2 or several is None else several, dtype=float)
        if not np.isfinite(units).all() or not np.linalg.norm(units) > 0:
            raise InputError(f"The probe of {found.target} at {found.place} has no direction: its weights are 0.")
        centre = _centre(found, means)
        made = cls(classes, means, units, _number(found.threshold), np.zeros(0, int), np.zeros(0, int), centre)
        own = made.read(clean) if labels is None else _indices(labels, classes, len(clean))
        there = made.read(corrupt)
        other = np.where(there != own, there, (own + 1) % len(classes))
        made = cls(classes, means, units, made.threshold, own, other, centre)
        if not (np.linalg.norm(made.shift, axis=1) > 0).all():  # also where they are NaN
            raise InputError(
                f"The class means of {found.target} at {found.place} do not lie apart along the probe's direction, so "
                "that there is no distance to steer by."
            )
        return made

    def read(self, x: Rows) -> NDArray[np.integer]:
        """The class of each vector `[row width]`: by the threshold for two classes, else the nearest class mean within
        what the means span."""
        if len(self.classes) == 2 and self.units.ndim == 1 and np.isfinite(self.threshold):
            return (x @ self.units > self.threshold).astype(int)
        basis = np.linalg.svd(self.means - self.means.mean(0), full_matrices=False)[2][: len(self.classes) - 1]
        distance = (x @ basis.T)[:, None] - (self.means @ basis.T)[None]
        return np.square(distance).sum(-1).argmin(1)

    @property
    def shift(self) -> Rows:
        """Dose 1 for each pair `[pair width]`: along the probe's direction, as long as its class means are apart."""
        unit = self.unit
        between = self.means[self.other] - self.means[self.own]
        along = (between * unit).sum(1, keepdims=True)
        return np.abs(along) * unit

    @property
    def unit(self) -> Rows:
        """The direction towards the other class for each pair, of length 1."""
        if self.units.ndim == 1:
            unit = np.where(self.other[:, None] == 1, self.units, -self.units)
        else:
            unit = self.units[self.other] - self.units[self.own]
        return unit / np.linalg.norm(unit, axis=1, keepdims=True)

    @property
    def between(self) -> Rows:
        """The other class' mean minus the own one's, for each pair."""
        return self.means[self.other] - self.means[self.own]

    def steer(self, dose: float) -> Change:
        shift = self.shift
        return lambda x, pair: x + dose * shift[pair]

    def swap(self) -> Change:
        between = self.between
        return lambda x, pair: x + between[pair]

    def ablate(self, basis: Rows | None = None) -> Change:
        """The coordinates along the probe's directions, or a basis `[direction width]`, set to their mean."""
        basis = np.linalg.qr(np.atleast_2d(self._span()).T)[0].T if basis is None else basis
        return lambda x, pair: x - ((x - self.centre) @ basis.T) @ basis

    def along(self, direction: Rows, lengths: Rows) -> Change:
        """Something else of the same length: `direction [width]` of length 1, `lengths [pair]`."""
        return lambda x, pair: x + lengths[pair][:, None] * direction

    def _span(self) -> Rows:
        if self.units.ndim == 1:
            return self.units
        centred = self.units - self.units.mean(0)
        return np.linalg.svd(centred, full_matrices=False)[2][: len(self.classes) - 1]


def erasers(found: FoundLike, seed: int) -> tuple[dict[str, Eraser], str]:
    """LEACE and INLP fitted on the probe's own rows; and why there is none."""
    if found.dataset is None:
        return {}, "the probe carries no activations to fit an eraser on (results.with_dataset(…) gives them)"
    data = found.dataset
    rows = np.flatnonzero(data.labelled(found.target))
    x, task = data.rows(found.place, rows).astype(float), task_of(pd.Series(data.labels[found.target]), rows)
    classes = np.array(task.classes)[task.values] if task.classes else task.values > np.median(task.values)
    y = classes if task.classes else task.values
    groups = data.table["group"].to_numpy()[rows]
    inlp = INLP(max_steps=_INLP_STEPS, margin=_INLP_MARGIN, seed=seed)
    if len(set(groups.tolist())) >= 4:
        inlp.holdout = _INLP_HOLDOUT
    return {"leace": LEACE().fit(x, y).eraser_, "inlp": inlp.fit(x, classes, groups).eraser_}, ""


def random_directions(n: int, width: int, seed: int, rank: int = 1) -> list[Rows]:
    """`n` random orthonormal bases `[rank width]`."""
    generator = np.random.default_rng([seed, *b"directions"])
    return [np.linalg.qr(generator.normal(size=(width, rank)))[0].T for _ in range(n)]


def _centre(found: FoundLike, means: Rows) -> Rows:
    """The mean over the dataset's labelled rows; without them the mean of the class means."""
    if found.dataset is None:
        return means.mean(axis=0)
    rows = np.flatnonzero(found.dataset.labelled(found.target))
    return found.dataset.rows(found.place, rows).mean(axis=0, dtype=float)


def _number(threshold: Any) -> float:
    flat = np.asarray(threshold, dtype=float).ravel() if threshold is not None else np.array([np.nan])
    return float(flat[0]) if flat.size == 1 else float("nan")


def _indices(labels: Any, classes: Sequence[str], n: int) -> NDArray[np.integer]:
    named = [str(one) for one in labels]
    if len(named) != n:
        raise InputError(f"There are {n} pairs and {len(named)} labels. Give the class of each pair.")
    unknown = sorted(set(named) - set(classes))
    if unknown:
        raise InputError(f"There is no class {unknown[0]!r}. The probe tells {', '.join(classes)} apart.")
    return np.array([list(classes).index(one) for one in named])
