"""GPT-Neo: GPT-2 with scores that are not scaled, and a window in the layers that its config calls local."""

from __future__ import annotations

from interp.families.base import Family
from interp.families.decoders import blocks_with_windows, decoder_model
from interp.families.fields import Fields, read_activation
from interp.families.gpt2 import GPT_NORMS, GPT_POSITIONS, read_gpt_sizes
from interp.families.layouts import decoder_table
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY"]

_LINEARS = {
    "attn.attention.q_proj": "attn.q",
    "attn.attention.k_proj": "attn.k",
    "attn.attention.v_proj": "attn.v",
    "attn.attention.out_proj": "attn.o",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_gpt_sizes(fields, 2048)
    norm = NormConfig("layer", fields.number("layer_norm_epsilon", 1e-5), bias=True)
    act = read_activation(fields, "activation_function", "gelu_new")
    attn = sizes.attention(None, scale=1.0, bias_out=True)
    block = BlockConfig(attn, sizes.plain(act, fields.size("intermediate_size", None)), norm)
    blocks = blocks_with_windows(block, _windows(fields, sizes.n_layers))
    positions = {"learned_positions": sizes.n_ctx}
    return decoder_model(fields, sizes, blocks, norm, family="gpt_neo", tied=True, stack=positions)


def _windows(fields: Fields, n_layers: int) -> list[int | None]:
    window = fields.size("window_size", 256)
    kinds = fields.words("attention_layers", None) or ["global", "local"] * (n_layers // 2)
    fields.harmless(("attention_types",))  # the same, shortened
    if len(kinds) != n_layers or set(kinds) - {"global", "local"}:
        raise fields.refuse("attention_layers", kinds, f"known are global and local, one for each of {n_layers} layers")
    return [window if kind == "local" else None for kind in kinds]


FAMILY = Family(
    name="gpt_neo",
    hf_model_types=("gpt_neo",),
    read_config=_read_config,
    table=decoder_table(
        root="transformer.",
        layers="h",
        linears=_LINEARS,
        norms=GPT_NORMS,
        embed="wte",
        others=GPT_POSITIONS,
        final="ln_f",
        harmless=("attn.attention.bias", "attn.attention.masked_bias"),
    ),
    refuses=("attention other than global and local",),
)
