"""How a model does on a data set: shares and means with their intervals, and what was scored."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from interp.errors import InputError
from interp.figures.bars import part_bars
from interp.figures.page import figure_html, write_page
from interp.results.frames import about_html, as_records, load_frames, save_frames

__all__ = ["Evaluation"]

_KIND, _FORMAT = "evaluation", 1
_ALL = "all"


@dataclass(frozen=True)
class Evaluation:
    """`frame`: a row for everything together (`by` "all") and for each group; for each measure its value and the bounds
    `_low` and `_high` of a 95% bootstrap interval over items, NaN where a group has one item. `rows`: what was scored,
    one row each. `about["measures"]` says in words what each measure is, `about["units"]` in what it counts.
    """

    frame: pd.DataFrame
    rows: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def measures(self) -> tuple[str, ...]:
        """The measured quantities, the main one first."""
        return tuple(self.about["measures"])

    @property
    def leaves_out(self) -> str:
        """What these numbers do not say, and what was not scored."""
        return str(self.about["leaves_out"])

    def to_frame(self) -> pd.DataFrame:
        """A copy of `frame`."""
        return self.frame.copy()

    def value(self, measure: str | None = None, *, by: str = _ALL, group: str = "") -> tuple[float, float, float]:
        """A measure (the first, if none) of everything or of one group, with its interval's bounds."""
        name = self._measure(measure)
        rows = self.frame.loc[(self.frame["by"] == by) & (self.frame["group"] == group)]
        if not len(rows):
            known = ", ".join(f"{a} {b}".strip() for a, b in zip(self.frame["by"], self.frame["group"], strict=True))
            raise InputError(f"There is no group {group!r} by {by!r}. There is {known}.")
        row = rows.iloc[0]
        return float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"])

    def summary(self) -> pd.DataFrame:
        """The frame as text for people: each measure with its interval."""
        lines = []
        for row in self.frame.to_dict("records"):
            line: dict[str, Any] = {"by": row["by"], "group": row["group"], "n": row["n"], "items": row["items"]}
            line |= {name: _said(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in self.measures}
            line |= {name: _number(row[name]) for name in self.about.get("counts", {})}
            lines.append(line)
        return pd.DataFrame(lines)

    def describe(self) -> str:
        """What was measured and how, what the columns are, and what is left out."""
        about = self.about
        columns = {**about["measures"], **about.get("counts", {})}
        named = "; ".join(f"{name}: {words}" for name, words in columns.items())
        read = f"{about['n_lines']} lines read, {about['n_skipped']} skipped"
        return (
            f"{about['data']} on {about['model']} ({', '.join(about['files'])}; {read}). {about['method']} {named}. "
            f"Intervals are 95% by bootstrap over items ({about['item']}). {self.leaves_out}"
        )

    def plot(self, measure: str | None = None, *, by: str | None = None) -> Any:
        """A plotly figure: bars of one measure with its intervals, over all or the groups of one kind."""
        name = self._measure(measure)
        kinds = list(dict.fromkeys(self.frame["by"]))
        if by is not None and by not in kinds:
            raise InputError(f"by is {by!r}. Choose {', '.join(kinds)}.")
        rows = self.frame if by is None else self.frame.loc[self.frame["by"] == by]
        bars = pd.DataFrame(
            {
                "part": [f"{one} {group}".strip() for one, group in zip(rows["by"], rows["group"], strict=True)],
                "value": rows[name].to_numpy(),
                "value_low": rows[f"{name}_low"].to_numpy(),
                "value_high": rows[f"{name}_high"].to_numpy(),
            }
        )
        title = f"{self.about['data']} on {self.about['model']}: {name}"
        return part_bars(bars, title=title, unit=self.about["units"][name])

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page."""
        sections = [figure_html(self.plot(), "bars"), about_html(repr(self), self.describe(), self.summary())]
        return write_page(path, f"{self.about['data']} on {self.about['model']}", sections)

    def to_records(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        tables = {"groups": as_records(self.frame), "rows": as_records(self.rows)}
        return {**tables, "about": dict(self.about)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: groups and rows as Parquet, and about.json."""
        return save_frames(path, _KIND, _FORMAT, self.about, {"groups": self.frame, "rows": self.rows})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Evaluation:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        about, tables = load_frames(path, _KIND, _FORMAT, ("groups", "rows"))
        return cls(tables["groups"], tables["rows"], about)

    def _measure(self, name: str | None) -> str:
        chosen = self.measures[0] if name is None else name
        if chosen not in self.measures:
            raise InputError(f"measure is {name!r}. Measured were {', '.join(self.measures)}.")
        return chosen

    def __repr__(self) -> str:
        value = _said(*self.value())
        return f"Evaluation({self.about['data']} on {self.about['model']}: {self.measures[0]} {value})"

    def __str__(self) -> str:
        return f"{self.summary().to_string(index=False)}\n{self.describe()}"

    def _repr_html_(self) -> str:
        return about_html(repr(self), self.describe(), self.summary())


def _said(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" + ("" if math.isnan(low) else f" ({low:.3f} to {high:.3f})")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:g}"
