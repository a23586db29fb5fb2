"""Text and tables that come from data. They are escaped here, because `st.write`, `st.error` and table cells read
markdown, and an image in markdown makes the browser fetch it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Any, Literal

import pandas as pd
import streamlit as st

from interp.figures.tables import table_html

__all__ = ["details", "notice", "plain", "table"]

Level = Literal["info", "warning", "error"]

_WITH_NUMBERS = {"to", "of", "e", "nan", "inf", "s", "p"}
_COLOURS = {"info": "70, 140, 220", "warning": "230, 160, 0", "error": "220, 60, 60"}
_TABLE = """<style>
.interp-table { overflow-x: auto; }
.interp-table table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
.interp-table th, .interp-table td { padding: .35rem .7rem; border-bottom: 1px solid #8884; text-align: right; }
.interp-table th { font-weight: 600; opacity: .75; white-space: nowrap; }
.interp-table th:first-child, .interp-table td:first-child { text-align: left; padding-left: 0; }
.interp-table td { white-space: nowrap; }
.interp-table.words td { white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
.interp-table.words th, .interp-table.words td { text-align: left; vertical-align: top; }
</style>"""


def notice(text: str, level: Level = "info", *, drawn: str = "") -> None:
    """A message in a box, shown literally whatever it holds; `drawn` below it keeps its spaces, for text in columns."""
    role = "alert" if level == "error" else "status"
    colour = _COLOURS[level]
    style = "margin:.6rem 0 0;overflow-x:auto;font-size:.8rem;line-height:1.45;white-space:pre"
    columns = f'<pre style="{style}">{escape(drawn)}</pre>' if drawn else ""
    st.html(
        f'<div role="{role}" class="interp-notice" style="padding:.7rem 1rem;border-radius:.5rem;'
        f"background:rgba({colour},.14);border-left:4px solid rgb({colour});overflow-wrap:anywhere;"
        f'white-space:pre-line">{escape(text)}{columns}</div>'
    )


def plain(text: str) -> None:
    """Small text, shown literally, its line breaks too."""
    st.html(
        f'<div style="font-size:.875rem;opacity:.8;overflow-wrap:anywhere;white-space:pre-line">{escape(text)}</div>'
    )


def table(rows: pd.DataFrame, *, words: bool = False, wrap: str = "", height: str = "") -> None:
    """A static table, every cell literal text. Columns of words are set left, those of numbers right. With `words`,
    every cell is set left and may break lines; so may the column `wrap`. A table higher than `height` (CSS) scrolls."""
    kind = "interp-table words" if words else "interp-table"
    place = list(rows.columns).index(wrap) + 1 if wrap in rows else 0
    wide = place and rows[wrap].astype(str).str.len().max() > 40
    cells, name = f"td:nth-child({place})", f".wrap-{place}{'-wide' if wide else ''}"
    least = "min-width: 14rem;" if wide else ""
    style = f"{name} {cells} {{ white-space: normal; {least} }}" if place else ""
    left = [at for at, (column, values) in enumerate(rows.items(), 1) if column == wrap or _of_words(values)]
    name += f".left-{'-'.join(map(str, left))}"
    style += "".join(f"{name} :is(td, th):nth-child({number}) {{ text-align: left; }}" for number in left)
    style, classes = f"<style>{style}</style>", name[1:].replace(".", " ")
    scroll = f' style="max-height:{height};overflow-y:auto" tabindex="0"' if height else ""
    st.html(f'{_TABLE}{style}<div class="{kind} {classes}"{scroll}>{table_html(rows)}</div>')


def _of_words(cells: Iterable[Any]) -> bool:
    """Whether a cell holds more than a number with its interval, its rank or its unit."""
    return any(set(re.findall(r"[^\W\d_]+", str(cell))) - _WITH_NUMBERS for cell in cells)


def details(about: dict[str, Any]) -> pd.DataFrame:
    """Nested facts as a table of two columns."""
    rows = []
    for name, value in about.items():
        if isinstance(value, dict):
            rows += [{"what": f"{name}: {key}", "value": _flat(inner)} for key, inner in value.items()]
        else:
            rows.append({"what": name, "value": _flat(value)})
    return pd.DataFrame(rows, columns=["what", "value"], dtype=object)


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(inner)}" for key, inner in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_flat, value)) if isinstance(value, list | tuple) else str(value)
