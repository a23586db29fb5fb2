"""One table about a head: what was computed, and what it leaves out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from interp.errors import InputError, StorageError
from interp.figures.page import figure_html, write_page
from interp.figures.signed_bars import signed_bars
from interp.figures.tables import table_html
from interp.files import atomic_folder, read_json, write_json

__all__ = ["HeadTable"]

_FORMAT = 1


@dataclass(frozen=True)
class HeadTable:
    """A tidy table whose rows stand for tokens, keys, directions or measures of one head.

    `value` is the column that counts, `label` the columns that name a row. `title` says what it is, `leaves_out` what
    it does not say, and `about` how it was made.
    """

    frame: pd.DataFrame
    title: str
    value: str
    label: tuple[str, ...]
    leaves_out: str
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [name for name in (self.value, *self.label) if name not in self.frame.columns]
        if missing:
            raise InputError(
                f"The table has no column {missing[0]!r}. It has {', '.join(map(str, self.frame.columns))}."
            )

    def to_frame(self) -> pd.DataFrame:
        """The table, one row each (a copy)."""
        return self.frame.copy()

    def plot(self, *, n: int = 30) -> Any:
        """Plotly bars of the value column, the first `n` rows."""
        shown = self.frame.head(n)
        names = [" · ".join(str(row[name]) for name in self.label) for row in shown.to_dict("records")]
        return signed_bars(names, shown[self.value].astype(float).tolist(), title=self.title, name=self.value)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page."""
        note = f'<p class="note">{escape(self.leaves_out)}</p>'
        return write_page(path, self.title, [figure_html(self.plot(), "bars"), table_html(self.frame), note])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: table.parquet and about.json."""
        about = {"format": _FORMAT, "title": self.title, "value": self.value, "label": list(self.label)}
        about |= {"leaves_out": self.leaves_out, "about": dict(self.about)}
        with atomic_folder(path, marker="about.json") as folder:
            self.frame.to_parquet(folder / "table.parquet")
            write_json(folder / "about.json", about)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> HeadTable:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        folder = Path(path)
        saved = read_json(folder / "about.json")
        if not isinstance(saved, dict) or saved.get("format") != _FORMAT or "title" not in saved:
            raise StorageError(f"{folder} holds no table of format {_FORMAT}. Make it again with this version.")
        try:
            frame = pd.read_parquet(folder / "table.parquet")
            label, about = tuple(saved["label"]), saved["about"]
            return cls(frame, saved["title"], saved["value"], label, saved["leaves_out"], about)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"Cannot read the table in {folder}: {error}") from error

    def __repr__(self) -> str:
        return f"HeadTable({self.title}: {len(self.frame)} rows)"

    def __str__(self) -> str:
        return f"{self.title}\n{self.frame.to_string(index=False)}\n{self.leaves_out}"

    def _repr_html_(self) -> str:
        note = f"<p><small>{escape(self.leaves_out)}</small></p>"
        return f"<h4>{escape(self.title)}</h4>{table_html(self.frame.head(30))}{note}"
