"""Which attention a model has: what analyses declare that they are for."""

from __future__ import annotations

from typing import Literal

from interp.model.transformer import HookedTransformer

__all__ = ["KINDS_IN_WORDS", "AttentionKind", "attention_kind"]

AttentionKind = Literal["decoder", "encoder", "cross"]
KINDS_IN_WORDS = {
    "decoder": "causal decoders, which predict the next token",
    "encoder": "encoders, whose attention is bidirectional",
    "cross": "encoder-decoders, whose heads look at two texts",
}


def attention_kind(model: HookedTransformer) -> AttentionKind:
    """`cross` where there are two texts, `encoder` where any layer looks both ways, else `decoder`."""
    if len(model.cfg.stacks) > 1:
        return "cross"
    return "decoder" if all(block.attn.mask == "causal" for block in model.main.config.blocks) else "encoder"
