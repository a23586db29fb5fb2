"""BERT (Devlin 2019), and sentence encoders made of it (all-MiniLM-L6-v2). Only token type 0."""

from __future__ import annotations

from interp.families.base import Family, Tensors, WeightRule, WeightTable
from interp.families.encoders import BERT_BLOCK, block_rules, linear, norm, read_bert_layout, without_absent_head
from interp.families.fields import Fields
from interp.model.config import ModelConfig

__all__ = ["FAMILY"]


def _read_config(fields: Fields) -> ModelConfig:
    return read_bert_layout(fields, "bert")


def _fit(config: ModelConfig, tensors: Tensors) -> ModelConfig:
    return without_absent_head(config, tensors, "cls.predictions.")


_TABLE = WeightTable(
    rules=(
        WeightRule("bert.embeddings.word_embeddings.weight", ("encoder.embed.weight",)),
        WeightRule("bert.embeddings.position_embeddings.weight", ("encoder.pos_embed.weight",)),
        WeightRule("bert.embeddings.token_type_embeddings.weight", ("encoder.type_embed.weight",)),
        *norm("bert.embeddings.LayerNorm", "encoder.embed_norm"),
        *block_rules("bert.encoder.layer.{l}", "encoder.blocks.{l}", BERT_BLOCK),
        *linear("cls.predictions.transform.dense", "transform.dense"),
        *norm("cls.predictions.transform.LayerNorm", "transform.norm"),
        *linear("cls.predictions.decoder", "unembed"),
        WeightRule("cls.predictions.bias", ("unembed.bias",), fallback=True),
    ),
    harmless=(
        "bert.embeddings.position_ids",
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "cls.seq_relationship.weight",
        "cls.seq_relationship.bias",
    ),
    prefix="bert.",
)

FAMILY = Family(
    name="bert",
    hf_model_types=("bert",),
    read_config=_read_config,
    table=_TABLE,
    fit=_fit,
    refuses=("relative positions inside attention", "BERT as a decoder", "classification heads"),
)
