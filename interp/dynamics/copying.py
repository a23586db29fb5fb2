"""Copying a sequence of fixed length after a separator: one head that looks a fixed number of tokens back does it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from interp.dynamics.base import Examples, Recipe, drawn
from interp.model.config import ModelConfig

__all__ = ["RECIPES", "CopyRows"]


@dataclass(frozen=True)
class CopyRows:
    """BOS (0), `length` random tokens, a separator (1), the same tokens again. Group `copy`: the second ones."""

    d_vocab: int = 34
    length: int = 12

    def draw(self, n: int, generator: torch.Generator, *, held_out: bool = False) -> Examples:
        block = drawn(2, self.d_vocab, (n, self.length), generator)
        bos, separator = torch.zeros(n, 1, dtype=torch.long), torch.ones(n, 1, dtype=torch.long)
        tokens = torch.cat([bos, block, separator, block], dim=1)
        scored = (torch.arange(tokens.shape[1]) > self.length + 1).expand(n, -1)
        return Examples(tokens, {"copy": scored})


_DATA = CopyRows()
RECIPES = (
    Recipe(
        "copy",
        ModelConfig.decoder_only(
            n_layers=1,
            d_model=64,
            n_heads=4,
            d_vocab=_DATA.d_vocab,
            n_ctx=2 * _DATA.length + 1,
            d_mlp=0,
            rotary=None,
        ),
        _DATA,
        600,
        "One layer, no MLP. From the separator on, heads have to look 12 tokens back: to the token that comes next.",
    ),
)
