"""What a token is to later layers before anything was attended to: its embedding and what the first MLP adds."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.model.norms import Norm
from interp.model.stack import Stack
from interp.model.taps import NO_TAPS

__all__ = ["direct_embedding", "effective_embedding"]


@torch.no_grad()
def direct_embedding(stack: Stack, tokens: Int[Tensor, " token"]) -> Float[Tensor, "token d_model"]:
    """Embeddings as they enter layer 0, without learned positions (token types, norm and projection included)."""
    resid = stack.embed.weight[tokens]
    if stack.config.embed_scale != 1.0:
        scale = stack.config.embed_scale
        resid = resid * (resid.new_tensor(scale) if stack.config.embed_scale_rounded else scale)
    if stack.type_embed is not None:
        resid = resid + stack.type_embed.weight[0]
    if stack.embed_norm is not None:
        resid = stack.embed_norm(resid, NO_TAPS)
    return resid if stack.embed_project is None else stack.embed_project(resid)


@torch.no_grad()
def effective_embedding(stack: Stack, tokens: Int[Tensor, " token"]) -> Float[Tensor, "token d_model"]:
    """The residual behind layer 0 if its attention added nothing: the embedding and MLP 0, in any layout of norms."""
    resid = direct_embedding(stack, tokens)
    block = stack.block(0)
    kinds = type(block).sublayers
    for n, kind in enumerate(kinds, start=1):
        if kind == "mlp":
            part = "ln1" if block.config.residual == "parallel" and block.config.shared_norm else f"ln{n}"
            read = _norm(block, part)(resid, NO_TAPS) if block.config.norms in ("pre", "both") else resid
            out = block.mlp(read[None], NO_TAPS)[0]  # type: ignore[operator]
            out = _norm(block, f"ln{n}_post")(out, NO_TAPS) if block.config.norms in ("output", "both") else out
            resid = resid + out * block.config.residual_scale
        resid = _norm(block, f"ln{n}")(resid, NO_TAPS) if block.config.norms == "post" else resid
    return resid


def _norm(block: object, part: str) -> Norm:
    return getattr(block, part)
