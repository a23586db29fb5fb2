"""T5 (Raffel 2020), its version 1.1 and Flan-T5: an encoder and a decoder with a learned bias of distances.

Scores are not scaled. Where the version ties its logits to the embedding, it shrinks them by √d_model. Distances know
no limit, so n_ctx is only what guards against a slip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from torch import Tensor

from interp.families.base import Family, Tensors, WeightRule, WeightTable
from interp.families.fields import Fields
from interp.model.activations import ACTIVATIONS
from interp.model.config import (
    AttentionConfig,
    BlockConfig,
    MLPConfig,
    ModelConfig,
    NormConfig,
    RelativeConfig,
    StackConfig,
)

__all__ = ["FAMILY", "TABLE", "fit_tie", "read_t5_layout"]


_ANY_LENGTH = 1 << 20


def _read_config(fields: Fields) -> ModelConfig:
    before_5 = fields.flag("tie_word_embeddings", True)  # before transformers 5 the tie alone said it
    shrinks = fields.flag("scale_decoder_outputs", before_5 and not fields.is_null("scale_decoder_outputs"))
    return read_t5_layout(fields, "t5", shrinks_logits=shrinks)


def read_t5_layout(fields: Fields, family: str, *, shrinks_logits: bool, default_mlp: str = "relu") -> ModelConfig:
    """A config with T5's field names, and `default_mlp` where it names none; whether logits are tied only the
    tensors tell."""
    fields.must_be("is_encoder_decoder", True)
    fields.must_be("is_decoder", False)
    fields.harmless(("n_positions", "output_past", "dropout_rate", "initializer_factor", "gradient_checkpointing"))
    d_model, n_layers = fields.size("d_model"), fields.layers("num_layers")
    norm = NormConfig("rms", fields.number("layer_norm_epsilon", 1e-6))
    heads, d_head = fields.size("num_heads"), fields.size("d_kv")
    mlp = _read_mlp(fields, default_mlp)
    relative = RelativeConfig(
        fields.size("relative_attention_num_buckets", 32), fields.size("relative_attention_max_distance", 128)
    )

    def attention(mask: Literal["causal", "bidirectional"]) -> AttentionConfig:
        return AttentionConfig(heads, d_head, heads, 1.0, mask=mask)

    encoding = BlockConfig(attention("bidirectional"), mlp, norm)
    decoding = BlockConfig(attention("causal"), mlp, norm, cross_attn=attention("bidirectional"))
    return ModelConfig(
        d_model,
        fields.size("vocab_size"),
        _ANY_LENGTH,
        encoder=StackConfig((encoding,) * n_layers, norm, relative=relative),
        decoder=StackConfig((decoding,) * fields.size("num_decoder_layers", n_layers), norm, relative=relative),
        tie_word_embeddings=True,
        logit_scale=d_model**-0.5 if shrinks_logits else 1.0,
        family=family,
    )


def _read_mlp(fields: Fields, default: str) -> MLPConfig:
    named = fields.text("feed_forward_proj", default)
    kind, _, act_fn = named.rpartition("-")
    if named == "gated-gelu":
        act_fn = "gelu_new"  # as T5 1.1 was trained; other names mean what they say
    if kind not in ("", "gated") or act_fn not in ACTIVATIONS:
        raise fields.refuse("feed_forward_proj", named, "known are an activation function and gated-<function>")
    fields.must_be("dense_act_fn", act_fn)
    fields.must_be("is_gated_act", kind == "gated")
    return MLPConfig(fields.size("d_ff"), act_fn, gated=kind == "gated")


def fit_tie(config: ModelConfig, tensors: Tensors) -> ModelConfig:
    """Logits are tied where no other matrix is stored for them: transformers 5 says so in every config."""
    head, embedding = tensors.get("lm_head.weight"), tensors.get("decoder.embed_tokens.weight")
    embedding = tensors.get("shared.weight") if embedding is None else embedding
    tied = head is None or (embedding is not None and head.shape == embedding.shape and bool((head == embedding).all()))
    return replace(config, tie_word_embeddings=tied)


def _for_both(tensor: Tensor, config: ModelConfig) -> Sequence[Tensor]:
    return tensor, tensor


def _is_gated(config: ModelConfig) -> bool:
    return any(block.mlp is not None and block.mlp.gated for stack in config.stacks.values() for block in stack.blocks)


def _rules(stack: str) -> list[WeightRule]:
    """The tensors of one stack. Each sublayer is a `layer` there, with its norm in front."""
    sublayers = [("attn", "SelfAttention")]
    sublayers += [("cross_attn", "EncDecAttention")] if stack == "decoder" else []
    block, ours = stack + ".block.{l}.layer.", stack + ".blocks.{l}."
    rules = [
        WeightRule(f"{stack}.embed_tokens.weight", (f"{stack}.embed.weight",)),
        WeightRule(
            f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (f"{stack}.relative.weight",)
        ),
        WeightRule(f"{stack}.final_layer_norm.weight", (f"{stack}.ln_final.w",)),
    ]
    for n, (part, hub) in enumerate(sublayers):
        rules += [WeightRule(f"{block}{n}.{hub}.{x}.weight", (f"{ours}{part}.{x}.weight",)) for x in "qkvo"]
    last = len(sublayers)
    for hub, part, written in (
        ("wi", "up", lambda config: not _is_gated(config)),
        ("wi_0", "gate", _is_gated),
        ("wi_1", "up", _is_gated),
        ("wo", "down", lambda config: True),
    ):
        name = f"{block}{last}.DenseReluDense.{hub}.weight"
        rules.append(WeightRule(name, (f"{ours}mlp.{part}.weight",), written=written))
    rules += [WeightRule(f"{block}{n}.layer_norm.weight", (f"{ours}ln{n + 1}.w",)) for n in range(last + 1)]
    return rules


TABLE = WeightTable(
    rules=(
        WeightRule("shared.weight", ("encoder.embed.weight", "decoder.embed.weight"), _for_both, fallback=True),
        WeightRule("lm_head.weight", ("unembed.weight",)),
        *_rules("encoder"),
        *_rules("decoder"),
    ),
    harmless=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),  # never used
)

FAMILY = Family(
    name="t5",
    hf_model_types=("t5",),
    read_config=_read_config,
    table=TABLE,
    fit=fit_tie,
    refuses=("the encoder alone",),
)
