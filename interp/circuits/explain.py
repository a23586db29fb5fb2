"""One attention edge taken apart: which source of the query matched which source of the key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.places import HeadPlace, ReadText, head_place, must_be_dot, read_text, token_place
from interp.circuits.sources import Source, Stream, project, residual_reads, stream_to
from interp.errors import InputError
from interp.model.attention import distance_bias
from interp.model.cache import ActivationCache
from interp.model.transformer import HookedTransformer
from interp.results.explanation import AttentionExplanation
from interp.sites import Head

__all__ = ["Edge", "explain_attention", "trace_edge"]


@dataclass(frozen=True)
class Edge:
    """One attention edge of one text, with the streams that lead to its query and to all keys."""

    model: HookedTransformer
    place: HeadPlace
    texts: dict[str, ReadText]  # by side: "q" and "k"
    query: int
    key: int
    seen: Int[Tensor, " seen"]  # the keys that the query sees
    cache: ActivationCache
    call: tuple[Any, dict[str, Any]]  # the input of a pass and its options
    row: Float[Tensor, " k_pos"]  # scores of the query as the model has them: capped, biased, masked
    bias: Float[Tensor, " seen"]  # of distances

    def stream(self, side: str, pos: Int[Tensor, " pos"]) -> Stream:
        """What leads to this head's queries or keys at some positions."""
        place, attn = self.place, self.place.attn
        crossing = side == "k" and place.is_cross
        stack = self.model.encoder if crossing else place.stack
        assert stack is not None
        arriving = stream_to(self.cache, stack, None if crossing else place.address, pos)
        made = self.cache[f"{place.site}hook_{side}"][0, pos]
        rows = stack.rows(self.texts[side].ids.shape[1]).at(pos)
        head = place.address.head if side == "q" else place.kv_head
        return project(arriving, attn, "q" if side == "q" else "k", head, rows, made)  # type: ignore[arg-type]

    @property
    def attention(self) -> Float[Tensor, " k_pos"]:
        wide = self.row if self.row.dtype == torch.float64 else self.row.float()
        return wide.softmax(-1)


@torch.no_grad()
def explain_attention(
    model: HookedTransformer,
    text: Any,
    head: Head | str,
    query: int | str,
    key: int | str,
    *,
    view: str = "layer",
    against: str | Sequence[int | str] | None = "others",
    confirm: bool | str | Sequence[str] = False,
    replace_with: str = "mean",
    answer: int | str | None = None,
    foil: int | str | None = None,
    read: int | str | None = None,
    decoder_input: Any = None,
    prepend_bos: bool | None = None,
) -> AttentionExplanation:
    """Split one attention edge's score over (source of the query) × (source of the key), exactly.

    `query` and `key` are tokens of the text, by index or as a piece of it; in cross-attention the query stands in the
    decoder's text and the key in the encoder's. Sources are token and position embeddings, each earlier layer's
    attention (`view="layer"`) or head ("head"), each MLP with its output bias, all other biases, and a bias of
    distances as a part of its own. Norms, also of queries and keys, have their scales frozen at this text's values;
    rotary positions are applied. A head's part holds its share of the value bias.

    Softmax ignores what all keys have in common, so the result also holds the contrast: the score less its mean over
    the keys compared with: "others" (every other key the query sees but the first token, where heads rest), "all" (the
    first included), a list of tokens, or None for no contrast.

    `confirm` replaces sources one at a time, in the query only or in the key only, with the norms recomputed, and
    reports the change of attention and of the answer (by default what the model predicts): True takes the three largest
    of each side, a name or list those. `replace_with` is "mean" (of the source's own vectors at the other positions
    the query sees, the first left out) or "zero". Only this edge is touched: a replaced key is seen by this query of
    this head alone. The answer is read at `read` (an index or a piece of the text, or "mask"): unless given, behind the
    last token; in an encoder at its mask token, or at the query where there is not exactly one. `about` says where.

    Cost: one forward pass, and with `confirm` one more for each source and side.
    """
    if view not in ("layer", "head"):
        raise InputError(f'view is {view!r}. Choose "layer" or "head".')
    if confirm is False and any(one is not None for one in (answer, foil, read)):
        raise InputError("answer, foil and read say what is read when sources are replaced. Add confirm=True.")
    edge = trace_edge(model, text, head, query, key, decoder_input=decoder_input, prepend_bos=prepend_bos)
    others = _compared(edge, against)
    device = edge.seen.device
    queries = list(edge.stream("q", torch.tensor([edge.query], device=device)).sources(view))
    keys = list(edge.stream("k", edge.seen).sources(view))
    found = _explained(edge, queries, keys, others, view, against)
    if confirm is False:
        return found
    from interp.circuits.confirm import confirmed

    return confirmed(edge, found, confirm, view, replace_with, answer, foil, read)


