"""Induction heads: a token attends to what followed its earlier copies, and the head raises that token (Olsson 2022).

Matching the prefix is not enough: heads that match but do not copy are told apart by their copying ratio.
"""

from __future__ import annotations

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from interp.heads.base import Finder, Writing
from interp.heads.patterns import prefix_match
from interp.heads.streaming import LayerHeads, head_grid, stream_heads
from interp.model.attention import head_results
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer
from interp.tasks.repeated_tokens import tiled

__all__ = ["FINDER", "copying_ratio", "tiled_batch"]


def tiled_batch(model: HookedTransformer, n: int, seed: int, bos: bool) -> Batch:
    return Batch(tiled(model, n, bos=bos, seed=seed).tokens)


@torch.no_grad()
def copying_ratio(model: HookedTransformer, batch: Batch) -> Float[Tensor, "layer head"]:
    """How much a head raises the token it attends to, among the tokens of its prompt, over chance.

    For each attended key the head's direct logits (final norm's gain folded in, its scale left out: it is the same
    for all tokens) are taken over the prompt's distinct tokens, less their mean; negative ones count as 0. The
    share that falls on the attended token itself, weighted by attention, is compared with one over the number of
    distinct tokens: 1 is chance, that number is perfect copying. The first key is left out: it is where heads rest.
    """
    grid = head_grid(model)
    own = torch.zeros(grid.n_layers, grid.n_heads)
    chance = torch.zeros(grid.n_layers, grid.n_heads)

    def visit(heads: LayerHeads) -> None:
        received = torch.stack([pattern.sum(dim=2) for _, pattern in heads.patterns()]).sum(0)[:, :, 1:]
        for row, tokens in enumerate(batch.tokens):
            distinct, place = tokens.unique(return_inverse=True)
            raised = _raised_logits(model, heads, row, distinct)
            itself = raised.gather(2, place[None, :, None].expand(len(raised), -1, -1))[:, 1:, 0]
            own[heads.layer] += (received[row] * itself).sum(-1).cpu()
            chance[heads.layer] += (received[row] * raised.mean(-1)[:, 1:]).sum(-1).cpu()

    stream_heads(model, batch, visit)
    return own / chance


def _raised_logits(
    model: HookedTransformer, heads: LayerHeads, row: int, distinct: Tensor
) -> Float[Tensor, "head k_pos token"]:
    """Positive centred direct logits of each key's value through each head, over the prompt's distinct tokens."""
    group = heads.attn.config.n_heads // heads.attn.config.n_key_value_heads
    values = heads.v[row : row + 1].repeat_interleave(group, dim=2)
    written = head_results(values, heads.attn.W_O)[0]
    norm = model.main.ln_final
    gain = norm.gain if norm.config.kind != "none" else torch.ones(model.cfg.d_model)
    unembed = model.W_U[:, distinct] * gain[:, None]
    logits = einsum(written, unembed, "k_pos head d_model, d_model token -> head k_pos token")
    return (logits - logits.mean(dim=-1, keepdim=True)).clamp(min=0)


FINDER = Finder(
    name="induction",
    definition="mean attention from each token to the tokens that followed its earlier copies",
    rule=prefix_match,
    make_data=tiled_batch,
    data="blocks of 25 random tokens, four times over",
    score_at_least=0.4,
    effect_at_least=0.1,
    writing=Writing("copying, times chance", copying_ratio, at_least=2.0),
    joint=True,
)
