"""ELECTRA (Clark 2020): BERT's blocks, often over a narrower embedding.

The generator has a masked-token head. The discriminator's own head, which marks replaced tokens, is left out: such a
model has no logits.
"""

from __future__ import annotations

from dataclasses import replace

from interp.families.base import Family, Tensors, WeightRule, WeightTable
from interp.families.encoders import BERT_BLOCK, block_rules, linear, norm, read_bert_layout, without_absent_head
from interp.families.fields import Fields
from interp.model.config import ModelConfig

__all__ = ["FAMILY"]


def _read_config(fields: Fields) -> ModelConfig:
    fields.harmless(("summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout"))
    return _unprojected(
        read_bert_layout(fields, "electra", embed_width=fields.size("embedding_size", 128), head_act="gelu")
    )


def _unprojected(config: ModelConfig) -> ModelConfig:
    """Without a projection where the embedding is as wide as the residual stream already."""
    stack = config.encoder
    if stack is None or stack.embed_width != config.d_model:
        return config
    return replace(config, encoder=replace(stack, embed_width=None))


def _fit(config: ModelConfig, tensors: Tensors) -> ModelConfig:
    return without_absent_head(config, tensors, "generator_")


_TABLE = WeightTable(
    rules=(
        WeightRule("electra.embeddings.word_embeddings.weight", ("encoder.embed.weight",)),
        WeightRule("electra.embeddings.position_embeddings.weight", ("encoder.pos_embed.weight",)),
        WeightRule("electra.embeddings.token_type_embeddings.weight", ("encoder.type_embed.weight",)),
        *norm("electra.embeddings.LayerNorm", "encoder.embed_norm"),
        *linear("electra.embeddings_project", "encoder.embed_project"),
        *block_rules("electra.encoder.layer.{l}", "encoder.blocks.{l}", BERT_BLOCK),
        *linear("generator_predictions.dense", "transform.dense"),
        *norm("generator_predictions.LayerNorm", "transform.norm"),
        *linear("generator_lm_head", "unembed"),
    ),
    harmless=(
        "electra.embeddings.position_ids",
        "discriminator_predictions.dense.weight",
        "discriminator_predictions.dense.bias",
        "discriminator_predictions.dense_prediction.weight",
        "discriminator_predictions.dense_prediction.bias",
    ),
    prefix="electra.",
)

FAMILY = Family(
    name="electra",
    hf_model_types=("electra",),
    read_config=_read_config,
    table=_TABLE,
    fit=_fit,
    refuses=(
        "relative positions inside attention",
        "ELECTRA as a decoder",
        "classification heads; the discriminator's head is left out",
    ),
)
