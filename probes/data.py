"""Activations with labels: what probes are fitted on. One row is one token of one text, at every place read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.errors import InputError
from interp.sites import Site

__all__ = ["Place", "ProbeDataset"]

Rows = NDArray[np.floating]
_COLUMNS = ("text", "pos", "token", "group", "type")


@dataclass(frozen=True)
class Place:
    """Where a probe reads: one tensor of the forward pass, or one head of it. `str` is "resid_pre.5", "z.23.4"."""

    site: str
    head: int | None = None

    @property
    def layer(self) -> int:
        """The layer; −1 outside the blocks."""
        layer = Site.parse(self.site).layer
        return -1 if layer is None else layer

    def __str__(self) -> str:
        site = Site.parse(self.site)
        part = f"{site.part}." if site.part == "cross_attn" else ""
        stack = f"{site.stack}." if site.stack else ""
        numbers = [str(one) for one in (site.layer, self.head) if one is not None]
        return ".".join([f"{stack}{part}{site.row.short[0]}", *numbers])


@dataclass(frozen=True, eq=False)
class ProbeDataset:
    """Activations `[row (head) width]` by site, and what is known of each row.

    `table` has one line per row: `text` (its number), `pos`, `token` (as text), `group` (rows of one group are never
    split between fitting and testing) and `type` (what the control task labels at random: the word). `labels` has a
    column per target: class names, or numbers for a regression; None or NaN where a row has no label. `activations`
    are arrays in memory or memory-mapped ones. `random_init` are those of a randomly initialised model of the same
    shape on the same rows, where they were asked for.
    """

    activations: Mapping[str, Rows]
    table: pd.DataFrame
    labels: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)
    random_init: ProbeDataset | None = None

    def __post_init__(self) -> None:
        missing = [name for name in _COLUMNS if name not in self.table.columns]
        if missing:
            raise InputError(f"The table of rows has no column {missing[0]!r}. It needs {', '.join(_COLUMNS)}.")
        if not self.activations or not len(self.labels.columns):
            raise InputError("There is nothing to probe: give at least one site and one label.")
        if not self.labels.columns.is_unique or not all(isinstance(one, str) for one in self.labels.columns):
            raise InputError(
                f"The labels are called {list(self.labels.columns)}. Give each a name of its own, as text."
            )
        for name, x in self.activations.items():
            if np.ndim(x) not in (2, 3) or 0 in np.shape(x)[1:]:
                raise InputError(
                    f"{name} has the shape {np.shape(x)}. Activations are [row width] or [row head width]."
                )
        wrong = {name: len(x) for name, x in self.activations.items() if len(x) != len(self.table)}
        if len(self.labels) != len(self.table) or wrong:
            raise InputError(
                f"There are {len(self.table)} rows, {len(self.labels)} labels, and activations of "
                f"{sorted(set(wrong.values())) or len(self.table)} rows. Give one of each for every row."
            )

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return f"ProbeDataset({len(self)} rows, {', '.join(self.targets)}, {len(self.places)} places)"

    @property
    def places(self) -> tuple[Place, ...]:
        """Everything that can be probed, in the order given: each tensor, or each head of a tensor that has heads."""
        found: list[Place] = []
        for site, x in self.activations.items():
            found += [Place(site)] if x.ndim == 2 else [Place(site, head) for head in range(x.shape[1])]
        return tuple(found)

    @property
    def embedding(self) -> str | None:
        """The embedding layer's site, which is a baseline of every probe; None where it was not read."""
        found = self.about.get("embedding")
        return found if found in self.activations else None

    @property
    def asked(self) -> tuple[Place, ...]:
        """`places` without those that were read for the baseline only."""
        baseline = set(self.about.get("baseline_only", ()))
        return tuple(place for place in self.places if place.site not in baseline)

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(map(str, self.labels.columns))

    def width(self, place: Place) -> int:
        return int(self.activations[place.site].shape[-1])

    def rows(self, place: Place, chosen: Any = slice(None)) -> Rows:
        """Activations `[row width]` at a place, of all rows or of some: a slice, or indices."""
        x = self.activations[place.site][chosen]
        return np.asarray(x if place.head is None else x[:, place.head])

    def blocks(self, site: str, size: int = 4096) -> Iterator[tuple[slice, Rows]]:
        """The rows of one site, `size` at a time, so that no more than that is in memory."""
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            yield part, np.asarray(self.activations[site][part])

    def labelled(self, target: str) -> NDArray[np.bool_]:
        """Which rows have a label of a target. Raises `InputError` for a target that is not there."""
        if target not in self.targets:
            raise InputError(f"There is no label {target!r}. There are {', '.join(self.targets)}.")
        return np.array(self.labels[target].notna())

    def having(self, **columns: Any) -> ProbeDataset:
        """The rows whose columns of the table hold these values (or one of several), in memory. Raises `InputError`
        for a column or a value that is not there."""
        chosen = np.ones(len(self), dtype=bool)
        for name, wanted in columns.items():
            if name not in self.table.columns:
                raise InputError(
                    f"There is no column {name!r}. The table has {', '.join(map(str, self.table.columns))}."
                )
            values = [wanted] if isinstance(wanted, str) or not isinstance(wanted, Sequence) else list(wanted)
            known = self.table[name].unique().tolist()
            missing = [one for one in values if one not in known]
            if missing:
                shown = ", ".join(map(repr, known[:8]))
                raise InputError(f"No row has {missing[0]!r} as its {name}. There are {shown}{'…' * (len(known) > 8)}.")
            chosen &= self.table[name].isin(values).to_numpy()
        if not chosen.any():
            raise InputError(f"No row has all of {columns}. Ask for fewer of them together.")
        return self.select(np.flatnonzero(chosen))

    def select(self, rows: Sequence[int] | NDArray) -> ProbeDataset:
        """Some of the rows, in memory."""
        chosen = np.asarray(rows)
        return replace(
            self,
            activations={site: np.asarray(x[chosen]) for site, x in self.activations.items()},
            table=self.table.iloc[chosen].reset_index(drop=True),
            labels=self.labels.iloc[chosen].reset_index(drop=True),
            random_init=None if self.random_init is None else self.random_init.select(chosen),
        )
