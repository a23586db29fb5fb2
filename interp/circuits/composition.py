"""How strongly what one head writes enters another's queries, keys or values, by their weights alone (Elhage 2021).

With row vectors, OV = W_V W_O and QK = W_Q W_Kᵀ: Q-composition ‖OV₁·QK₂‖, K ‖QK₂·OV₁ᵀ‖, V ‖OV₁·OV₂‖, each over the
product of the two norms (Frobenius). Since ‖AB‖² = tr(AᵀA · BBᵀ), one Gram matrix for each head serves all its pairs:
two flat vectors and a dot product for a pair, in place of a product of matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, cast

import numpy as np
import torch
import xarray as xr
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.model.attention import Attention
from interp.model.norms import Norm
from interp.model.stack import Stack
from interp.model.transformer import HookedTransformer
from interp.results.composition import CompositionScores

__all__ = ["composition"]

Kind = Literal["Q", "K", "V"]
_BLOCK_BYTES = 96 << 20  # of Gram rows held at once
_GROUPS = 6  # of reading layers: writers behind a group's last layer are left out of it
Narrow = Float[Tensor, "head rank d_model"]


@torch.no_grad()
def composition(
    model: HookedTransformer,
    kind: Kind = "Q",
    *,
    folded: bool = False,
    qk: Literal["auto", "whole", "alone"] = "auto",
    stack: str | None = None,
    n_random: int = 400,
    seed: int = 0,
) -> CompositionScores:
    """Composition scores of all pairs of heads, earlier layer → later layer, with a baseline of random weights.

    Values `[from_layer from_head to_layer to_head]` from 0 to 1; NaN where the writer is not earlier. `qk` says what
    reads: W_Q W_Kᵀ ("whole"), or W_Q (for Q) or W_K (for K) "alone", which is the default ("auto") where positions are
    rotated (what a rotation does between W_Q and W_Kᵀ depends on the distance) or scores are additive (there is no W_Q
    W_Kᵀ). `folded` multiplies the gain of the norm in front of a head into W_Q, W_K and W_V, and the gain of an output
    norm into W_O; without it weights are the checkpoint's own. Query heads that share a key/value head have its W_K and
    W_V. `stack` is "encoder" or "decoder" in a model with two (default: the decoder's self-attention).

    The baseline: `n_random` pairs of Gaussian matrices of the same shapes (mean and standard deviation), and for each
    pair the exact mean and deviation of its squared score under a random rotation between the two heads, which keeps
    both spectra. A head whose weights are all 0 has no score (NaN). No forward pass; memory: about four times the
    attention weights, and some hundred MB.
    """
    if kind not in ("Q", "K", "V"):
        raise InputError(f'kind is {kind!r}. Choose "Q", "K" or "V".')
    if qk not in ("auto", "whole", "alone"):
        raise InputError(f'qk is {qk!r}. Choose "auto", "whole" or "alone".')
    if isinstance(n_random, bool) or not isinstance(n_random, int) or n_random < 2:
        raise InputError(f"n_random is {n_random!r}. A baseline takes at least 2 pairs.")
    where = _stack(model, stack)
    n_layers, n_heads = where.config.n_layers, _n_heads(where)
    additive = any(block.attn.scoring == "additive" for block in where.config.blocks)
    if additive and kind != "V" and qk == "whole":
        raise InputError(f'{kind}-composition with W_Q W_Kᵀ: additive scores are no product. Choose qk="alone".')
    rotary = any(block.attn.rotary for block in where.config.blocks)
    alone = kind != "V" and (qk == "alone" or (qk == "auto" and (rotary or additive)))
    writers = torch.cat([_writers(where, layer, folded) for layer in range(n_layers)])
    readers = torch.cat([_readers(where, layer, kind, alone, folded) for layer in range(n_layers)])
    squared, deviation = _all_pairs(writers, readers, n_layers, n_heads)
    names = ("from_layer", "from_head", "to_layer", "to_head")
    coords = dict(zip(names, [range(n_layers), range(n_heads)] * 2, strict=True))
    later = np.tril(np.ones((n_layers, n_layers), bool), -1).T[:, None, :, None]
    shape = (n_layers, n_heads, n_layers, n_heads)
    grid = {name: np.where(later, x.double().cpu().numpy().reshape(shape), np.nan) for name, x in
            (("squared", squared), ("spread", deviation))}  # fmt: skip
    score = xr.DataArray(np.sqrt(grid["squared"]), coords={k: list(v) for k, v in coords.items()}, dims=names)
    expected = 1 / model.cfg.d_model
    spread = np.where(grid["spread"] > 0, grid["spread"], np.nan)  # 0: every rotation gives the same
    z = score.copy(data=(grid["squared"] - expected) / spread)
    about = {
        "model": model.cfg.model_name,
        "kind": kind,
        "stack": where.name,
        "reads": _reads(kind, alone),
        "weights": "norm gains folded in" if folded else "the checkpoint's own",
        "baseline": f"{n_random} pairs of Gaussian matrices of the same shapes",
        "rotated_mean": expected**0.5,
        "seed": seed,
    }
    random = _random_scores(where, kind, alone, model.cfg.d_model, n_random, seed)
    return CompositionScores(score, z, *random, about)


def _reads(kind: str, alone: bool) -> str:
    return {"Q": "W_Q" if alone else "W_Q W_Kᵀ", "K": "W_K" if alone else "W_K W_Qᵀ", "V": "W_V W_O"}[kind]


def _stack(model: HookedTransformer, name: str | None) -> Stack:
    stacks = {stack.name: stack for stack in (model.encoder, model.decoder) if stack is not None}
    if name is not None and name not in stacks:
        known = " or ".join(repr(one) for one in stacks if one) or "none to choose: leave stack out"
        raise InputError(f"stack is {name!r}. There is {known}.")
    return model.main if name is None else stacks[name]


def _n_heads(stack: Stack) -> int:
    counts = {(block.attn.n_heads, block.attn.d_head) for block in stack.config.blocks}
    if len(counts) != 1:
        raise InputError("The layers of this model differ in their heads, so pairs of heads make no grid.")
    if stack.config.n_layers < 2:
        raise InputError("This model has one layer, so no head reads what another writes.")
    return next(iter(counts))[0]


def _writers(stack: Stack, layer: int, folded: bool) -> Narrow:
    """Of each head, a matrix with the Gram matrix OVᵀOV: (W_VᵀW_V)^½ W_O."""
    attn = stack.block(layer).attn
    W_V = _grouped(_gained(stack, layer, attn.W_V, folded), attn)
    W_O = _wide(attn.W_O)
    block = stack.block(layer)
    if folded and block.config.norms in ("output", "both") and block.config.norm.kind != "none":
        W_O = W_O * _wide(cast(Norm, block.ln1_post).gain)
    return _root(W_V.mT @ W_V) @ W_O


def _readers(stack: Stack, layer: int, kind: str, alone: bool, folded: bool) -> Narrow:
    """Of each head, the transpose of a matrix with the Gram matrix of what it reads with, over its output."""
    attn = stack.block(layer).attn
    gained = {name: _gained(stack, layer, getattr(attn, f"W_{name}"), folded) for name in "QKV"}
    if kind == "V":
        W_O = _wide(attn.W_O)
        return _root(W_O @ W_O.mT) @ _grouped(gained["V"], attn).mT
    query, key = gained["Q"], _grouped(gained["K"], attn)
    first, other = (query, key) if kind == "Q" else (key, query)
    return first.mT if alone else _root(other.mT @ other) @ first.mT


def _gained(stack: Stack, layer: int, weight: Tensor, folded: bool) -> Tensor:
    block = stack.block(layer)
    if not folded or block.config.norms not in ("pre", "both") or block.config.norm.kind == "none":
        return _wide(weight)
    return _wide(weight) * _wide(cast(Norm, block.ln1).gain)[:, None]


def _grouped(weight: Tensor, attn: Attention) -> Tensor:
    group = attn.config.n_heads // attn.config.n_key_value_heads
    return repeat(weight, "kv_head a b -> (kv_head group) a b", group=group)


def _root(gram: Float[Tensor, "head rank rank"]) -> Float[Tensor, "head rank rank"]:
    """The symmetric square root."""
    values, vectors = torch.linalg.eigh(gram)
    return (vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors.mT


def _all_pairs(writers: Narrow, readers: Narrow, n_layers: int, n_heads: int) -> tuple[Tensor, Tensor]:
    """Squared scores, and their standard deviation under a random rotation, `[writer reader]` each."""
    writers = writers / writers.flatten(1).norm(dim=1)[:, None, None]
    readers = readers / readers.flatten(1).norm(dim=1)[:, None, None]
    squared = writers.new_zeros(len(writers), len(readers))
    groups = list(_groups(n_layers, n_heads))
    for left, right in _gram_blocks(writers, readers):
        for first, last in groups:
            squared[:last, first:last] += left[:last] @ right[first:last].T
    squared = squared.clamp(min=0)
    d_model = writers.shape[2]
    # Var tr(P·RSRᵀ) over rotations R, for symmetric P and S of trace 1
    own = [_gram_squares(one) - 1 / d_model for one in (writers, readers)]
    variance = 2 / ((d_model - 1) * (d_model + 2)) * own[0].clamp(min=0)[:, None] * own[1].clamp(min=0)[None]
    return squared, variance.sqrt()


def _groups(n_layers: int, n_heads: int) -> Iterator[tuple[int, int]]:
    """Runs of reading heads, as first and last: writers from the last on stand too late for all of them."""
    step = -(-n_layers // _GROUPS)
    for layer in range(0, n_layers, step):
        yield layer * n_heads, min(layer + step, n_layers) * n_heads


def _gram_blocks(writers: Narrow, readers: Narrow) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of all heads' Gram matrices, flat, whose dot products sum to those of the matrices: half of each symmetric
    matrix is made, and what stands for both halves counts twice."""
    d_model = writers.shape[2]
    per_row = (len(writers) + len(readers)) * d_model * writers.element_size()
    step = max(1, min(d_model, _BLOCK_BYTES // per_row))
    for start in range(0, d_model, step):
        stop = min(start + step, d_model)
        left, right = (x[:, :, start:stop].mT @ x[:, :, start:] for x in (writers, readers))
        left[:, :, stop - start :] *= 2
        yield left.flatten(1), right.flatten(1)


def _gram_squares(narrow: Narrow) -> Float[Tensor, " head"]:
    """‖XᵀX‖² of each, which is ‖XXᵀ‖²."""
    small = narrow @ narrow.mT
    return small.square().sum((1, 2))


def _random_scores(stack: Stack, kind: str, alone: bool, d_model: int, n_random: int, seed: int) -> tuple[float, float]:
    """Mean and standard deviation of the scores of Gaussian heads of the same shapes."""
    generator, d_head = torch.Generator().manual_seed(seed), stack.config.blocks[0].attn.d_head
    side = max(2, round(n_random**0.5))

    def draw(rows: int, columns: int) -> Tensor:
        return torch.randn(side, rows, columns, generator=generator)

    W_V, W_O = draw(d_model, d_head), draw(d_head, d_model)
    writers = _root(W_V.mT @ W_V) @ W_O
    first, other = draw(d_model, d_head), draw(d_model, d_head)
    readers = first.mT if alone else _root(other.mT @ other) @ first.mT
    writers, readers = (x / x.flatten(1).norm(dim=1)[:, None, None] for x in (writers, readers))
    products = rearrange(writers, "a i d -> (a i) d") @ rearrange(readers, "b j d -> d (b j)")
    scores = rearrange(products, "(a i) (b j) -> a b (i j)", a=side, b=side).norm(dim=-1)
    return float(scores.mean()), float(scores.std())


def _wide(x: Tensor) -> Tensor:
    x = x.detach()
    return x if x.dtype == torch.float64 else x.float()
