"""ALBERT (Lan 2020): one block's weights serve every layer; a narrow embedding is projected to d_model."""

from __future__ import annotations

from interp.families.base import Family, Tensors, WeightRule, WeightTable
from interp.families.encoders import block_rules, linear, norm, read_bert_layout, without_absent_head
from interp.families.fields import Fields
from interp.model.config import ModelConfig

__all__ = ["FAMILY"]


_BLOCK = {
    "attn.q": "attention.query",
    "attn.k": "attention.key",
    "attn.v": "attention.value",
    "attn.o": "attention.dense",
    "ln1": "attention.LayerNorm",
    "mlp.up": "ffn",
    "mlp.down": "ffn_output",
    "ln2": "full_layer_layer_norm",
}


def _read_config(fields: Fields) -> ModelConfig:
    for name in ("num_hidden_groups", "inner_group_num"):
        fields.must_be(name, 1)
    for name in ("gap_size", "net_structure_type", "num_memory_blocks"):
        fields.must_be(name, 0)
    fields.must_be("down_scale_factor", 1)
    return read_bert_layout(fields, "albert", embed_width=fields.size("embedding_size", 128), act="gelu_new")


def _fit(config: ModelConfig, tensors: Tensors) -> ModelConfig:
    return without_absent_head(config, tensors, "predictions.")


_TABLE = WeightTable(
    rules=(
        WeightRule("albert.embeddings.word_embeddings.weight", ("encoder.embed.weight",)),
        WeightRule("albert.embeddings.position_embeddings.weight", ("encoder.pos_embed.weight",)),
        WeightRule("albert.embeddings.token_type_embeddings.weight", ("encoder.type_embed.weight",)),
        *norm("albert.embeddings.LayerNorm", "encoder.embed_norm"),
        *linear("albert.encoder.embedding_hidden_mapping_in", "encoder.embed_project"),
        *block_rules("albert.encoder.albert_layer_groups.0.albert_layers.0", "encoder.blocks.{every}", _BLOCK),
        *linear("predictions.dense", "transform.dense"),
        *norm("predictions.LayerNorm", "transform.norm"),
        *linear("predictions.decoder", "unembed"),
        WeightRule("predictions.bias", ("unembed.bias",), fallback=True),
    ),
    harmless=(
        "albert.embeddings.position_ids",
        "albert.pooler.weight",
        "albert.pooler.bias",
        "sop_classifier.classifier.weight",
        "sop_classifier.classifier.bias",
    ),
    prefix="albert.",
)

FAMILY = Family(
    name="albert",
    hf_model_types=("albert",),
    read_config=_read_config,
    table=_TABLE,
    fit=_fit,
    refuses=("several groups of layers", "classification heads"),
)
