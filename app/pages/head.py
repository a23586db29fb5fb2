"""Head: what one head attends to on a prompt and why, what is known about it, and examples of its own."""

from __future__ import annotations

import streamlit as st

from app import models, state, store
from app.components.text import notice, plain
from app.components.token_attention import token_attention
from app.head_facts import known, own_examples
from app.inside import inside, take
from interp.errors import InterpError
from interp.sites import Head


def _choose_head(addresses: list[str], best: str) -> str:
    chosen = state.get("head") or best
    if chosen not in addresses:
        complaint = (
            f"There is no head {chosen}: heads go from {addresses[0]} to {addresses[-1]}. {best} is shown instead."
        )
        state.refuse("head", complaint, best)
        st.rerun()
    st.selectbox("Head (layer.head)", addresses, help="Type to search, e.g. 18.6", **state.widget("head", chosen))
    return chosen


def _take_prompt() -> None:
    state.put("prompt", st.session_state["widget:prompt"])


def _prompt_form() -> None:
    st.session_state["widget:prompt"] = state.get("prompt")
    with st.form("prompt form", border=False):
        text, button = st.columns([8, 2], vertical_alignment="bottom")
        text.text_area("Prompt", key="widget:prompt", height=70, max_chars=state.MAX_PROMPT)
        button.form_submit_button("Show attention", type="primary", help="Ctrl+Enter", on_click=_take_prompt)


def _attention(model: str, head: Head) -> None:
    try:
        with st.spinner("Running the model…", show_time=True):
            found = models.attention(model, head, state.get("prompt"), bos=state.get("bos"))
    except InterpError as error:
        notice(str(error), "error")
        return
    if found.n_left_out:
        shown = len(found.tokens)
        notice(f"The prompt has {shown + found.n_left_out:,} tokens; the first {shown} are shown.", "warning")
    take(token_attention(found.tokens, found.weights, has_bos=found.has_bos, key="attention", ask=True))


columns = st.columns([5, 3, 3, 2], vertical_alignment="bottom")
with columns[0]:
    run = store.choose_run()
    if run is None:
        plain("No run is stored yet, so only the attention can be shown; the Atlas page fills the store.")
with columns[1]:
    model_name = models.choose_model(run.model if run is not None else None)
try:
    if run is not None:
        ranked = store.addresses(store.results(run).top(n=1))
        addresses = sorted(set(store.summaries(run)["head"]), key=Head.parse)
    else:
        addresses = models.heads_of(models.loaded(model_name))
        ranked = addresses
except InterpError as error:
    notice(str(error), "error")
    st.stop()
with columns[2]:
    head = _choose_head(addresses, ranked[-1])
with columns[3]:
    st.toggle("BOS in front", help="Scores are measured with one BOS in front", **state.widget("bos", state.get("bos")))
if run is not None and run.model and run.model != model_name:
    notice(f"The attention below is {model_name}'s; the scores are of {run.model}.", "warning")
_prompt_form()
_attention(model_name, Head.parse(head))
inside(model_name, Head.parse(head))
if run is not None:
    known(run, head)
asked = own_examples(model_name, run, head)
own = run.model if run is not None else None
state.write_back(
    run=run.id if run is not None else None,
    head=head,
    kind=state.get("kind") if run is not None and state.get("kind") in store.results(run).kinds else None,
    examples=asked,
    edge=state.get("edge"),
    view=state.get("view"),
    prompt=state.get("prompt"),
    bos=state.get("bos"),
    model=model_name if model_name != own else None,
)
