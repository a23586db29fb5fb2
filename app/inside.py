"""One edge of a head on the Head page: why the query attended to the key, and what the head wrote of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
import torch

import interp
from app import models, state
from app.components.text import plain, table
from app.computing import computed
from app.keeping import keep
from app.layer import LayerAttention
from app.question import named
from interp.circuits.ov import written
from interp.results.explanation import AttentionExplanation
from interp.sites import Head

__all__ = ["inside", "take"]

_VIEWS = {"layer": "layer", "head": "head"}
_TOP = 7  # sources of a side
_SIDES = {"query": "destination", "key": "source"}  # as the app calls them
_COLUMNS = {f"{side} side": f"{word} part" for side, word in _SIDES.items()} | {
    "query source × key source": "destination part × source part"
}
_SOURCES = 10  # tokens that the head reads
_CONTEXT = "edge chosen for"
_PAIRS = 4


@dataclass(frozen=True)
class _OneHead:
    """What one head attends to: `weights[q_pos, k_pos]`."""

    tokens: list[str]
    weights: np.ndarray


@dataclass(frozen=True)
class _Edge:
    """What is explained: one query and key of a prompt in a head."""

    model: str
    head: Head
    prompt: _OneHead
    ids: tuple[int, ...]
    query: int
    key: int

    @property
    def seen(self) -> list[int]:
        return _seen(self.prompt, self.query)

    @property
    def name(self) -> str:
        return f"{self.head} from {self.query} to {self.key}"

    def text(self, model: Any) -> torch.Tensor:
        return torch.tensor([self.ids], device=model.device)


@dataclass(frozen=True)
class _Written:
    """What a head wrote at the query: tokens for the key, and direct logits of each source."""

    tokens: pd.DataFrame
    sources: pd.DataFrame
    answer: str
    leaves_out: str


def take(edge: tuple[int, int] | None) -> None:
    """Choose the edge that was just clicked in the attention above."""
    if edge is not None:
        state.put("edge", f"{edge[0]},{edge[1]}")


def inside(model: str, head: Head, layer: LayerAttention) -> tuple[int, int]:
    """Explain one edge of a head on the prompt; returns its destination and source."""
    st.markdown("#### Inside one edge")
    found = _OneHead(layer.tokens, layer.weights[head.head])
    query, key = _choose(found)
    edge = _Edge(model, head, found, layer.ids, query, key)
    left, right = st.columns(2, gap="large")
    with left:
        _why(edge)
    with right:
        _wrote(edge)
    return query, key


def _seen(found: _OneHead, query: int) -> list[int]:
    """The keys that a query may see: those it attends to, however little; 16 bits may round that to 0."""
    return [k for k in range(len(found.tokens)) if found.weights[query, k] > 0 or k <= query]


def _choose(found: _OneHead) -> tuple[int, int]:
    """Query and key; what was chosen for another prompt is forgotten. At first the last token and what it reads most,
    the first token left out."""
    context = (state.get("prompt"), state.get("bos"))
    if st.session_state.setdefault(_CONTEXT, context) != context:
        st.session_state[_CONTEXT] = context
        state.put("edge", None)
    n, asked = len(found.tokens), state.get("edge")
    query, key = map(int, asked.split(",")) if asked else (n - 1, None)
    if asked and not (query < n and key in _seen(found, query)):
        state.refuse(
            "edge", f"There is no edge {asked}: tokens are 0 to {n - 1}, and a destination sees no later source.", None
        )
        st.rerun()
    key = _heaviest(found, query) if key is None else key
    bound = state.widget("edge", None)["key"]

    def choose(side: str) -> None:
        if side == "query":
            new = st.session_state[f"{bound} query"]
            state.put("edge", f"{new},{key if key in _seen(found, new) else _heaviest(found, new)}")
        else:
            state.put("edge", f"{query},{st.session_state[f'{bound} key']}")

    with st.container(horizontal=True, vertical_alignment="bottom"):
        sides = (("query", "Destination", list(range(n)), query), ("key", "Source", _seen(found, query), key))
        for side, words, options, value in sides:
            st.session_state[f"{bound} {side}"] = value
            st.selectbox(
                f"{words} token",
                options,
                format_func=lambda one: named(found.tokens, one),
                key=f"{bound} {side}",
                on_change=choose,
                args=(side,),
                width=220,
            )
        plain(f"Attention {float(found.weights[query, key]):.3f}. A click on a row beside the tokens chooses its edge.")
    return query, key


def _heaviest(found: _OneHead, query: int) -> int:
    seen = _seen(found, query)
    return max([k for k in seen if k > 0] or seen, key=lambda k: float(found.weights[query, k]))


# ---- why ----


def _why(edge: _Edge) -> None:
    st.markdown("##### Why did it attend here?")
    view = state.get("view")
    if view not in _VIEWS:
        state.refuse("view", f"Sources cannot be shown by {view}; choose {', '.join(_VIEWS)}.", "layer")
        st.rerun()
    st.selectbox("Earlier attention by", list(_VIEWS), width=180, **state.widget("view", view))
    found = _explained(edge, view, confirm=False)
    if found is None:
        return
    what = "score less its mean over the other sources" if found.measure == "contrast" else "score"
    plain(
        f"The {what} is {found.total():.2f}. It is the sum of these parts and the smaller ones, exactly: each column "
        "for itself, the largest first, so a row joins nothing. 0_mlp_out is what the MLP of layer 0 wrote."
    )
    table(found.top(_TOP).rename(columns=_COLUMNS))
    st.markdown("**Which belong together**: what the two sides alone do not account for")
    table(_together(found))
    with st.expander("Map of these parts"):
        figure = found.plot(n=10)
        figure.update_layout(xaxis_title="source part", yaxis_title="destination part")
        figure.update_traces(hovertemplate="destination part %{y}, source part %{x}: %{z:.3f}<extra></extra>")
        figure.update_layout(title=None, height=420, margin={"t": 16, "l": 8, "r": 8, "b": 8})
        st.plotly_chart(figure, key="sources", config={"displaylogo": False})
    plain(found.leaves_out)
    found = _confirm(edge, view) or found
    about = found.about
    spec = {"analysis": "explain", "text": state.get("prompt"), "tokens": list(edge.ids), "head": str(edge.head)}
    spec |= {"query": edge.query, "key": edge.key, "view": view, "against": about.get("against")}
    spec |= {"confirm": found.confirmed is not None, "replace_with": about.get("replaced_with")}
    key = (
        "explain",
        models.content_hash(edge.model),
        str(edge.head),
        edge.ids,
        edge.query,
        edge.key,
        view,
        found.confirmed is not None,
    )
    keep(found, key, edge.model, spec, f"head {edge.head} of {edge.model}: {edge.query} → {edge.key}")


def _explained(edge: _Edge, view: str, *, confirm: bool) -> AttentionExplanation | None:
    others = [k for k in edge.seen if k not in (0, edge.key)]
    against = "others" if others else "all" if len(edge.seen) > 1 else None

    def work() -> AttentionExplanation:
        model = models.loaded(edge.model)
        return interp.explain_attention(
            model,
            edge.text(model),
            edge.head,
            edge.query,
            edge.key,
            view=view,
            against=against,
            confirm=confirm,
            replace_with="mean" if len(others) > 1 else "zero",
        )

    key = ("explain", models.content_hash(edge.model), str(edge.head), edge.ids, edge.query, edge.key, view, confirm)
    if not confirm:
        return computed(f"Explanation of {edge.name}", key, work)
    note = "Replaces the three largest sources of each side, one at a time, and runs the model on."
    return computed(f"Confirmation of {edge.name}", key, work, button="Confirm by intervention", note=note)


def _together(found: AttentionExplanation) -> pd.DataFrame:
    """The pairs of sources with the largest interaction either way."""
    grid = found.interaction()
    flat = grid.values.ravel()
    rows = []
    for place in np.argsort(-np.abs(flat), kind="stable")[:_PAIRS]:
        q, k = np.unravel_index(place, grid.shape)
        names = (str(grid[f"{side}_source"].values[i]) for side, i in (("query", q), ("key", k)))
        rows.append({"destination part × source part": " × ".join(names), "interaction": f"{flat[place]:+.2f}"})
    return pd.DataFrame(rows)


def _confirm(edge: _Edge, view: str) -> AttentionExplanation | None:
    """The explanation with what replacing sources did, once that was asked for."""
    found = _explained(edge, view, confirm=True)
    if found is None or found.confirmed is None:
        return None
    rows, about = found.confirmed, found.about
    names = [f"{_SIDES[side]} part: {source}" for side, source in zip(rows["side"], rows["source"], strict=True)]
    shown = pd.DataFrame({"replaced": names})
    shown["attention"] = [f"{a:.3f} → {b:.3f}" for a, b in zip(rows["attention"], rows["attention_after"], strict=True)]
    if bool(rows["answer"].notna().to_numpy().all()):
        shown[f"logit of {about['answer']!r}"] = [
            f"{a:.2f} → {b:.2f}" for a, b in zip(rows["answer"], rows["answer_after"], strict=True)
        ]
    st.markdown("**Confirmed by replacing one source**, norms recomputed")
    table(shown)
    read = f" The answer is read at {about['read']}: {about['read_because']}." if about.get("read_because") else ""
    plain(f"Replaced with {about['replaced_with']}. Only this edge is touched.{read}")
    return found


# ---- what ----


def _wrote(edge: _Edge) -> None:
    st.markdown("##### What did it write?")
    key = ("written", models.content_hash(edge.model), str(edge.head), edge.ids, edge.query, edge.key)
    found: _Written | None = computed(f"Writing of {edge.name}", key, lambda: _written(edge))
    if found is None:
        return
    plain(
        f"Tokens that it promotes and suppresses when it reads {named(edge.prompt.tokens, edge.key)}. Compare these "
        "numbers with each other only: they are for full attention, before the final norm divides."
    )
    table(found.tokens, words=True)
    plain(
        f"What it adds to the logit of {found.answer}, the model's prediction behind the destination, by source "
        "token, in logits:"
    )
    table(found.sources)
    plain(
        f"moved: share of attention × ‖value through W_O‖, which is small where attention rests on little. "
        f"{found.leaves_out}"
    )


@torch.no_grad()
def _written(edge: _Edge) -> _Written:
    model = models.loaded(edge.model)
    own, text = interp.ov(model, edge.head), edge.text(model)
    tokens = own.tokens(text, edge.key, k=min(_TOP, model.cfg.d_vocab)).frame
    sides = {side: tokens.loc[tokens["side"] == side] for side in ("promoted", "suppressed")}
    shown = pd.DataFrame(
        {
            side: [f"{token!r} {logit:+.2f}" for token, logit in zip(rows["token"], rows["logit"], strict=True)]
            for side, rows in sides.items()
        }
    )
    best = int(model(text, unembed_pos=[edge.query])[0, 0].argmax())
    found = own.attribution(text, best, query=edge.query)
    rows = found.frame
    rows["moved"] = _moved(own, text, rows["attention"].to_numpy(dtype=float))
    total = found.about["total"]
    rows = rows.iloc[np.argsort(-np.abs(rows["logit"].to_numpy(dtype=float)), kind="stable")].head(_SOURCES)
    lines = [
        {
            "source": f"{row['pos']}: {row['token']!r}",
            "attention": f"{row['attention']:.3f}",
            "moved": f"{row['moved']:.3f}",
            "logit": f"{row['logit']:+.3f}",
        }
        for row in rows.to_dict("records")
    ]
    lines.append(
        {"source": f"all {len(found.frame)}", "attention": "1.000", "moved": "1.000", "logit": f"{total:+.3f}"}
    )
    return _Written(shown, pd.DataFrame(lines), repr(found.about["answer"][0]), found.leaves_out)


def _moved(own: Any, text: torch.Tensor, attention: np.ndarray) -> np.ndarray:
    """Attention of the query, weighted by the size of what each value becomes in the residual stream; sums to 1."""
    place, site = own.place, f"{own.place.site}hook_v"
    _, cache = own.model.run_with_cache(text, [site], return_type=None)
    made = cache[site][0, :, place.kv_head] @ own.W_O
    sizes = written(place.stack, place.address.layer, made, place.address.sublayer).norm(dim=-1)
    moved = attention * sizes.double().cpu().numpy()
    return moved / max(float(moved.sum()), 1e-30)
