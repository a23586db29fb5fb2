"""Granite: Llama with a multiplier on embeddings, scores, what sublayers add, and logits."""

from __future__ import annotations

from interp.families.base import Family
from interp.families.decoders import decoder_model, read_bias, read_sizes
from interp.families.fields import Fields, read_rotary
from interp.families.layouts import decoder_table
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY"]


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_sizes(fields)
    norm = NormConfig("rms", fields.number("rms_norm_eps", 1e-6))
    scale = fields.number("attention_multiplier", 1.0)
    attn = sizes.attention(read_rotary(fields, sizes.d_head, sizes.n_ctx), scale=scale, bias=read_bias(fields))
    mlp = sizes.gated(fields, bias=read_bias(fields, "mlp_bias"))
    block = BlockConfig(attn, mlp, norm, residual_scale=fields.number("residual_multiplier", 1.0))
    return decoder_model(
        fields,
        sizes,
        block,
        norm,
        family="granite",
        stack={"embed_scale": fields.number("embedding_multiplier", 1.0)},
        logit_scale=1 / fields.number("logits_scaling", 1.0),
    )


FAMILY = Family(
    name="granite",
    hf_model_types=("granite",),
    read_config=_read_config,
    table=decoder_table(),
    refuses=("mixtures of experts", "rotary scaling other than linear and llama3"),
)
