"""Attention of one head over the tokens of a prompt: tokens, weights and a matrix, all drawn in the browser."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from streamlit.components.v2 import component

__all__ = ["attention_data", "token_attention"]

_HERE = Path(__file__).parent
_component = component(
    "interp.token_attention",
    html=(_HERE / "token_attention.html").read_text(),
    css=(_HERE / "token_attention.css").read_text(),
    js="".join((_HERE / name).read_text() for name in ("colour.js", "tokens.js", "token_attention.js")),
)


def token_attention(
    tokens: list[str],
    weights: np.ndarray,
    *,
    has_bos: bool,
    key: str,
    start: int | None = None,
    marks: Mapping[int, str] | None = None,
    compact: bool = False,
    ask: bool = False,
    weighted: bool = False,
) -> tuple[int, int] | None:
    """Draw `weights[q_pos, k_pos]` over the tokens. Nothing the reader does in it reaches the server, but with `ask` a
    click on a row of the list, whose query and key are returned.

    `start` is the token whose row is shown first (the last one by default), `marks` are words behind some tokens;
    `compact` leaves the matrix out. `weighted` weights are attention times what values carry: numbers without a bound,
    drawn as shares of the largest.
    """
    data = attention_data(tokens, weights, has_bos=has_bos, weighted=weighted)
    more = {
        "start": start,
        "marks": {str(i): word for i, word in (marks or {}).items()},
        "compact": compact,
        "ask": ask,
        "weighted": weighted,
    }
    edge = _component(key=key, data=data | more, on_edge_change=lambda: None).edge
    if not isinstance(edge, str) or not re.fullmatch(r"[0-9]{1,5},[0-9]{1,5}", edge, re.ASCII):
        return None
    query, key_pos = map(int, edge.split(","))
    return (query, key_pos) if max(query, key_pos) < len(tokens) else None


def attention_data(tokens: list[str], weights: np.ndarray, *, has_bos: bool, weighted: bool = False) -> dict[str, Any]:
    """Tokens as text and weights as base64 of little-endian 16-bit fractions of `scale`, row by row: of 1, or of the
    largest where they are `weighted`."""
    assert weights.shape == (len(tokens), len(tokens)), weights.shape
    scale = max(float(weights.max()), 1e-9) if weighted else 1.0
    fractions = np.rint(np.clip(weights.astype(np.float32) / scale, 0.0, 1.0) * 65535).astype("<u2")
    sent = base64.b64encode(fractions.tobytes()).decode("ascii")
    return {"tokens": tokens, "weights": sent, "scale": scale, "has_bos": has_bos}
