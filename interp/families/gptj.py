"""GPT-J: parallel blocks with one norm, interleaved rotary positions, an unembedding with a bias."""

from __future__ import annotations

from interp.families.base import Family
from interp.families.decoders import decoder_model
from interp.families.fields import Fields, read_activation
from interp.families.gpt2 import read_gpt_sizes
from interp.families.layouts import decoder_table
from interp.model.config import BlockConfig, ModelConfig, NormConfig, RotaryConfig

__all__ = ["FAMILY"]

_LINEARS = {
    "attn.q_proj": "attn.q",
    "attn.k_proj": "attn.k",
    "attn.v_proj": "attn.v",
    "attn.out_proj": "attn.o",
    "mlp.fc_in": "mlp.up",
    "mlp.fc_out": "mlp.down",
}


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_gpt_sizes(fields, 2048)
    for name in ("rotary", "scale_attn_weights"):
        fields.must_be(name, True)
    norm = NormConfig("layer", fields.number("layer_norm_epsilon", 1e-5), bias=True)
    act = read_activation(fields, "activation_function", "gelu_new")
    mlp = sizes.plain(act, fields.size("n_inner", None))
    block = BlockConfig(
        sizes.attention(_rotary(fields, sizes.d_head)), mlp, norm, residual="parallel", shared_norm=True
    )
    return decoder_model(fields, sizes, block, norm, family="gptj", bias_unembed=True)


def _rotary(fields: Fields, d_head: int) -> RotaryConfig:
    dim = fields.size("rotary_dim", 64)
    if fields.is_null("rotary_dim"):
        raise fields.refuse("rotary_dim", None, "the library turns no head by that")
    if dim > d_head or dim % 2:
        raise fields.refuse("rotary_dim", dim, f"it must be an even number up to the {d_head} dimensions of a head")
    return RotaryConfig(dim, interleaved=True)


FAMILY = Family(
    name="gptj",
    hf_model_types=("gptj",),
    read_config=_read_config,
    table=decoder_table(
        root="transformer.",
        layers="h",
        linears=_LINEARS,
        norms={"ln_1": "ln1"},
        embed="wte",
        final="ln_f",
        harmless=("attn.bias", "attn.masked_bias", "attn.embed_positions"),
    ),
    refuses=("models without rotary positions",),
)
