"""What every view offers: its link, its pictures and tables as files, and the same as Python.

Link, code and pictures never leave the browser; tables and pages are made when they are asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.components.v2 import component

from app import state
from app.components.text import plain
from interp.figures.document import html_sections
from interp.figures.page import write_page

__all__ = ["Frames", "as_csv", "as_page", "toolbar"]

Frames = Mapping[str, pd.DataFrame | Callable[[], pd.DataFrame]]
_HERE = Path(__file__).parent
_component = component(
    "interp.toolbar",
    html=(_HERE / "toolbar.html").read_text(),
    css=(_HERE / "toolbar.css").read_text(),
    js="".join((_HERE / name).read_text() for name in ("pictures.js", "toolbar.js")),
)


def toolbar(
    name: str, code: str, tables: Frames, *, page: Callable[[Path], Any] | None = None, pictures: bool = True
) -> None:
    """Draw the bar of a view. `name` begins the files' names; `code` is Python that gives the same numbers; `tables`
    are frames, or make them, by name. `page` writes a self-contained page to a path, as a result's `to_html` does;
    without one, the page holds the tables. Without `pictures`, the view has none. A view has one bar, drawn when the
    view is complete: reserve its place with `st.container()` before."""
    with st.container(horizontal=True, vertical_alignment="top", key="toolbar"):
        _component(key="share", data={"name": name, "code": code, "note": _note(), "pictures": pictures})
        if not tables and page is None:
            return
        with st.popover("Tables and page", icon=":material/download:"):
            for number, (title, rows) in enumerate(tables.items()):
                _button(f"{title} (CSV)", _later(as_csv, rows), f"{name}_{title}.csv", "text/csv", number)
            make = _later(as_page, name, page if page is not None else tables)
            _button("Self-contained page (HTML)", make, f"{name}.html", "text/html", len(tables))
            if pictures:
                plain("Pictures are saved by PNG and SVG on the left.")


def as_csv(rows: pd.DataFrame | Callable[[], pd.DataFrame]) -> bytes:
    """A table with all its digits. Cells are text and numbers; nothing is rounded."""
    found = rows() if callable(rows) else rows
    return found.to_csv(index=False).encode()


def as_page(name: str, made: Callable[[Path], Any] | Frames) -> bytes:
    """A page that needs nothing else: what a function writes to a path, or tables."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        if callable(made):
            made(path)
        else:
            every = {title: rows() if callable(rows) else rows for title, rows in made.items()}
            sections = html_sections(
                [part for title, rows in every.items() for part in (("2", title), ("table", rows))]
            )
            write_page(path, name, sections, with_plotly=False)
        return path.read_bytes()


def _button(label: str, make: Callable[[], bytes], file: str, mime: str, number: int) -> None:
    safe = "".join(one if one.isalnum() or one in "-_." else "_" for one in file)
    st.download_button(label, make, safe, mime, on_click="ignore", key=f"export {number}", width="stretch")


def _later(make: Callable[..., bytes], *given: Any) -> Callable[[], bytes]:
    return lambda: make(*given)


def _note() -> str:
    """What the link leaves out."""
    lost = state.left_out()
    if not lost:
        return ""
    return f"Link copied, without {' and '.join(lost)}: too long for an address."
