"""Phi-3 and Phi-4 (text): Llama with fused queries, keys and values, fused gate and input, perhaps a window."""

from __future__ import annotations

from interp.families.base import Family
from interp.families.decoders import blocks_with_windows, decoder_model, read_sizes
from interp.families.fields import Fields, read_rotary
from interp.families.layouts import GATED, QKV, decoder_table, halves, stacked_qkv
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY"]


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_sizes(fields, n_ctx=4096)
    fields.must_be("attention_bias", False)
    norm = NormConfig("rms", fields.number("rms_norm_eps", 1e-5))
    rotary = read_rotary(fields, sizes.d_head, sizes.n_ctx, default_part=1.0)
    fields.harmless(("original_max_position_embeddings",))  # longrope's, refused above
    block = BlockConfig(sizes.attention(rotary), sizes.gated(fields), norm)
    blocks = blocks_with_windows(block, [fields.size("sliding_window", None)] * sizes.n_layers)
    return decoder_model(fields, sizes, blocks, norm, family="phi3")


FAMILY = Family(
    name="phi3",
    hf_model_types=("phi3",),
    read_config=_read_config,
    table=decoder_table(
        linears={"self_attn.o_proj": "attn.o", "mlp.down_proj": "mlp.down"},
        fused={"self_attn.qkv_proj": (QKV, stacked_qkv), "mlp.gate_up_proj": (GATED, halves)},
    ),
    refuses=("longrope and yarn (the 128k models)", "mixtures of experts"),
)
