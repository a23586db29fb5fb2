"""GPT-NeoX and Pythia: parallel blocks with two norms, rotary positions on a part of each head, fused q/k/v by head."""

from __future__ import annotations

from interp.families.base import Family, WeightRule
from interp.families.decoders import decoder_model, read_bias, read_sizes
from interp.families.fields import Fields, read_activation, read_rotary
from interp.families.layouts import LLAMA_NORMS, QKV, decoder_table, grouped_qkv, joined_groups
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY"]


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_sizes(fields)
    norm = NormConfig("layer", fields.number("layer_norm_eps", 1e-5), bias=True)
    names = ("rotary_emb_base", "rotary_pct")
    rotary = read_rotary(fields, sizes.d_head, sizes.n_ctx, default_part=0.25, old_names=names)
    mlp = sizes.plain(read_activation(fields, "hidden_act", "gelu"), fields.size("intermediate_size"))
    order = "parallel" if fields.flag("use_parallel_residual", True) else "sequential"
    attn = sizes.attention(rotary, bias=read_bias(fields, default=True))
    return decoder_model(fields, sizes, BlockConfig(attn, mlp, norm, residual=order), norm, family="gpt_neox")


FAMILY = Family(
    name="gpt_neox",
    hf_model_types=("gpt_neox",),
    read_config=_read_config,
    table=decoder_table(
        root="gpt_neox.",
        linears={"attention.dense": "attn.o", "mlp.dense_h_to_4h": "mlp.up", "mlp.dense_4h_to_h": "mlp.down"},
        norms=LLAMA_NORMS,
        fused={"attention.query_key_value": (QKV, grouped_qkv, joined_groups)},
        embed="embed_in",
        final="final_layer_norm",
        others=(WeightRule("embed_out.weight", ("unembed.weight",), written=lambda config: False),),  # before v5
        harmless=("attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq"),
    ),
    refuses=("rotary scaling other than linear and llama3",),
)
