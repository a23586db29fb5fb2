"""GPT-2: learned positions, LayerNorms in front, biases everywhere, weights stored as Conv1D `[in, out]`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from interp.families.base import Family, GGUFDialect, GGUFTensors, WeightRule
from interp.families.decoders import Sizes, decoder_model
from interp.families.fields import Fields, read_activation, read_d_head
from interp.families.gguf_layouts import gguf_table, read_gguf_sizes, shortest
from interp.families.layouts import QKV, decoder_table, retransposed_qkv, transposed, transposed_qkv
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY", "GPT_NORMS", "GPT_POSITIONS", "read_gpt_sizes"]

GPT_NORMS = {"ln_1": "ln1", "ln_2": "ln2"}
GPT_POSITIONS = (WeightRule("transformer.wpe.weight", ("decoder.pos_embed.weight",)),)


def read_gpt_sizes(fields: Fields, n_ctx: int) -> Sizes:
    """Sizes under OpenAI's names or under those that later families have."""
    d_model = fields.size(fields.first("n_embd", "hidden_size"))
    n_heads = fields.size(fields.first("n_head", "num_heads", "num_attention_heads"))
    n_layers = fields.layers(fields.first("n_layer", "num_layers", "num_hidden_layers"))
    n_ctx = fields.context(fields.first("n_positions", "max_position_embeddings"), n_ctx)
    fields.harmless(("n_ctx",))  # what n_positions says, in old configs
    d_head = read_d_head(fields, "head_dim", d_model, n_heads)
    return Sizes(d_model, n_heads, n_heads, d_head, n_layers, n_ctx, fields.size("vocab_size"))


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_gpt_sizes(fields, 1024)
    fields.harmless(("reorder_and_upcast_attn",))  # the order of the same products
    norm = NormConfig("layer", fields.number("layer_norm_epsilon", 1e-5), bias=True)
    scale = None if fields.flag("scale_attn_weights", True) else 1.0
    attn = sizes.attention(None, scale=scale, bias=True)
    act = read_activation(fields, "activation_function", "gelu_new")
    block = BlockConfig(attn, sizes.plain(act, fields.size("n_inner", None)), norm)
    by_layer = fields.flag("scale_attn_by_inverse_layer_idx", False)
    blocks = tuple(
        replace(block, attn=replace(attn, scale=attn.scale / (layer + 1 if by_layer else 1)))
        for layer in range(sizes.n_layers)
    )
    positions = {"learned_positions": sizes.n_ctx}
    return decoder_model(fields, sizes, blocks, norm, family="gpt2", tied=True, stack=positions)


def _gguf_to_hf_config(fields: Fields, tensors: GGUFTensors) -> dict[str, Any]:
    """llama.cpp computes GPT-2 as OpenAI did: tanh-GELU, scores over the root of d_head."""
    sizes = read_gguf_sizes(fields, tensors, "gpt2")
    heads, d_mlp = sizes.pop("num_key_value_heads"), sizes.pop("intermediate_size")
    if heads != sizes["num_attention_heads"]:
        raise fields.refuse("attention.head_count_kv", heads, "GPT-2 has a key for every query")
    return {**sizes, "n_inner": d_mlp, "layer_norm_epsilon": shortest(fields.number("attention.layer_norm_epsilon"))}


_GGUF_LINEARS = {
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
_GGUF_TABLE = gguf_table(
    {**_GGUF_LINEARS, "ln_1": "attn_norm", "ln_2": "ffn_norm"},
    {
        "transformer.wte": "token_embd",
        "transformer.wpe": "position_embd",
        "transformer.ln_f": "output_norm",
        "lm_head": "output",
    },
    layers="transformer.h",
    splits=dict.fromkeys(_GGUF_LINEARS.values(), transposed),
)

FAMILY = Family(
    name="gpt2",
    hf_model_types=("gpt2",),
    read_config=_read_config,
    table=decoder_table(
        root="transformer.",
        layers="h",
        linears={"attn.c_proj": "attn.o", "mlp.c_fc": "mlp.up", "mlp.c_proj": "mlp.down"},
        norms=GPT_NORMS,
        fused={"attn.c_attn": (QKV, transposed_qkv, retransposed_qkv)},
        turned=True,
        embed="wte",
        others=GPT_POSITIONS,
        final="ln_f",
        harmless=("attn.bias", "attn.masked_bias"),
    ),
    gguf=GGUFDialect(("gpt2",), _gguf_to_hf_config, _GGUF_TABLE),
    refuses=("cross-attention",),
)
