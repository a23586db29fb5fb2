"""Series of a training on one axis of steps, and which came before which."""

from __future__ import annotations

import math
from html import escape
from textwrap import wrap
from typing import Any

import pandas as pd

__all__ = ["emergence_curves", "order_map"]

_COLOURS = ("#4269d0", "#ff725c", "#3ca951", "#a463f2", "#efb118", "#6cc5b0", "#97bbf5", "#9c6b4e", "#9498a0")


def emergence_curves(scores: pd.DataFrame, loss_date: float, *, title: str) -> Any:
    """One panel for losses, one for kinds of heads (sums), one for their best heads, and one for each other measure
    that is there; the step axis is shared. Columns: step, measure, series, value, low, high."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    panels = _panels(scores)
    heights = [1.4 if name.startswith("loss") else 1.0 for name in panels]
    total = sum(heights)
    figure = make_subplots(
        len(panels), 1, shared_xaxes=True, subplot_titles=[escape(name) for name in panels],
        row_heights=[one / total for one in heights], vertical_spacing=0.25 / max(4, len(panels)),
    )  # fmt: skip
    for row, (panel, names) in enumerate(panels.items(), start=1):
        for number, (measure, series) in enumerate(names):
            chosen: Any = scores[(scores["measure"] == measure) & (scores["series"] == series)]
            of = chosen.sort_values("step")
            colour, steps = _COLOURS[number % len(_COLOURS)], of["step"].tolist()
            x = [1 + step for step in steps]
            label = escape(_label(panel, str(measure), str(series)))
            group = {"legendgroup": panel, "legendgrouptitle": {"text": "<br>".join(map(escape, wrap(panel, 30)))}}
            if of["low"].notna().all():
                band = {"x": x + x[::-1], "y": of["high"].tolist() + of["low"].tolist()[::-1]}
                figure.add_trace(
                    go.Scatter(**band, fill="toself", fillcolor=_clear(colour), line={"width": 0}, hoverinfo="skip",
                               showlegend=False, legendgroup=panel),
                    row=row, col=1,
                )  # fmt: skip
            line = go.Scatter(
                x=x, y=of["value"].tolist(), customdata=steps, mode="lines+markers", name=label,
                line={"color": colour, "width": 2}, marker={"size": 4},
                hovertemplate=f"{label}: %{{y:.3f}}<extra></extra>", **group,
            )  # fmt: skip
            figure.add_trace(line, row=row, col=1)
        if math.isfinite(loss_date):
            figure.add_vline(x=1 + loss_date, line={"dash": "dot", "color": "#888"}, row=row, col=1)  # type: ignore[arg-type]
    ticks = _ticks(max(scores["step"].tolist()))
    figure.update_xaxes(type="log", tickvals=[1 + one for one in ticks], ticktext=[str(one) for one in ticks])
    figure.update_xaxes(title="updates (log scale)", row=len(panels), col=1)
    figure.update_layout(
        title=escape(title), template="plotly_white", height=130 + round(170 * total), hovermode="x unified"
    )
    return figure


def order_map(table: pd.DataFrame, *, title: str) -> Any:
    """For each pair of series, the share of trainings in which the row's came first. Columns: first, second, before,
    after, n."""
    import plotly.graph_objects as go

    names = list(dict.fromkeys([*table["first"], *table["second"]]))
    share: dict[tuple[str, str], float] = {}
    for row in table.to_dict("records"):
        if row["n"]:
            share[row["first"], row["second"]] = row["before"] / row["n"]
            share[row["second"], row["first"]] = row["after"] / row["n"]
    grid = [[share.get((a, b)) for b in names] for a in names]
    shown = [escape(name) for name in names]
    heat = go.Heatmap(
        z=grid, x=shown, y=shown, zmin=0, zmax=1, colorscale="RdBu", texttemplate="%{z:.2f}",
        hovertemplate="%{y} before %{x}: %{z:.2f} of trainings<extra></extra>", colorbar={"title": "came first"},
    )  # fmt: skip
    figure = go.Figure(heat)
    figure.update_yaxes(type="category", autorange="reversed", title="came first")
    figure.update_xaxes(type="category", title="came later")
    figure.update_layout(title=escape(title), template="plotly_white", height=300 + 34 * len(names))
    return figure


def _panels(scores: pd.DataFrame) -> dict[str, list[tuple[str, str]]]:
    """Title of a panel -> its series, in the order of the table."""
    names = list(dict.fromkeys(zip(scores["measure"], scores["series"], strict=True)))
    panels: dict[str, list[tuple[str, str]]] = {}
    for measure, series in names:
        if measure in ("loss", "in_context"):
            title = "loss and in-context score, nats"
        elif measure == "patch":
            title = "restored by patching, share of the last checkpoint's difference"
        elif measure == "conflict":
            title = "weights against context: share of answers"
        elif measure == "conflict, logits":
            title = "weights against context, logits: of the answer, and what each head adds to it"
        elif measure == "patch gap":
            title = "clean − corrupt, logits"
        elif measure == "K-composition":
            title = "K-composition above random weights"
        elif series in ("sum", "best"):
            title = "attention, sum of all heads" if series == "sum" else "attention, best head of the last checkpoint"
        else:
            title = measure
        panels.setdefault(title, []).append((measure, series))
    return panels


def _label(panel: str, measure: str, series: str) -> str:
    if panel.startswith("attention"):
        return measure
    if measure == "loss":
        return f"loss, {series}"
    return f"in-context score ({series})" if measure == "in_context" else series


def _ticks(last: int) -> list[int]:
    ticks = [0, 1, 3]
    while ticks[-1] * 10 // 3 < last:
        ticks.append(10 ** (len(ticks) // 2) if len(ticks) % 2 else 3 * 10 ** (len(ticks) // 2 - 1))
    return [one for one in dict.fromkeys(ticks) if one <= max(last, 1)]


def _clear(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
