"""Attention as a graph of tokens by layers, its edges weighted by the size of what they move.

An edge (layer, head, source → target) carries A[target, source] · v_source W_O into the residual stream; its weight is
the norm of that vector (Kobayashi 2020), not the attention itself: attention to a value that is nearly nothing moves
nothing. Residual edges join a token to itself from layer to layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from einops import einsum, repeat
from jaxtyping import Float
from torch import Tensor

from interp.circuits.prompts import token_texts
from interp.errors import InputError
from interp.model.attention import Attention
from interp.model.cache import ActivationCache
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results.attention_graph import AttentionGraph
from interp.sites import Head

__all__ = ["attention_graph", "written_values"]

EdgeWeight = Literal["moved", "share", "attention"]
Combine = Literal["sum", "max"] | None
_EDGES = 200  # shown unless a threshold or top_k says otherwise
_LEFT_OUT = (
    "Weights are sizes of what is moved, not effects: a large edge may move what nobody reads, and a small one what "
    "decides. MLPs, and what queries and keys carry, are not in the graph. interp.graph_faithfulness measures how much "
    "of an answer survives on the shown edges alone."
)


@torch.no_grad()
def attention_graph(
    model: HookedTransformer,
    text: Any,
    *,
    threshold: float | None = None,
    top_k: int | None = None,
    heads: Any = None,
    edge: EdgeWeight = "moved",
    combine: Combine = "sum",
    to: int | None = None,
) -> AttentionGraph:
    """Tokens × layers with the edges of attention that move most.

    Node (l, p) is token p as it enters layer l; (n_layers, p) is behind the last. `edge` is what weighs: "moved",
    ‖A·v W_O‖ in the residual stream's unit, behind an output norm's frozen scale and with v's bias; "share", that over
    the norm of the residual the edge ends in (norms grow with the layers); "attention", A itself. `combine` makes one
    edge of all `heads` ("23.4", …; all unless given) between two nodes: the "sum" or the "max" of their weights; None
    keeps one edge per head. Kept are edges of at least `threshold`, then the `top_k` heaviest of them (200 unless
    either is given). `to`: only edges from which that position at the end can be reached along kept edges and residual
    ones; what was cut away is said in `about`.

    `text` is one text, one row of token ids, or one PromptPairs (its clean prompt). For a decoder or an encoder; one
    of two stacks is refused. Cost: one pass.
    """
    if edge not in ("moved", "share", "attention"):
        raise InputError(f'edge is {edge!r}. Choose "moved", "share" or "attention".')
    if combine not in ("sum", "max", None):
        raise InputError(f'combine is {combine!r}. Choose "sum", "max", or None for one edge per head.')
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 0):
        raise InputError(f"top_k is {top_k!r}. Give a number of edges, 0 or more.")
    if threshold is not None and (
        isinstance(threshold, bool) or not isinstance(threshold, int | float) or threshold != threshold
    ):
        raise InputError(f"threshold is {threshold!r}. Give a weight, e.g. 0.5.")
    tokens = _one_text(model, text)
    n_pos = len(tokens)
    if to is not None and (isinstance(to, bool) or not isinstance(to, int) or not -n_pos <= to < n_pos):
        raise InputError(f"to is {to!r}; this text has positions 0 to {n_pos - 1}.")
    chosen = _chosen_heads(model, heads)
    cache = _cached(model, tokens)
    weights = [_layer_weights(model, cache, layer, edge) for layer in range(model.main.config.n_layers)]
    edges = _edges(model, weights, chosen, combine)
    n_all = len(edges)
    if threshold is not None:
        edges = edges.loc[edges["weight"] >= threshold]
    limit = _EDGES if top_k is None and threshold is None else top_k
    if limit is not None:
        edges = edges.sort_values("weight", ascending=False, kind="stable").head(limit)
    n_cut = len(edges)
    if to is not None:
        edges = _reaching(edges, to % n_pos)
    edges = edges.sort_values(["layer", "target", "source", "head"], kind="stable").reset_index(drop=True)
    about = {
        "method": "attention graph",
        "model": model.cfg.model_name,
        "edge": edge,
        "combine": combine,
        "heads": None if heads is None else [str(head) for head in sorted(chosen)],
        "threshold": threshold,
        "top_k": limit,
        "to": None if to is None else to % n_pos,
        "candidates": n_all,
        "cut_off_from_to": n_cut - len(edges),
        "n_layers": model.main.config.n_layers,
        "n_heads": [block.attn.n_heads for block in model.main.config.blocks],
        "tokens": tokens,
        "text": token_texts(model, tokens),
        "left_out": _LEFT_OUT,
    }
    return AttentionGraph(edges, _residuals(model, cache, n_pos), _mean_patterns(weights), about)


@dataclass(frozen=True)
class _Weights:
    """One layer: the weight of every edge, and the pattern it stands on."""

    weight: Float[Tensor, "head q_pos k_pos"]
    pattern: Float[Tensor, "head q_pos k_pos"]
    seen: Tensor  # [q_pos k_pos]: whether any head of the layer may look there


def written_values(
    attn: Attention, v: Float[Tensor, "batch k_pos kv_head d_head"]
) -> Float[Tensor, "batch k_pos head d_head"]:
    """Values with one copy for each query head that reads them."""
    group = attn.config.n_heads // attn.config.n_key_value_heads
    return repeat(v, "batch k_pos kv_head d_head -> batch k_pos (kv_head group) d_head", group=group)


def _one_text(model: HookedTransformer, text: Any) -> list[int]:
    if model.encoder is not None and model.decoder is not None:
        raise InputError(
            f"{model.cfg.model_name} has an encoder and a decoder, and this graph has the tokens of one text. "
            "interp.logit_attribution(…, by='source') splits cross-attention by source token."
        )
    if isinstance(text, PromptPairs):
        rows: Any = text.clean
    elif isinstance(text, str) or (isinstance(text, list | tuple) and text and all(isinstance(x, str) for x in text)):
        rows = [model.to_tokens(one)[0].tolist() for one in ([text] if isinstance(text, str) else text)]
    else:
        rows = model.batch(text).tokens.tolist()
    if len(rows) != 1:
        raise InputError(f"A graph shows one text; these are {len(rows)}. Give one of them, e.g. pairs[0].")
    return [int(token) for token in rows[0]]


def _chosen_heads(model: HookedTransformer, heads: Any) -> set[Head]:
    every = {
        Head(layer, head) for layer, block in enumerate(model.main.config.blocks) for head in range(block.attn.n_heads)
    }
    if heads is None:
        return every
    given = [heads] if isinstance(heads, str | Head) or not isinstance(heads, Iterable) else list(heads)
    if not all(isinstance(head, str | Head) for head in given):
        raise InputError(f'heads is {heads!r}. Give heads as layer.head, such as ["23.4"], or None for all.')
    found = {head if isinstance(head, Head) else Head.parse(head) for head in given}
    if not found:
        raise InputError('There are no heads. Give some, such as ["23.4"], or None for all.')
    if missing := found - every:
        raise InputError(f"This model has no head {min(missing)}. Heads are layer.head, up to {max(every)}.")
    return found


def _cached(model: HookedTransformer, tokens: list[int]) -> ActivationCache:
    tails = ("hook_q", "hook_k", "hook_rot_q", "hook_rot_k", "hook_attn_scores", "hook_pattern", "hook_v")
    tails += ("hook_resid_pre", "hook_resid_post", "ln1_post.hook_in", "ln1_post.hook_scale")
    names = [name for name in model.sites.names if name.endswith(tails)]
    return model.run_with_cache(torch.tensor([tokens], device=model.device), names, return_type=None)[1]


def _layer_weights(model: HookedTransformer, cache: ActivationCache, layer: int, edge: str) -> _Weights:
    block, config = model.main.block(layer), model.main.config.blocks[layer]
    pattern = _wide(cache[f"blocks.{layer}.attn.hook_pattern"])[0]
    seen = (pattern > 0).any(0)
    if edge == "attention":
        return _Weights(pattern, pattern, seen)
    W = _wide(block.attn.W_O)
    if config.norms in ("output", "both") and config.norm.kind != "none":
        norm: Any = block.ln1_post
        W = W - W.mean(-1, keepdim=True) if norm.config.kind == "layer" else W
        W = W * _wide(norm.gain)
    values = written_values(block.attn, _wide(cache[f"blocks.{layer}.attn.hook_v"]))[0]
    gram = einsum(W, W, "head a d_model, head b d_model -> head a b")  # |v W|² = v W Wᵀ vᵀ
    squared = einsum(values, gram, values, "k_pos head a, head a b, k_pos head b -> head k_pos")
    moved = pattern * squared.clamp(min=0).sqrt()[:, None] * abs(config.residual_scale)
    if config.norms in ("output", "both") and config.norm.kind != "none":
        moved = moved / _wide(cache[f"blocks.{layer}.ln1_post.hook_scale"])[0][None]
    if edge == "share":
        moved = moved / _wide(cache[f"blocks.{layer}.hook_resid_post"])[0].norm(dim=-1)[None, :, None]
    return _Weights(moved, pattern, seen)


def _edges(model: HookedTransformer, weights: list[_Weights], chosen: set[Head], combine: str | None) -> pd.DataFrame:
    """One row per edge that attention may take; `head` is absent where heads were put together."""
    return pd.concat(list(_layer_edges(weights, chosen, combine)), ignore_index=True)


def _layer_edges(weights: list[_Weights], chosen: set[Head], combine: str | None) -> Iterator[pd.DataFrame]:
    columns = ["layer", "head", "source", "target", "weight", "attention"]
    yield pd.DataFrame({name: pd.Series(dtype="Int64" if name in columns[:4] else float) for name in columns})
    for layer, one in enumerate(weights):
        heads = sorted(head.head for head in chosen if head.layer == layer)
        if not heads:
            continue
        targets, sources = (x.cpu().numpy() for x in one.seen.nonzero(as_tuple=True))
        weight = one.weight[heads][:, targets, sources].double().cpu().numpy()
        pattern = one.pattern[heads][:, targets, sources].double().cpu().numpy()
        if combine is not None:
            weight = (weight.sum(0) if combine == "sum" else weight.max(0))[None]
            pattern = pattern.max(0)[None]
        n_heads, n_edges = weight.shape
        names: Any = [pd.NA] if combine is not None else heads
        yield pd.DataFrame(
            {
                "layer": pd.array([layer] * n_heads * n_edges, dtype="Int64"),
                "head": pd.array(np.repeat(np.array(names, dtype=object), n_edges), dtype="Int64"),
                "source": pd.array(np.tile(sources, n_heads), dtype="Int64"),
                "target": pd.array(np.tile(targets, n_heads), dtype="Int64"),
                "weight": weight.ravel(),
                "attention": pattern.ravel(),
            }
        )


def _reaching(edges: pd.DataFrame, to: int) -> pd.DataFrame:
    """The edges from which a position at the end is reached: backwards, layer by layer."""
    reached, kept = {to}, []
    for layer in sorted(edges["layer"].unique(), reverse=True):
        here = edges.loc[(edges["layer"] == layer) & edges["target"].isin(list(reached))]
        kept.append(here)
        reached |= set(here["source"])
    return pd.concat(kept) if kept else edges


def _residuals(model: HookedTransformer, cache: ActivationCache, n_pos: int) -> pd.DataFrame:
    """The size of the residual at every node, which is what its residual edge carries on."""
    n = model.main.config.n_layers
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(n)] + [f"blocks.{n - 1}.hook_resid_post"]
    norms = torch.stack([_wide(cache[name])[0].norm(dim=-1) for name in names]).double().cpu().numpy()
    layer, pos = np.divmod(np.arange(norms.size), n_pos)
    return pd.DataFrame({"layer": layer, "pos": pos, "norm": norms.ravel()})


def _mean_patterns(weights: list[_Weights]) -> np.ndarray:
    """`[layer q_pos k_pos]`: attention averaged over heads, which rollout and flow are made of."""
    return torch.stack([one.pattern.mean(0) for one in weights]).double().cpu().numpy()


def _wide(x: Tensor) -> Tensor:
    x = x.detach()
    return x if x.dtype == torch.float64 else x.float()
