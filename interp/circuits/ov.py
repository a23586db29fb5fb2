"""The OV side of heads: what a head writes of the token it attends to, and how strongly it writes at all.

What a head writes is what reaches the residual stream: behind a sublayer's output norm (Gemma 2, OLMo 2), whose gain is
applied, and times the residual multiplier (Granite).
"""

from __future__ import annotations

import torch
from einops import einsum, repeat
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.direct import direct_logits
from interp.circuits.streaming import LayerHeads, head_grid, stream_heads
from interp.errors import InputError
from interp.model.attention import head_results
from interp.model.norms import Norm, norm_scale
from interp.model.stack import Stack
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer

__all__ = ["copying_ratio", "output_norm", "value_logits", "wide", "written", "written_norms"]


def wide(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Without gradient and at least float32: there are no decompositions in half precision, and few digits."""
    x = x.detach()
    return x if x.dtype == torch.float64 else x.float()


def output_norm(stack: Stack, layer: int, sublayer: str = "attn") -> Norm | None:
    """The norm between what a sublayer's heads make together and the residual stream, where there is one."""
    block = stack.block(layer)
    if block.config.norms not in ("output", "both") or block.config.norm.kind == "none":
        return None
    return getattr(block, f"ln{type(block).sublayers.index(sublayer) + 1}_post")


def written(
    stack: Stack,
    layer: int,
    results: Float[Tensor, "*batch d_model"],
    sublayer: str = "attn",
    *,
    scale: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "*batch d_model"]:
    """What reaches the residual stream of what heads make (z W_O): through the output norm without its bias, and times
    the residual multiplier. Without the output norm's `scale` the result is right up to one positive factor for each
    query."""
    norm, factor = output_norm(stack, layer, sublayer), stack.config.blocks[layer].residual_scale
    if norm is not None:
        results = results - results.mean(-1, keepdim=True) if norm.config.kind == "layer" else results
        results = (results if scale is None else results / scale) * norm.gain
    return results if factor == 1.0 else results * factor


def value_logits(
    model: HookedTransformer, heads: LayerHeads, row: int, tokens: Int[Tensor, " token"]
) -> Float[Tensor, "head k_pos token"]:
    """Direct logits for `tokens` of each key's value through each head, as if it got all attention. Scales of the
    final norm and of an output norm are left out: right up to one positive factor for each query."""
    group = heads.attn.config.n_heads // heads.attn.config.n_key_value_heads
    values = repeat(heads.v[row], "k_pos kv_head d_head -> 1 k_pos (kv_head group) d_head", group=group)
    results = written(model.main, heads.layer, head_results(values, heads.attn.W_O)[0], heads.sublayer)
    return direct_logits(model, results, tokens).transpose(0, 1)


@torch.no_grad()
def copying_ratio(model: HookedTransformer, batch: Batch) -> Float[Tensor, "layer head"]:
    """How much a head raises the token it attends to, among the tokens of its prompt, over chance.

    For each attended key the head's direct logits are taken over the prompt's distinct tokens, less their mean, and
    negative ones count as 0 (Olsson 2022). The share that falls on the attended token itself, weighted by attention,
    is compared with one over the number of distinct tokens: 1 is chance, that number is perfect copying. The first
    key is left out: it is where heads rest. NaN for a head that raises nothing.
    """
    if batch.mask is not None and not bool(batch.mask.all()):
        raise InputError("A copying ratio is taken over prompts of one length, without padding. Ask one by one.")
    grid = head_grid(model)
    own = torch.zeros(grid.n_layers, grid.n_heads)
    chance = torch.zeros(grid.n_layers, grid.n_heads)

    def visit(heads: LayerHeads) -> None:
        received = torch.stack([pattern.sum(dim=2) for _, pattern in heads.patterns()]).sum(0)[:, :, 1:]
        for row, tokens in enumerate(batch.tokens):
            distinct, place = tokens.unique(return_inverse=True)
            raised = value_logits(model, heads, row, distinct)
            raised = (raised - raised.mean(dim=-1, keepdim=True)).clamp(min=0)
            itself = raised.gather(2, place[None, :, None].expand(len(raised), -1, -1))[:, 1:, 0]
            n_heads = len(raised)
            own[heads.layer, :n_heads] += (received[row] * itself).sum(-1).cpu()
            chance[heads.layer, :n_heads] += (received[row] * raised.mean(-1)[:, 1:]).sum(-1).cpu()

    stream_heads(model, batch, visit)
    return own / chance


@torch.no_grad()
def written_norms(model: HookedTransformer, batch: Batch) -> Float[Tensor, "layer head"]:
    """Root mean square, over tokens but the first of each prompt, of the norm of what a head writes."""
    grid = head_grid(model)
    norms = torch.full((grid.n_layers, grid.n_heads), torch.nan)

    def visit(heads: LayerHeads) -> None:
        group = heads.attn.config.n_heads // heads.attn.config.n_key_value_heads
        values = repeat(heads.v, "batch k_pos kv_head d_head -> batch k_pos (kv_head group) d_head", group=group)
        norm = output_norm(model.main, heads.layer, heads.sublayer)
        W_O = written(model.main, heads.layer, heads.attn.W_O, heads.sublayer)
        gram = einsum(W_O, W_O, "head a d_model, head b d_model -> head a b")  # |z W_O|² = z W_O W_Oᵀ zᵀ
        total, n_tokens = torch.zeros(W_O.shape[0]), 0
        for queries, pattern in heads.patterns():
            z = einsum(pattern, values, "batch head q_pos k_pos, batch k_pos head d_head -> batch q_pos head d_head")
            squared = einsum(z, gram, z, "batch pos head a, head a b, batch pos head b -> batch pos head")
            if norm is not None:  # whose scale is that of all heads together
                together = einsum(z, heads.attn.W_O, "batch pos head a, head a d_model -> batch pos d_model")
                squared = squared / norm_scale(together + heads.attn.b_O, norm.config).square()
            counted = torch.ones_like(heads.rows.positions[:, :1], dtype=torch.bool) & (queries > 0)
            if batch.mask is not None:
                counted = batch.mask[:, queries] & (queries > 0)
            total += (squared * counted[..., None]).sum((0, 1)).float().cpu()
            n_tokens += int(counted.expand(len(z), -1).sum())
        norms[heads.layer, : len(total)] = (total / n_tokens).sqrt()

    stream_heads(model, batch, visit)
    return norms
