"""Gemma: Llama with gains stored less one, embeddings times √d_model, and a gate of tanh-GELU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.families.base import Family, GGUFDialect, GGUFTensors, WeightTable
from interp.families.decoders import decoder_model, read_bias, read_sizes
from interp.families.fields import Fields, read_activation, read_rotary
from interp.families.gguf_layouts import (
    GGUF_LINEARS,
    GGUF_NORMS,
    GGUF_WHOLE,
    gguf_table,
    less_one,
    read_gguf_rotary,
    read_gguf_sizes,
    shortest,
)
from interp.families.layouts import decoder_table
from interp.model.config import BlockConfig, MLPConfig, ModelConfig, NormConfig

__all__ = ["FAMILY", "gemma_gguf_config", "gemma_gguf_table", "gemma_norm", "gemma_stack"]


def gemma_norm(fields: Fields) -> NormConfig:
    return NormConfig("rms", fields.number("rms_norm_eps", 1e-6), gain_offset=1.0)


def gemma_stack(d_model: int) -> dict[str, Any]:
    """Embeddings times √d_model as the weights' dtype has it: 55.5 for 55.4256 in bfloat16."""
    return {"embed_scale": d_model**0.5, "embed_scale_rounded": True}


def _activation(fields: Fields) -> str:
    """Gemma's first configs say "gelu" and mean its tanh form; later ones have a field of their own."""
    old = read_activation(fields, "hidden_act", "gelu_pytorch_tanh")
    return read_activation(fields, "hidden_activation", "gelu_pytorch_tanh" if old == "gelu" else old)


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_sizes(fields, d_head=256, n_kv=16, n_ctx=8192)
    fields.must_be("use_bidirectional_attention", False)
    norm = gemma_norm(fields)
    attn = sizes.attention(read_rotary(fields, sizes.d_head, sizes.n_ctx), bias=read_bias(fields))
    block = BlockConfig(attn, MLPConfig(fields.size("intermediate_size"), _activation(fields)), norm)
    stack = gemma_stack(sizes.d_model)
    return decoder_model(fields, sizes, block, norm, family="gemma", tied=True, stack=stack)


def gemma_gguf_config(fields: Fields, tensors: GGUFTensors, model_type: str) -> dict[str, Any]:
    """What the metadata of all three Gemmas has; the files leave out what llama.cpp takes for granted."""
    sizes = read_gguf_sizes(fields, tensors, model_type)
    return {
        **sizes,
        "rms_norm_eps": shortest(fields.number("attention.layer_norm_rms_epsilon")),
        "rope_parameters": read_gguf_rotary(fields, tensors, sizes["head_dim"]),
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": "blk.0.attn_q.bias" in tensors.shapes,
    }


def gemma_gguf_table(norms: Mapping[str, str]) -> WeightTable:
    """The names of a Gemma's tensors, whose gains lose the one that the converter adds."""
    gains = [*norms.values(), GGUF_WHOLE["model.norm"]]
    return gguf_table({**GGUF_LINEARS, **norms}, splits=dict.fromkeys(gains, less_one))


_GGUF = GGUFDialect(
    ("gemma",), lambda fields, tensors: gemma_gguf_config(fields, tensors, "gemma"), gemma_gguf_table(GGUF_NORMS)
)

FAMILY = Family(
    name="gemma",
    hf_model_types=("gemma",),
    read_config=_read_config,
    table=decoder_table(),
    gguf=_GGUF,
    refuses=("attention in both directions", "rotary scaling other than linear and llama3"),
)
