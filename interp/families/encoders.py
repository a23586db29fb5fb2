"""What BERT and its relatives share: post-norm blocks that see both ways, and a masked-token head.

A checkpoint without that head (a sentence encoder, a bare `BertModel`) becomes a model without logits. Heads that
stand behind the residuals and predict no tokens (the pooler, next-sentence prediction) are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from interp.errors import CheckpointError
from interp.families.base import Join, Split, Tensors, WeightRule
from interp.families.fields import Fields, read_activation, read_d_head
from interp.model.config import (
    AttentionConfig,
    BlockConfig,
    MLPConfig,
    ModelConfig,
    NormConfig,
    RelativeConfig,
    StackConfig,
    TransformConfig,
)

__all__ = [
    "BERT_BLOCK",
    "block_rules",
    "later_rows",
    "linear",
    "masked_encoder",
    "norm",
    "read_bert_layout",
    "rows_put_before",
    "without_absent_head",
]

_HARMLESS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout_prob",
    "gradient_checkpointing",
    "output_past",
    "directionality",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
)

# Our parts of a block: BERT's names inside `encoder.layer.{l}`.
BERT_BLOCK = {
    "attn.q": "attention.self.query",
    "attn.k": "attention.self.key",
    "attn.v": "attention.self.value",
    "attn.o": "attention.output.dense",
    "ln1": "attention.output.LayerNorm",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
    "ln2": "output.LayerNorm",
}


def read_bert_layout(
    fields: Fields,
    family: str,
    *,
    has_types: bool = True,
    embed_width: int | None = None,
    first_position: int = 0,
    relative: RelativeConfig | None = None,
    act: str = "gelu",
    head_act: str | None = None,
) -> ModelConfig:
    """A config with BERT's field names, and `act` where it names no activation. `first_position` rows of the position
    table stand for padding; `head_act` is the activation in the masked-token head, by default the MLPs'."""
    fields.must_be("is_decoder", False)
    fields.must_be("position_embedding_type", "absolute")
    fields.harmless(_HARMLESS)
    return masked_encoder(
        fields,
        family,
        d_model=fields.size("hidden_size"),
        n_heads=fields.size("num_attention_heads"),
        n_layers=fields.layers("num_hidden_layers"),
        d_mlp=fields.size("intermediate_size"),
        act_fn=read_activation(fields, "hidden_act", act),
        eps=fields.number("layer_norm_eps", 1e-12),
        token_types=fields.size("type_vocab_size", 2) if has_types else None,
        embed_width=embed_width,
        first_position=first_position,
        relative=relative,
        head_act=head_act,
    )


def masked_encoder(
    fields: Fields,
    family: str,
    *,
    d_model: int,
    n_heads: int,
    n_layers: int,
    d_mlp: int,
    act_fn: str,
    eps: float,
    token_types: int | None = None,
    embed_width: int | None = None,
    first_position: int = 0,
    relative: RelativeConfig | None = None,
    head_act: str | None = None,
) -> ModelConfig:
    """Post-norm blocks over normed embeddings, with a masked-token head."""
    d_head = read_d_head(fields, "head_dim", d_model, n_heads)
    norm = NormConfig("layer", eps, bias=True)
    attn = AttentionConfig(n_heads, d_head, n_heads, d_head**-0.5, mask="bidirectional", bias_qkv=True, bias_out=True)
    block = BlockConfig(attn, MLPConfig(d_mlp, act_fn, gated=False, bias=True), norm, norms="post")
    n_ctx = fields.context("max_position_embeddings", 512) - first_position
    if n_ctx < 1:
        raise CheckpointError(f"{fields.source} has no position beyond the {first_position} that stand for padding.")
    stack = StackConfig(
        (block,) * n_layers,
        final_norm=None,
        learned_positions=n_ctx,
        padding_positions=first_position,
        embed_norm=norm,
        embed_width=embed_width,
        token_types=token_types,
        relative=relative,
    )
    return ModelConfig(
        d_model,
        fields.size("vocab_size"),
        n_ctx,
        encoder=stack,
        tie_word_embeddings=fields.flag("tie_word_embeddings", True),
        bias_unembed=True,
        transform=TransformConfig(embed_width or d_model, head_act or act_fn, norm),
        family=family,
    )


def without_absent_head(config: ModelConfig, tensors: Tensors, *prefixes: str) -> ModelConfig:
    """The config as it is if any tensor of the masked-token head is stored, else without the head."""
    return config if any(name.startswith(prefixes) for name in tensors) else config.headless()


def linear(hub: str, ours: str) -> tuple[WeightRule, ...]:
    """Rules for a linear map and its bias."""
    return tuple(WeightRule(f"{hub}.{kind}", (f"{ours}.{kind}",)) for kind in ("weight", "bias"))


def norm(hub: str, ours: str) -> tuple[WeightRule, ...]:
    """Rules for a norm's gain and bias."""
    return WeightRule(f"{hub}.weight", (f"{ours}.w",)), WeightRule(f"{hub}.bias", (f"{ours}.b",))


def block_rules(hub: str, ours: str, parts: Mapping[str, str]) -> tuple[WeightRule, ...]:
    """Rules for the parts of every block: `hub` and `ours` are what stands before a part's name."""
    rules = [
        (norm if part.startswith("ln") else linear)(f"{hub}.{name}", f"{ours}.{part}") for part, name in parts.items()
    ]
    return tuple(rule for pair in rules for rule in pair)


def later_rows(first: int) -> Split:
    """A position table without its first rows, which stand for padding."""

    def split(tensor: Tensor, config: ModelConfig) -> Sequence[Tensor]:
        return (tensor[first:],)

    return split


def rows_put_before(first: int | None = None) -> Join:
    """The inverse: rows of zeros, in place of those that were left out; by default as many as the config remembers."""

    def join(parts: Sequence[Tensor], config: ModelConfig) -> Tensor:
        stack = config.encoder
        n_rows = (stack.padding_positions if stack else 0) if first is None else first
        return torch.cat([parts[0].new_zeros(n_rows, parts[0].shape[1]), parts[0]])

    return join
