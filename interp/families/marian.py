"""Marian's translation models (Junczys-Dowmunt 2018): post-norm stacks with sinusoidal positions."""

from __future__ import annotations

from functools import partial

from interp.families.base import Family
from interp.families.fields import Fields
from interp.families.seq2seq import computed_tensors, fit_head, read_bart_layout, seq2seq_table
from interp.model.config import ModelConfig

__all__ = ["FAMILY"]


def _read_config(fields: Fields) -> ModelConfig:
    fields.must_be("share_encoder_decoder_embeddings", True)
    decoder_vocab = fields.size("decoder_vocab_size", None)
    config = read_bart_layout(fields, "marian", norms="post", has_embed_norm=False, sinusoidal=True)
    if decoder_vocab not in (None, config.d_vocab):
        raise fields.refuse("decoder_vocab_size", decoder_vocab, "the stacks must share one vocabulary")
    return config


FAMILY = Family(
    name="marian",
    hf_model_types=("marian",),
    read_config=_read_config,
    table=seq2seq_table(),
    fit=fit_head,
    computed=partial(computed_tensors, sinusoidal=True),
    refuses=("a vocabulary for each stack",),
)
