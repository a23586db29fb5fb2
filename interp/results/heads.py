"""Scores of heads: a tidy table that knows how it was made, can be saved, and draws itself."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from interp.errors import InputError, StorageError
from interp.figures.heads import layer_head_map
from interp.figures.page import figure_html, write_page
from interp.figures.tables import table_html, text_cell
from interp.files import atomic_folder, read_json, write_json
from interp.sites import Head

__all__ = ["ITEM_COLUMNS", "HeadScores", "all_items", "head_of", "is_kind", "item_rows", "with_interval"]

_FORMAT = 1
ITEM_COLUMNS = ("kind", "stack", "sublayer", "layer", "head", "measure", "item", "value")


@dataclass(frozen=True)
class HeadScores:
    """Scores of heads: one row per head and kind. What was not measured is absent (NaN), never 0.

    Columns: kind, stack, sublayer, layer, head; score and its interval (`score_low`, `score_high`) on held-out
    prompts, `score_select` on those the heads were chosen by, `score_no_bos`; writing; effect (harm to the kind's
    behaviour when the head alone is ablated, in `unit(kind)`) with interval, `control` (mean effect of other heads of
    the layer), p, p_corrected and q; verdict, and the `reason` why it is no better. Kinds of a task have more: each
    measure of the cause (noise, denoise, mean, resample …) as a share of clean − corrupt, their `baseline`, the role.
    `sets` has one row per kind: its top heads ablated together, against matched random sets. `tables` holds what else
    was measured, by name. `items` has what lies behind the means of heads that were tested, one row per item: its
    `measure` is "score", "writing" or one of the cause's; of syntax, counts in a sentence, whose sums make the shares.
    """

    frame: pd.DataFrame
    sets: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    items: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(ITEM_COLUMNS)))

    def to_frame(self) -> pd.DataFrame:
        """A copy of the table, one row per head and kind."""
        return self.frame.copy()

    @property
    def kinds(self) -> list[str]:
        return list(dict.fromkeys(self.frame["kind"]))

    def of(self, kind: str) -> pd.DataFrame:
        """The rows of one kind, best score first."""
        if kind not in self.kinds:
            raise InputError(f"These results hold no kind {kind!r}. They hold {', '.join(self.kinds)}.")
        return self.frame.loc[self.frame["kind"] == kind].sort_values(by="score", ascending=False)

    def top(self, kind: str | None = None, n: int = 10) -> pd.DataFrame:
        """The rows of the `n` heads of a kind (or of each) with the highest score."""
        tables = [self.of(one).head(n) for one in ([kind] if kind else self.kinds)]
        return pd.concat(tables).reset_index(drop=True)

    def summary(self, kind: str | None = None, n: int = 10) -> pd.DataFrame:
        """`top` as text for people: addresses, values with their 95% intervals, a dash for what was not measured."""
        rows = []
        for row in self.top(kind, n).to_dict("records"):
            line = {} if kind else {"kind": row["kind"]}
            line["head"] = str(Head(row["layer"], row["head"], row["sublayer"], row["stack"]))
            line["score (95%)"] = with_interval(row, "score")
            if (label := self.about.get("writing", {}).get(row["kind"])) or not kind:
                line[label if kind and label else "writing"] = text_cell(row["writing"])
            line["effect (95%)"] = with_interval(row, "effect")
            line["others"] = text_cell(row.get("control"))
            line["p"] = "–" if pd.isna(p := row.get("p_corrected", float("nan"))) else f"{p:.2g}"
            line["verdict"] = row["verdict"] or "–"
            rows.append(line)
        return pd.DataFrame(rows)

    def unit(self, kind: str) -> str:
        """What the effects of a kind are measured in; "" where it was not said."""
        cause = self.about.get("causes", {}).get(self.about.get("cause", {}).get(kind), {})
        return f"{cause['metric']}, {cause['unit']}" if cause else ""

    def criteria(self, kind: str) -> str:
        """What a verdict asks for, as one line; "" where it was not said."""
        cutoffs = self.about.get("cutoffs", {}).get(kind, {})
        asked = [f"{name} {cutoff:g}" for name, cutoff in cutoffs.items()]
        return f"Cutoffs: {', '.join(asked)}; alpha {self.about['alpha']:g}" if asked and "alpha" in self.about else ""

    def describe(self, kind: str) -> str:
        """The kind's definition, what its effects are measured in, and the cutoffs of its verdict."""
        unit = self.unit(kind)
        parts = [self.about.get("definitions", {}).get(kind), f"Effect: {unit}" if unit else "", self.criteria(kind)]
        return ". ".join(part for part in parts if part)

    def plot(self, kind: str | None = None, value: str = "score") -> Any:
        """A plotly heat map, layer by head."""
        kind = kind or self.kinds[0]
        return layer_head_map(self.of(kind), value, title=f"{kind}: {value}")

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page: a map and a table per kind, and how the numbers were made."""
        sections = []
        for kind in self.kinds:
            figure = layer_head_map(self.of(kind), "score", title=f"{kind}: score")
            sections += [
                f"<h2>{escape(kind)}</h2><p>{escape(self.describe(kind))}</p>",
                figure_html(figure, f"map-{kind}"),
            ]
            sections.append(table_html(self.summary(kind)))
        if len(self.sets):
            sections.append("<h2>Top heads ablated together</h2>" + table_html(self.sets))
        sections += [f"<h2>{escape(name)}</h2>{table_html(table)}" for name, table in self.tables.items()]
        facts = ((name, value) for name, value in self.about.items() if name != "definitions")
        rows = "".join(f"<li>{escape(name)}: {escape(str(value))}</li>" for name, value in facts)
        sections.append(f'<h2>How it was measured</h2><ul class="note">{rows}</ul>')
        return write_page(path, f"Heads of {self.about.get('model', 'a model')}", sections)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: heads.parquet, sets.parquet, items.parquet, further tables, about.json, all or nothing."""
        with atomic_folder(path, marker="about.json") as folder:
            self.frame.to_parquet(folder / "heads.parquet")
            self.sets.to_parquet(folder / "sets.parquet")
            self.items.to_parquet(folder / "items.parquet")
            for number, table in enumerate(self.tables.values()):
                table.to_parquet(folder / f"table{number}.parquet")
            write_json(folder / "about.json", {**self.about, "format": _FORMAT, "tables": list(self.tables)})
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> HeadScores:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        folder = Path(path)
        about = read_json(folder / "about.json")
        if not isinstance(about, dict) or about.get("format") != _FORMAT:
            raise StorageError(f"{folder} holds no head scores of format {_FORMAT}. Make them again with this version.")
        try:
            frame, sets = pd.read_parquet(folder / "heads.parquet"), pd.read_parquet(folder / "sets.parquet")
            names = about.get("tables", [])
            tables = {name: pd.read_parquet(folder / f"table{i}.parquet") for i, name in enumerate(names)}
            more = {"items": pd.read_parquet(path)} if (path := folder / "items.parquet").exists() else {}
        except (OSError, ValueError) as error:
            raise StorageError(f"Cannot read the tables in {folder}: {error}") from error
        said = {key: value for key, value in about.items() if key not in ("format", "tables")}
        return cls(frame, sets, said, tables, **more)  # runs of earlier versions kept no items

    def __str__(self) -> str:
        return self.summary().to_string(index=False)

    def _repr_html_(self) -> str:
        title = escape(f"{self.about.get('model', 'heads')}: {', '.join(self.kinds)}")
        return f"<h4>{title}</h4>{table_html(self.summary())}"


