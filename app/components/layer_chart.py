"""Numbers by layer as lines with their 95% intervals, the same numbers beside them as a table."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app.components.text import plain, table
from interp.results.heads import with_interval

__all__ = ["layer_lines", "show_table"]

_COLOURS = ("#3182bd", "#e07b39", "#37a34a", "#8c6bb1", "#c2255c")


def show_table(name: str, rows: pd.DataFrame, *, key: str) -> None:
    """Draw one further table of a run: as lines where it goes by layer, and always as a table. All text is literal."""
    plain(name)
    names = _lines(rows)
    if not names:
        table(rows.round(3))
        return
    left, right = st.columns([5, 4], gap="medium", vertical_alignment="center")
    with left:
        st.plotly_chart(layer_lines(rows), key=key, config={"displaylogo": False})
    with right:
        shown = {name: [with_interval(row, name) for row in rows.to_dict("records")] for name in names}
        layers = [str(layer) for layer in rows["layer"]]
        table(
            pd.DataFrame({"layer": layers, **{f"{name} (95%)": cells for name, cells in shown.items()}}), height="18rem"
        )


def layer_lines(rows: pd.DataFrame) -> Any:
    """A plotly figure with a line per column over `layer`; a band where `…_low` and `…_high` are there."""
    import plotly.graph_objects as go

    figure, layers = go.Figure(), rows["layer"].to_numpy()
    for i, name in enumerate(_lines(rows)):
        colour = _COLOURS[i % len(_COLOURS)]
        if f"{name}_low" in rows and f"{name}_high" in rows:
            low, high = rows[f"{name}_low"].to_numpy(), rows[f"{name}_high"].to_numpy()
            figure.add_scatter(
                x=np.concatenate([layers, layers[::-1]]),
                y=np.concatenate([high, low[::-1]]),
                fill="toself",
                line={"width": 0, "color": colour},
                opacity=0.2,
                hoverinfo="skip",
                showlegend=False,
            )
        figure.add_scatter(
            x=layers,
            y=rows[name],
            name=escape(name),
            mode="lines+markers",
            line={"color": colour},
            hovertemplate=f"layer %{{x}}, {escape(name)}: %{{y:.3f}}<extra></extra>",
        )
    figure.update_layout(
        height=260,
        margin={"t": 24, "l": 8, "r": 8, "b": 8},
        xaxis={"title": "layer", "tickformat": "d", "dtick": 1 if len(rows) <= 12 else 5},
        yaxis_title="share of clean − corrupt",
        legend={"orientation": "h", "y": 1.15},
        showlegend=True,
    )
    return figure


def _lines(rows: pd.DataFrame) -> list[str]:
    """The columns that are lines over layers; none where the table does not go by layer."""
    if "layer" not in rows or rows["layer"].duplicated().any() or not pd.api.types.is_numeric_dtype(rows["layer"]):
        return []
    numbers = [name for name in rows.columns if pd.api.types.is_numeric_dtype(rows[name]) and name != "layer"]
    return [name for name in numbers if not name.endswith(("_low", "_high"))]
