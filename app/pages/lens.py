"""Lens and attribution: what each layer would predict, and what each part writes into the answer's logit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st
import torch

import interp
from app import models, state, store
from app.as_python import call, of_prompt
from app.components.lens_table import lens_table
from app.components.text import notice, plain, table
from app.components.toolbar import Frames, toolbar
from app.computing import computed
from app.keeping import keep
from app.question import named, question_form, read, token, tokens
from interp.errors import InputError
from interp.results.lens import Lens
from interp.results.logit_attribution import LogitAttribution

_MAX_TOKENS = 128
_LIKELY = 3  # tokens of a cell
_ROWS = 15  # of the attribution's chart and table
_BY = {"component": "component", "head": "head", "source": "head and source token"}


def _lens_of(name: str, ids: tuple[int, ...], pins: tuple[int, ...], tuned: str | None) -> Callable[[], Lens]:
    runs = store.run_store()

    def work() -> Lens:
        model = models.loaded(name)
        fitted = None if tuned is None else runs.open(tuned).results()
        followed: Any = pins
        if not pins:
            tokens = torch.tensor([ids], device=model.device)
            with torch.no_grad():
                followed = model(tokens, unembed_pos=[-1])[0, 0].topk(2).indices.tolist()
        kind: Any = "logit" if fitted is None else "tuned"
        return interp.lens(model, [list(ids)], kind=kind, lens=fitted, pins=followed, k=_LIKELY)

    return work


def _choose_lens(model: str) -> str | None:
    """The run of a tuned lens, or None for the logit lens; there is a choice where the store holds any."""
    fitted = {run.id: store.title(run) for run in store.tuned_lenses(model, lambda: models.content_hash(model))}
    chosen = state.get("lens")
    if chosen != "logit" and chosen not in fitted:
        said = f"The store holds no tuned lens {chosen} of {model}. The logit lens is shown instead."
        state.refuse("lens", said, "logit")
        st.rerun()
    if not fitted:
        return None
    options = {"logit": "logit lens", **fitted}
    bound = state.widget("lens", chosen)
    st.selectbox("Lens", list(options), format_func=options.__getitem__, width=420, **bound)
    return None if chosen == "logit" else chosen


def _choose_pos(tokens: list[str]) -> int:
    """The position that the curves and the sum below are of: the last one unless another is chosen."""
    pos = state.get("pos")
    if pos is not None and pos >= len(tokens):
        state.refuse("pos", f"There is no position {pos}; this prompt has 0 to {len(tokens) - 1}.", None)
        st.rerun()
    return len(tokens) - 1 if pos is None else pos


def _lens(model: str, prompt: models.ReadPrompt, pos: int) -> tuple[Lens, list[str]] | None:
    """Draws it; returns it with the lines of code that make it."""
    pins, tuned = tokens(model, prompt, "pins"), _choose_lens(model)
    key = ("lens", models.content_hash(model), prompt.ids, pins, tuned)
    name = f"{'Lens' if tuned is None else 'Tuned lens'} of {len(prompt.ids)} tokens in {model}"
    found: Lens | None = computed(name, key, _lens_of(model, prompt.ids, pins, tuned))
    if found is None:
        return None
    chosen = lens_table(found, prompt.tokens, pos=pos, key="lens")
    if chosen is not None and chosen != pos:
        state.put("pos", chosen)
        st.rerun()
    plain(found.describe())
    st.markdown("#### Ranks of pinned tokens")
    _position_box(prompt.tokens, pos)
    _curves(found, pos, pins)
    kind = "logit" if tuned is None else "tuned"
    spec = {"analysis": "lens", "text": state.get("prompt"), "bos": prompt.has_bos, "kind": kind, "lens": tuned}
    spec |= {"pins": list(found.about["pins"]), "k": _LIKELY, "tokens": list(prompt.ids)}
    keep(found, key, model, spec, f"{kind} lens of {model}: {state.get('prompt')}")
    options: dict[str, Any] = {"pins": list(found.about["pins"].values()), "k": _LIKELY}
    if tuned is None:
        return found, [call("lens", "model", "tokens", result="lens", **options)]
    path = str(store.run_store().path.absolute())
    fitted = f"fitted = interp.RunStore({path!r}).open({tuned!r}).results()"
    asked = call("lens", "model", "tokens", "kind='tuned'", "lens=fitted", result="lens", **options)
    return found, [fitted, asked]


def _position_box(tokens: list[str], pos: int) -> None:
    st.selectbox(
        "Behind the token",
        list(range(len(tokens))),
        format_func=lambda one: named(tokens, one),
        width=300,
        help="The position that the curves and the sum below are read at. A click in the table chooses it too.",
        **state.widget("pos", pos),
    )


def _curves(found: Lens, pos: int, pins: tuple[int, ...]) -> None:
    if not pins:
        plain("No token is pinned, so the two likeliest behind the last one are followed.")
    left, right = st.columns([5, 4], gap="medium")
    with left:
        figure, n = found.plot("ranks", pos=pos), len(set(found.frame["layer"]))
        figure.update_layout(title=None, height=340, margin={"t": 16, "l": 8, "r": 8, "b": 8})
        figure.update_layout(
            legend={"orientation": "h", "y": 1.12},
            yaxis_dtick=1,
            yaxis_title="rank (1: the likeliest)",
            xaxis_dtick=1 if n <= 12 else 5,
        )
        st.plotly_chart(figure, key="ranks", config={"displaylogo": False})
    with right:
        rows = found.at(pos, n=1).iloc[::-1]
        last = ["entropy", "KL"]
        rows = rows[[name for name in rows.columns if name not in last] + last]
        table(rows.rename(columns={name: f"{name}, nats" for name in last}), height="20rem")


def _attribution(model: str, prompt: models.ReadPrompt, pos: int) -> tuple[LogitAttribution, list[str]] | None:
    """Draws it; returns it with the line of code that makes it."""
    st.markdown("#### What writes the answer")
    by = state.get("by")
    if by not in _BY:
        state.refuse("by", f"An answer cannot be split by {by} here; choose {', '.join(_BY)}.", "component")
        st.rerun()
    bound = state.widget("by", by)

    def choose() -> None:
        state.put("by", st.session_state[bound["key"]] or "component")

    st.segmented_control("Split by", list(_BY), format_func=_BY.__getitem__, key=bound["key"], on_change=choose)
    try:
        answer, foil = (token(model, prompt, what, pos) for what in ("answer_token", "foil_token"))
    except InputError as error:
        notice(str(error), "error")
        return None

    def work() -> LogitAttribution:
        own, ids = models.loaded(model), [list(prompt.ids)]
        split: Any = by
        return interp.logit_attribution(own, ids, by=split, answer=answer, foil=foil, read=pos)

    key = ("attribution", models.content_hash(model), prompt.ids, pos, by, answer, foil)
    found: LogitAttribution | None = computed(f"Logit attribution by {by} in {model}", key, work)
    if found is None:
        return None
    _parts(found)
    spec = {"analysis": "logit_attribution", "text": state.get("prompt"), "bos": prompt.has_bos, "by": by, "read": pos}
    spec |= {"answer": answer, "foil": foil, "tokens": list(prompt.ids)}
    keep(found, key, model, spec, f"logit attribution of {model} by {by}: {state.get('prompt')}")
    asked = call("logit_attribution", "model", "tokens", result="parts", by=by, answer=answer, foil=foil, read=pos)
    return found, [asked]


def _parts(found: LogitAttribution) -> None:
    """The largest parts as bars and as a table, and whether all of them sum to the model's own logit."""
    (row,) = found.check.to_dict("records")
    against = f" − {found.about['foil']}" if found.about.get("foil") else ""
    check = f"{found.about['answer']}{against}: {len(found.frame):,} parts sum to {row['sum']:.6f} logits; the model "
    check += f"computed {row['logit']:.6f} (apart by {row['difference']:.1e}, tolerance {row['tolerance']:.1e})."
    if found.ok:
        notice(f"Exact sum: {check}")
    else:
        notice(f"The sum is off, so do not trust these parts. {check}", "error")
    left, right = st.columns([5, 4], gap="medium")
    with left:
        figure = found.plot(_ROWS)
        figure.update_layout(title=None, margin={"t": 16, "l": 8, "r": 8, "b": 8})
        st.plotly_chart(figure, key="parts", config={"displaylogo": False})
    with right:
        table(_shares(found))
    plain(str(found.about.get("left_out", "")))


