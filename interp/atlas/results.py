"""An atlas: the scores of all kinds of heads, and what they say together; saved, drawn, written as a page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interp.atlas.stability import Resampled, resample
from interp.atlas.tables import counts, heads_table, overlap_table, unexplained_table
from interp.errors import InputError, StorageError
from interp.figures.heads import cell_map, layer_head_map
from interp.figures.page import write_page
from interp.files import atomic_folder, read_json, write_json, write_text
from interp.results import HeadScores
from interp.results.frames import as_records
from interp.results.heads import head_of, is_kind

__all__ = ["Atlas"]

_FORMAT = 1
_LEFT_OUT = (
    "Heads only: what MLPs do is in none of these verdicts. Only heads that were tested can be named; a kind that is "
    "not asked for explains nothing. What heads carry together is measured by exchanging them with the heads of the "
    "corrupt prompts, against the one corruption that decides."
)


@dataclass(frozen=True)
class Atlas:
    """Which head does what. `scores` are the head scores of all kinds, p corrected over them; `together`: what all
    heads named for one task carry when they are exchanged at once, by direction, against random sets of their layers
    (shares of clean − corrupt, 95%)."""

    scores: HeadScores
    together: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def resampled(self) -> dict[str, Resampled]:
        """Each kind under resampling of the items."""
        return {kind: resample(self.scores, kind, seed=int(self.about.get("seed", 0))) for kind in self.scores.kinds}

    @cached_property
    def heads(self) -> pd.DataFrame:
        """A row for each head that a verdict speaks of."""
        return heads_table(self.scores, self.resampled)

    @cached_property
    def overlap(self) -> pd.DataFrame:
        """How kinds overlap, a row for each pair of them."""
        return overlap_table(self.scores)

    @cached_property
    def unexplained(self) -> pd.DataFrame:
        """What remains, a row per task or behaviour."""
        return unexplained_table(self.scores, self.together)

    @cached_property
    def kinds(self) -> pd.DataFrame:
        """A row per kind: its named heads, how stable that set is (mean Jaccard index over resamples of items, and
        what 97.5% of them reach), the best score, and what was left out."""
        rows = []
        for kind in self.scores.kinds:
            mine, again = self.scores.of(kind), self.resampled[kind]
            named = [row for row in mine.to_dict("records") if is_kind(row)]
            best = mine.to_dict("records")[0]
            rows.append(
                {
                    "kind": kind,
                    "named": " ".join(head_of(row) for row in named),
                    "n": len(named),
                    "tested": int(mine["effect"].notna().to_numpy().sum()),
                    "stability": again.jaccard,
                    "stability_low": again.least,
                    "best": head_of(best),
                    "best_score": float(best["score"]),
                    "problem": str(self.scores.about.get("problems", {}).get(kind, "")),
                }
            )
        for kind, why in self.about.get("left_out", {}).items():
            rows.append({"kind": kind, "named": "", "n": 0, "tested": 0, "problem": f"left out: {why}"})
        return pd.DataFrame(rows)

    @property
    def leaves_out(self) -> str:
        """What these numbers do not say."""
        return _LEFT_OUT

    def counts(self) -> dict[str, int]:
        """How many heads are named, only attend, only matter, were tested to no avail, or never tested."""
        return counts(self.scores)

    def to_frame(self) -> pd.DataFrame:
        """A copy of `heads`."""
        return self.heads.copy()

    def to_records(self) -> dict[str, Any]:
        """Plain data for JSON: every table's rows, and how they were made."""
        tables = {"heads": self.heads, "kinds": self.kinds, "overlap": self.overlap, "unexplained": self.unexplained}
        tables["together"] = self.together
        return {**{name: as_records(table) for name, table in tables.items()}, "about": dict(self.about)}

    def compare(self, other: Atlas) -> Any:
        """What moved from this atlas to another; see `interp.atlas.compare`."""
        from interp.atlas.compare import compare

        return compare(self, other)

    def plot(self, what: str = "heads") -> Any:
        """A plotly map: "heads" (by how many kinds each is named), "overlap" (Jaccard index of kinds), or one kind's
        scores by its name."""
        name = str(self.about.get("model", ""))
        if what == "heads":
            every = self.scores.frame.drop_duplicates(["stack", "sublayer", "layer", "head"])
            every = every[["stack", "sublayer", "layer", "head"]].merge(
                self.heads[["stack", "sublayer", "layer", "head", "n_kinds"]], how="left"
            )
            table = every.assign(n_kinds=every["n_kinds"].fillna(0).astype(float))
            return layer_head_map(table, "n_kinds", title=f"{name}: kinds that name each head")
        if what == "overlap":
            kinds = self.scores.kinds
            grid = np.full((len(kinds), len(kinds)), np.nan)
            for row in self.overlap.to_dict("records"):
                i, j = kinds.index(row["kind"]), kinds.index(row["other"])
                grid[i, j] = grid[j, i] = row["jaccard"]
            axis, title = ("kind", kinds), f"{name}: overlap of kinds"
            return cell_map(grid, title=title, rows=axis, columns=axis, name="Jaccard", signed=False)
        if what not in self.scores.kinds:
            raise InputError(
                f'There is no {what!r} to draw. There are "heads", "overlap" and {", ".join(self.scores.kinds)}.'
            )
        return self.scores.plot(what)

    def to_markdown(self, path: str | os.PathLike[str] | None = None) -> str:
        """The atlas as Markdown, also written to a file where one is named."""
        from interp.atlas.render import document
        from interp.figures.document import markdown

        text = markdown(document(self))
        if path is not None:
            write_text(path, text)
        return text

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page: the map of heads and every table."""
        from interp.atlas.render import document
        from interp.figures.document import html_sections
        from interp.figures.page import figure_html

        title, *parts = document(self)
        return write_page(path, title[1], [figure_html(self.plot(), "map-heads"), *html_sections(parts)])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: the scores, together.parquet and about.json, all or nothing."""
        with atomic_folder(path, marker="about.json") as folder:
            self.scores.save(folder / "heads")
            self.together.to_parquet(folder / "together.parquet")
            write_json(folder / "about.json", {**self.about, "format": _FORMAT})
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Atlas:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        folder = Path(path)
        about = read_json(folder / "about.json")
        if not isinstance(about, dict) or about.get("format") != _FORMAT:
            raise StorageError(f"{folder} holds no atlas of format {_FORMAT}. Make it again with this version.")
        try:
            together = pd.read_parquet(folder / "together.parquet")
        except (OSError, ValueError) as error:
            raise StorageError(f"Cannot read the tables in {folder}: {error}") from error
        said = {key: value for key, value in about.items() if key != "format"}
        return cls(HeadScores.load(folder / "heads"), together, said)

    def __str__(self) -> str:
        from interp.atlas.render import summary

        return summary(self).to_string(index=False)

    def _repr_html_(self) -> str:
        from interp.atlas.render import document
        from interp.figures.document import html_sections

        return "".join(html_sections(document(self)))
