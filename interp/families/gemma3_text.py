"""Gemma 3 without its eyes: windows in five layers of six, with rotary positions of their own, and normed queries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from interp.families.base import Family, GGUFDialect, GGUFTensors
from interp.families.decoders import Sizes, decoder_model, read_bias, read_sizes, read_windows
from interp.families.fields import Fields, read_rotary, read_rotary_parameters
from interp.families.gemma import gemma_gguf_config, gemma_gguf_table, gemma_norm, gemma_stack
from interp.families.gemma2 import GEMMA2_GGUF_NORMS, GEMMA2_NORMS, gguf_score_scalar
from interp.families.gguf_layouts import shortest
from interp.families.layouts import decoder_table
from interp.model.config import BlockConfig, ModelConfig, RotaryConfig

__all__ = ["FAMILY"]

_OF_ONE_ROTARY = ("rope_theta", "rope_type", "type", "factor", "partial_rotary_factor")


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_sizes(fields, d_head=256, n_kv=4, n_ctx=131_072)
    fields.must_be("use_bidirectional_attention", False)
    fields.must_be("attn_logit_softcapping", None)
    fields.harmless(("hidden_act",))  # the library reads hidden_activation alone
    norm, (everywhere, nearby) = gemma_norm(fields), _rotaries(fields, sizes)
    attn = sizes.attention(
        everywhere,
        scale=fields.number("query_pre_attn_scalar", 256) ** -0.5,
        bias=read_bias(fields),
        qk_norm=norm,
    )
    block = BlockConfig(
        attn, sizes.gated(fields, act="hidden_activation", default="gelu_pytorch_tanh"), norm, norms="both"
    )
    sliding = replace(block, attn=replace(attn, rotary=nearby))
    windows = _windows(fields, sizes)
    return decoder_model(
        fields,
        sizes,
        tuple(block if w is None else replace(sliding, attn=replace(sliding.attn, window=w)) for w in windows),
        norm,
        family="gemma3_text",
        tied=True,
        stack=gemma_stack(sizes.d_model),
        logit_softcap=fields.number("final_logit_softcapping", None),
    )


def _windows(fields: Fields, sizes: Sizes) -> list[int | None]:
    if "sliding_window_pattern" in fields or "layer_types" in fields:
        fields.harmless(("_sliding_window_pattern",))  # written by the library, which reads the others alone
    pattern = fields.size("_sliding_window_pattern", 6)
    if pattern != 6:
        raise fields.refuse("_sliding_window_pattern", pattern, "without layer_types the library keeps to 6")
    pattern = fields.size("sliding_window_pattern", 6)
    slides = [(layer + 1) % pattern != 0 for layer in range(sizes.n_layers)]
    window = fields.size("sliding_window", None if fields.is_null("sliding_window") else 4096)
    return read_windows(fields, sizes.n_layers, slides, window)


def _rotaries(fields: Fields, sizes: Sizes) -> tuple[RotaryConfig, RotaryConfig]:
    """Of the layers that see everything, and of those with a window: apart in transformers 5, by two bases in 4."""
    near = fields.number("rope_local_base_freq", 10_000.0)
    both = fields.nested("rope_parameters")
    if both is None:
        far = read_rotary(fields, sizes.d_head, sizes.n_ctx, default_base=1_000_000.0)
        return far, RotaryConfig(sizes.d_head, near)
    found = []
    for name, base in (("full_attention", 1_000_000.0), ("sliding_attention", near)):
        inner = both.nested(name)
        found.append(
            RotaryConfig(sizes.d_head, base)
            if inner is None
            else read_rotary_parameters(inner, sizes.d_head, sizes.n_ctx, default_base=base)
        )
    for name in _OF_ONE_ROTARY:
        if (value := both.given(name)) is not None:
            why = "the library reads only what stands inside full_attention and sliding_attention here"
            raise both.refuse(name, value, why, unknown=True)
    both.finish()
    return found[0], found[1]


def _gguf_to_hf_config(fields: Fields, tensors: GGUFTensors) -> dict[str, Any]:
    """Without a window in the metadata no layer has one."""
    sizes = gemma_gguf_config(fields, tensors, "gemma3_text")
    near = {"rope_type": "default", "rope_theta": shortest(fields.number("rope.freq_base_swa", 10_000.0))}
    cap = fields.number("final_logit_softcapping", None)
    n_layers, window = sizes["num_hidden_layers"], fields.index("attention.sliding_window", 0)
    every = fields.size("attention.sliding_window_pattern", 6)
    slides = [bool(window) and (layer + 1) % every != 0 for layer in range(n_layers)]
    return {
        **sizes,
        "query_pre_attn_scalar": gguf_score_scalar(sizes, largest=62),
        "rope_parameters": {"full_attention": sizes["rope_parameters"], "sliding_attention": near},
        "sliding_window": window or None,
        "layer_types": ["sliding_attention" if slide else "full_attention" for slide in slides],
        "final_logit_softcapping": None if cap is None else shortest(cap),
    }


_GGUF_NORMS = GEMMA2_GGUF_NORMS | {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}

FAMILY = Family(
    name="gemma3_text",
    hf_model_types=("gemma3_text",),
    read_config=_read_config,
    table=decoder_table(norms=GEMMA2_NORMS | {"self_attn.q_norm": "attn.q_norm", "self_attn.k_norm": "attn.k_norm"}),
    gguf=GGUFDialect(("gemma3",), _gguf_to_hf_config, gemma_gguf_table(_GGUF_NORMS)),
    refuses=("pictures", "attention in both directions", "rotary scaling other than linear and llama3"),
)
