"""The null: random weights and shuffled labels. Heads do things here, but nothing about the task."""

from __future__ import annotations

import torch

from interp.errors import InputError
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.planted.base import Planted, Truth

__all__ = ["null"]

VOCAB, LENGTH, D_HEAD = 40, 8, 8
ABOUT = """\
Random weights and random prompts. Every head changes the logits, so no effect is exactly 0; but which of two tokens
is called the answer and which the foil is a coin flip for every item. An effect on the logit difference is therefore
as likely +x as −x, independently of all else, and sign flips over items are an exact test: whatever it finds is
false."""


def null(n_layers: int = 2, n_heads: int = 4, seed: int = 0, *, n: int = 40) -> Planted:
    """A model with nothing planted: `n` items, one corruption (`random`), and an empty truth."""
    if min(n_layers, n_heads, n) < 1:
        raise InputError(f"A null of {n_layers} layers, {n_heads} heads and {n} prompts is empty. Give at least 1.")
    generator = torch.Generator().manual_seed(seed)
    config = ModelConfig.decoder_only(
        n_layers=n_layers,
        d_model=n_heads * D_HEAD,
        n_heads=n_heads,
        d_vocab=VOCAB,
        n_ctx=2 * LENGTH,
        d_mlp=4 * n_heads * D_HEAD,
        model_name="planted-null",
    )
    model = HookedTransformer(config, seed=seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                sharper = 2.0 if name.endswith((".q.weight", ".k.weight")) else 1.0
                scale = 1.0 if "embed" in name else sharper * weight.shape[1] ** -0.5
                weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    clean, corrupt = torch.randint(0, VOCAB, (2, n, LENGTH), generator=generator)
    labels = torch.stack([torch.randperm(VOCAB, generator=generator)[:2] for _ in range(n)])
    pairs = PromptPairs.from_tokens(
        clean,
        corrupt,
        answer=labels[:, 0].tolist(),
        foil=labels[:, 1].tolist(),
        positions={"END": LENGTH - 1},
        templates=["random"] * n,
    )
    return Planted("null", model, {"random": pairs}, torch.cat([clean, clean], dim=1), Truth(), ABOUT)
