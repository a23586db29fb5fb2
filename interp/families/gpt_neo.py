"""GPT-Neo: GPT-2 with scores that are not scaled, and a window in the layers that its config calls local."""

from __future__ import annotations

from typing import Any

from interp.families.base import Family
from interp.families.decoders import blocks_with_windows, decoder_model
from interp.families.fields import Fields, read_activation
from interp.families.gpt2 import GPT_NORMS, GPT_POSITIONS, read_gpt_sizes
from interp.families.layouts import decoder_table
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY"]

_USUAL = [[["global", "local"], 12]]

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
    """By `attention_types`, which the library expands. `attention_layers` decides only where the other is absent, or
    the default that the library writes whatever the number of layers."""
    types, kinds = fields.given("attention_types"), fields.words("attention_layers", None)
    window = fields.size("window_size", 256)
    known = f"known are global and local, one for each of {n_layers} layers"
    if kinds is not None and (len(kinds) != n_layers or set(kinds) - {"global", "local"}):
        raise fields.refuse("attention_layers", kinds, known)
    silent = types is None or (types == _USUAL and n_layers != 24)
    types = _USUAL if types is None else types
    expanded = kinds if kinds is not None and silent else _expanded(types)
    if expanded is None or len(expanded) != n_layers or set(expanded) - {"global", "local"}:
        raise fields.refuse("attention_types", types, known)
    if kinds is not None and kinds != expanded:
        raise fields.refuse("attention_layers", kinds, f"attention_types={types!r} says otherwise")
    return [window if kind == "local" else None for kind in expanded]


def _expanded(types: Any) -> list[str] | None:
    """One kind for each layer, of `[[[kind, …], times], …]`; None where it is something else."""
    found: list[str] = []
    for item in types if isinstance(types, list | tuple) else [None]:
        match item:
            case [[*kinds], int(times)] if all(isinstance(kind, str) for kind in kinds) and 0 <= times <= 4096:
                found += kinds * times
            case _:
                return None
    return found


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