@torch.no_grad()
def trace_edge(
    model: HookedTransformer,
    text: Any,
    head: Head | str,
    query: int | str,
    key: int | str,
    *,
    decoder_input: Any = None,
    prepend_bos: bool | None = None,
) -> Edge:
    """Run a text once and read what an edge's streams need."""
    place = head_place(model, head)
    must_be_dot(place.attn.config, "explain_attention")
    two = model.encoder is not None and model.decoder is not None
    if two != (decoder_input is not None):
        need = "needs decoder_input=, the text its decoder reads" if two else "takes no decoder_input"
        raise InputError(f"This model {need}.")
    first = read_text(model, text, prepend_bos=prepend_bos)
    second = read_text(model, decoder_input, prepend_bos=prepend_bos) if two else first
    own = second if place.stack is model.main else first
    texts = {"q": own, "k": first if place.is_cross else own}
    at = token_place(texts["q"], query, "query"), token_place(texts["k"], key, "key")
    names = residual_reads(place.stack, place.address)
    if place.is_cross:
        assert model.encoder is not None
        names += residual_reads(model.encoder, None)
    names += [f"{place.site}hook_{one}" for one in ("q", "k", "attn_scores")]
    options: dict[str, Any] = {"decoder_input": second.ids} if two else {}
    stop = {"stop_at_layer": place.address.layer + 1} if place.stack is model.main else {}
    _, cache = model.run_with_cache(first.ids, list(dict.fromkeys(names)), return_type=None, **stop, **options)
    row = cache[f"{place.site}hook_attn_scores"][0, place.address.head, at[0]]
    seen = (row > -torch.inf).nonzero()[:, 0]
    if at[1] not in seen.tolist():
        raise InputError(
            f"The token at {at[0]} cannot see the one at {at[1]} in head {place.address}; it sees {seen.tolist()}."
        )
    bias = _bias(model, place, texts, at[0], seen, row)
    return Edge(model, place, texts, *at, seen, cache, (first.ids, options), row, bias)


def _bias(
    model: HookedTransformer, place: HeadPlace, texts: dict[str, ReadText], query: int, seen: Tensor, row: Tensor
) -> Tensor:
    rows = place.stack.rows(texts["q"].ids.shape[1])
    if place.is_cross:
        assert model.encoder is not None
        rows = rows.across(model.encoder.rows(texts["k"].ids.shape[1]))
    bias = distance_bias(rows, place.attn.config, row.dtype)
    return torch.zeros_like(row)[seen] if bias is None else bias[0, place.address.head, query, seen]


def _compared(edge: Edge, against: str | Sequence[int | str] | None) -> Tensor | None:
    """Which of the seen keys the score is compared with, as places among them."""
    seen = edge.seen.tolist()
    if against is None:
        return None
    if not isinstance(against, Sequence):
        raise InputError(f'against is {against!r}. Choose "others", "all", a list of tokens, or None.')
    if isinstance(against, str):
        if against not in ("others", "all"):
            raise InputError(f'against is {against!r}. Choose "others", "all", a list of tokens, or None.')
        chosen = [one for one in seen if one != edge.key and (against == "all" or one != 0)]
    else:
        chosen = [token_place(edge.texts["k"], one, "against") for one in against]
        if hidden := [one for one in chosen if one not in seen]:
            raise InputError(f"against names the token at {hidden[0]}, which the query cannot see. It sees {seen}.")
    if not chosen:
        raise InputError(
            "There is no key to compare with: the query sees none but this one and the first. "
            'Pass against="all", or None for the score alone.'
        )
    return torch.tensor([seen.index(one) for one in chosen], device=edge.seen.device)


