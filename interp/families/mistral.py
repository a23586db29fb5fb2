"""Mistral: Llama with a window over the keys of every layer."""

from __future__ import annotations

from interp.families.base import Family
from interp.families.decoders import blocks_with_windows, decoder_model, read_sizes
from interp.families.fields import Fields, read_rotary
from interp.families.layouts import decoder_table
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY"]


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_sizes(fields, n_kv=8, n_ctx=131_072)
    window = fields.size("sliding_window", None if fields.is_null("sliding_window") else 4096)
    norm = NormConfig("rms", fields.number("rms_norm_eps", 1e-6))
    block = BlockConfig(sizes.attention(read_rotary(fields, sizes.d_head, sizes.n_ctx)), sizes.gated(fields), norm)
    blocks = blocks_with_windows(block, [window] * sizes.n_layers)
    return decoder_model(fields, sizes, blocks, norm, family="mistral")


FAMILY = Family(
    name="mistral",
    hf_model_types=("mistral",),
    read_config=_read_config,
    table=decoder_table(),
    refuses=("windows that differ between layers", "rotary scaling other than linear and llama3"),
)
