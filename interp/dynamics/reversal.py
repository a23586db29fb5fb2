"""Reversing a sequence with an encoder and a decoder: which encoder token each decoder token must look at is known.

The encoder's heads see their own token only and the decoder has one layer, so a token's identity stands at its own
place in the encoder and can reach the decoder by cross-attention from there alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from interp.dynamics.base import Examples, Recipe, drawn
from interp.errors import InputError
from interp.model.config import AttentionConfig, BlockConfig, MLPConfig, ModelConfig, NormConfig, StackConfig

__all__ = ["RECIPES", "ReversedRows"]


@dataclass(frozen=True)
class ReversedRows:
    """The encoder reads `length` random tokens; the decoder a start token and the tokens from the last to the first.

    With `shortest`, only the first n of a row's tokens are to be reversed, n drawn from `shortest` to `length`; the
    start token says how many (token n − shortest; the others come behind those). Decoder position i has to look at
    encoder position n − 1 − i, so position alone does not tell where. What stands behind the first n is as random, and
    its places in the decoder are filled with the first token. Group `reversed`: those that are to be said.
    """

    d_vocab: int = 33
    length: int = 8
    shortest: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.length or self.d_vocab < self.n_starts + 2:
            raise InputError(
                f"ReversedRows has shortest={self.shortest}, length={self.length} and d_vocab={self.d_vocab}. Give a "
                "shortest from 1 to length, and two tokens more than there are lengths."
            )

    @property
    def least(self) -> int:
        """Tokens that are reversed at the least."""
        return self.length if self.shortest is None else self.shortest

    @property
    def n_starts(self) -> int:
        """Start tokens: one for each number of tokens."""
        return self.length - self.least + 1

    def draw(self, n: int, generator: torch.Generator, *, held_out: bool = False) -> Examples:
        source = drawn(self.n_starts, self.d_vocab, (n, self.length), generator)
        some = drawn(self.least, self.length + 1, (n, 1), generator) if self.n_starts > 1 else self.length
        counts = torch.as_tensor(some).expand(n, 1)
        mirrored = counts - 1 - torch.arange(self.length)
        said = source.gather(1, mirrored.clamp(min=0)).where(mirrored >= 0, source[:, :1])
        tokens = torch.cat([counts - self.least, said], dim=1)
        scored = torch.nn.functional.pad(mirrored >= 0, (1, 0), value=False)
        return Examples(tokens, {"reversed": scored}, source)


def _seq2seq(
    data: ReversedRows, *, scoring: Literal["dot", "additive"] = "dot", d_model: int = 64, n_heads: int = 4
) -> ModelConfig:
    d_head = d_model // n_heads
    norm, n_ctx = NormConfig(), data.length
    alone = AttentionConfig(n_heads, d_head, n_heads, d_head**-0.5, "bidirectional", window=1)
    scale = d_head**-0.5 if scoring == "dot" else 1.0
    cross = AttentionConfig(n_heads, d_head, n_heads, scale, "bidirectional", scoring=scoring)
    causal = AttentionConfig(n_heads, d_head, n_heads, d_head**-0.5)
    mlp = MLPConfig(2 * d_model, "gelu", gated=False)
    return ModelConfig(
        d_model,
        data.d_vocab,
        n_ctx,
        encoder=StackConfig((BlockConfig(alone, None, norm),), norm, n_ctx),
        decoder=StackConfig((BlockConfig(causal, mlp, norm, cross_attn=cross),), norm, n_ctx),
    )


_DATA, _VARIED = ReversedRows(), ReversedRows(d_vocab=37, shortest=4)
_ABOUT = "An encoder and a decoder of one layer each. Cross-attention at decoder position i has to look at encoder "
RECIPES = (
    Recipe("reversal", _seq2seq(_DATA), _DATA, 1_000, _ABOUT + "position 7 − i."),
    Recipe(
        "reversal-additive",
        _seq2seq(_DATA, scoring="additive"),
        _DATA,
        1_000,
        _ABOUT + "position 7 − i; its scores are additive, as in the first attention (Bahdanau 2015).",
    ),
    Recipe(
        "reversal-lengths",
        _seq2seq(_VARIED),
        _VARIED,
        1_500,
        _ABOUT + "position n − 1 − i, where the decoder's first token says n, from 4 to 8: position does not tell.",
    ),
)
