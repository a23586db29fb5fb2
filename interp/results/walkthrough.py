"""A walk from a prompt to its answer: what is claimed at each step, what was measured, and what that says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from interp.figures.bars import part_bars
from interp.figures.page import figure_html, write_page
from interp.figures.tables import table_html
from interp.results.frames import as_records, load_frames, save_frames

__all__ = ["VERDICTS", "Walkthrough"]

_KIND, _FORMAT = "walkthrough", 1
VERDICTS = ("supports", "contradicts", "cannot tell", "not measured")
_LEFT_OUT = (
    "One exchange at a time, each against one other subject: what two parts do for each other stays hidden. Heads were "
    "chosen on the walked prompt, where their numbers are therefore too good; the other prompts did not choose them. A "
    "verdict is about its claim as worded, with its cutoff, not about the whole story: it supports where the walked "
    "prompt and the mean of the others reach the cutoff and the interval lies above 0, and contradicts where the whole "
    "interval lies below the cutoff."
)


@dataclass(frozen=True)
class Walkthrough:
    """The steps of a walk.

    `steps`: one row each: `title`, `claim`, `intervention`, `here` (the walked prompt), `mean`, `low`, `high` over `n`
    other prompts (95%, bootstrap over items; NaN without others), `least` (what the claim asks for), `unit`, `verdict`
    ("supports", "contradicts", "cannot tell", "not measured") and `said`. `details`: the rows that steps were read
    from (step, what, place, value, mean over the others).
    """

    steps: pd.DataFrame
    details: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def leaves_out(self) -> str:
        """What these numbers do not say."""
        return _LEFT_OUT

    def to_frame(self) -> pd.DataFrame:
        """A copy of `steps`."""
        return self.steps.copy()

    def summary(self) -> pd.DataFrame:
        """The steps as text for people."""
        rows = []
        for row in self.steps.to_dict("records"):
            line = {"step": str(row["step"]), "title": row["title"], "here": _number(row["here"], row["unit"])}
            line |= {"others (95%)": self._others(row), "asked": _number(row["least"], row["unit"], "≥ ")}
            rows.append({**line, "verdict": row["verdict"]})
        return pd.DataFrame(rows)

    def describe(self) -> str:
        """What was asked, of which model, on how many other prompts."""
        about = self.about
        others = about.get("n_others", 0)
        said = f"{others} other prompts ({about['others']})" if others else "no other prompts, so no intervals"
        return (
            f"{about['text']!r} → {about['answer']!r}, against {about['foil']!r} and {about['corrupt']!r}; "
            f"{about['model']}; {said}. {self.leaves_out}"
        )

    def to_markdown(self, command: str | None = None) -> str:
        """The walk as a Markdown page; `command` is named as what made it."""
        about = self.about
        lines = [f"# A walk-through: {_plain(about['text'])} → {_plain(about['answer'])}", ""]
        if command:
            lines += [f"Made by `{command}`; do not edit by hand.", ""]
        lines += [_plain(self.describe()), "", _markdown_table(self.summary()), ""]
        for row in self.steps.to_dict("records"):
            lines += [f"## {row['step']}. {_plain(row['title'])}", "", f"**Claim.** {_plain(row['claim'])}  "]
            lines += [f"**Intervention.** {_plain(row['intervention'])}  "]
            lines += [f"**Measured.** {_plain(row['said'])}  ", f"**Verdict: {row['verdict']}.**", ""]
        return "\n".join(lines)

    def plot(self) -> Any:
        """A plotly bar chart of the steps that are shares: here, and over the other prompts with intervals."""
        shares = self.steps.loc[self.steps["unit"] == "share"]
        named = shares["step"].astype(str) + ". " + shares["title"].astype(str)
        table = pd.DataFrame({"part": named, "value": shares["mean"].fillna(shares["here"])})
        table["value_low"], table["value_high"] = shares["low"].to_numpy(), shares["high"].to_numpy()
        return part_bars(table, title=f"{self.about.get('text')} → {self.about.get('answer')}", unit="share")

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page."""
        sections = [f"<p>{escape(self.describe())}</p>", table_html(self.summary()), figure_html(self.plot(), "steps")]
        for row in self.steps.to_dict("records"):
            text = [f"<h2>{row['step']}. {escape(row['title'])}</h2><dl>"]
            for name in ("claim", "intervention", "said", "verdict"):
                shown = "measured" if name == "said" else name
                text.append(f"<dt><b>{shown}</b></dt><dd>{escape(str(row[name]))}</dd>")
            sections.append("".join([*text, "</dl>"]))
        return write_page(path, f"{self.about['text']} → {self.about['answer']}", sections)

    def to_records(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return {"steps": as_records(self.steps), "details": as_records(self.details), "about": dict(self.about)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: steps.parquet, details.parquet and about.json."""
        return save_frames(path, _KIND, _FORMAT, self.about, {"steps": self.steps, "details": self.details})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Walkthrough:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        about, tables = load_frames(path, _KIND, _FORMAT, ("steps", "details"))
        return cls(tables["steps"], tables["details"], about)

    def _others(self, row: Mapping[Any, Any]) -> str:
        if pd.isna(row["mean"]):
            return "–"
        ends = f" ({_number(row['low'], row['unit'])} to {_number(row['high'], row['unit'])})"
        return _number(row["mean"], row["unit"]) + ("" if pd.isna(row["low"]) else ends)

    def __repr__(self) -> str:
        counts = self.steps["verdict"].value_counts()
        said = ", ".join(f"{counts[name]} {name}" for name in VERDICTS if name in counts)
        return (
            f"Walkthrough({self.about.get('text')!r} → {self.about.get('answer')!r}, {len(self.steps)} steps: {said})"
        )

    def __str__(self) -> str:
        return f"{self.summary().to_string(index=False)}\n{self.describe()}"

    def _repr_html_(self) -> str:
        return f"<h4>{escape(repr(self))}</h4>{table_html(self.summary())}<p>{escape(self.describe())}</p>"


def _number(value: Any, unit: str, before: str = "") -> str:
    if value is None or pd.isna(value):
        return "–"
    return f"{before}{value:.0%}" if unit == "share" else f"{before}{value:.2f} {unit}".strip()


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is: on one line, its marks escaped."""
    return "".join("\\" + one if one in "\\`*_<>|[]#" else one for one in " ".join(str(text).split()))


def _markdown_table(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    cells = [["---" if cell == "---" else _plain(str(cell)) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
