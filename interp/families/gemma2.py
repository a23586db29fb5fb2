"""Gemma 2: Gemma with norms on both sides of each sublayer, softcaps, and a window in every other layer."""

from __future__ import annotations

from typing import Any

from interp.families.base import Family, GGUFDialect, GGUFTensors
from interp.families.decoders import blocks_with_windows, decoder_model, read_bias, read_sizes, read_windows
from interp.families.fields import Fields, read_rotary
from interp.families.gemma import gemma_gguf_config, gemma_gguf_table, gemma_norm, gemma_stack
from interp.families.gguf_layouts import shortest
from interp.families.layouts import decoder_table
from interp.model.config import BlockConfig, ModelConfig

__all__ = ["FAMILY", "GEMMA2_GGUF_NORMS", "GEMMA2_NORMS", "gguf_score_scalar"]

GEMMA2_NORMS = {
    "input_layernorm": "ln1",
    "post_attention_layernorm": "ln1_post",
    "pre_feedforward_layernorm": "ln2",
    "post_feedforward_layernorm": "ln2_post",
}
GEMMA2_GGUF_NORMS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def _softcap(fields: Fields, name: str, default: float) -> float | None:
    return fields.number(name, None if fields.is_null(name) else default)


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_sizes(fields, d_head=256, n_kv=4, n_ctx=8192)
    fields.must_be("use_bidirectional_attention", False)
    fields.harmless(("hidden_act",))  # the library reads hidden_activation alone
    norm = gemma_norm(fields)
    attn = sizes.attention(
        read_rotary(fields, sizes.d_head, sizes.n_ctx),
        scale=fields.number("query_pre_attn_scalar", 256) ** -0.5,
        bias=read_bias(fields),
        softcap=_softcap(fields, "attn_logit_softcapping", 50.0),
    )
    block = BlockConfig(
        attn, sizes.gated(fields, act="hidden_activation", default="gelu_pytorch_tanh"), norm, norms="both"
    )
    every_other = [layer % 2 == 0 for layer in range(sizes.n_layers)]
    window = fields.size("sliding_window", None if fields.is_null("sliding_window") else 4096)
    blocks = blocks_with_windows(block, read_windows(fields, sizes.n_layers, every_other, window))
    return decoder_model(
        fields,
        sizes,
        blocks,
        norm,
        family="gemma2",
        tied=True,
        stack=gemma_stack(sizes.d_model),
        logit_softcap=_softcap(fields, "final_logit_softcapping", 30.0),
    )


def gguf_score_scalar(sizes: dict[str, Any], largest: int) -> float:
    """Scores are divided by its root. The files do not hold it: llama.cpp knows that the largest model of the
    generation, told by its number of layers, has d_model / n_heads, and the others d_head."""
    if sizes["num_hidden_layers"] == largest:
        return sizes["hidden_size"] / sizes["num_attention_heads"]
    return float(sizes["head_dim"])


def _gguf_to_hf_config(fields: Fields, tensors: GGUFTensors) -> dict[str, Any]:
    sizes = gemma_gguf_config(fields, tensors, "gemma2")
    caps = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}  # llama.cpp's, where a file has none
    return {
        **sizes,
        "query_pre_attn_scalar": gguf_score_scalar(sizes, largest=46),
        "sliding_window": fields.size("attention.sliding_window", 4096),
        **{name: shortest(fields.number(name, cap)) for name, cap in caps.items()},
    }


FAMILY = Family(
    name="gemma2",
    hf_model_types=("gemma2",),
    read_config=_read_config,
    table=decoder_table(norms=GEMMA2_NORMS),
    gguf=GGUFDialect(("gemma2",), _gguf_to_hf_config, gemma_gguf_table(GEMMA2_GGUF_NORMS)),
    refuses=("attention in both directions", "rotary scaling other than linear and llama3"),
)
