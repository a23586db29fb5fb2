"""Layers by positions with the likeliest token in each cell, drawn and read in the browser; a click chooses a position.

(Token text in the cells of a plotly heat map is not cut to the cell, and its clicks do not reach the page.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from streamlit.components.v2 import component

from interp.results.lens import Lens

__all__ = ["lens_data", "lens_table"]

_HERE = Path(__file__).parent
_SCRIPTS = ("colour.js", "tokens.js", "lens_table.js")
_component = component(
    "interp.lens_table",
    html=(_HERE / "lens_table.html").read_text(),
    css=(_HERE / "lens_table.css").read_text(),
    js="".join((_HERE / name).read_text() for name in _SCRIPTS),
)


def lens_table(found: Lens, tokens: list[str], *, pos: int, key: str) -> int | None:
    """Draw the first prompt of a lens; returns the position that was just clicked, else None. `pos` is marked."""
    chosen = _component(key=key, data=lens_data(found, tokens, pos=pos), on_chosen_change=lambda: None).chosen
    return chosen if isinstance(chosen, int) and 0 <= chosen < len(tokens) else None


def lens_data(found: Lens, tokens: list[str], *, pos: int) -> dict[str, Any]:
    """Plain lists in the order layer, position: likeliest tokens with probabilities, entropy, KL; ranks by pin."""
    order, n_layers = ["layer", "pos"], int(found.frame["layer"].to_numpy().max()) + 1
    places, likely = found.frame.sort_values(order), found.tokens.sort_values([*order, "rank"])
    shape = (n_layers * len(tokens), -1)
    pins = list(dict.fromkeys(found.pins["pin"]))
    pinned = {pin: found.pins.loc[found.pins["pin"] == pin].sort_values(order)["rank"] for pin in pins}
    return {
        "layers": n_layers,
        "tokens": tokens,
        "top": likely["token"].to_numpy(dtype=object).reshape(shape).tolist(),
        "prob": np.round(likely["prob"].to_numpy(dtype=float), 4).reshape(shape).tolist(),
        "kl": places["kl"].round(3).tolist(),
        "entropy": places["entropy"].round(3).tolist(),
        "pins": pins,
        "ranks": [pinned[pin].astype(int).tolist() for pin in pins],
        "pos": pos,
    }
