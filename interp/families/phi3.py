"""Phi-3 and Phi-4 (text): Llama with fused queries, keys and values, fused gate and input, perhaps a window."""

from __future__ import annotations

from typing import Any

from interp.families.base import Family, GGUFDialect, GGUFTensors
from interp.families.decoders import blocks_with_windows, decoder_model, read_sizes
from interp.families.fields import Fields, read_rotary
from interp.families.gguf_layouts import (
    GGUF_NORMS,
    gguf_table,
    read_gguf_rotary,
    read_gguf_sizes,
    shortest,
)
from interp.families.layouts import GATED, QKV, decoder_table, halves, joined_rows, stacked_qkv
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


def _gguf_to_hf_config(fields: Fields, tensors: GGUFTensors) -> dict[str, Any]:
    sizes = read_gguf_sizes(fields, tensors, "phi3")
    return {
        **sizes,
        "rms_norm_eps": shortest(fields.number("attention.layer_norm_rms_epsilon")),
        "rope_parameters": read_gguf_rotary(fields, tensors, sizes["head_dim"], partial=True),
        "sliding_window": fields.index("attention.sliding_window", 0) or None,
    }


_GGUF_PARTS = {
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}

FAMILY = Family(
    name="phi3",
    hf_model_types=("phi3",),
    read_config=_read_config,
    table=decoder_table(
        linears={"self_attn.o_proj": "attn.o", "mlp.down_proj": "mlp.down"},
        fused={"self_attn.qkv_proj": (QKV, stacked_qkv, joined_rows), "mlp.gate_up_proj": (GATED, halves, joined_rows)},
    ),
    gguf=GGUFDialect(("phi3",), _gguf_to_hf_config, gguf_table(_GGUF_PARTS | GGUF_NORMS)),
    refuses=("longrope and yarn (the 128k models)", "mixtures of experts"),
)
