"""Layer by position maps of predictions, and ranks by layer."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd

__all__ = ["divergence_curves", "lens_map", "rank_curves"]


def lens_map(table: pd.DataFrame, *, title: str) -> Any:
    """The likeliest token of each layer and position, coloured by its probability; the last layer on top. Columns: pos,
    layer, text, top, top_prob, entropy, kl."""
    import plotly.graph_objects as go

    grids = {name: table.pivot(index="layer", columns="pos", values=name) for name in ("top_prob", "top", "kl")}
    texts = table.drop_duplicates("pos").sort_values("pos")
    names = [escape(f"{pos} {text!r}") for pos, text in zip(texts["pos"], texts["text"], strict=True)]
    shown = [
        [escape(repr(one)[1:-1]) if isinstance(one, str) else "" for one in row] for row in grids["top"].to_numpy()
    ]
    heat = go.Heatmap(
        z=grids["top_prob"].to_numpy(dtype=float),
        x=names,
        y=[str(layer) for layer in grids["top"].index],
        text=shown,
        customdata=grids["kl"].to_numpy(dtype=float),
        texttemplate="%{text}",
        zmin=0,
        zmax=1,
        colorscale="Blues",
        colorbar={"title": "probability"},
        hovertemplate="layer %{y}, %{x}: %{text} (p %{z:.3f}, KL %{customdata:.2f})<extra></extra>",
    )
    figure = go.Figure(heat)
    figure.update_layout(
        title=escape(title),
        xaxis={"title": "position", "type": "category"},
        yaxis={"title": "layer", "type": "category"},
        height=max(360, 20 * len(shown) + 140),
        template="plotly_white",
    )
    return figure


def rank_curves(table: pd.DataFrame, *, title: str) -> Any:
    """Ranks of pinned tokens by layer, on a logarithmic axis with rank 1 on top. Columns: pin, layer, rank, prob."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for pin, rows in table.groupby("pin", sort=False):
        name = escape(repr(pin))
        figure.add_scatter(
            x=rows["layer"].tolist(),
            y=rows["rank"].tolist(),
            customdata=rows["prob"].tolist(),
            mode="lines+markers",
            name=name,
            hovertemplate="layer %{x}: rank %{y} (p %{customdata:.3g})<extra></extra>",
        )
    figure.update_layout(
        title=escape(title),
        xaxis={"title": "layer"},
        yaxis={"title": "rank", "type": "log", "autorange": "reversed"},
        template="plotly_white",
        showlegend=True,
    )
    return figure


def divergence_curves(table: pd.DataFrame, *, title: str) -> Any:
    """Divergence from the model's own prediction by layer. Columns: layer, and one for each curve, in nats."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name in [one for one in table.columns if one != "layer"]:
        figure.add_scatter(
            x=table["layer"].tolist(),
            y=table[name].tolist(),
            mode="lines+markers",
            name=escape(str(name)),
            hovertemplate="layer %{x}: %{y:.3g} nats<extra></extra>",
        )
    figure.update_layout(
        title=escape(title),
        xaxis={"title": "layer"},
        yaxis={"title": "KL(final ‖ lens), nats", "type": "log"},
        template="plotly_white",
        showlegend=True,
    )
    return figure
