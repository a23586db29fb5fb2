"""Tokens of one text, each coloured by a number: signed, on a scale about 0, or a size, on a scale from 0 up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamlit.components.v2 import component

__all__ = ["size_strip", "token_strip"]

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
    label = "Tokens, coloured by where they lie along the direction"
    _draw(tokens, [float(one) for one in values], ends, key, label=label, signed=True, low=-limit, high=limit)


def size_strip(
    tokens: Sequence[str],
    values: Sequence[float | None],
    notes: Sequence[str],
    *,
    what: str,
    unit: str,
    pos: int,
    key: str,
) -> int | None:
    """Draw tokens by a size from 0 up, of what and in which unit; None has no colour. `notes` are said at each token.
    Returns the token that was just chosen, by click or Enter, else None; `pos` is marked."""
    high = max((one for one in values if one is not None), default=0.0) or 1.0
    chosen = _draw(
        tokens,
        list(values),
        (what, f" {unit}"),
        key,
        label=f"Tokens, coloured by {what}. Arrow keys move, Enter chooses one.",
        signed=False,
        low=0.0,
        high=high,
        pos=pos,
        notes=list(notes),
        hint="Point at a token to read it; click it to see what was expected behind it.",
    )
    return chosen if isinstance(chosen, int) and 0 <= chosen < len(tokens) else None


def _draw(tokens: Sequence[str], values: list[Any], ends: tuple[str, str], key: str, **more: Any) -> Any:
    data = {"tokens": list(tokens), "values": values, "ends": list(ends), "pos": None, "notes": None, "hint": ""}
    return _component(key=key, data=data | more, on_chosen_change=lambda: None).chosen
