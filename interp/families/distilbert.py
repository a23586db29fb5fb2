"""DistilBERT (Sanh 2019): BERT's blocks under other names, without token types."""

from __future__ import annotations

from interp.families.base import Family, Tensors, WeightRule, WeightTable
from interp.families.encoders import block_rules, linear, masked_encoder, norm, without_absent_head
from interp.families.fields import Fields, read_activation
from interp.model.config import ModelConfig

__all__ = ["FAMILY"]


_BLOCK = {
    "attn.q": "attention.q_lin",
    "attn.k": "attention.k_lin",
    "attn.v": "attention.v_lin",
    "attn.o": "attention.out_lin",
    "ln1": "sa_layer_norm",
    "mlp.up": "ffn.lin1",
    "mlp.down": "ffn.lin2",
    "ln2": "output_layer_norm",
}


def _read_config(fields: Fields) -> ModelConfig:
    fields.must_be("is_decoder", False)
    # sinusoidal_pos_embds says how the table of positions was made; it is stored either way
    fields.harmless(("sinusoidal_pos_embds", "dropout", "qa_dropout", "seq_classif_dropout", "tie_weights_"))
    return masked_encoder(
        fields,
        "distilbert",
        d_model=fields.size("dim"),
        n_heads=fields.size("n_heads"),
        n_layers=fields.layers("n_layers"),
        d_mlp=fields.size("hidden_dim"),
        act_fn=read_activation(fields, "activation", "gelu"),
        eps=1e-12,
    )


def _fit(config: ModelConfig, tensors: Tensors) -> ModelConfig:
    return without_absent_head(config, tensors, "vocab_transform.")


_TABLE = WeightTable(
    rules=(
        WeightRule("distilbert.embeddings.word_embeddings.weight", ("encoder.embed.weight",)),
        WeightRule("distilbert.embeddings.position_embeddings.weight", ("encoder.pos_embed.weight",)),
        *norm("distilbert.embeddings.LayerNorm", "encoder.embed_norm"),
        *block_rules("distilbert.transformer.layer.{l}", "encoder.blocks.{l}", _BLOCK),
        *linear("vocab_transform", "transform.dense"),
        *norm("vocab_layer_norm", "transform.norm"),
        *linear("vocab_projector", "unembed"),
    ),
    harmless=("distilbert.embeddings.position_ids",),
    prefix="distilbert.",
)

FAMILY = Family(
    name="distilbert",
    hf_model_types=("distilbert",),
    read_config=_read_config,
    table=_TABLE,
    fit=_fit,
    refuses=("classification heads",),
)
