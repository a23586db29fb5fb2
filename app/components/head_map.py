"""A layer by head map whose cells open the head: one canvas, hover and arrow keys without a server trip.

(`st.plotly_chart` returns nothing for a click on a heat map, and takes 1.6 s where this takes a tenth.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from streamlit.components.v2 import component

from interp.sites import Head

__all__ = ["head_map", "map_data"]

_HERE = Path(__file__).parent
_component = component(
    "interp.head_map",
    html=(_HERE / "head_map.html").read_text(),
    css=(_HERE / "head_map.css").read_text(),
    js=(_HERE / "colour.js").read_text() + (_HERE / "head_map.js").read_text(),
)
_NAMES = {"score": "score", "writing": "writing", "effect": "effect", "control": "others' effect"}


def head_map(rows: pd.DataFrame, kind: str, value: str, *, key: str) -> Head | None:
    """Draw a column of one kind's rows; returns the head that was just clicked, else None."""
    opened = _component(key=key, data=map_data(rows, kind, value), on_open_change=lambda: None).open
    if not opened:
        return None
    layer, head = map(int, str(opened).split("."))
    clicked = rows[(rows["layer"] == layer) & (rows["head"] == head)]
    if clicked.empty:
        return None
    first = clicked.iloc[0]
    return Head(layer, head, str(first["sublayer"]), str(first["stack"]))


def map_data(rows: pd.DataFrame, kind: str, value: str) -> dict[str, Any]:
    """What the component draws: values by layer and head with None for what was not measured, and a line per cell.

    `marks` are 2 where the verdict names the kind, 1 for any other verdict.
    """
    layers, heads = rows["layer"].to_numpy(dtype=int), rows["head"].to_numpy(dtype=int)
    shape = (int(layers.max()) + 1, int(heads.max()) + 1)
    grid = np.full(shape, np.nan)
    grid[layers, heads] = rows[value].to_numpy(dtype=float)
    marks, notes = np.zeros(shape, dtype=int), np.full(shape, "not scored", dtype=object)
    for row in rows.to_dict("records"):
        place, verdict = (row["layer"], row["head"]), str(row["verdict"] or "")
        marks[place] = 2 if verdict.startswith(kind) else int(bool(verdict))
        notes[place] = _note(row, value)
    finite = grid[np.isfinite(grid)]
    largest = float(np.abs(finite).max()) if finite.size else 1.0
    signed = bool((finite < 0).any())
    best = np.unravel_index(np.nanargmax(grid), shape) if finite.size else (0, 0)
    first = rows.iloc[0]
    return {
        "layers": shape[0],
        "heads": shape[1],
        "values": [round(x, 6) if np.isfinite(x) else None for x in grid.ravel().tolist()],
        "marks": marks.ravel().tolist(),
        "notes": notes.ravel().tolist(),
        "low": -largest if signed else 0.0,
        "high": largest or 1.0,
        "signed": signed,
        "cursor": {"layer": int(best[0]), "head": int(best[1])},
        "prefix": str(Head(0, 0, str(first["sublayer"]), str(first["stack"]))).removesuffix("0.0"),
        "label": f"{kind}: {value} of every head",
        "verdict": f"verdict: {kind}",
        "hint": "Point at a head to read it, click it to open it. With the keyboard: Tab, arrows, Enter.",
    }


def _note(row: dict[Any, Any], value: str) -> str:
    shown = list(dict.fromkeys([value, "score", "effect"]))
    parts = [f"{_NAMES.get(name, name)} {_number(row, name)}" for name in shown if not pd.isna(row.get(name, np.nan))]
    if pd.isna(row.get("effect", np.nan)):
        parts.append("not ablated")
    return " · ".join([*parts, str(row["verdict"])] if row["verdict"] else parts)


def _number(row: dict[Any, Any], name: str) -> str:
    low, high = row.get(f"{name}_low", np.nan), row.get(f"{name}_high", np.nan)
    interval = "" if pd.isna(low) else f" ({low:.2f} to {high:.2f})"
    return f"{row[name]:.2f}{interval}"
