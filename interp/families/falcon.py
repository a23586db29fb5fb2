"""Falcon: one or a few key/value heads, fused with their queries, in parallel or sequential blocks."""

from __future__ import annotations

from interp.families.base import Family, WeightRule
from interp.families.decoders import Sizes, decoder_model, read_bias
from interp.families.fields import Fields, read_activation, read_d_head, read_rotary
from interp.families.layouts import LLAMA_NORMS, QKV, decoder_table, grouped_qkv, joined_groups
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY"]


def _read_config(fields: Fields) -> ModelConfig:
    if fields.flag("alibi", False):
        why = "the library rounds Falcon's biases of distances to bfloat16, so they depend on the position too"
        raise fields.refuse("alibi", True, why)
    fields.must_be("apply_residual_connection_post_layernorm", False)
    sizes = _sizes(fields, new := fields.flag("new_decoder_architecture", False))
    norm = NormConfig("layer", fields.number("layer_norm_epsilon", 1e-5), bias=True)
    bias = read_bias(fields, "bias")
    d_mlp = fields.size("ffn_hidden_size", None)
    mlp = sizes.plain(read_activation(fields, "activation", "gelu"), d_mlp, bias=bias)
    attn = sizes.attention(read_rotary(fields, sizes.d_head, sizes.n_ctx), bias=bias)
    parallel, shared = _order(fields, new)
    order = "parallel" if parallel else "sequential"
    block = BlockConfig(attn, mlp, norm, residual=order, shared_norm=shared)
    return decoder_model(fields, sizes, block, norm, family="falcon", tied=True)


def _sizes(fields: Fields, new: bool) -> Sizes:
    d_model = fields.size(fields.first("hidden_size", "n_embed"))
    n_heads = fields.size(fields.first("num_attention_heads", "n_head"))
    n_layers = fields.layers(fields.first("num_hidden_layers", "n_layer"))
    single = fields.flag("multi_query", True)
    groups = fields.size(fields.first("num_kv_heads", "n_head_kv"), n_heads)
    if not new and not single and groups != n_heads:
        raise fields.refuse("num_kv_heads", groups, "only the new decoder architecture shares several key/value heads")
    kv = groups if new else 1 if single else n_heads
    d_head, n_ctx = read_d_head(fields, "head_dim", d_model, n_heads), fields.context("max_position_embeddings", 2048)
    return Sizes(d_model, n_heads, kv, d_head, n_layers, n_ctx, fields.size("vocab_size"))


def _order(fields: Fields, new: bool) -> tuple[bool, bool]:
    """Whether attention and MLP stand side by side, and whether they then read the same norm."""
    parallel = fields.flag("parallel_attn", True)
    n_norms = fields.size("num_ln_in_parallel_attn", 2 if new else 1)
    if new and not parallel:
        raise fields.refuse("parallel_attn", parallel, "the new decoder architecture is parallel")
    if n_norms > (2 if new else 1):
        raise fields.refuse("num_ln_in_parallel_attn", n_norms, "two norms belong to the new decoder architecture")
    return parallel, parallel and n_norms == 1


def _beside(config: ModelConfig) -> bool:
    """Whether attention and MLP stand side by side and read a norm each: those have names of their own."""
    assert config.decoder is not None
    return config.decoder.blocks[0].residual == "parallel" and not config.decoder.blocks[0].shared_norm


_NORMS = tuple(
    WeightRule(f"transformer.h.{{l}}.{hub}.{kind}", (f"decoder.blocks.{{l}}.{part}.{kind[0]}",), written=written)
    for names, written in (
        (LLAMA_NORMS, lambda config: not _beside(config)),
        ({"ln_attn": "ln1", "ln_mlp": "ln2"}, _beside),
    )
    for hub, part in names.items()
    for kind in ("weight", "bias")
)

FAMILY = Family(
    name="falcon",
    hf_model_types=("falcon",),
    read_config=_read_config,
    table=decoder_table(
        root="transformer.",
        layers="h",
        linears={"self_attention.dense": "attn.o", "mlp.dense_h_to_4h": "mlp.up", "mlp.dense_4h_to_h": "mlp.down"},
        norms={},
        fused={"self_attention.query_key_value": (QKV, grouped_qkv, joined_groups)},
        embed="word_embeddings",
        others=_NORMS,
        final="ln_f",
        harmless=("self_attention.rotary_emb.inv_freq",),
    ),
    refuses=("ALiBi (Falcon-RW)", "rotary scaling other than linear and llama3"),
)
