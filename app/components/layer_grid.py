"""All heads of a layer as small pictures on one canvas; a click or Enter opens a head."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from streamlit.components.v2 import component

from app.layer import LayerAttention, pooled
from interp.sites import Head

__all__ = ["grid_data", "layer_grid"]

_HERE = Path(__file__).parent
_SCRIPTS = ("colour.js", "tokens.js", "layer_grid.js")
_component = component(
    "interp.layer_grid",
    html=(_HERE / "layer_grid.html").read_text(),
    css=(_HERE / "layer_grid.css").read_text(),
    js="".join((_HERE / name).read_text() for name in _SCRIPTS),
)


def layer_grid(found: LayerAttention, head: Head, *, weighted: bool, key: str) -> str | None:
    """Draw the layer of a head; returns the address of the head that was just opened, else None."""
    data = grid_data(found, head, weighted=weighted)
    opened = _component(key=key, data=data, on_open_change=lambda: None).open
    return opened if isinstance(opened, str) and opened in data["heads"] else None


def grid_data(found: LayerAttention, head: Head, *, weighted: bool) -> dict[str, Any]:
    """Tokens, addresses and the pictures of all heads: square roots of shares of the largest weight of the layer (of 1
    where nothing is `weighted`) as bytes, head by head and row by row. Long prompts are pooled by their maximum."""
    pictures, by = [], 1
    for number in range(len(found.weights)):
        picture, by = pooled(found.of(number, weighted=weighted))
        pictures.append(picture)
    made = np.stack(pictures)
    most = max(float(made.max()), 1e-9) if weighted else 1.0
    cells = np.rint(np.sqrt(np.clip(made / most, 0.0, 1.0)) * 255).astype(np.uint8)
    heads = [str(Head(head.layer, number, head.sublayer, head.stack)) for number in range(len(made))]
    return {
        "tokens": found.tokens,
        "heads": heads,
        "chosen": str(head),
        "size": made.shape[1],
        "by": by,
        "most": most,
        "cells": base64.b64encode(cells.tobytes()).decode("ascii"),
        "label": f"Attention of the {len(heads)} heads of layer {head.layer}",
    }