def _explained(
    edge: Edge, queries: list[Source], keys: list[Source], others: Tensor | None, view: str, against: Any
) -> AttentionExplanation:
    scale, at = edge.place.attn.config.scale, edge.seen.tolist().index(edge.key)
    q = torch.stack([one.vectors[0] for one in queries]) * scale
    k = torch.stack([one.vectors for one in keys])  # [source seen d_head]
    vectors, bias = {"score": k[:, at]}, {"score": float(edge.bias[at])}
    if others is not None:
        vectors["contrast"] = k[:, at] - k[:, others].mean(1)
        bias["contrast"] = float(edge.bias[at] - edge.bias[others].mean())
    parts = torch.stack([q @ one.T for one in vectors.values()]).double().cpu().numpy()
    coords: dict[str, Any] = {"measure": list(vectors)}
    coords |= _labels("query", queries) | _labels("key", keys)
    values = xr.DataArray(parts, coords=coords, dims=("measure", "query_source", "key_source"))
    scores = (q.sum(0) @ k.sum(0).T).double() + edge.bias.double()
    table = pd.DataFrame(
        {
            "pos": edge.seen.tolist(),
            "token": [edge.texts["k"].tokens[i] for i in edge.seen.tolist()],
            "score": scores.cpu().numpy(),
            "attention": edge.attention[edge.seen].double().cpu().numpy(),
            "compared": np.zeros(len(edge.seen), bool)
            if others is None
            else np.isin(range(len(edge.seen)), others.cpu()),
        }
    )
    about = {**_about(edge, view, against), "sum_apart": _apart(edge, scores)}
    return AttentionExplanation(values, bias, table, about)


def _apart(edge: Edge, scores: Float[Tensor, " seen"]) -> float:
    """How far the sums of parts lie from the scores of the pass, in units of the largest score of the row."""
    cap, bias, row = edge.place.attn.config.softcap, edge.bias.double(), edge.row[edge.seen].double()
    if cap is not None:
        scores = cap * torch.tanh((scores - bias) / cap) + bias
    return float((scores - row).abs().max() / row.abs().max().clamp(min=1e-30))


def _labels(side: str, sources: list[Source]) -> dict[str, Any]:
    """Coordinates of one axis: the sources' names, and what they are; −1 where there is no layer or head."""
    axis = f"{side}_source"
    number = lambda x: -1 if x is None else x  # noqa: E731
    return {
        axis: [one.label for one in sources],
        f"{side}_kind": (axis, [one.kind for one in sources]),
        f"{side}_layer": (axis, [number(one.layer) for one in sources]),
        f"{side}_head": (axis, [number(one.head) for one in sources]),
    }


def _about(edge: Edge, view: str, against: Any) -> dict[str, Any]:
    config = edge.place.attn.config
    return {
        "model": edge.model.cfg.model_name,
        "head": str(edge.place.address),
        "kv_head": edge.place.kv_head,
        "query": edge.query,
        "key": edge.key,
        "query_token": edge.texts["q"].tokens[edge.query],
        "key_token": edge.texts["k"].tokens[edge.key],
        "text": edge.texts["k"].text or "",
        "tokens": list(edge.texts["k"].tokens),
        "view": view,
        "against": against if against is None or isinstance(against, str) else [str(one) for one in against],
        "norms": "scales frozen, gains applied",
        "softcap": config.softcap,
        "attention": float(edge.attention[edge.key]),
        "exact": True,
    }
