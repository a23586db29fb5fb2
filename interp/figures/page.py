"""One HTML file that needs nothing else: plotly's script is written into it once, and text is always escaped."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from interp.files import write_text

__all__ = ["figure_html", "write_page"]

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #8884; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.note { opacity: .8; font-size: .9em; } pre { overflow-x: auto; }
"""


def write_page(path: str | os.PathLike[str], title: str, sections: Sequence[str], *, with_plotly: bool = True) -> Path:
    """Write the page atomically. `sections` are ready HTML; figures in them come from `figure_html`."""
    script = ""
    if with_plotly:
        from plotly.offline import get_plotlyjs

        script = f"<script>{get_plotlyjs()}</script>"
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style>{script}</head><body><h1>{escape(title)}</h1>{''.join(sections)}</body></html>"
    )
    write_text(path, page)
    return Path(path)


def figure_html(figure: Any, name: str) -> str:
    """A figure as a div and its data, without plotly's script. `name` is the div's id on the page."""
    data = json.dumps(json.loads(figure.to_json()), ensure_ascii=True).replace("<", "\\u003c")
    target = json.dumps(name).replace("<", "\\u003c")
    return (
        f'<div id="{escape(name, quote=True)}"></div><script>'
        f"(f => Plotly.newPlot({target}, f.data, f.layout, {{responsive: true, displaylogo: false}}))({data})</script>"
    )
