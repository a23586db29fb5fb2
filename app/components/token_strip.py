"""Tokens of one text, each coloured by a signed number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamlit.components.v2 import component

__all__ = ["token_strip"]

_HERE = Path(__file__).parent
_component = component(
    "interp.token_strip",
    html=(_HERE / "token_strip.html").read_text(),
    css=(_HERE / "token_strip.css").read_text(),
    js="\n".join((_HERE / name).read_text() for name in ("colour.js", "tokens.js", "token_strip.js")),
)


def token_strip(tokens: Sequence[str], values: Sequence[float], ends: tuple[str, str], *, key: str) -> None:
    """Draw tokens on a scale that is the same to both sides of 0; `ends` name what lies below and above it."""
    limit = max((abs(float(one)) for one in values), default=0.0) or 1.0
    data = {"tokens": list(tokens), "values": [float(one) for one in values], "limit": limit, "ends": list(ends)}
    _component(key=key, data=data)
