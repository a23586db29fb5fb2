"""What commands print: tables for people, JSON for programs, and the way to go on."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from interp.results import Effects, HeadScores

__all__ = [
    "AsJson",
    "command_line",
    "console",
    "effects_as_json",
    "print_effects",
    "print_heads",
    "print_json",
    "print_table",
    "scores_as_json",
    "shown",
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
_WIDE = 160  # columns where no terminal says how many there are


def console() -> Console:
    """Where tables go: as wide as the terminal, or wide enough for a file."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDE, highlight=False)


def shown(value: Any) -> str:
    """Text as it may be printed on a terminal: a dash for nothing, a mark for what would steer the terminal."""
    text = "–" if value is None else str(value)
    return "".join(char if char.isprintable() else "�" for char in text)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str | None = None,
    whole: Sequence[str] = (),
    right: Sequence[str] = (),
) -> None:
    """A table of texts, none of them read as markup; the columns named in `whole` are never broken or cut."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    rows = [[shown(cell) for cell in row] for row in rows]
    table = Table(title=Text(shown(title)) if title else None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        width = max([len(name), *(len(row[i]) for row in rows)]) if name in whole else None
        table.add_column(
            name,
            no_wrap=name in whole,
            min_width=width,
            overflow="fold",
            justify="right" if name in right else "left",
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def print_json(value: Any) -> None:
    """One JSON document on standard output. What is NaN or infinite there becomes null: JSON has no word for it."""
    print(json.dumps(_finite(value), indent=1, allow_nan=False, default=str))


def scores_as_json(found: HeadScores) -> dict[str, Any]:
    """The tables of head scores as lists of records."""
    tables = {"heads": found.frame, "sets": found.sets}
    records = {name: json.loads(table.to_json(orient="records") or "[]") for name, table in tables.items()}
    return {**records, "about": dict(found.about)}


def print_heads(found: HeadScores) -> None:
    """The tables that people read: each kind's heads, then what ablating them together costs."""
    for kind in found.kinds:
        rows, about = found.summary(kind), found.describe(kind)
        print_table(
            list(rows.columns),
            rows.itertuples(index=False),
            title=f"{kind}: {about}" if about else kind,
            whole=["head"],
            right=[name for name in rows.columns if name != "verdict"],
        )
    if len(found.sets):
        out = console()
        out.print("With the top heads of a kind ablated together:")
        for row in found.sets.to_dict("records"):
            out.print("  " + _set_line(row), markup=False, soft_wrap=True)


def effects_as_json(found: Effects) -> dict[str, Any]:
    """The cells of effects as a list of records, with the metric of the unedited runs."""
    cells = json.loads(found.to_frame().to_json(orient="records") or "[]")
    runs = {name: x.tolist() for name, x in (("base", found.base), ("source", found.source)) if x is not None}
    return {"cells": cells, **runs, "about": dict(found.about)}


def print_effects(found: Effects, n: int = 10) -> None:
    """The unedited runs, and the cells with the largest effects."""
    out, about = console(), found.about
    unit = f" {about['unit']}" if about.get("unit") else ""
    for name, metric in (("base", found.base), ("source", found.source)):
        if metric is not None:
            run = f"{name + ' run':<11} {about.get(name) or ''}"
            out.print(f"{run}: {about.get('metric', 'metric')} {metric.mean():.3f}{unit}", markup=False)
    rows = found.top(n)
    advice = "" if about.get("exact", True) else "; verify them with interp.patch"
    out.print(f"\n{len(rows)} largest of {found!r}{advice}", markup=False, soft_wrap=True)
    columns = list(rows.columns)
    print_table(columns, rows.itertuples(index=False), right=columns, whole=list(found.grid))


def command_line(*arguments: str) -> str:
    """A command as the user can type it: by name where that is found, else by the path they used."""
    called = Path(sys.argv[0])
    if called.name != "interp" or shutil.which("interp") == os.path.abspath(called):
        name = "interp"
    else:
        name = os.path.relpath(called) if called.is_absolute() and called.is_relative_to(Path.cwd()) else str(called)
    return shlex.join([name, *arguments])


def _set_line(row: Mapping[Any, Any]) -> str:
    unit = f" {row['unit']}" if row.get("unit") else ""
    line = (
        f"{row['kind']}: {row['effect']:+.2f}{unit}, 95% interval {row['effect_low']:.2f} to {row['effect_high']:.2f}"
    )
    if row.get("metric") and "clean" in row and "ablated" in row:
        line += f" ({row['metric']}: {row['clean']:.2f} → {row['ablated']:.2f})"
    if not math.isnan(row["random_mean"]):
        line += f"; random sets of the same layers {row['random_mean']:+.2f} (at most {row['random_max']:+.2f})"
    line += f"; p = {row['p']:.2g}"
    if not math.isnan(stability := row.get("stability", math.nan)):
        line += f"; stability of the set {stability:.2f}"
    return line


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