def _shares(found: LogitAttribution) -> pd.DataFrame:
    """The largest parts, then all others together, so that the column adds up."""
    shown = found.summary(_ROWS)
    rest = len(found.frame) - len(shown)
    if rest > 0:
        others = float(found.frame["value"].to_numpy().sum() - found.top(_ROWS)["value"].to_numpy().sum())
        line = {name: "" for name in shown.columns} | {"part": f"{rest} others", "logits": f"{others:+.3f}"}
        shown = pd.concat([shown, pd.DataFrame([line])], ignore_index=True)
    return shown


def _share(model: str, prompt: models.ReadPrompt, made: list[tuple[Any, list[str]]]) -> None:
    """The bar: the code of what is shown, and its tables."""
    lines = [line for _, some in made for line in some]
    names = [line.partition(" = ")[0] for line in lines if not line.startswith("fitted")]
    tables: Frames = {name: found.to_frame for name, (found, _) in zip(names, made, strict=True)}
    page = made[0][0].to_html if len(made) == 1 else None
    toolbar("lens", of_prompt(model, prompt, *lines, *(f"print({name})" for name in names)), tables, page=page)


def _address(model: str) -> None:
    """The address of what is asked: once before it is computed, so that a link copied meanwhile is of it, and once
    with what was chosen on the way."""
    names = ("prompt", "bos", "answer_token", "foil_token", "pins", "lens", "by", "pos")
    state.write_back(
        model=model if model != models.default_model() else None, **{name: state.get(name) for name in names}
    )


model_name = question_form("answer_token", "foil_token", "pins", button="Ask")
prompt = read(model_name, limit=_MAX_TOKENS)
if prompt is not None:
    pos = _choose_pos(prompt.tokens)
    _address(model_name)
    bar = st.container()
    made = [one for draw in (_lens, _attribution) if (one := draw(model_name, prompt, pos)) is not None]
    if made:
        with bar:
            _share(model_name, prompt, made)
_address(model_name)
