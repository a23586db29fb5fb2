"""Phi-1, Phi-1.5 and Phi-2: parallel blocks with one norm, rotary positions on a part of each head, a biased head."""

from __future__ import annotations

from typing import Any

from interp.families.base import Family, GGUFDialect, GGUFTensors, WeightRule
from interp.families.decoders import decoder_model, read_sizes
from interp.families.fields import Fields, read_activation, read_rotary
from interp.families.gguf_layouts import gguf_table, read_gguf_rotary, read_gguf_sizes, shortest
from interp.families.layouts import decoder_table, stacked_qkv
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY"]

_LINEARS = {
    "self_attn.q_proj": "attn.q",
    "self_attn.k_proj": "attn.k",
    "self_attn.v_proj": "attn.v",
    "self_attn.dense": "attn.o",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
}
_NORMS = {
    "input_layernorm": "ln1",
    "self_attn.q_layernorm": "attn.q_norm",
    "self_attn.k_layernorm": "attn.k_norm",
}


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_sizes(fields)
    norm = NormConfig("layer", fields.number("layer_norm_eps", 1e-5), bias=True)
    rotary = read_rotary(fields, sizes.d_head, sizes.n_ctx, default_part=0.5)
    attn = sizes.attention(rotary, bias=True, qk_norm=norm if fields.flag("qk_layernorm", False) else None)
    mlp = sizes.plain(read_activation(fields, "hidden_act", "gelu_new"), fields.size("intermediate_size"))
    block = BlockConfig(attn, mlp, norm, residual="parallel", shared_norm=True)
    return decoder_model(fields, sizes, block, norm, family="phi", bias_unembed=True)


def _gguf_to_hf_config(fields: Fields, tensors: GGUFTensors) -> dict[str, Any]:
    sizes = read_gguf_sizes(fields, tensors, "phi")
    d_head = sizes.pop("head_dim")
    if d_head * sizes["num_attention_heads"] != sizes["hidden_size"]:
        raise fields.refuse("attention.key_length", d_head, "Phi's heads share d_model evenly")
    return {
        **sizes,
        "layer_norm_eps": shortest(fields.number("attention.layer_norm_epsilon")),
        "rope_parameters": read_gguf_rotary(fields, tensors, d_head, partial=True),
    }


_GGUF_PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.dense": "attn_output",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
    "input_layernorm": "attn_norm",
}
_GGUF_TABLE = gguf_table(
    _GGUF_PARTS,
    {"model.embed_tokens": "token_embd", "model.final_layernorm": "output_norm", "lm_head": "output"},
    others=tuple(  # files made from the first release, which fused them
        WeightRule(
            f"blk.{{l}}.attn_qkv.{kind}",
            tuple(f"model.layers.{{l}}.self_attn.{x}_proj.{kind}" for x in "qkv"),
            stacked_qkv,
        )
        for kind in ("weight", "bias")
    ),
)

FAMILY = Family(
    name="phi",
    hf_model_types=("phi",),
    read_config=_read_config,
    table=decoder_table(linears=_LINEARS, norms=_NORMS, final="final_layernorm"),
    gguf=GGUFDialect(("phi2",), _gguf_to_hf_config, _GGUF_TABLE),
    refuses=("rotary scaling other than linear and llama3",),
)
