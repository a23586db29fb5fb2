"""Phi-1, Phi-1.5 and Phi-2: parallel blocks with one norm, rotary positions on a part of each head, a biased head."""

from __future__ import annotations

from interp.families.base import Family
from interp.families.decoders import decoder_model, read_sizes
from interp.families.fields import Fields, read_activation, read_rotary
from interp.families.layouts import decoder_table
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


FAMILY = Family(
    name="phi",
    hf_model_types=("phi",),
    read_config=_read_config,
    table=decoder_table(linears=_LINEARS, norms=_NORMS, final="final_layernorm"),
    refuses=("rotary scaling other than linear and llama3",),
)
