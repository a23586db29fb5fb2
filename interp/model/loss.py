"""The loss of a language model: −log p of each next token."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from interp.errors import InputError

__all__ = ["next_token_loss"]


def next_token_loss(
    logits: Float[Tensor, "batch pos d_vocab"],
    tokens: Int[Tensor, "rows some_pos"],
    mask: Bool[Tensor, "rows some_pos"] | None = None,
    *,
    per_token: bool = False,
) -> Float[Tensor, ""] | Float[Tensor, "batch next_pos"]:
    """−log p(next token) in nats: the mean over real next tokens, or with `per_token` each one `[batch, pos − 1]`,
    NaN where either token is padding."""
    if tokens.shape != logits.shape[:2]:
        raise InputError(f"The tokens are {tuple(tokens.shape)}; the logits are of {tuple(logits.shape[:2])} tokens.")
    if tokens.shape[1] < 2:
        raise InputError("A loss needs at least two tokens: one to read, one to predict.")
    wide = logits if logits.dtype == torch.float64 else logits.float()
    loss = F.cross_entropy(wide[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    loss = loss.unflatten(0, (len(tokens), tokens.shape[1] - 1))
    if mask is None:
        return loss if per_token else loss.mean()
    both = mask[:, :-1] & mask[:, 1:]
    if not bool(both.any()):
        raise InputError("No two real tokens stand side by side, so there is nothing to predict. Give longer rows.")
    return loss.masked_fill(~both, torch.nan) if per_token else loss[both].mean()
