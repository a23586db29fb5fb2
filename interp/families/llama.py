"""Llama and what is stored as Llama (SmolLM2, TinyLlama, Llama 2 and 3, Mistral's GGUF files)."""

from __future__ import annotations

from functools import partial
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from interp.errors import CheckpointError
from interp.families.base import Family, GGUFDialect, GGUFTensors, WeightRule, WeightTable
from interp.families.fields import Fields, read_activation, read_d_head, read_rotary
from interp.families.gguf_layouts import read_gguf_rotary, read_gguf_sizes, shortest
from interp.model.config import (
    AttentionConfig,
    BlockConfig,
    MLPConfig,
    ModelConfig,
    NormConfig,
    StackConfig,
)

__all__ = ["FAMILY"]

# Our name of a tensor inside a block: the hub's name, llama.cpp's name.
_BLOCK = {
    "ln1.w": ("input_layernorm.weight", "attn_norm.weight"),
    "ln2.w": ("post_attention_layernorm.weight", "ffn_norm.weight"),
    **{
        f"{ours}.{kind}": (f"{hub}.{kind}", f"{gguf}.{kind}")
        for kind in ("weight", "bias")
        for ours, hub, gguf in (
            ("attn.q", "self_attn.q_proj", "attn_q"),
            ("attn.k", "self_attn.k_proj", "attn_k"),
            ("attn.v", "self_attn.v_proj", "attn_v"),
            ("attn.o", "self_attn.o_proj", "attn_output"),
            ("mlp.gate", "mlp.gate_proj", "ffn_gate"),
            ("mlp.up", "mlp.up_proj", "ffn_up"),
            ("mlp.down", "mlp.down_proj", "ffn_down"),
        )
    },
}
_OUTSIDE = {
    "decoder.embed.weight": ("model.embed_tokens.weight", "token_embd.weight"),
    "decoder.ln_final.w": ("model.norm.weight", "output_norm.weight"),
    "unembed.weight": ("lm_head.weight", "output.weight"),
}


def _read_config(fields: Fields) -> ModelConfig:
    d_model, n_heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    d_head = read_d_head(fields, "head_dim", d_model, n_heads)
    n_ctx = fields.context("max_position_embeddings", 2048)
    fields.must_be("pretraining_tp", 1)
    for name in ("sliding_window", "use_sliding_window"):
        fields.must_be(name, False)
    bias, mlp_bias = fields.flag("attention_bias", False), fields.flag("mlp_bias", False)
    attn = AttentionConfig(
        n_heads,
        d_head,
        fields.size("num_key_value_heads", n_heads),
        scale=d_head**-0.5,
        rotary=read_rotary(fields, d_head, n_ctx),
        bias_qkv=bias,
        bias_out=bias,
    )
    mlp = MLPConfig(fields.size("intermediate_size"), read_activation(fields, "hidden_act", "silu"), bias=mlp_bias)
    norm = NormConfig("rms", fields.number("rms_norm_eps", 1e-6))
    return ModelConfig(
        d_model,
        fields.size("vocab_size"),
        n_ctx,
        decoder=StackConfig((BlockConfig(attn, mlp, norm),) * fields.layers("num_hidden_layers"), norm),
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        family="llama",
    )


def _gguf_to_hf_config(fields: Fields, tensors: GGUFTensors) -> dict[str, Any]:
    """The `llama.*` metadata as the fields of a hub config."""
    sizes = read_gguf_sizes(fields, tensors, "llama")
    fields.must_be("attention.sliding_window", 0)
    fields.must_be("use_parallel_residual", False)
    return {
        **sizes,
        "rms_norm_eps": shortest(fields.number("attention.layer_norm_rms_epsilon")),
        "rope_parameters": read_gguf_rotary(fields, tensors, sizes["head_dim"]),
        "attention_bias": "blk.0.attn_q.bias" in tensors.shapes,
        "mlp_bias": "blk.0.ffn_up.bias" in tensors.shapes,
    }


def _unpermuted(
    tensor: Float[Tensor, "rows *columns"], config: ModelConfig, *, keys: bool
) -> tuple[Float[Tensor, "rows *columns"]]:
    """Rotary pairs from llama.cpp's order, (0,1)(2,3)…, back to the hub's, (0,half)(1,half+1)…"""
    n_heads = config.n_key_value_heads if keys else config.n_heads
    if tensor.shape[0] != n_heads * config.d_head:
        raise CheckpointError(
            f"A q or k tensor has {tensor.shape[0]} rows, but {n_heads} heads of {config.d_head} are declared."
        )
    pairs = "(head half two) ... -> (head two half) ..."
    return (rearrange(tensor, pairs, head=n_heads, two=2).contiguous(),)


def _gguf_rule(ours: str, hub: str, gguf: str) -> WeightRule:
    split = partial(_unpermuted, keys=ours.startswith("attn.k")) if ours.startswith(("attn.q", "attn.k")) else None
    return WeightRule("blk.{l}." + gguf, ("model.layers.{l}." + hub,), split)


_HUB_TABLE = WeightTable(
    rules=(
        *(WeightRule(hub, (ours,)) for ours, (hub, _) in _OUTSIDE.items()),
        *(WeightRule("model.layers.{l}." + hub, ("decoder.blocks.{l}." + ours,)) for ours, (hub, _) in _BLOCK.items()),
    ),
    harmless=("model.layers.{l}.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"),
    prefix="model.",
)

_GGUF_TABLE = WeightTable(
    rules=(
        *(WeightRule(gguf, (hub,)) for hub, gguf in _OUTSIDE.values()),
        *(_gguf_rule(ours, hub, gguf) for ours, (hub, gguf) in _BLOCK.items()),
    ),
    harmless=("rope_freqs.weight",),  # its divisors become the config's rotary scaling
)

FAMILY = Family(
    name="llama",
    hf_model_types=("llama",),
    read_config=_read_config,
    table=_HUB_TABLE,
    gguf=GGUFDialect(("llama",), _gguf_to_hf_config, _GGUF_TABLE),
    refuses=(
        "sliding windows",
        "rotary scaling other than linear and llama3",
        "mixtures of experts",
        "quantised hub weights",
    ),
)
