"""Maps of head scores."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from interp.errors import InputError

__all__ = ["layer_head_map"]

_DIVERGING = ("effect", "control", "writing")


def layer_head_map(table: pd.DataFrame, value: str, *, title: str) -> Any:
    """A heat map of one column, layers down and heads across; heads that were not measured stay empty."""
    import plotly.graph_objects as go

    if value not in table.columns or not pd.api.types.is_numeric_dtype(table[value]):
        numeric = [name for name in table.columns if pd.api.types.is_numeric_dtype(table[name])]
        raise InputError(f"There is no number called {value!r} to draw. There are {', '.join(numeric)}.")
    layers, heads = table["layer"].to_numpy(dtype=int), table["head"].to_numpy(dtype=int)
    grid = np.full((layers.max() + 1, heads.max() + 1), np.nan)
    grid[layers, heads] = table[value].to_numpy(dtype=float)
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
