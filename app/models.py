"""Models and what they do on a prompt. One loaded model serves all sessions and is never changed."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import streamlit as st

import interp
from app import state
from interp.errors import InputError
from interp.families.load import models
from interp.model.transformer import HookedTransformer
from interp.runs.provenance import model_hash
from interp.sites import Head

__all__ = [
    "MAX_TOKENS",
    "ReadPrompt",
    "choose_model",
    "content_hash",
    "default_model",
    "heads_of",
    "installed",
    "loaded",
    "read_prompt",
]

_HASHES: WeakKeyDictionary[HookedTransformer, str] = WeakKeyDictionary()
_HASHING = threading.Lock()
MAX_TOKENS = 512  # of a prompt that is shown at once


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt as a model reads it. `n_left_out` tokens did not fit."""

    ids: tuple[int, ...]
    tokens: list[str]
    has_bos: bool
    n_left_out: int


@st.cache_resource(max_entries=2, show_spinner=False)
def loaded(name: str) -> HookedTransformer:
    """The model of that name, loaded once for all sessions. Raises `InterpError` where there is none."""
    return interp.load(name)


def installed() -> list[str]:
    """Names of the models that load without a path or a download."""
    return [model.name for model in models() if model.installed]


def default_model() -> str:
    """The packaged model, installed or not: loading it says how to get it."""
    return next(iter(installed()), models()[0].name)


def choose_model(own: str | None) -> str:
    """A select box of models, a run's `own` first. Only known names and that one can be chosen."""
    names = list(dict.fromkeys(name for name in (own, *installed(), default_model()) if name))
    chosen = state.get("model")
    if chosen is not None and chosen not in names:
        state.refuse("model", f"{chosen} is not a model of this page; there are {', '.join(names)}.", None)
        st.rerun()
    chosen = chosen or names[0]
    st.selectbox("Model", names, **state.widget("model", chosen))
    return chosen


def content_hash(name: str) -> str:
    """The hash of a model's configuration and weights, which its runs are stored with and its results kept under. It
    is of the model as it is loaded now: one that was loaded anew from another file has another."""
    model = loaded(name)
    with _HASHING:
        if model not in _HASHES:
            _HASHES[model] = model_hash(model)
        return _HASHES[model]


def heads_of(model: HookedTransformer) -> list[str]:
    """The addresses of all self-attention heads of the stack whose text is predicted."""
    stack = model.main
    return [
        str(Head(layer, head, "attn", stack.name))
        for layer, block in enumerate(stack.config.blocks)
        for head in range(block.attn.n_heads)
    ]


def read_prompt(name: str, prompt: str, *, bos: bool, limit: int = MAX_TOKENS, chat: bool = False) -> ReadPrompt:
    """The first `limit` tokens of a prompt; with `chat`, as a user's message in the model's chat template, which says
    itself whether there is a BOS. Raises `InputError` for a model that reads two texts or none, or has no template."""
    model = loaded(name)
    if model.encoder is not None and model.decoder is not None:
        raise InputError(f"{name} reads two texts. This page draws models that read one.")
    if model.tokenizer is None:
        raise InputError(f"{name} has no tokenizer, so it cannot read a prompt.")
    has_bos = bos and model.tokenizer.bos_id is not None
    if chat:
        every = model.tokenizer.encode_chat([{"role": "user", "content": prompt}])
        has_bos = bool(every) and every[0] == model.tokenizer.bos_id
    else:
        every = model.tokenizer.encode(prompt, prepend_bos=has_bos)
    if not every:
        raise InputError("The prompt is empty. Give some text.")
    ids = every[: min(limit, model.cfg.n_ctx)]
    return ReadPrompt(tuple(ids), model.tokenizer.str_tokens(ids), has_bos, len(every) - len(ids))
