"""Qwen2 and Qwen2.5: Llama with biases on queries, keys and values, and perhaps windows in the upper layers."""

from __future__ import annotations

from typing import Any

from interp.families.base import Family, GGUFDialect, GGUFTensors
from interp.families.decoders import Sizes, blocks_with_windows, decoder_model, read_sizes, read_windows
from interp.families.fields import Fields, read_rotary
from interp.families.gguf_layouts import (
    GGUF_LINEARS,
    GGUF_NORMS,
    gguf_table,
    read_gguf_rotary,
    read_gguf_sizes,
    shortest,
)
from interp.families.layouts import decoder_table
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY", "qwen_gguf_config", "qwen_windows"]


def qwen_windows(fields: Fields, sizes: Sizes) -> list[int | None]:
    """The windows of the layers from `max_window_layers` on, where they are switched on at all."""
    slides = fields.flag("use_sliding_window", False)
    window = fields.size("sliding_window", None if fields.is_null("sliding_window") else 4096)
    first = fields.index("max_window_layers", 28)
    window = window if slides else None
    upper = [window is not None and layer >= first for layer in range(sizes.n_layers)]
    return read_windows(fields, sizes.n_layers, upper, window)


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_sizes(fields, n_kv=32, n_ctx=32_768)
    fields.must_be("use_mrope", False)
    norm = NormConfig("rms", fields.number("rms_norm_eps", 1e-6))
    attn = sizes.attention(read_rotary(fields, sizes.d_head, sizes.n_ctx), bias_qkv=True)
    blocks = blocks_with_windows(BlockConfig(attn, sizes.gated(fields), norm), qwen_windows(fields, sizes))
    return decoder_model(fields, sizes, blocks, norm, family="qwen2")


def qwen_gguf_config(fields: Fields, tensors: GGUFTensors, model_type: str) -> dict[str, Any]:
    """The metadata of Qwen2 and Qwen3: llama.cpp has no windows for them."""
    sizes = read_gguf_sizes(fields, tensors, model_type)
    fields.must_be("attention.sliding_window", 0)
    return {
        **sizes,
        "rms_norm_eps": shortest(fields.number("attention.layer_norm_rms_epsilon")),
        "rope_parameters": read_gguf_rotary(fields, tensors, sizes["head_dim"]),
    }


_GGUF = GGUFDialect(
    ("qwen2",),
    lambda fields, tensors: qwen_gguf_config(fields, tensors, "qwen2"),
    gguf_table(GGUF_LINEARS | GGUF_NORMS, harmless=("rope_freqs.weight",)),
)

FAMILY = Family(
    name="qwen2",
    hf_model_types=("qwen2",),
    read_config=_read_config,
    table=decoder_table(),
    gguf=_GGUF,
    refuses=("multimodal rotary positions", "dual chunk attention", "rotary scaling other than linear and llama3"),
)
