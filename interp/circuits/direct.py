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

_SLICE = 16_384  # tokens


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
    norm and the unembedding belong to no vector and are left out. At least float32, whatever the model's dtype; its
    unembedding is widened a slice at a time."""
    wide, d_vocab = _wide(vectors), model.W_U.shape[1]
    if tokens is None and model.dtype not in (torch.float32, torch.float64):
        slices = torch.arange(d_vocab, device=vectors.device).split(_SLICE)
        logits = torch.cat([wide @ _wide(effective_unembedding(model, one)) for one in slices], dim=-1)
    else:
        some = _wide(effective_unembedding(model, tokens))
        logits = einsum(wide, some, "... d_model, d_model token -> ... token")
    return logits if scale is None else logits / _wide(scale)


def final_scale(model: HookedTransformer, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch one"]:
    """What the final norm divides this residual by."""
    norm = model.main.ln_final
    return torch.ones_like(resid[..., :1]) if norm.config.kind == "none" else norm_scale(resid, norm.config)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
