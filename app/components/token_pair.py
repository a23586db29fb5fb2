"""Two prompts token by token, one over the other, with the tokens marked that differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamlit.components.v2 import component

__all__ = ["token_pair"]

_HERE = Path(__file__).parent
_component = component(
    "interp.token_pair",
    html=(_HERE / "token_pair.html").read_text(),
    css=(_HERE / "token_pair.css").read_text(),
    js=(_HERE / "token_pair.js").read_text(),
)


def token_pair(pairs: Sequence[tuple[str, str]], differ: Sequence[bool], *, key: str) -> None:
    """Draw aligned tokens. `differ` says where the token ids do: two tokens may look the same."""
    _component(key=key, data={"pairs": [list(one) for one in pairs], "differ": list(differ)})
