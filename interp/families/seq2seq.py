"""What BART and its relatives share: an encoder and a decoder over one vocabulary, with a bias on the logits.

Where embeddings are tied, the logits need no tensor of their own, so a bare `BartModel` has them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.families.base import Tensors, WeightRule, WeightTable
from interp.families.encoders import block_rules, later_rows, norm, rows_put_before
from interp.families.fields import Fields, read_activation, read_d_head
from interp.model.config import AttentionConfig, BlockConfig, MLPConfig, ModelConfig, NormConfig, StackConfig

__all__ = ["computed_tensors", "fit_head", "read_bart_layout", "seq2seq_table", "sinusoidal_positions"]

_DROPOUT_AND_NAMES = """
dropout activation_dropout encoder_layerdrop decoder_layerdrop classif_dropout init_std gradient_checkpointing
output_past num_hidden_layers _num_labels save_step extra_pos_embeddings force_bos_token_to_be_generated
student_encoder_layers student_decoder_layers replacing_rate
"""
_HARMLESS = _DROPOUT_AND_NAMES.split()
_BLOCK = {
    **{f"attn.{x}": f"self_attn.{x}_proj" for x in "qkv"},
    "attn.o": "self_attn.out_proj",
    "ln1": "self_attn_layer_norm",
    "mlp.up": "fc1",
    "mlp.down": "fc2",
}
_ENCODER_BLOCK = {**_BLOCK, "ln2": "final_layer_norm"}
_DECODER_BLOCK = {
    **_BLOCK,
    **{f"cross_attn.{x}": f"encoder_attn.{x}_proj" for x in "qkv"},
    "cross_attn.o": "encoder_attn.out_proj",
    "ln2": "encoder_attn_layer_norm",
    "ln3": "final_layer_norm",
}


def read_bart_layout(
    fields: Fields, family: str, *, norms: Literal["pre", "post"], has_embed_norm: bool, sinusoidal: bool
) -> ModelConfig:
    """A config with BART's field names. Pre-norm stacks end in a norm of their own."""
    fields.must_be("is_encoder_decoder", True)
    fields.must_be("is_decoder", False)
    fields.must_be("normalize_before", norms == "pre")
    fields.must_be("add_final_layer_norm", norms == "pre")
    fields.must_be("normalize_embedding", has_embed_norm)
    fields.must_be("static_position_embeddings", sinusoidal)
    fields.must_be("add_bias_logits", False)
    fields.harmless(_HARMLESS)
    d_model, n_ctx = fields.size("d_model"), fields.context("max_position_embeddings", 1024)
    norm = NormConfig("layer", 1e-5, bias=True)
    act_fn = read_activation(fields, "activation_function", "gelu")
    scale = d_model**0.5 if fields.flag("scale_embedding", False) else 1.0

    def stack(name: Literal["encoder", "decoder"]) -> StackConfig:
        n_heads = fields.size(f"{name}_attention_heads")
        d_head = read_d_head(fields, "head_dim", d_model, n_heads)
        both_ways = AttentionConfig(
            n_heads, d_head, n_heads, d_head**-0.5, mask="bidirectional", bias_qkv=True, bias_out=True
        )
        causal = AttentionConfig(n_heads, d_head, n_heads, d_head**-0.5, bias_qkv=True, bias_out=True)
        mlp = MLPConfig(fields.size(f"{name}_ffn_dim"), act_fn, gated=False, bias=True)
        block = BlockConfig(both_ways, mlp, norm, norms=norms)
        if name == "decoder":
            block = BlockConfig(causal, mlp, norm, cross_attn=both_ways, norms=norms)
        return StackConfig(
            (block,) * fields.layers(f"{name}_layers"),
            final_norm=norm if norms == "pre" else None,
            learned_positions=n_ctx,
            embed_scale=scale,
            embed_norm=norm if has_embed_norm else None,
        )

    return ModelConfig(
        d_model,
        fields.size("vocab_size"),
        n_ctx,
        encoder=stack("encoder"),
        decoder=stack("decoder"),
        tie_word_embeddings=fields.flag("tie_word_embeddings", True),
        bias_unembed=True,
        family=family,
    )


def seq2seq_table(*, first_position: int = 0) -> WeightTable:
    """Tensor names of BART's kind. The first rows of its position tables stand for padding."""
    rules = [
        WeightRule("model.shared.weight", ("encoder.embed.weight", "decoder.embed.weight"), _for_both, fallback=True),
        WeightRule("lm_head.weight", ("unembed.weight",)),
        WeightRule("final_logits_bias", ("unembed.bias",), _only_row, join=_as_row),
    ]
    for stack, block in (("encoder", _ENCODER_BLOCK), ("decoder", _DECODER_BLOCK)):
        hub = f"model.{stack}"
        rules += [
            WeightRule(f"{hub}.embed_tokens.weight", (f"{stack}.embed.weight",)),
            WeightRule(
                f"{hub}.embed_positions.weight",
                (f"{stack}.pos_embed.weight",),
                later_rows(first_position),
                join=rows_put_before(first_position),
            ),
            *norm(f"{hub}.layernorm_embedding", f"{stack}.embed_norm"),
            *norm(f"{hub}.layer_norm", f"{stack}.ln_final"),
            *block_rules(hub + ".layers.{l}", stack + ".blocks.{l}", block),
        ]
    return WeightTable(tuple(rules), prefix="model.")


def fit_head(config: ModelConfig, tensors: Tensors) -> ModelConfig:
    """Untied logits need a matrix that a bare stack does not store."""
    return config if config.tie_word_embeddings or "lm_head.weight" in tensors else config.headless()


def computed_tensors(config: ModelConfig, *, sinusoidal: bool) -> dict[str, Tensor]:
    """What checkpoints may leave out: sinusoidal positions, and a bias of zeros."""
    tensors = {"unembed.bias": torch.zeros(config.d_vocab)} if config.bias_unembed else {}
    if sinusoidal:
        table = sinusoidal_positions(config.n_ctx, config.d_model)
        tensors |= {f"{stack}.pos_embed.weight": table for stack in config.stacks}
    return tensors


def sinusoidal_positions(n_ctx: int, d_model: int) -> Float[Tensor, "n_ctx d_model"]:
    """Sines of all frequencies, then cosines (Vaswani 2017, §3.5, interleaves them). Made in float64."""
    frequency = 10_000.0 ** -(torch.arange(0, d_model, 2).double() / d_model)
    angle = torch.arange(n_ctx).double()[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()[:, : d_model // 2]], dim=-1).float()


def _for_both(tensor: Tensor, config: ModelConfig) -> Sequence[Tensor]:
    return tensor, tensor


def _only_row(tensor: Tensor, config: ModelConfig) -> Sequence[Tensor]:
    return (tensor.reshape(-1),)


def _as_row(parts: Sequence[Tensor], config: ModelConfig) -> Tensor:
    return parts[0].reshape(1, -1)
