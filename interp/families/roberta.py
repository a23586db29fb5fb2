"""RoBERTa (Liu 2019), XLM-R and CamemBERT: BERT's blocks; positions are counted from behind the padding token's id."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from interp.families.base import Family, Tensors, WeightRule, WeightTable
from interp.families.encoders import (
    BERT_BLOCK,
    block_rules,
    linear,
    norm,
    read_bert_layout,
    rows_put_before,
    without_absent_head,
)
from interp.families.fields import Fields
from interp.model.config import ModelConfig

__all__ = ["FAMILY"]


def _read_config(fields: Fields) -> ModelConfig:
    return read_bert_layout(fields, "roberta", first_position=fields.index("pad_token_id", 1) + 1, head_act="gelu")


def _fit(config: ModelConfig, tensors: Tensors) -> ModelConfig:
    return without_absent_head(config, tensors, "lm_head.")


def _last_rows(tensor: Tensor, config: ModelConfig) -> Sequence[Tensor]:
    """The rows behind the padding token's; how many they are, the config says."""
    return (tensor[len(tensor) - config.n_ctx :],)


_TABLE = WeightTable(
    rules=(
        WeightRule("roberta.embeddings.word_embeddings.weight", ("encoder.embed.weight",)),
        WeightRule(
            "roberta.embeddings.position_embeddings.weight",
            ("encoder.pos_embed.weight",),
            _last_rows,
            join=rows_put_before(),
        ),
        WeightRule("roberta.embeddings.token_type_embeddings.weight", ("encoder.type_embed.weight",)),
        *norm("roberta.embeddings.LayerNorm", "encoder.embed_norm"),
        *block_rules("roberta.encoder.layer.{l}", "encoder.blocks.{l}", BERT_BLOCK),
        *linear("lm_head.dense", "transform.dense"),
        *norm("lm_head.layer_norm", "transform.norm"),
        *linear("lm_head.decoder", "unembed"),
        WeightRule("lm_head.bias", ("unembed.bias",), fallback=True),
    ),
    harmless=("roberta.embeddings.position_ids", "roberta.pooler.dense.weight", "roberta.pooler.dense.bias"),
    prefix="roberta.",
)

FAMILY = Family(
    name="roberta",
    hf_model_types=("roberta", "xlm-roberta", "camembert"),
    read_config=_read_config,
    table=_TABLE,
    fit=_fit,
    refuses=("relative positions inside attention", "RoBERTa as a decoder", "classification heads"),
)
