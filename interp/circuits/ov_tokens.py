"""The OV circuits of all heads on some input tokens, before any context: which of some outputs each promotes."""

from __future__ import annotations

import torch
from einops import einsum, repeat
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.direct import direct_logits
from interp.circuits.embedding import direct_embedding, effective_embedding
from interp.circuits.ov import wide, written
from interp.circuits.streaming import head_grid
from interp.errors import InputError
from interp.model.norms import Norm
from interp.model.taps import NO_TAPS
from interp.model.transformer import HookedTransformer

__all__ = ["token_ov_logits"]


@torch.no_grad()
def token_ov_logits(
    model: HookedTransformer, tokens: Int[Tensor, " token"], outputs: Int[Tensor, " output"]
) -> Float[Tensor, "layer head token output"]:
    """Direct logits of `outputs` that each head adds when it attends to one of `tokens`, as `interp.ov(…).token` has
    it: the token is its embedding (in layer 0) or embedding + MLP 0, biases and the scales of the norms behind the head
    are left out, so logits of one input are right up to one positive factor. NaN for heads that a layer does not have.

    Raises `InputError` where heads have no direct logits: behind norms of the residual stream itself, or a nonlinear
    head. Cost: no forward pass.
    """
    stack, grid = model.main, head_grid(model)
    if any(block.norms == "post" for block in stack.config.blocks) or model.transform is not None:
        raise InputError(
            f"{model.cfg.model_name} norms its residual stream behind each sublayer, or unembeds behind a nonlinear "
            "head, so its heads have no direct logits. interp.patch measures what they do."
        )
    model.need_unembed()
    found = torch.full((grid.n_layers, grid.n_heads, len(tokens), len(outputs)), torch.nan, device=model.device)
    bare, enriched = direct_embedding(stack, tokens), effective_embedding(stack, tokens)
    for layer, config in enumerate(stack.config.blocks):
        block, attn = stack.block(layer), stack.block(layer).attn
        resid = enriched if layer else bare
        if config.norms in ("pre", "both"):
            norm: Norm = getattr(block, "ln1")  # noqa: B009
            resid = norm(resid, NO_TAPS)
        value = einsum(wide(resid), wide(attn.W_V), "token d_model, kv_head d_model d_head -> token kv_head d_head")
        group = config.attn.n_heads // config.attn.n_key_value_heads
        value = repeat(value, "token kv_head d_head -> token (kv_head group) d_head", group=group)
        out = einsum(value, wide(attn.W_O), "token head d_head, head d_head d_model -> head token d_model")
        found[layer, : config.attn.n_heads] = direct_logits(model, written(stack, layer, out), outputs).float()
    return found
