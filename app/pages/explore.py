"""Explore: a prompt, how surprised the model was by each token, and what it expects behind any of them."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import models, state
from app.as_python import of_prompt
from app.components.text import notice, plain, table
from app.components.token_strip import size_strip
from app.components.toolbar import toolbar
from app.computing import computed
from app.exploring import PRESETS, TOP, Preset, Reading, expected, named_tokens, read_through, reading_frame
from app.navigation import open_page
from app.patching import TEXTS
from app.question import named, question_form, read, token
from interp.errors import InputError
from interp.figures.signed_bars import signed_bars

_LEADS = {
    "head": ("Head", "where each head looks on this prompt, and why"),
    "lens": ("Lens and attribution", "what each layer would predict, and which parts write the answer"),
    "flow": ("Flow", "the edges of attention that move most"),
    "patching": ("Patching", "which places decide between this prompt and a corrupt one"),
}
_CODE = """\
logits = model(tokens)[0].float()
log_probs = logits.log_softmax(-1)
surprisal = -log_probs[:-1].gather(-1, tokens[0, 1:, None])[:, 0]
best = logits[{pos}].topk(min({n}, logits.shape[-1]))
for rank, token in enumerate(best.indices.tolist(), 1):
    print(rank, repr(model.to_single_str_token(token)), float(log_probs[{pos}, token].exp()))"""


def _presets() -> None:
    def take(preset: Preset) -> None:
        for name, value in (("prompt", preset.prompt), ("answer_token", preset.answer), ("foil_token", preset.foil)):
            state.put(name, value)
        state.put("pos", None)
        state.put("chat", False)

    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("Try", width="content")
        for name, preset in PRESETS.items():
            st.button(name, key=f"preset {name}", on_click=take, args=(preset,))


def _choose_pos(tokens: list[str]) -> int:
    pos = state.get("pos")
    if pos is not None and pos >= len(tokens):
        state.refuse("pos", f"There is no position {pos}; this prompt has 0 to {len(tokens) - 1}.", None)
        st.rerun()
    return len(tokens) - 1 if pos is None else pos


def _strip(reading: Reading, pos: int) -> None:
    tokens = list(reading.tokens)
    notes = [
        f"{'nothing before it' if one is None else f'surprisal {one:.2f} nats'}; entropy behind it {entropy:.2f} nats"
        for one, entropy in zip(reading.surprisal, reading.entropy, strict=True)
    ]
    chosen = size_strip(tokens, reading.surprisal, notes, what="surprisal", unit="nats", pos=pos, key="tokens")
    if chosen is not None and chosen != pos:
        state.put("pos", chosen)
        st.rerun()
    known = [one for one in reading.surprisal if one is not None]
    if known:
        mean = sum(known) / len(known)
        plain(f"{len(tokens)} tokens; surprisal {mean:.2f} nats on average: −log p of a token, given those before it.")
    else:
        plain("One token: there is nothing that could be surprising.")


def _position_box(tokens: list[str], pos: int) -> None:
    st.selectbox(
        "Expected behind the token",
        list(range(len(tokens))),
        format_func=lambda one: named(tokens, one),
        width=300,
        help="A click on a token above chooses it too.",
        **state.widget("pos", pos),
    )


def _expected(rows: pd.DataFrame) -> None:
    left, right = st.columns([5, 4], gap="medium")
    with left:
        figure = signed_bars(
            [one.replace(" ", "␣") for one in rows["token"]], rows["probability"].tolist(), title="", name="probability"
        )
        figure.update_layout(title=None, height=60 + 26 * len(rows), margin={"t": 8, "l": 8, "r": 8, "b": 8})
        figure.update_traces(marker_color="#3182bd")
        st.plotly_chart(figure, key="expected", config={"displaylogo": False})
    with right:
        table(_said(rows))


def _said(rows: pd.DataFrame) -> pd.DataFrame:
    made: dict[str, Any] = {"role": rows["role"]} if "role" in rows else {}
    made |= {"rank": [f"{one:,}" for one in rows["rank"]], "token": [repr(one) for one in rows["token"]]}
    made |= {"probability": [f"{one:.4f}" for one in rows["probability"]]}
    return pd.DataFrame(made | {"logit": [f"{one:.3f}" for one in rows["logit"]]})


def _pinned(model: str, prompt: models.ReadPrompt, reading: Reading, pos: int) -> pd.DataFrame | None:
    """Answer and foil behind the place, and their logit difference."""
    asked: dict[str, int] = {}
    for role, name in (("answer", "answer_token"), ("foil", "foil_token")):
        try:
            found = token(model, prompt, name, pos)
        except InputError as error:
            notice(str(error), "warning")
            continue
        if found is not None:
            asked[role] = found
    if not asked:
        return None
    st.markdown("#### Answer and foil")
    rows = named_tokens(models.loaded(model), reading, pos, asked)
    table(_said(rows))
    if len(rows) == 2:
        answer, foil = rows["logit"]
        plain(f"Logit difference, answer − foil: {answer - foil:+.3f}")
    return rows


def _leads(model: str, prompt: models.ReadPrompt) -> None:
    st.markdown("#### Look further, with this prompt")
    with st.container(horizontal=True):
        for page, (name, why) in _LEADS.items():
            if st.button(name, key=f"lead {page}", help=why, icon=":material/arrow_forward:"):
                _carry(model, prompt, page)
                open_page(page)


def _carry(model: str, prompt: models.ReadPrompt, page: str) -> None:
    """What the other page needs of this one. A chat becomes the text that its template made."""
    text = state.get("prompt")
    if state.get("chat"):
        text = models.loaded(model).tokenizer.render_chat([{"role": "user", "content": text}])
        for name, value in (("prompt", text), ("bos", False), ("chat", False)):
            state.put(name, value)
    state.put("model", model)
    state.put("edge", None)
    if page != "patching":
        return
    preset = next((one for one in PRESETS.values() if one.prompt == text), None)
    values = {"clean": text, "corrupt": preset.corrupt if preset else text}
    values |= {"answer": state.get("answer_token") or "", "foil": state.get("foil_token") or ""}
    if preset and values["answer"] == preset.answer:
        values["foil"] = preset.corrupt_foil
    for name in TEXTS:
        state.put(name, values[name][: state.MAX_PAIR_TEXT])


def _code(prompt: models.ReadPrompt, model: str, pos: int, pinned: pd.DataFrame | None) -> str:
    lines = [_CODE.format(pos=pos, n=TOP)]
    for row in [] if pinned is None else pinned.to_dict("records"):
        lines.append(f"{row['role']} = float(logits[{pos}, {row['id']}])  # {row['token']!a}")
    return of_prompt(model, prompt, *lines, chat=bool(state.get("chat")))


def _show(model: str, prompt: models.ReadPrompt) -> None:
    key = ("reading", models.content_hash(model), prompt.ids)
    bar = st.container()
    found: Reading | None = computed(
        f"Reading of {len(prompt.ids)} tokens in {model}", key, lambda: read_through(models.loaded(model), prompt)
    )
    if found is None:
        return
    pos = _choose_pos(prompt.tokens)
    _strip(found, pos)
    st.markdown("#### What the model expects")
    _position_box(prompt.tokens, pos)
    rows = expected(models.loaded(model), found, pos)
    _expected(rows)
    pinned = _pinned(model, prompt, found, pos)
    tables: dict[str, Any] = {"tokens": lambda: reading_frame(models.loaded(model), found), "expected": rows}
    tables |= {} if pinned is None else {"answer and foil": pinned}
    with bar:
        toolbar("explore", _code(prompt, model, pos, pinned), tables)
    with st.expander("All tokens as a table"):
        every = reading_frame(models.loaded(model), found)
        quoted = {name: [repr(one) for one in every[name]] for name in ("token", "likeliest_next")}
        table(every.assign(**quoted).rename(columns={"likeliest_next": "likeliest next"}), height="24rem")
    _leads(model, prompt)


def _address(model: str) -> None:
    """The address of what is asked: once before it is computed, so that a link copied meanwhile is of it, and once
    with what was chosen on the way."""
    names = ("prompt", "bos", "answer_token", "foil_token", "chat", "pos")
    state.write_back(
        model=model if model != models.default_model() else None, **{name: state.get(name) for name in names}
    )


_presets()
model_name = question_form("answer_token", "foil_token", button="Ask", chat=True)
prompt = read(model_name, limit=models.MAX_TOKENS, chat=bool(state.get("chat")))
if prompt is not None:
    _address(model_name)
    _show(model_name, prompt)
_address(model_name)
