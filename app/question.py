"""What several pages are asked about: a prompt, an answer with its foil, tokens to be followed."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import models, state
from app.components.text import notice
from interp.errors import InputError, InterpError
from interp.pairs.answers import answer_ids

__all__ = ["named", "question_form", "read", "token", "tokens"]

_LABELS = {"prompt": "Prompt", "answer_token": "Answer", "foil_token": "Foil", "pins": "Pinned tokens"}
_HELP = {
    "answer_token": "One token. Left empty: what the model itself predicts. A space in front is added where the text "
    "asks for one.",
    "foil_token": "One token, whose logit is taken off. May be empty.",
    "pins": "Followed through the layers: one token each, with spaces between them.",
}
_MODEL_SAYS = "what the model predicts"


def question_form(*texts: str, button: str, chat: bool = False) -> str:
    """Model, BOS, prompt and some short texts; returns the model's name. Nothing is asked before the button. With
    `chat`, the prompt may also be put into the model's chat template."""
    columns = st.columns([5, 2, 2] if chat else [5, 2], vertical_alignment="bottom")
    with columns[0]:
        model = models.choose_model(None)
    templated = chat and _template_toggle(model, columns[2])
    with columns[1]:
        help_text = "The chat template says itself" if templated else "As scores of heads are measured"
        st.toggle("BOS in front", help=help_text, disabled=templated, **state.widget("bos", state.get("bos")))
    for name in ("prompt", *texts):
        st.session_state[f"widget:{name}"] = state.get(name) or ""
    with st.form("question", border=False):
        st.text_area(_LABELS["prompt"], key="widget:prompt", height=70, max_chars=state.MAX_PROMPT)
        with st.container(horizontal=True, vertical_alignment="bottom"):
            for name in texts:
                said = _MODEL_SAYS if name == "answer_token" else None
                most = state.MAX_TOKEN_TEXT
                st.text_input(
                    _LABELS[name], key=f"widget:{name}", max_chars=most, help=_HELP[name], placeholder=said, width=190
                )
            st.form_submit_button(button, type="primary", on_click=_take, args=(("prompt", *texts),))
    return model


def _template_toggle(model: str, place: DeltaGenerator) -> bool:
    """Whether the prompt goes into the model's chat template; a model without one has nothing to switch."""
    try:
        with st.spinner("Loading the model…", show_time=True):
            template = getattr(models.loaded(model).tokenizer, "chat_template", None)
    except InterpError:  # said where the prompt is read
        template = None
    if template is None and state.get("chat"):
        state.refuse("chat", f"{model} has no chat template, so the prompt is read as it is.", False)
        st.rerun()
    help_text = "This model has none" if template is None else "The prompt becomes a user's message"
    bound = state.widget("chat", state.get("chat"))
    place.toggle("Chat template", help=help_text, disabled=template is None, **bound)
    return bool(state.get("chat"))


def _take(names: tuple[str, ...]) -> None:
    for name in names:
        given = st.session_state[f"widget:{name}"]
        if name == "prompt" and given != state.get("prompt"):
            state.put("pos", None)
        empty = "" if name in ("prompt", "pins") else None
        state.put(name, given if given.strip() else empty)


def read(model: str, *, limit: int, chat: bool = False) -> models.ReadPrompt | None:
    """The prompt as tokens, or None after saying why it cannot be read."""
    try:
        with st.spinner("Loading the model…", show_time=True):
            found = models.read_prompt(model, state.get("prompt"), bos=state.get("bos"), limit=limit, chat=chat)
    except InterpError as error:
        notice(str(error), "error")
        return None
    if found.n_left_out:
        n = len(found.ids)
        notice(f"The prompt has {n + found.n_left_out:,} tokens; the first {n} are shown.", "warning")
    return found


def named(tokens: list[str], pos: int) -> str:
    """A token of the prompt with its place, as a choice shows it."""
    return f"{pos}: {tokens[pos]!r}"


def token(model: str, prompt: models.ReadPrompt, what: str, pos: int) -> int | None:
    """The one token that a setting names behind a position of the prompt; None where it is empty. Raises `InputError`
    for several tokens and for one that the vocabulary lacks."""
    text = state.get(what)
    return None if text is None else _single(model, prompt, _LABELS[what].lower(), text, pos)


def tokens(model: str, prompt: models.ReadPrompt, what: str) -> tuple[int, ...]:
    """The tokens that a setting names with spaces between them. What is no single token is left out, and said."""
    found = []
    for text in state.get(what).split():
        try:
            found.append(_single(model, prompt, "pinned token", text, len(prompt.ids) - 1))
        except InputError as error:
            notice(f"{error} It is left out.", "warning")
    return tuple(dict.fromkeys(found))


def _single(model: str, prompt: models.ReadPrompt, what: str, text: str, pos: int) -> int:
    tokenizer = models.loaded(model).tokenizer
    ids = answer_ids(tokenizer, text, tokenizer.decode(prompt.ids[: pos + 1]))
    if len(ids) != 1:
        pieces = " + ".join(repr(piece) for piece in tokenizer.str_tokens(ids))
        raise InputError(f"The {what} {text!r} is {len(ids)} tokens: {pieces}. Give one token.")
    if ids[0] == tokenizer.unk_id and text.strip() != tokenizer.unk_token:
        raise InputError(f"The {what} {text!r} is not in this vocabulary.")
    return ids[0]
