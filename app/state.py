"""What pages share and remember: the run, the kind, the head, the prompt; what is patched,
read and drawn.

Settings live in `st.session_state`, are seeded once from the checked query parameters, and are written back to the
address on every run, so that each address can be opened by someone else. (Binding widgets to query parameters directly
lost values when pages changed.)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any, NoReturn

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

from interp.errors import InputError
from interp.sites import Head

__all__ = [
    "MAX_PAIR_TEXT",
    "MAX_PROMPT",
    "MAX_TOKEN_TEXT",
    "complaints",
    "get",
    "left_out",
    "put",
    "refuse",
    "seed",
    "take",
    "widget",
    "write_back",
]

MAX_PROMPT = 20_000  # characters
MAX_PAIR_TEXT = 4_000  # of one text of a pair
MAX_TOKEN_TEXT = 200  # of an answer, a foil, or all pins
_MAX_IN_ADDRESS = 2_000  # a longer prompt is not written into the address
_PREFIX, _COMPLAINTS, _SEEDED = "setting:", "setting complaints", "settings seeded"
_DEFAULT_PROMPT = (
    "When Mary and John went to the store, John gave a drink to Mary. When Mary and John went to the store, John gave"
)


@dataclass(frozen=True)
class _Setting:
    """A shared value: its default, how it is read from an address (raising `InputError`), and how it is written."""

    default: Any
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str


def _name(text: str) -> str:
    if not re.fullmatch(r"[\w.:+@/ -]{1,120}", text):
        raise InputError(f"{_short(text)} is not a name. It was left out.")
    return text


def _head(text: str) -> str:
    if len(text) > 40:
        raise InputError(f'{_short(text)} is not a head. Write layer.head, as in "23.4".')
    return str(Head.parse(text))


def _prompt(text: str) -> str:
    if not text.strip() or len(text) > MAX_PROMPT:
        raise InputError(f"The prompt has {len(text):,} characters. Give 1 to {MAX_PROMPT:,}.")
    return text


def _pair_text(text: str) -> str:
    if len(text) > MAX_PAIR_TEXT:
        raise InputError(f"It has {len(text):,} characters. Give at most {MAX_PAIR_TEXT:,}.")
    return text


def _axes(text: str) -> str:
    if not re.fullmatch(r"[a-z_]{1,20}(,[a-z_]{1,20})*", text):
        raise InputError(f"{_short(text)} names no axes. Write them as in layer,pos.")
    return text


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise InputError(f"{_short(text)} is neither 0 nor 1.")
    return text == "1"


def _token_text(text: str) -> str:
    if len(text) > MAX_TOKEN_TEXT:
        raise InputError(f"It has {len(text):,} characters. Give at most {MAX_TOKEN_TEXT}.")
    return text


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII):
        raise InputError(f"{_short(text)} is not a whole number.")
    return int(text)


def _step(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise InputError(f"{_short(text)} is not a step of a training.")
    return int(text)


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise InputError(f"{_short(text)} is no day. Write it as in 2026-01-31.") from None


def _edge(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,5},[0-9]{1,5}", text, re.ASCII):
        raise InputError(f"{_short(text)} is not an edge. Write destination,source as in 5,3.")
    return text


_SETTINGS = {
    "run": _Setting(None, _name),
    "kind": _Setting(None, _name),
    "value": _Setting("score", _name),
    "verdict": _Setting("all", _name),
    # Atlas: the order of its table, and what its map is held against: a run and a kind, beside it or as a difference.
    "sort": _Setting("highest", _name),
    "against_run": _Setting(None, _name),
    "against": _Setting(None, _name),
    "compared": _Setting("beside", _name),
    "examples": _Setting(None, _name),
    "model": _Setting(None, _name),
    "head": _Setting(None, _head),
    "prompt": _Setting(_DEFAULT_PROMPT, _prompt),
    "bos": _Setting(True, _switch, lambda on: "1" if on else "0"),
    "chat": _Setting(False, _switch, lambda on: "1" if on else "0"),
    # The Patching page: None means as the run that is shown, and without one the page's default.
    "effects": _Setting(None, _name),
    "clean": _Setting(None, _pair_text),
    "corrupt": _Setting(None, _pair_text),
    "answer": _Setting(None, _pair_text),
    "foil": _Setting(None, _pair_text),
    "site": _Setting(None, _name),
    "over": _Setting(None, _axes),
    "direction": _Setting(None, _name),
    "metric": _Setting(None, _name),
    "share": _Setting(False, _switch, lambda on: "1" if on else "0"),
    # Lens and attribution, Flow, and what the Head page says of one edge: None means the model's own choice.
    "answer_token": _Setting(None, _token_text),
    "foil_token": _Setting(None, _token_text),
    "pins": _Setting("", _token_text),
    "lens": _Setting("logit", _name),
    "pos": _Setting(None, _count),
    "by": _Setting("component", _name),
    "edges": _Setting(150, _count),
    "nodes": _Setting(200, _count),
    "weight": _Setting("moved", _name),
    "apart": _Setting(False, _switch, lambda on: "1" if on else "0"),
    "to_last": _Setting(False, _switch, lambda on: "1" if on else "0"),
    "alone": _Setting("rollout", _name),
    "edge": _Setting(None, _edge),
    "weighted": _Setting(False, _switch, lambda on: "1" if on else "0"),
    # Probes: a run of probes, one of its targets and places, a test of use; None means the first or the best.
    "probes": _Setting(None, _name),
    "target": _Setting(None, _name),
    "place": _Setting(None, _name),
    "use": _Setting(None, _name),
    "view": _Setting("layer", _name),
    # Training: a run that is played, and where its reader stands; None means the newest, its end, its best head.
    "training": _Setting(None, _name),
    "step": _Setting(None, _step),
    "train_head": _Setting(None, _head),
    "train_kind": _Setting(None, _name),
    # Runs: what is searched for, the run that is looked at, and the one it is compared with.
    "search": _Setting("", _token_text),
    "run_kind": _Setting(None, _name),
    "since": _Setting(None, _day),
    "until": _Setting(None, _day),
    "picked": _Setting(None, _name),
    "other": _Setting(None, _name),
}


def seed() -> None:
    """Take the settings from the address, once a session. What cannot be read is left out, and said."""
    if _SEEDED in st.session_state:
        return
    st.session_state[_SEEDED], st.session_state[_COMPLAINTS] = True, {}
    for name, setting in _SETTINGS.items():
        st.session_state[_PREFIX + name] = setting.default
        if name in st.query_params:
            try:
                st.session_state[_PREFIX + name] = setting.read(st.query_params[name])
            except InputError as error:
                refuse(name, f"{name} in the address: {error}", setting.default)


def get(name: str) -> Any:
    """The value of a setting; None where nothing was chosen."""
    if _SEEDED not in st.session_state:
        _start_over()
    return st.session_state[_PREFIX + name]


def put(name: str, value: Any) -> None:
    """Choose a value; what was complained about before is settled."""
    assert name in _SETTINGS, name
    st.session_state[_PREFIX + name] = value
    st.session_state[_COMPLAINTS].pop(name, None)


def take(name: str, text: str | None) -> None:
    """Choose a value as an address writes it; None, and what cannot be read, is the default."""
    try:
        put(name, _SETTINGS[name].default if text is None else _SETTINGS[name].read(text))
    except InputError:
        put(name, _SETTINGS[name].default)


def refuse(name: str, complaint: str, instead: Any) -> None:
    """Replace a value that cannot be used, and say so until another is chosen."""
    st.session_state[_PREFIX + name] = instead
    st.session_state[_COMPLAINTS][name] = complaint


def complaints() -> list[str]:
    """What was refused, and why."""
    return list(st.session_state[_COMPLAINTS].values())


def widget(name: str, value: Any) -> dict[str, Any]:
    """Key and callback of a widget that shows a setting and changes it: `st.selectbox(…, **widget("kind", kind))`."""
    key = f"widget:{name}"
    st.session_state[key] = value
    return {"key": key, "on_change": lambda: put(name, st.session_state[key])}


def write_back(**shown: Any) -> None:
    """Make the address of this page reproduce what it shows. None and values at their default are left out."""
    wanted = {}
    for name, value in shown.items():
        setting = _SETTINGS[name]
        if value is not None and value != setting.default:
            text = setting.write(value)
            if len(text) <= _MAX_IN_ADDRESS:
                wanted[name] = text
    if st.query_params.to_dict() != wanted:
        st.query_params.from_dict(wanted)


def left_out() -> list[str]:
    """The settings whose values are too long for an address, so that a link does not bring them back."""
    values = {name: st.session_state.get(_PREFIX + name) for name in _SETTINGS}
    return [
        name.replace("_", " ")
        for name, value in values.items()
        if isinstance(value, str) and len(_SETTINGS[name].write(value)) > _MAX_IN_ADDRESS
    ]


def _start_over() -> NoReturn:
    """Run main.py after all: when the first address that a server is asked for is a page's, Streamlit takes `pages/`
    for its own and runs that page alone, until it learns that the app has its own navigation."""
    PagesManager.uses_pages_directory = False  # as st.navigation does, which would fetch the page's icon for the tab
    st.rerun()


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
