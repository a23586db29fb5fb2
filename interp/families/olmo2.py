"""OLMo 2: norms on what sublayers add instead of what they read, and on all queries and all keys together."""

from __future__ import annotations

from interp.families.base import Family
from interp.families.decoders import decoder_model, read_bias, read_sizes
from interp.families.fields import Fields, read_rotary
from interp.families.layouts import decoder_table
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY"]

_NORMS = {
    "post_attention_layernorm": "ln1_post",
    "post_feedforward_layernorm": "ln2_post",
    "self_attn.q_norm": "attn.q_norm",
    "self_attn.k_norm": "attn.k_norm",
}


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_sizes(fields)
    norm = NormConfig("rms", fields.number("rms_norm_eps", 1e-5))
    rotary = read_rotary(fields, sizes.d_head, sizes.n_ctx)
    attn = sizes.attention(rotary, bias=read_bias(fields), qk_norm=norm, qk_norm_over="all")
    block = BlockConfig(attn, sizes.gated(fields), norm, norms="output")
    return decoder_model(fields, sizes, block, norm, family="olmo2")


FAMILY = Family(
    name="olmo2",
    hf_model_types=("olmo2",),
    read_config=_read_config,
    table=decoder_table(norms=_NORMS),
    refuses=("rotary scaling other than linear and llama3",),
)
