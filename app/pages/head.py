"""Head: what one head attends to on a prompt and why, what it does, what is known about it, examples of its own."""

from __future__ import annotations

import streamlit as st

from app import ablating, models, state, store
from app.as_python import of_prompt
from app.components.layer_grid import layer_grid
from app.components.text import notice, plain, table
from app.components.token_attention import token_attention
from app.components.toolbar import Frames, toolbar
from app.head_facts import known, own_examples
from app.inside import inside, take
from app.layer import LayerAttention, edges, habits, layer_attention
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


def _read(model: str, head: Head) -> LayerAttention | None:
    try:
        with st.spinner("Running the model…", show_time=True):
            found = layer_attention(model, head, state.get("prompt"), bos=state.get("bos"))
    except InterpError as error:
        notice(str(error), "error")
        return None
    if found.n_left_out:
        said = (
            f"The prompt has {len(found.tokens) + found.n_left_out:,} tokens; the first {len(found.tokens)} are shown."
        )
        notice(f"{said} What stands further back does not change what these read.", "warning")
    return found


@st.fragment
def _attention(model: str, head: Head, found: LayerAttention) -> None:
    """The tokens, and the edge that is explained: a click on one runs no other part of the page again."""
    weighted, bar = state.get("weighted"), st.container()
    edge = token_attention(
        found.tokens,
        found.of(head.head, weighted=weighted),
        has_bos=found.has_bos,
        key="attention",
        ask=True,
        weighted=weighted,
    )
    take(edge)
    _address()  # at once, so that a link copied while the edge is explained is of this one
    query, key = inside(model, head, found)
    _address()
    tables: Frames = {
        "attention": lambda: edges(found, head.head),
        "heads of the layer": lambda: habits(found, head.layer),
    }
    with bar:
        toolbar(f"head {head}", of_prompt(model, found, *_code(head, query, key)), tables)


def _code(head: Head, query: int, key: int) -> list[str]:
    """Code of the attention, weighted and not, of the edge that is explained, and of the ablation at zero."""
    where = f"{head.stack}." if head.stack else ""
    return [
        f"sites = [f'{where}blocks.{head.layer}.attn.{{name}}' for name in ('hook_pattern', 'hook_v', 'hook_z')]",
        f"_, cache = model.run_with_cache(tokens, sites, stop_at_layer={head.layer + 1})",
        f"attention = cache[sites[0]][0, {head.head}]",
        f"head = interp.ov(model, {str(head)!r})",
        "from interp.circuits.ov import written",
        "made = cache[sites[1]][0, :, head.place.kv_head].to(head.W_O.dtype) @ head.W_O",
        f"carried = written(head.place.stack, {head.layer}, made).norm(dim=-1)",
        "weighted = attention * carried",
        f"edge = float(attention[{query}, {key}])",
        f"zero = interp.Edit(sites[2], 0.0, units=[{head.head}])",
        "ablated = interp.run_with_edits(model, tokens, zero)",
        "print(attention, edge, ablated[0, -1].argmax())",
    ]


def _weighting() -> None:
    st.toggle(
        "Weighted by what is carried",
        help="Attention × ‖value through W_O‖: how much of each source reaches the destination. A head that rests on "
        "the first token often carries next to nothing from it.",
        **state.widget("weighted", state.get("weighted")),
    )


def _layer(head: Head, found: LayerAttention) -> None:
    st.markdown(f"#### All heads of layer {head.layer} on this prompt")
    opened = layer_grid(found, head, weighted=state.get("weighted"), key="layer")
    if opened is not None and opened != str(head):
        state.put("head", opened)
        st.rerun()
    with st.expander("The same as a table: mean attention of each head"):
        table(habits(found, head.layer), wrap="heaviest edge elsewhere")


def _address() -> None:
    """The address of what is shown; the fragment, which runs alone, has it from the page."""
    shown = st.session_state["shown by the head page"]
    changing = ("edge", "view", "weighted", "prompt", "bos", "answer_token", "foil_token")
    state.write_back(**shown, **{name: state.get(name) for name in changing})


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
st.session_state["shown by the head page"] = {
    "run": run.id if run is not None else None,
    "head": head,
    "kind": state.get("kind") if run is not None and state.get("kind") in store.results(run).kinds else None,
    "examples": state.get("examples"),
    "model": model_name if model_name != (run.model if run is not None else None) else None,
}
place = Head.parse(head)
found = _read(model_name, place)
if found is not None:
    _weighting()
    _attention(model_name, place, found)
    ablating.panel(model_name, place, found)
    _layer(place, found)
if run is not None:
    known(run, head)
st.session_state["shown by the head page"]["examples"] = own_examples(model_name, run, head)
_address()
