"""What the configs of most decoders have in common, read once: sizes, windows by layer, the whole around the blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from interp.families.fields import Fields, read_activation, read_d_head
from interp.model.config import (
    AttentionConfig,
    BlockConfig,
    MLPConfig,
    ModelConfig,
    NormConfig,
    RotaryConfig,
    StackConfig,
)

__all__ = ["Sizes", "blocks_with_windows", "decoder_model", "read_bias", "read_sizes", "read_windows"]


@dataclass(frozen=True)
class Sizes:
    """The numbers that every decoder's config has."""

    d_model: int
    n_heads: int
    n_key_value_heads: int
    d_head: int
    n_layers: int
    n_ctx: int
    d_vocab: int

    def attention(
        self, rotary: RotaryConfig | None, *, scale: float | None = None, bias: bool = False, **options: Any
    ) -> AttentionConfig:
        """Attention of these sizes; `bias` is for all four of its maps, unless `options` say otherwise."""
        factor: float = self.d_head**-0.5 if scale is None else scale
        biases = {"bias_qkv": bias, "bias_out": bias}
        heads = (self.n_heads, self.d_head, self.n_key_value_heads)
        return AttentionConfig(*heads, factor, rotary=rotary, **{**biases, **options})

    def gated(self, fields: Fields, *, act: str = "hidden_act", default: str = "silu", bias: bool = False) -> MLPConfig:
        return MLPConfig(fields.size("intermediate_size"), read_activation(fields, act, default), True, bias)

    def plain(self, act: str, d_mlp: int | None = None, *, bias: bool = True) -> MLPConfig:
        """An MLP without a gate, four times as wide as the residual where nothing else is said."""
        return MLPConfig(d_mlp or 4 * self.d_model, act, False, bias)


def read_sizes(fields: Fields, *, d_head: int | None = None, n_kv: int | None = None, n_ctx: int = 2048) -> Sizes:
    """Sizes under the names that Llama's configs use; `d_head`, `n_kv` and `n_ctx` are the family's own where the
    config has none."""
    d_model, n_heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    shared = n_heads if n_kv is None or fields.is_null("num_key_value_heads") else n_kv
    return Sizes(
        d_model,
        n_heads,
        fields.size("num_key_value_heads", shared),
        read_d_head(fields, "head_dim", d_model, n_heads) if d_head is None else fields.size("head_dim", d_head),
        fields.layers("num_hidden_layers"),
        fields.context("max_position_embeddings", n_ctx),
        fields.size("vocab_size"),
    )


def read_bias(fields: Fields, name: str = "attention_bias", default: bool = False) -> bool:
    return fields.flag(name, default)


def read_windows(fields: Fields, n_layers: int, slides: Sequence[bool], window: int | None) -> list[int | None]:
    """Each layer's window: by `layer_types` where the config has them, else as `slides` says."""
    types = fields.words("layer_types", None)
    if types is not None:
        strange = sorted(set(types) - {"full_attention", "sliding_attention"})
        if strange or len(types) != n_layers:
            why = f"known are full_attention and sliding_attention, one for each of {n_layers} layers"
            raise fields.refuse("layer_types", strange or types, why)
        slides = [kind == "sliding_attention" for kind in types]
    if any(slides) and window is None:
        raise fields.refuse("layer_types", types, "sliding layers need a sliding_window")
    return [window if slide else None for slide in slides]


def blocks_with_windows(block: BlockConfig, windows: Iterable[int | None]) -> tuple[BlockConfig, ...]:
    """Blocks that differ in their windows only."""
    return tuple(replace(block, attn=replace(block.attn, window=window)) for window in windows)


def decoder_model(
    fields: Fields,
    sizes: Sizes,
    blocks: BlockConfig | tuple[BlockConfig, ...],
    final: NormConfig | None,
    *,
    family: str,
    tied: bool = False,
    stack: dict[str, Any] | None = None,
    **model: Any,
) -> ModelConfig:
    """The whole model; `tied` is what the family means where its config does not say."""
    blocks = (blocks,) * sizes.n_layers if isinstance(blocks, BlockConfig) else blocks
    return ModelConfig(
        sizes.d_model,
        sizes.d_vocab,
        sizes.n_ctx,
        decoder=StackConfig(blocks, final, **(stack or {})),
        tie_word_embeddings=fields.flag("tie_word_embeddings", tied),
        family=family,
        **model,
    )
