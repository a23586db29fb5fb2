"""MPNet (Song 2020): learned positions and, shared by all layers, a learned bias of distances."""

from __future__ import annotations

from interp.families.base import Family, Tensors, WeightRule, WeightTable
from interp.families.encoders import (
    block_rules,
    later_rows,
    linear,
    norm,
    read_bert_layout,
    rows_put_before,
    without_absent_head,
)
from interp.families.fields import Fields
from interp.model.config import ModelConfig, RelativeConfig

__all__ = ["FAMILY"]


_BLOCK = {
    "attn.q": "attention.attn.q",
    "attn.k": "attention.attn.k",
    "attn.v": "attention.attn.v",
    "attn.o": "attention.attn.o",
    "ln1": "attention.LayerNorm",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
    "ln2": "output.LayerNorm",
}
_PADDING = 2  # positions 0 and 1 stand for padding, whatever the padding token's id is


def _read_config(fields: Fields) -> ModelConfig:
    fields.must_be("relative_attention_num_buckets", 32)  # transformers buckets into 32 whatever this says
    return read_bert_layout(
        fields, "mpnet", has_types=False, first_position=_PADDING, relative=RelativeConfig(32, 128), head_act="gelu"
    )


def _fit(config: ModelConfig, tensors: Tensors) -> ModelConfig:
    return without_absent_head(config, tensors, "lm_head.")


_TABLE = WeightTable(
    rules=(
        WeightRule("mpnet.embeddings.word_embeddings.weight", ("encoder.embed.weight",)),
        WeightRule(
            "mpnet.embeddings.position_embeddings.weight",
            ("encoder.pos_embed.weight",),
            later_rows(_PADDING),
            join=rows_put_before(_PADDING),
        ),
        *norm("mpnet.embeddings.LayerNorm", "encoder.embed_norm"),
        WeightRule("mpnet.encoder.relative_attention_bias.weight", ("encoder.relative.weight",)),
        *block_rules("mpnet.encoder.layer.{l}", "encoder.blocks.{l}", _BLOCK),
        *linear("lm_head.dense", "transform.dense"),
        *norm("lm_head.layer_norm", "transform.norm"),
        *linear("lm_head.decoder", "unembed"),
        WeightRule("lm_head.bias", ("unembed.bias",), fallback=True),
    ),
    harmless=("mpnet.embeddings.position_ids", "mpnet.pooler.dense.weight", "mpnet.pooler.dense.bias"),
    prefix="mpnet.",
)

FAMILY = Family(
    name="mpnet",
    hf_model_types=("mpnet",),
    read_config=_read_config,
    table=_TABLE,
    fit=_fit,
    refuses=("a number of distance buckets other than 32", "classification heads"),
)
