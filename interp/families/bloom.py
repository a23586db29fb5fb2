"""BLOOM: ALiBi instead of positions, a norm on the embeddings, fused q/k/v by head."""

from __future__ import annotations

from interp.families.base import Family, WeightRule
from interp.families.decoders import Sizes, decoder_model
from interp.families.fields import Fields, read_d_head
from interp.families.layouts import LLAMA_NORMS, QKV, decoder_table, grouped_qkv, joined_groups
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY"]

# How training was run, not what is computed.
_TRAINING = (
    "attention_softmax_in_fp32",
    "bias_dropout_fusion",
    "masked_softmax_fusion",
    "offset_alibi",
    "pretraining_tp",
    "skip_bias_add",
    "skip_bias_add_qkv",
    "slow_but_exact",
)


def _read_config(fields: Fields) -> ModelConfig:
    d_model = fields.size(fields.first("hidden_size", "n_embed"))
    n_heads = fields.size(fields.first("n_head", "num_attention_heads"))
    n_layers = fields.layers(fields.first("n_layer", "num_hidden_layers"))
    d_head, n_ctx = read_d_head(fields, "head_dim", d_model, n_heads), fields.context("seq_length", 2048)
    sizes = Sizes(d_model, n_heads, n_heads, d_head, n_layers, n_ctx, fields.size("vocab_size"))
    fields.must_be("apply_residual_connection_post_layernorm", False)
    fields.must_be("n_inner", 4 * d_model)
    fields.harmless(_TRAINING)
    norm = NormConfig("layer", fields.number("layer_norm_epsilon", 1e-5), bias=True)
    block = BlockConfig(sizes.attention(None, bias=True, alibi=1.0), sizes.plain("gelu_new"), norm)
    return decoder_model(fields, sizes, block, norm, family="bloom", tied=True, stack={"embed_norm": norm})


_EMBED_NORM = tuple(
    WeightRule(f"transformer.word_embeddings_layernorm.{hub}", (f"decoder.embed_norm.{ours}",))
    for hub, ours in (("weight", "w"), ("bias", "b"))
)

FAMILY = Family(
    name="bloom",
    hf_model_types=("bloom",),
    read_config=_read_config,
    table=decoder_table(
        root="transformer.",
        layers="h",
        linears={"self_attention.dense": "attn.o", "mlp.dense_h_to_4h": "mlp.up", "mlp.dense_4h_to_h": "mlp.down"},
        norms=LLAMA_NORMS,
        fused={"self_attention.query_key_value": (QKV, grouped_qkv, joined_groups)},
        embed="word_embeddings",
        others=_EMBED_NORM,
        final="ln_f",
        harmless=(),
    ),
    refuses=("residuals taken behind the norm",),
)
