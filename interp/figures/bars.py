"""Bar charts of named parts."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd

__all__ = ["part_bars"]


def part_bars(table: pd.DataFrame, *, title: str, unit: str, name: str = "part", value: str = "value") -> Any:
    """Horizontal bars, the first row on top; with intervals where the table has `value_low` and `value_high`."""
    import plotly.graph_objects as go

    values = table[value].to_numpy(dtype=float)
    error = None
    if f"{value}_low" in table and bool(table[f"{value}_low"].notna().any()):
        above, below = table[f"{value}_high"] - values, values - table[f"{value}_low"]
        error = {"type": "data", "symmetric": False, "array": above.tolist(), "arrayminus": below.tolist()}
    tokens = table["token"] if "token" in table else [None] * len(table)
    labels = [
        escape(str(label)) + (f" {escape(repr(token))}" if isinstance(token, str) else "")
        for label, token in zip(table[name], tokens, strict=True)
    ]
    colors = ["#b2182b" if one < 0 else "#2166ac" for one in values]
    bars = go.Bar(x=values, y=labels, orientation="h", marker={"color": colors}, error_x=error)
    figure = go.Figure(bars)
    figure.update_layout(
        title=escape(title),
        xaxis={"title": escape(unit)},
        yaxis={"type": "category", "autorange": "reversed"},
        height=max(320, 22 * len(table) + 140),
        template="plotly_white",
    )
    return figure
