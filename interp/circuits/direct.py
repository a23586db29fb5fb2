"""Direct logits: what a vector in the residual stream adds to the logits if nothing after it reacts.

The final norm's scale is frozen (Elhage 2021; nostalgebraist's logit lens): only its gain, and for LayerNorm its
centring, are applied. Direct effects only: later layers may undo or repeat them.
"""

from __future__ import annotations

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from interp.model.norms import norm_scale
from interp.model.transformer import HookedTransformer

__all__ = ["direct_logits", "effective_unembedding", "final_scale"]


def effective_unembedding(
    model: HookedTransformer, tokens: Int[Tensor, " token"] | None = None
) -> Float[Tensor, "d_model token"]:
    """W_U behind the final norm's gain, its rows centred where the norm subtracts the mean; for some tokens or all."""
    norm = model.main.ln_final
    weight = model.W_U if tokens is None else model.W_U[:, tokens]
    weight = weight if model.cfg.logit_scale == 1.0 else weight * model.cfg.logit_scale
    if norm.config.kind == "none":
        return weight
    weight = weight * norm.gain[:, None]
    return weight - weight.mean(dim=0) if norm.config.kind == "layer" else weight


def direct_logits(
    model: HookedTransformer,
    vectors: Float[Tensor, "*batch d_model"],
    tokens: Int[Tensor, " token"] | None = None,
    *,
    scale: Float[Tensor, "*batch one"] | None = None,
) -> Float[Tensor, "*batch token"]:
    """Logits that vectors of the residual stream add directly, divided by the final norm's `scale` where it is given
    (`cache["ln_final.hook_scale"]`). Without it they are right up to one positive factor per position. Biases of the
    norm and the unembedding belong to no vector and are left out."""
    logits = einsum(vectors, effective_unembedding(model, tokens), "... d_model, d_model token -> ... token")
    return logits if scale is None else logits / scale


def final_scale(model: HookedTransformer, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch one"]:
    """What the final norm divides this residual by."""
    norm = model.main.ln_final
    return torch.ones_like(resid[..., :1]) if norm.config.kind == "none" else norm_scale(resid, norm.config)
