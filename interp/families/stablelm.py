"""StableLM: Llama with LayerNorms, rotary positions on a part of each head, and perhaps parallel blocks."""

from __future__ import annotations

from interp.families.base import Family
from interp.families.decoders import decoder_model, read_bias, read_sizes
from interp.families.fields import Fields, read_rotary
from interp.families.layouts import decoder_table
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY"]


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_sizes(fields, n_kv=32, n_ctx=4096)
    fields.must_be("qk_layernorm", False)  # True: a gain for each head apart
    norm = NormConfig("layer", fields.number("layer_norm_eps", 1e-5), bias=True)
    rotary = read_rotary(fields, sizes.d_head, sizes.n_ctx, default_part=0.25)
    attn = sizes.attention(rotary, bias_qkv=read_bias(fields, "use_qkv_bias"))
    parallel = fields.flag("use_parallel_residual", False)
    order = "parallel" if parallel else "sequential"
    block = BlockConfig(attn, sizes.gated(fields), norm, residual=order, shared_norm=parallel)
    return decoder_model(fields, sizes, block, norm, family="stablelm")


FAMILY = Family(
    name="stablelm",
    hf_model_types=("stablelm",),
    read_config=_read_config,
    table=decoder_table(),
    refuses=("norms of queries and keys with gains for each head", "rotary scaling other than linear and llama3"),
)
