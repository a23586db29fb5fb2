"""Reversing a sequence with an encoder and a decoder: which encoder token each decoder token must look at is known.

The encoder's heads see their own token only and the decoder has one layer, so a token's identity stands at its own
place in the encoder and can reach the decoder by cross-attention from there alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from interp.dynamics.base import Examples, Recipe, drawn
from interp.model.config import AttentionConfig, BlockConfig, MLPConfig, ModelConfig, NormConfig, StackConfig

__all__ = ["RECIPES", "ReversedRows"]


@dataclass(frozen=True)
class ReversedRows:
    """The encoder reads `length` random tokens, the decoder a start token (0) and the same tokens from the last to the
    first. Group `reversed`: all but the start. Decoder position i has to look at encoder position length − 1 − i."""

    d_vocab: int = 33
    length: int = 8

    def draw(self, n: int, generator: torch.Generator, *, held_out: bool = False) -> Examples:
        source = drawn(1, self.d_vocab, (n, self.length), generator)
        tokens = torch.nn.functional.pad(source.flip(1), (1, 0))
        return Examples(tokens, {"reversed": (torch.arange(self.length + 1) > 0).expand(n, -1)}, source)


def _seq2seq(data: ReversedRows, *, d_model: int = 64, n_heads: int = 4) -> ModelConfig:
    d_head = d_model // n_heads
    norm, n_ctx = NormConfig(), data.length
    alone = AttentionConfig(n_heads, d_head, n_heads, d_head**-0.5, "bidirectional", window=1)
    cross = AttentionConfig(n_heads, d_head, n_heads, d_head**-0.5, "bidirectional")
    causal = AttentionConfig(n_heads, d_head, n_heads, d_head**-0.5)
    mlp = MLPConfig(2 * d_model, "gelu", gated=False)
    return ModelConfig(
        d_model,
        data.d_vocab,
        n_ctx,
        encoder=StackConfig((BlockConfig(alone, None, norm),), norm, n_ctx),
        decoder=StackConfig((BlockConfig(causal, mlp, norm, cross_attn=cross),), norm, n_ctx),
    )


_DATA = ReversedRows()
RECIPES = (
    Recipe(
        "reversal",
        _seq2seq(_DATA),
        _DATA,
        1_000,
        "An encoder and a decoder of one layer each. Cross-attention at decoder position i has to look at encoder "
        "position 7 − i.",
    ),
)
