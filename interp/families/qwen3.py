"""Qwen3: Llama whose queries and keys are normed in each head before they are rotated."""

from __future__ import annotations

from typing import Any

from interp.families.base import Family, GGUFDialect, GGUFTensors
from interp.families.decoders import blocks_with_windows, decoder_model, read_bias, read_sizes
from interp.families.fields import Fields, read_rotary
from interp.families.gguf_layouts import GGUF_LINEARS, GGUF_NORMS, gguf_table
from interp.families.layouts import LLAMA_NORMS, decoder_table
from interp.families.qwen2 import qwen_gguf_config, qwen_windows
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY"]


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_sizes(fields, d_head=128, n_kv=32, n_ctx=32_768)
    norm = NormConfig("rms", fields.number("rms_norm_eps", 1e-6))
    rotary = read_rotary(fields, sizes.d_head, sizes.n_ctx)
    attn = sizes.attention(rotary, bias=read_bias(fields), qk_norm=norm)
    blocks = blocks_with_windows(BlockConfig(attn, sizes.gated(fields), norm), qwen_windows(fields, sizes))
    return decoder_model(fields, sizes, blocks, norm, family="qwen3")


def _gguf_to_hf_config(fields: Fields, tensors: GGUFTensors) -> dict[str, Any]:
    return {**qwen_gguf_config(fields, tensors, "qwen3"), "attention_bias": "blk.0.attn_q.bias" in tensors.shapes}


_QK_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
_GGUF = GGUFDialect(
    ("qwen3",),
    _gguf_to_hf_config,
    gguf_table(GGUF_LINEARS | GGUF_NORMS | _QK_NORMS, harmless=("rope_freqs.weight",)),
)

FAMILY = Family(
    name="qwen3",
    hf_model_types=("qwen3",),
    read_config=_read_config,
    table=decoder_table(norms=LLAMA_NORMS | {"self_attn.q_norm": "attn.q_norm", "self_attn.k_norm": "attn.k_norm"}),
    gguf=_GGUF,
    refuses=("mixtures of experts", "rotary scaling other than linear and llama3"),
)