def head_of(row: Mapping[Any, Any]) -> str:
    """The address of a row's head."""
    return str(Head(int(row["layer"]), int(row["head"]), str(row["sublayer"]), str(row["stack"])))


def is_kind(row: Mapping[Any, Any]) -> bool:
    """Whether a row's verdict names its kind, perhaps with a word behind it."""
    verdict = str(row["verdict"] or "")
    return verdict == row["kind"] or verdict.startswith(f"{row['kind']} (")


def item_rows(kind: str, head: Head, measure: str, items: Iterable[Any], values: Any) -> pd.DataFrame:
    """One measure of one head as rows of `HeadScores.items`."""
    at = {"kind": kind, "stack": head.stack, "sublayer": head.sublayer, "layer": head.layer, "head": head.head}
    rows = [(str(item), float(value)) for item, value in zip(items, values, strict=True)]
    return pd.DataFrame([{**at, "measure": measure, "item": item, "value": value} for item, value in rows])


def all_items(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows of many heads and measures as one table; that table without any rows where there are none."""
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(ITEM_COLUMNS))


def with_interval(row: Mapping[Hashable, Any], name: str) -> str:
    """A value of a row as text, with its interval where it has one; a dash for what was not measured."""
    value = row.get(name)
    if value is None or pd.isna(value):
        return "–"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if low is None or high is None or pd.isna(low):
        return text_cell(float(value))
    return f"{text_cell(float(value))} ({text_cell(float(low))} to {text_cell(float(high))})"
