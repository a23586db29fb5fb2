"""Bars of signed numbers, one for each name."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

__all__ = ["signed_bars"]


def signed_bars(names: Sequence[str], values: Sequence[float], *, title: str, name: str) -> Any:
    """A plotly figure with one horizontal bar a row, the first on top; names may repeat."""
    import plotly.graph_objects as go

    places = list(range(len(names)))
    figure = go.Figure(go.Bar(x=list(values), y=places, orientation="h", hovertemplate="%{x:.4f}<extra></extra>"))
    figure.update_layout(
        title=escape(title),
        xaxis={"title": escape(name), "zeroline": True},
        yaxis={"tickvals": places, "ticktext": [escape(repr(one)[1:-1]) for one in names], "autorange": "reversed"},
        height=max(320, 20 * len(names) + 140),
        template="plotly_white",
    )
    return figure
