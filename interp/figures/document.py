"""A document as a list of headings, paragraphs, lists and tables, and these as HTML or Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

import pandas as pd

from interp.figures.tables import table_html, text_cell

__all__ = ["Part", "html_sections", "markdown"]

Part = tuple[str, Any]  # "1", "2" or "3" (a heading), "text", "list" or "table", and what it says
_CELL = re.compile(r"([\\`*_\[\]<>|~#])")


def html_sections(parts: Sequence[Part]) -> list[str]:
    """Ready HTML; everything said is escaped text."""
    made = {
        "text": lambda said: f"<p>{escape(said)}</p>",
        "list": lambda said: "<ul>" + "".join(f"<li>{escape(one)}</li>" for one in said) + "</ul>",
        "table": table_html,
    }
    return [f"<h{kind}>{escape(said)}</h{kind}>" if kind.isdigit() else made[kind](said) for kind, said in parts]


def markdown(parts: Sequence[Part]) -> str:
    """Markdown; what would be markup in what is said is escaped."""
    blocks = []
    for kind, said in parts:
        if kind.isdigit():
            blocks.append(f"{'#' * int(kind)} {_plain(said)}")
        elif kind == "text":
            blocks.append(_plain(said))
        elif kind == "list":
            blocks.append("\n".join(f"- {_plain(one)}" for one in said))
        else:
            blocks.append(_markdown_table(said))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _markdown_table(table: pd.DataFrame) -> str:
    lines = [[_plain(str(name)) for name in table.columns], ["---"] * len(table.columns)]
    lines += [[_plain(text_cell(value)) for value in row] for row in table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    return _CELL.sub(r"\\\1", " ".join(str(text).split()))
