"""Induction: random blocks that repeat with a period of their own, so that only content tells where the copy is.

Two controls. One layer cannot compose two heads. A fixed period lets a single head do the work by position.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from interp.dynamics.base import Examples, Recipe, drawn
from interp.errors import InputError
from interp.model.config import ModelConfig

__all__ = ["RECIPES", "TiledBlocks", "attention_only"]


@dataclass(frozen=True)
class TiledBlocks:
    """BOS (token 0) and `length` tokens: a random block, tiled. Its period is drawn from `periods`, both included.

    Groups: `first` tokens are random, `repeat` ones follow from the context. The first token of the first copy is in
    none: nothing tells that the block has ended.
    """

    d_vocab: int = 128
    length: int = 64
    periods: tuple[int, int] = (8, 32)

    def __post_init__(self) -> None:
        low, high = self.periods
        if not 2 <= low <= high < self.length - 1 or self.d_vocab < 2:
            raise InputError(
                f"TiledBlocks has periods={self.periods}, length={self.length} and d_vocab={self.d_vocab}. Give "
                "periods from 2 that repeat within the length, and at least 2 tokens."
            )

    def draw(self, n: int, generator: torch.Generator, *, held_out: bool = False) -> Examples:
        low, high = self.periods
        period = drawn(low, high + 1, (n, 1), generator)
        at = torch.arange(self.length)[None]
        rows = drawn(1, self.d_vocab, (n, self.length), generator).gather(1, at % period)
        tokens = torch.nn.functional.pad(rows, (1, 0))
        start = torch.zeros(n, 1, dtype=torch.bool)
        scored = {
            "first": torch.cat([start, at < period], dim=1),
            "repeat": torch.cat([start, at > period], dim=1),
        }
        return Examples(tokens, scored)


def attention_only(n_layers: int, data: TiledBlocks, *, d_model: int = 64, n_heads: int = 4) -> ModelConfig:
    """Heads and RMSNorms without MLPs, over learned positions."""
    return ModelConfig.decoder_only(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        d_vocab=data.d_vocab,
        n_ctx=data.length,
        d_mlp=0,
        rotary=None,
    )


_VARIED, _FIXED = TiledBlocks(), TiledBlocks(periods=(16, 16))
RECIPES = (
    Recipe(
        "induction",
        attention_only(2, _VARIED),
        _VARIED,
        2_000,
        "Two layers, no MLP. A previous-token head in layer 0 and induction heads in layer 1 have to form.",
    ),
    Recipe(
        "induction-one-layer",
        attention_only(1, _VARIED),
        _VARIED,
        2_000,
        "Control: one layer cannot compose two heads, so no induction head can form.",
    ),
    Recipe(
        "induction-fixed-period",
        attention_only(2, _FIXED),
        _FIXED,
        2_000,
        "Control: every period is 16, so a head can look 15 tokens back by position; no previous-token head is needed.",
    ),
)
