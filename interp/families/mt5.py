"""mT5 (Xue 2021): T5 1.1 over many languages. Its logits are never shrunk."""

from __future__ import annotations

from interp.families.base import Family
from interp.families.fields import Fields
from interp.families.t5 import TABLE, fit_tie, read_t5_layout
from interp.model.config import ModelConfig

__all__ = ["FAMILY"]


def _read_config(fields: Fields) -> ModelConfig:
    fields.harmless(("tie_word_embeddings",))  # its configs say either; the stored tensors decide
    return read_t5_layout(fields, "mt5", shrinks_logits=False, default_mlp="gated-gelu")


FAMILY = Family(
    name="mt5",
    hf_model_types=("mt5",),
    read_config=_read_config,
    table=TABLE,
    fit=fit_tie,
    refuses=("the encoder alone", "UMT5's bias of distances in every layer"),
)
