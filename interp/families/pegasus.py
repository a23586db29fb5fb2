"""Pegasus (Zhang 2020): pre-norm stacks with sinusoidal positions."""

from __future__ import annotations

from functools import partial

from interp.families.base import Family
from interp.families.fields import Fields
from interp.families.seq2seq import computed_tensors, fit_head, read_bart_layout, seq2seq_table
from interp.model.config import ModelConfig

__all__ = ["FAMILY"]


def _read_config(fields: Fields) -> ModelConfig:
    return read_bart_layout(fields, "pegasus", norms="pre", has_embed_norm=False, sinusoidal=True)


FAMILY = Family(
    name="pegasus",
    hf_model_types=("pegasus",),
    read_config=_read_config,
    table=seq2seq_table(),
    fit=fit_head,
    computed=partial(computed_tensors, sinusoidal=True),
    refuses=("Pegasus-X's block attention",),
)
