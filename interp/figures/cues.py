"""Heads by cues, beside what their contributions sum to."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["cue_maps"]


def cue_maps(direct: pd.DataFrame, exchange: pd.DataFrame, outcome: pd.DataFrame, *, title: str) -> Any:
    """Two maps `[head cue]` (direct parts, exact exchange) over stacked bars of the sums, one group per cue."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    names = ("direct part", "head exchanged (exact)", "how the parts add up")
    specs = [[{}, {}], [{"colspan": 2}, None]]
    figure = make_subplots(2, 2, specs=specs, subplot_titles=names, row_heights=[0.62, 0.38], vertical_spacing=0.2)
    both = [np.abs(one.to_numpy(dtype=float)) for one in (direct, exchange)]
    largest = max([1e-9, *(float(np.nanmax(one)) for one in both if np.isfinite(one).any())])
    for column, table in enumerate((direct, exchange), start=1):
        heat = go.Heatmap(
            z=table.to_numpy(dtype=float),
            x=[escape(str(one)) for one in table.columns],
            y=[escape(str(one)) for one in table.index],
            zmin=-largest,
            zmax=largest,
            colorscale="RdBu",
            showscale=column == 2,
            colorbar={"title": "logits", "len": 0.55, "y": 0.75},
            hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
        )
        figure.add_trace(heat, row=1, col=column)
    cues = [escape(str(one)) for one in outcome["cue"]]
    for name in ("heads", "mlps", "other"):
        figure.add_trace(go.Bar(x=cues, y=outcome[name], name=name), row=2, col=1)
    value = outcome["value"]
    error = {"array": outcome["high"] - value, "arrayminus": value - outcome["low"], "symmetric": False}
    marks = go.Scatter(x=cues, y=value, mode="markers", name="outcome", error_y=error, marker={"color": "black"})
    figure.add_trace(marks, row=2, col=1)
    for column in (1, 2):
        figure.update_yaxes(type="category", autorange="reversed", row=1, col=column)
    figure.update_layout(title=escape(title), barmode="relative", template="plotly_white", height=760)
    return figure
