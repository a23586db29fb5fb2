"""What the GGUF dialects of several families share: sizes and rotary positions from the metadata, tables of names.

llama.cpp's converter keeps queries and keys as the hub has them (rotary positions turn halves there too) in every
family but Llama. What else it does to a tensor is undone by its rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from interp.errors import UnsupportedModelError
from interp.families.base import GGUFTensors, Split, WeightRule, WeightTable
from interp.families.fields import Fields, read_d_head
from interp.model.config import ModelConfig, RotaryConfig, RotaryScaling
from interp.model.positions import rotary_frequencies

__all__ = [
    "GGUF_LINEARS",
    "GGUF_NORMS",
    "GGUF_WHOLE",
    "gguf_table",
    "less_one",
    "read_gguf_rotary",
    "read_gguf_sizes",
    "shortest",
]

# The hub's part of a layer (or of the whole model): llama.cpp's name.
GGUF_LINEARS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GGUF_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
GGUF_WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_table(
    parts: Mapping[str, str],
    whole: Mapping[str, str] = GGUF_WHOLE,
    *,
    layers: str = "model.layers",
    splits: Mapping[str, Split] | None = None,
    others: tuple[WeightRule, ...] = (),
    harmless: tuple[str, ...] = (),
) -> WeightTable:
    """Rules from llama.cpp's names to the hub's. `splits`: what is done to the weight of a part, by llama.cpp's name.

    A bias is taken wherever there is one, and never changed: the converter leaves those as they are.
    """
    names = {f"{layers}.{{l}}.{hub}": (f"blk.{{l}}.{part}", part) for hub, part in parts.items()}
    names |= {hub: (part, part) for hub, part in whole.items()}
    rules = list(others)
    for hub, (stored, part) in names.items():
        rules.append(WeightRule(f"{stored}.weight", (f"{hub}.weight",), (splits or {}).get(part)))
        rules.append(WeightRule(f"{stored}.bias", (f"{hub}.bias",)))
    return WeightTable(tuple(rules), harmless)


def less_one(tensor: Tensor, config: ModelConfig) -> tuple[Tensor]:
    """A gain as Gemma's hub files have it, less one; the converter adds the one."""
    return (tensor - 1,)


def read_gguf_sizes(fields: Fields, tensors: GGUFTensors, model_type: str) -> dict[str, Any]:
    """The sizes that every decoder's metadata has, under the names of Llama's hub config."""
    d_model, n_heads = fields.size("embedding_length"), fields.size("attention.head_count")
    d_head = read_d_head(fields, "attention.key_length", d_model, n_heads)
    fields.must_be("attention.value_length", d_head)
    for name in ("expert_count", "expert_used_count", "pooling_type"):
        fields.must_be(name, 0)
    fields.must_be("attention.causal", True)
    fields.harmless(("vocab_size", "tensor_data_layout"))  # the table itself says how many rows it has
    return {
        "model_type": model_type,
        "hidden_size": d_model,
        "vocab_size": tensors.shapes.get("token_embd.weight", (0, 0))[0],
        "num_attention_heads": n_heads,
        "num_key_value_heads": fields.size("attention.head_count_kv", n_heads),
        "head_dim": d_head,
        "num_hidden_layers": fields.layers("block_count"),
        "intermediate_size": fields.size("feed_forward_length"),
        "max_position_embeddings": fields.context("context_length"),
        "tie_word_embeddings": "output.weight" not in tensors.shapes,
    }


def read_gguf_rotary(fields: Fields, tensors: GGUFTensors, d_head: int, *, partial: bool = False) -> dict[str, Any]:
    """`rope_parameters` from the metadata; `partial` allows a part of each head to be turned."""
    part = {}
    if partial:
        dim = fields.size("rope.dimension_count", d_head)
        if dim > d_head:
            raise fields.refuse("rope.dimension_count", dim, f"heads have {d_head} dimensions")
        part = {"partial_rotary_factor": min(1.0, (dim + 0.5) / d_head)}  # the half survives rounding down
    else:
        fields.must_be("rope.dimension_count", d_head)
    base = fields.number("rope.freq_base", 10_000.0)
    return {"rope_theta": shortest(base), **part, **_read_scaling(fields, tensors, d_head, base)}


def _read_scaling(fields: Fields, tensors: GGUFTensors, d_head: int, base: float) -> dict[str, Any]:
    """Rotary scaling from the metadata, or from the divisors that the converter bakes for Llama 3."""
    old_factor = fields.number("rope.scale_linear", 1.0)
    factor = fields.number("rope.scaling.factor", old_factor)
    kind = fields.text("rope.scaling.type", "none" if factor == 1 else "linear")  # as llama.cpp takes it
    fields.harmless(("rope.scaling.original_context_length", "rope.scaling.finetuned"))  # yarn's, refused below
    if kind not in ("none", "linear"):
        raise fields.refuse("rope.scaling.type", kind, "known kinds of rotary scaling are none, linear")
    if "rope_freqs.weight" not in tensors.shapes:
        return {"rope_type": "linear", "factor": factor} if kind == "linear" else {"rope_type": "default"}
    divisors = tensors.tensor("rope_freqs.weight")
    scaling = RotaryScaling("llama3", round(float(divisors.max()), 4))  # the converter knows no other blend
    plain, scaled = (rotary_frequencies(RotaryConfig(d_head, base, scaling=kind)) for kind in (None, scaling))
    fits = divisors.shape == plain.shape and torch.allclose(plain / scaled, divisors, rtol=1e-3)
    if kind != "none" or not fits:
        raise UnsupportedModelError(
            f"{fields.source}: rope_freqs.weight holds divisors of the rotary frequencies that are not Llama 3's "
            "(low 1, high 4, 8192 positions). Load the model from its safetensors folder instead."
        )
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_n_ctx,
    }


def shortest(value: float) -> float:
    """The shortest decimal that is the same float32, as the config had it before it was stored: 1e-05."""
    import numpy as np

    return float(str(np.float32(value)))
