"""What probes decode by layer and head, what steering along them does, and both beside what heads cause."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from interp.errors import InputError
from interp.figures.heads import layer_head_map

__all__ = ["accuracy_by_layer", "beside_causes", "dose_response", "head_map"]

# Okabe & Ito's colours, which stay apart for the colour-blind; lines differ in dash and marker, too.
_BLUE, _ORANGE, _GREEN, _GREY, _PINK, _BLACK = "#0072B2", "#D55E00", "#009E73", "#777777", "#CC79A7", "#909090"
_BASELINES = {"majority": (_GREY, "dot"), "embedding": (_PINK, "dashdot"), "random_init": (_GREEN, "longdash")}


def accuracy_by_layer(
    frame: pd.DataFrame, *, title: str, value: str = "score", metric: str = "accuracy", control: str = "control"
) -> Any:
    """Accuracy of each layer with its interval, the control task's, and every baseline there is: always drawn together.

    One target and one kind of site. Columns: layer, `value` with `_low` and `_high`, `control`, and of majority,
    embedding and random_init those that were measured.
    """
    import plotly.graph_objects as go

    _need(frame, ("layer", value))
    rows = frame.sort_values("layer")
    layers = rows["layer"].astype(int).tolist()
    figure = go.Figure()
    for low, high in [(f"{value}_low", f"{value}_high")]:
        if low in rows and high in rows:
            figure.add_scatter(**_band(layers, rows[low], rows[high], _BLUE), name="95% interval")
    lines = [(value, metric, _BLUE, "solid", "circle"), (control, "control task", _ORANGE, "dash", "square")]
    lines += [(name, name.replace("_", " "), colour, dash, "") for name, (colour, dash) in _BASELINES.items()]
    for column, name, colour, dash, symbol in lines:
        if column in rows and np.isfinite(rows[column].to_numpy(dtype=float)).any():
            figure.add_scatter(
                x=layers,
                y=rows[column].astype(float).tolist(),
                mode="lines+markers" if symbol else "lines",
                name=escape(name),
                line={"color": colour, "dash": dash},
                marker={"symbol": symbol or "circle"},
                hovertemplate=f"{escape(name)}, layer %{{x}}: %{{y:.3f}}<extra></extra>",
            )
    return _laid(figure, title, "layer", metric)


def head_map(frame: pd.DataFrame, *, title: str, value: str = "score") -> Any:
    """A heat map of what is decodable from each head, layers down. Columns: layer, head, `value`."""
    _need(frame, ("layer", "head", value))
    return layer_head_map(frame.loc[frame["head"].notna()], value, title=title)


def dose_response(frame: pd.DataFrame, *, title: str) -> Any:
    """What steering does by dose, beside random directions, the wrong position, and the full exchange. Columns:
    intervention, control, dose, effect, low, high, position; of random directions least and most."""
    import plotly.graph_objects as go

    _need(frame, ("intervention", "control", "dose", "effect", "low", "high"))
    steer = frame.loc[frame["intervention"] == "steer"].sort_values("dose")
    if steer.empty:
        raise InputError("There is no steering in this table, so there is no dose to draw.")
    figure = go.Figure()
    own = steer.loc[steer["control"] == ""]
    parts = [("", "along the probe's direction", _BLUE, "solid", "circle")]
    parts += [("random directions", "random directions", _GREY, "dot", "diamond")]
    parts += [("wrong position", "at the wrong position", _ORANGE, "dash", "square")]
    for control, name, colour, dash, symbol in parts:
        rows = steer.loc[steer["control"] == control]
        if rows.empty:
            continue
        doses = rows["dose"].astype(float).tolist()
        spread = control == "random directions" and {"least", "most"} <= set(rows)
        low, high = (rows["least"], rows["most"]) if spread else (rows["low"], rows["high"])
        if "position" in rows and control == "wrong position":
            name = f"at {rows['position'].iloc[0]!r} instead"
        figure.add_scatter(**_band(doses, low, high, colour), name=escape(name), showlegend=False)
        figure.add_scatter(
            x=doses,
            y=rows["effect"].astype(float).tolist(),
            mode="lines+markers",
            name=escape(name),
            line={"color": colour, "dash": dash},
            marker={"symbol": symbol},
            hovertemplate=f"{escape(name)}, dose %{{x}}: %{{y:.3f}}<extra></extra>",
        )
    layers = steer.loc[steer["control"].astype(str).str.startswith("layer")]
    if len(layers):
        figure.add_scatter(
            x=layers["dose"].astype(float).tolist(),
            y=layers["effect"].astype(float).tolist(),
            mode="markers",
            name="the same in other layers",
            marker={"symbol": "x", "color": _GREEN, "size": 8},
            text=[escape(str(one)) for one in layers["control"]],
            hovertemplate="%{text}: %{y:.3f}<extra></extra>",
        )
    whole = frame.loc[(frame["intervention"] == "interchange") & (frame["control"] == "")]
    doses = own["dose"].astype(float)
    for row in whole.to_dict("records"):
        name = escape(f"{row.get('place', 'all')} exchanged with the corrupt run's")
        figure.add_scatter(
            x=[float(doses.min()), float(doses.max())],
            y=[float(row["effect"])] * 2,
            mode="lines",
            name=name,
            line={"color": _BLACK, "dash": "longdashdot"},
            hovertemplate=f"{name}: %{{y:.3f}}<extra></extra>",
        )
    return _laid(figure, title, "dose, distances between the class means", "share of clean − corrupt moved")


def beside_causes(frame: pd.DataFrame, *, title: str, labelled: Sequence[str] = ()) -> Any:
    """One point a head: what a probe decodes from its output, against what exchanging or ablating it does. Columns:
    head (as text), accuracy, effect, agreement (what the two say together); heads in `labelled` are named."""
    import plotly.graph_objects as go

    _need(frame, ("head", "accuracy", "effect", "agreement"))
    figure = go.Figure()
    styles = dict(zip(dict.fromkeys(frame["agreement"]), _styles(), strict=False))
    for said, (colour, symbol) in styles.items():
        rows = frame.loc[frame["agreement"] == said]
        names = [escape(str(one)) for one in rows["head"]]
        figure.add_scatter(
            x=rows["accuracy"].astype(float).tolist(),
            y=rows["effect"].astype(float).tolist(),
            mode="markers+text",
            name=escape(str(said)),
            text=[name if one in labelled else "" for name, one in zip(names, rows["head"], strict=True)],
            customdata=names,
            textposition="top center",
            marker={"color": colour, "symbol": symbol, "size": 8},
            hovertemplate="%{customdata}: decoded %{x:.3f}, effect %{y:.3f}<extra></extra>",
        )
    return _laid(figure, title, "accuracy of a probe on the head's output", "causal effect of the head")


def _styles() -> list[tuple[str, str]]:
    return [
        (_BLUE, "circle"),
        (_ORANGE, "square"),
        (_GREEN, "diamond"),
        (_GREY, "x"),
        (_PINK, "cross"),
        (_BLACK, "star"),
    ]


def _band(x: Sequence[Any], low: Any, high: Any, colour: str) -> dict[str, Any]:
    """A shaded interval as one closed line."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    ends = [*high.astype(float).tolist(), *low.astype(float).tolist()[::-1]]
    return {
        "x": [*x, *list(x)[::-1]],
        "y": ends,
        "fill": "toself",
        "mode": "lines",
        "line": {"width": 0},
        "fillcolor": f"rgba({red}, {green}, {blue}, 0.18)",
        "hoverinfo": "skip",
    }


def _laid(figure: Any, title: str, x: str, y: str) -> Any:
    figure.update_layout(
        title=escape(title),
        xaxis={"title": escape(x)},
        yaxis={"title": escape(y)},
        template="plotly_white",
        showlegend=True,
    )
    return figure


def _need(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing or not len(frame) or not np.size(frame):
        what = f"no column {missing[0]!r}" if missing else "no rows"
        raise InputError(f"This table has {what}, so there is nothing to draw. It needs {', '.join(columns)}.")
