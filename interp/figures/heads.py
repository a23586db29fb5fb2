"""Maps and pages of head scores."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from interp.errors import InputError
from interp.figures.page import figure_html, write_page

if TYPE_CHECKING:
    from interp.results import HeadScores

__all__ = ["heads_page", "layer_head_map"]

_DIVERGING = ("effect", "control", "writing")


def layer_head_map(table: pd.DataFrame, value: str, *, title: str) -> Any:
    """A heat map of one column, layers down and heads across; heads that were not measured stay empty."""
    import plotly.graph_objects as go

    if value not in table.columns or not pd.api.types.is_numeric_dtype(table[value]):
        numeric = [name for name in table.columns if pd.api.types.is_numeric_dtype(table[name])]
        raise InputError(f"There is no number called {value!r} to draw. There are {', '.join(numeric)}.")
    grid = np.full((int(table["layer"].max()) + 1, int(table["head"].max()) + 1), np.nan)
    grid[table["layer"], table["head"]] = table[value]
    largest = float(np.nanmax(np.abs(grid))) if np.isfinite(grid).any() else 1.0
    signed = value in _DIVERGING and bool((grid < 0).any())
    heat = go.Heatmap(
        z=grid,
        zmin=-largest if signed else 0.0,
        zmax=max(largest, 1e-9),
        colorscale="RdBu" if signed else "Viridis",
        colorbar={"title": value},
        hovertemplate="layer %{y}, head %{x}: %{z:.3f}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure = go.Figure(heat)
    figure.update_layout(
        title=escape(title),
        xaxis={"title": "head", "dtick": 1},
        yaxis={"title": "layer", "autorange": "reversed"},
        height=max(320, 18 * grid.shape[0] + 140),
        template="plotly_white",
    )
    return figure


def heads_page(scores: HeadScores, path: str | os.PathLike[str]) -> Path:
    """The self-contained page of `HeadScores.to_html`."""
    from interp.results import table_html

    sections = []
    for kind in scores.kinds:
        sections.append(f"<h2>{escape(kind)}</h2>")
        definition = scores.about.get("definitions", {}).get(kind)
        if definition:
            sections.append(f"<p>{escape(str(definition))}</p>")
        sections.append(figure_html(layer_head_map(scores.of(kind), "score", title=f"{kind}: score"), f"map-{kind}"))
        sections.append(table_html(scores.summary(kind)))
    if len(scores.sets):
        sections.append("<h2>Top heads ablated together</h2>" + table_html(scores.sets))
    rows = "".join(
        f"<li>{escape(str(k))}: {escape(str(v))}</li>" for k, v in scores.about.items() if k != "definitions"
    )
    sections.append(f'<h2>How it was measured</h2><ul class="note">{rows}</ul>')
    return write_page(path, f"Heads of {scores.about.get('model', 'a model')}", sections)
