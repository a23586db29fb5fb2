"""BART (Lewis 2020): post-norm stacks with learned positions and normed embeddings."""

from __future__ import annotations

from functools import partial

from interp.families.base import Family
from interp.families.fields import Fields
from interp.families.seq2seq import computed_tensors, fit_head, read_bart_layout, seq2seq_table
from interp.model.config import ModelConfig

__all__ = ["FAMILY"]


def _read_config(fields: Fields) -> ModelConfig:
    return read_bart_layout(fields, "bart", norms="post", has_embed_norm=True, sinusoidal=False)


FAMILY = Family(
    name="bart",
    hf_model_types=("bart",),
    read_config=_read_config,
    table=seq2seq_table(first_position=2),
    fit=fit_head,
    computed=partial(computed_tensors, sinusoidal=False),
    refuses=("classification heads", "BART as a decoder alone"),
)
