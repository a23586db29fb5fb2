"""OPT: learned positions in a table with two rows too many, ReLU, norms in front (or behind, in one size)."""

from __future__ import annotations

from torch import Tensor

from interp.families.base import Family, WeightRule
from interp.families.decoders import Sizes, decoder_model, read_bias
from interp.families.encoders import rows_put_before
from interp.families.fields import Fields, read_activation, read_d_head
from interp.families.layouts import decoder_table
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY"]

_LINEARS = {
    "self_attn.q_proj": "attn.q",
    "self_attn.k_proj": "attn.k",
    "self_attn.v_proj": "attn.v",
    "self_attn.out_proj": "attn.o",
    "fc1": "mlp.up",
    "fc2": "mlp.down",
}


def _read_config(fields: Fields) -> ModelConfig:
    d_model, n_heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    d_head, n_layers = read_d_head(fields, "head_dim", d_model, n_heads), fields.layers("num_hidden_layers")
    n_ctx = fields.context("max_position_embeddings", 2048)
    sizes = Sizes(d_model, n_heads, n_heads, d_head, n_layers, n_ctx, fields.size("vocab_size"))
    fields.must_be("word_embed_proj_dim", d_model)
    fields.must_be("layer_norm_elementwise_affine", True)
    fields.harmless(("dropout", "layerdrop", "activation_dropout"))
    before, bare = fields.flag("do_layer_norm_before", True), fields.flag("_remove_final_layer_norm", False)
    bias, norm = read_bias(fields, "enable_bias", True), NormConfig("layer", 1e-5, bias=True)
    mlp = sizes.plain(read_activation(fields, "activation_function", "relu"), fields.size("ffn_dim"), bias=bias)
    block = BlockConfig(sizes.attention(None, bias=bias), mlp, norm, norms="pre" if before else "post")
    final = norm if before and not bare else None
    return decoder_model(fields, sizes, block, final, family="opt", tied=True, stack={"learned_positions": n_ctx})


def _from_the_third(tensor: Tensor, config: ModelConfig) -> tuple[Tensor]:
    """The first two rows stand for positions that no token has."""
    return (tensor[2:],)


FAMILY = Family(
    name="opt",
    hf_model_types=("opt",),
    read_config=_read_config,
    table=decoder_table(
        root="model.",
        layers="decoder.layers",
        linears=_LINEARS,
        norms={"self_attn_layer_norm": "ln1", "final_layer_norm": "ln2"},
        embed="decoder.embed_tokens",
        others=(
            WeightRule(
                "model.decoder.embed_positions.weight",
                ("decoder.pos_embed.weight",),
                _from_the_third,
                join=rows_put_before(2),
            ),
        ),
        final="decoder.final_layer_norm",
        harmless=(),
    ),
    refuses=("embeddings narrower than the residual (OPT-350m)", "norms without gains"),
)
