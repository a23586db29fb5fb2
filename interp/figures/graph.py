"""Tokens across, layers upwards, and the edges between them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import pandas as pd

__all__ = ["token_graph"]

_STEPS = 5  # widths of lines: one trace each


def token_graph(edges: pd.DataFrame, text: Sequence[str], n_layers: int, *, title: str) -> Any:
    """Lines from (layer, source) to (layer + 1, target), as wide as their weight; residual edges as faint verticals."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for pos in range(len(text)):
        line = {"color": "#bbbbbb", "width": 1}
        figure.add_scatter(x=[pos, pos], y=[0, n_layers], mode="lines", line=line, hoverinfo="skip", showlegend=False)
    largest = max((float(one) for one in edges["weight"]), default=1.0)
    band = ((edges["weight"] / max(largest, 1e-12) * _STEPS).astype(float).clip(upper=_STEPS - 1e-9)).astype(int)
    for step in range(_STEPS):
        here = edges.loc[band == step]
        x: list[float | None] = []
        y: list[float | None] = []
        lines: Any = here.itertuples(index=False)
        for row in lines:
            x, y = [*x, int(row.source), int(row.target), None], [*y, int(row.layer), int(row.layer) + 1, None]
        line = {"color": f"rgba(33,102,172,{0.25 + 0.15 * step})", "width": 1 + step}
        name = f"{largest * step / _STEPS:.2g} to {largest * (step + 1) / _STEPS:.2g}"
        figure.add_scatter(x=x, y=y, mode="lines", line=line, name=name, hoverinfo="skip")
    rows: Any = edges.itertuples(index=False)
    names = [
        f"{'' if pd.isna(row.head) else f'head {row.layer}.{row.head}, '}layer {row.layer}: "
        f"{escape(repr(text[int(row.source)]))} → {escape(repr(text[int(row.target)]))}, weight {row.weight:.3f}, "
        f"attention {row.attention:.2f}"
        for row in rows
    ]
    figure.add_scatter(
        x=[(int(a) + int(b)) / 2 for a, b in zip(edges["source"], edges["target"], strict=True)],
        y=[int(layer) + 0.5 for layer in edges["layer"]],
        mode="markers",
        marker={"size": 6, "color": "rgba(33,102,172,0.4)"},
        hovertext=names,
        hoverinfo="text",
        showlegend=False,
    )
    labels = [escape(f"{pos} {one!r}") for pos, one in enumerate(text)]
    figure.update_layout(
        title=escape(title),
        xaxis={"tickvals": list(range(len(text))), "ticktext": labels, "title": "token"},
        yaxis={"title": "layer"},
        height=max(420, 18 * n_layers + 160),
        template="plotly_white",
        legend={"title": "weight"},
    )
    return figure
