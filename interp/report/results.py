"""A report: claims with their verdicts, and the head scores they rest on; saved, and written as HTML and Markdown."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from interp.errors import InputError, StorageError
from interp.figures.page import write_page
from interp.files import atomic_folder, read_json, write_json, write_text
from interp.results import HeadScores

__all__ = ["Report", "Section", "sections_of"]

_FORMAT = 1


@dataclass(frozen=True)
class Section:
    """What else is told of the same heads: sentences, a table for people, and a figure as plotly's data."""

    heading: str
    words: tuple[str, ...]
    frame: pd.DataFrame
    figure: Any = None

    def told(self) -> dict[str, Any]:
        """What of it is kept beside the tables."""
        return {"heading": self.heading, "words": list(self.words), "figure": self.figure}


def sections_of(beside: Any) -> list[Section]:
    """Sections from whatever tells of itself by `heading`, `words`, `frame` (or `summary()`) and `plot()`: none, one or
    a list. Raises `InputError` for anything else."""
    given = [] if beside is None else list(beside) if isinstance(beside, (list, tuple)) else [beside]
    made: list[Section] = []
    for one in given:
        lacks = [name for name in ("heading", "words", "frame") if not hasattr(one, name)]
        if lacks or not isinstance(one.frame, pd.DataFrame):
            raise InputError(
                f"beside holds a {type(one).__name__}, which has no {lacks[0] if lacks else 'table in .frame'}. Give "
                "objects with heading, words, frame and plot(), such as probes.beside_causes(…) returns."
            )
        words = (one.words,) if isinstance(one.words, str) else tuple(map(str, one.words))
        frame = one.summary() if hasattr(one, "summary") else one.frame
        figure = json.loads(one.plot().to_json()) if hasattr(one, "plot") else None
        if str(one.heading) in {other.heading for other in made}:
            raise InputError(f"beside holds two sections called {one.heading!r}. Give each a heading of its own.")
        made.append(Section(str(one.heading), words, frame, figure))
    return made


@dataclass(frozen=True)
class Report:
    """One row per claim in `claims`: what was measured with its 95% interval, the cutoff it `must_be` on the right side
    of, the verdict (*holds*, *does not hold*, *cannot tell*, and then `why`), and how it compares with the pilot, where
    there was one. NaN: not measured. `found` holds the scores of all heads, `about` the settings, `tables` what was
    measured besides, by name: how a randomly initialised model of the same shape scores."""

    COLUMNS: ClassVar[tuple[str, ...]] = (
        *("id", "kind", "claim", "verdict", "value", "low", "high", "unit", "n_items", "must_be"),
        *("why", "note", "explain", "pilot", "against_pilot", "pilot_source"),
    )

    claims: pd.DataFrame
    found: HeadScores
    about: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """A copy of the table, one row per claim."""
        return self.claims.copy()

    @property
    def kinds(self) -> list[str]:
        """The kinds of heads that were asked for, those left out behind the others."""
        return list(dict.fromkeys([*self.found.kinds, *self.about.get("left_out", {})]))

    def verdict(self, id: str) -> str:
        """The verdict of one claim; an unknown one raises `InputError` with the claims there are."""
        mine = self.claims.loc[self.claims["id"] == id]
        if mine.empty:
            raise InputError(f"There is no claim {id!r} in this report. It has {', '.join(self.claims['id'])}.")
        return str(mine.iloc[0]["verdict"])

    def counts(self) -> dict[str, int]:
        """How many claims hold, do not hold, and cannot be told."""
        from interp.report.claim import CANNOT_TELL, DOES_NOT_HOLD, HOLDS

        return {one: self.claims["verdict"].tolist().count(one) for one in (HOLDS, DOES_NOT_HOLD, CANNOT_TELL)}

    def to_markdown(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report as Markdown, also written to a file where one is named."""
        from interp.figures.document import markdown
        from interp.report.render import document

        text = markdown(document(self))
        if path is not None:
            write_text(path, text)
        return text

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page, without any script unless a section beside the claims has a figure."""
        from interp.report.render import document, sections_html

        title, *parts = document(self, figures=True)
        drawn = any(kind == "figure" for kind, _ in parts)
        return write_page(path, title[1], sections_html(parts), with_plotly=drawn)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: claims.parquet, further tables, about.json and the heads, all or nothing."""
        with atomic_folder(path, marker="about.json") as folder:
            self.claims.to_parquet(folder / "claims.parquet")
            for number, table in enumerate(self.tables.values()):
                table.to_parquet(folder / f"table{number}.parquet")
            self.found.save(folder / "heads")
            write_json(folder / "about.json", {**self.about, "format": _FORMAT, "tables": list(self.tables)})
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        folder = Path(path)
        about = read_json(folder / "about.json")
        if not isinstance(about, dict) or about.get("format") != _FORMAT:
            raise StorageError(f"{folder} holds no report of format {_FORMAT}. Make it again with this version.")
        try:
            claims = pd.read_parquet(folder / "claims.parquet")
            names = about.get("tables", [])
            tables = {name: pd.read_parquet(folder / f"table{i}.parquet") for i, name in enumerate(names)}
        except (OSError, ValueError) as error:
            raise StorageError(f"Cannot read the claims in {folder}: {error}") from error
        heads = HeadScores.load(folder / "heads")
        said = {key: value for key, value in about.items() if key not in ("format", "tables")}
        return cls(claims, heads, said, tables)

    def __str__(self) -> str:
        from interp.report.render import summary

        said = ", ".join(f"{n} {verdict}" for verdict, n in self.counts().items())
        return f"{summary(self.claims).to_string(index=False)}\n{said}. {self.about.get('caveat', '')}".rstrip()

    def _repr_html_(self) -> str:
        from interp.figures.document import html_sections
        from interp.report.render import document

        return "".join(html_sections(document(self)))
