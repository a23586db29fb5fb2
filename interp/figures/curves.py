"""Lines over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["curves"]


def curves(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, title: str, x: str, y: str) -> Any:
    """Plotly lines with points; `lines`: name -> its x and y."""
    import plotly.graph_objects as go

    figure = go.Figure(
        [go.Scatter(x=list(a), y=list(b), mode="lines+markers", name=escape(name)) for name, (a, b) in lines.items()]
    )
    figure.update_layout(
        title=escape(title),
        xaxis={"title": escape(x)},
        yaxis={"title": escape(y)},
        showlegend=len(lines) > 1,
        template="plotly_white",
    )
    return figure
