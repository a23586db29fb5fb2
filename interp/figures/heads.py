"""Maps of heads and of other grids."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from interp.errors import InputError

__all__ = ["cell_map", "layer_head_map"]

_DIVERGING = ("effect", "control", "writing")


def layer_head_map(table: pd.DataFrame, value: str, *, title: str) -> Any:
    """A heat map of one column, layers down and heads across; heads that were not measured stay empty."""
    if value not in table.columns or not pd.api.types.is_numeric_dtype(table[value]):
        numeric = [name for name in table.columns if pd.api.types.is_numeric_dtype(table[name])]
        raise InputError(f"There is no number called {value!r} to draw. There are {', '.join(numeric)}.")
    layers, heads = table["layer"].to_numpy(dtype=int), table["head"].to_numpy(dtype=int)
    grid = np.full((layers.max() + 1, heads.max() + 1), np.nan)
    grid[layers, heads] = table[value].to_numpy(dtype=float)
    signed = value in _DIVERGING and bool((grid < 0).any())
    names = [list(range(size)) for size in grid.shape]
    return cell_map(grid, title=title, rows=("layer", names[0]), columns=("head", names[1]), name=value, signed=signed)


def cell_map(
    grid: np.ndarray,
    *,
    title: str,
    rows: tuple[str, list],
    columns: tuple[str, list],
    name: str = "effect",
    signed: bool = True,
) -> Any:
    """A heat map of `[row column]`; `rows` and `columns` are each an axis' name and its labels. NaN stays empty."""
    import plotly.graph_objects as go

    largest = max(float(np.nanmax(np.abs(grid))) if np.isfinite(grid).any() else 1.0, 1e-9)
    heat = go.Heatmap(
        z=grid,
        x=[escape(str(label)) for label in columns[1]],
        y=[escape(str(label)) for label in rows[1]],
        zmin=-largest if signed else 0.0,
        zmax=largest,
        colorscale="RdBu" if signed else "Viridis",
        colorbar={"title": escape(name)},
        hovertemplate=f"{escape(rows[0])} %{{y}}, {escape(columns[0])} %{{x}}: %{{z:.3f}}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure = go.Figure(heat)
    figure.update_layout(
        title=escape(title),
        xaxis={"title": escape(columns[0]), "type": "category"},
        yaxis={"title": escape(rows[0]), "type": "category", "autorange": "reversed"},
        height=max(320, 18 * grid.shape[0] + 140),
        template="plotly_white",
    )
    return figure
