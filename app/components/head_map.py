"""A layer by head map whose cells open the head: one canvas, hover and arrow keys without a server trip.

(`st.plotly_chart` returns nothing for a click on a heat map, and takes 1.6 s where this takes a tenth.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from streamlit.components.v2 import component

from app.wording import outcomes
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


def head_map(rows: pd.DataFrame, data: dict[str, Any], *, key: str) -> Head | None:
    """Draw what `map_data` made of some rows; returns the head that was just clicked, else None."""
    opened = _component(key=key, data=data, on_open_change=lambda: None).open
    if not opened:
        return None
    layer, head = map(int, str(opened).split("."))
    clicked = rows[(rows["layer"] == layer) & (rows["head"] == head)]
    if clicked.empty:
        return None
    first = clicked.iloc[0]
    return Head(layer, head, str(first["sublayer"]), str(first["stack"]))


def map_data(rows: pd.DataFrame, kind: str, value: str, *, shown: Any = None, name: str = "") -> dict[str, Any]:
    """What the component draws: values by layer and head with None for what was not measured, and a line per cell.

    `marks` are 2 where the verdict names the kind, 1 for any other verdict. `dim` are the cells that a filter leaves
    out; the cursor begins on the best of the others.
    """
    layers, heads = rows["layer"].to_numpy(dtype=int), rows["head"].to_numpy(dtype=int)
    shape = (int(layers.max()) + 1, int(heads.max()) + 1)
    kept = np.ones(len(rows), dtype=bool) if shown is None else np.asarray(shown, dtype=bool)
    grid = np.full(shape, np.nan)
    grid[layers, heads] = rows[value].to_numpy(dtype=float)
    marks, notes = np.zeros(shape, dtype=int), np.full(shape, "not scored", dtype=object)
    dim = np.zeros(shape, dtype=bool)
    for row, outcome, is_shown in zip(rows.to_dict("records"), outcomes(rows), kept, strict=True):
        place = (row["layer"], row["head"])
        marks[place] = {"named": 2, "untested": 0, "failed": 0}.get(str(outcome), 1)
        dim[place] = not is_shown
        notes[place] = _note(row, value, name)
    finite = grid[np.isfinite(grid)]
    largest = float(np.abs(finite).max()) if finite.size else 1.0
    signed = bool((finite < 0).any())
    bright = np.where(dim, np.nan, grid)
    goals = bright if np.isfinite(bright).any() else grid
    best = np.unravel_index(np.nanargmax(goals), shape) if finite.size else (0, 0)
    first = rows.iloc[0]
    return {
        "layers": shape[0],
        "heads": shape[1],
        "values": [round(x, 6) if np.isfinite(x) else None for x in grid.ravel().tolist()],
        "marks": marks.ravel().tolist(),
        "notes": notes.ravel().tolist(),
        "dim": dim.ravel().tolist(),
        "low": -largest if signed else 0.0,
        "high": largest or 1.0,
        "signed": signed,
        "cursor": {"layer": int(best[0]), "head": int(best[1])},
        "prefix": str(Head(0, 0, str(first["sublayer"]), str(first["stack"]))).removesuffix("0.0"),
        "label": f"{kind}: {name or value} of every head",
        "verdict": f"verdict: {kind}",
        "hint": "Point at a head to read it, click it to open it. With the keyboard: Tab, arrows, Enter.",
    }


def _note(row: dict[Any, Any], value: str, name: str) -> str:
    shown = list(dict.fromkeys([value, "score", "effect"]))
    names = {value: name} | _NAMES if name else _NAMES
    parts = [f"{names.get(one, one)} {_number(row, one)}" for one in shown if not pd.isna(row.get(one, np.nan))]
    tested = not pd.isna(row.get("effect", np.nan))
    parts += [] if tested else ["not tested"]
    reason = row.get("reason") if tested or row["verdict"] else None
    return " · ".join([*parts, *(str(text) for text in (row["verdict"], reason) if isinstance(text, str) and text)])


def _number(row: dict[Any, Any], name: str) -> str:
    low, high = row.get(f"{name}_low", np.nan), row.get(f"{name}_high", np.nan)
    interval = "" if pd.isna(low) else f" ({low:.2f} to {high:.2f})"
    return f"{row[name]:.2f}{interval}"
