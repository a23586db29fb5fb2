"""A copy of a model with its norms' gains folded into the weights that read them (Elhage 2021, "folding").

The models of this package keep the checkpoint's own weights. Some weight analyses are easier to read without the
gains; they ask for this copy by name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.model.block import Block, CrossBlock, ParallelBlock
from interp.model.config import BlockConfig, ModelConfig, NormConfig, StackConfig
from interp.model.norms import Norm
from interp.model.stack import Stack
from interp.model.transformer import HookedTransformer

__all__ = ["fold_norms"]


@torch.no_grad()
def fold_norms(model: HookedTransformer) -> HookedTransformer:
    """The same function with unit gains (and no biases) in every norm that weights read directly.

    Norms behind a sublayer, of queries and keys, and of the embedding stay: no weights alone read them.
    Gains go into W_Q, W_K, W_V, W_gate, W_in and W_U; biases of LayerNorms into the biases behind them, which the
    copy's config then has. The unembedding is no longer tied. An encoder's final norm stays, since a decoder's
    cross-attention reads it through several weights. The original is untouched.
    """
    folded = HookedTransformer(_folded_config(model.cfg), model.tokenizer, dtype=model.dtype, device=model.device)
    own = dict(folded.named_parameters())
    for name, weight in model.named_parameters(remove_duplicate=False):
        if name in own:
            own[name].copy_(weight)
    for name, parameter in own.items():
        if name.endswith("bias") and name not in dict(model.named_parameters()):
            nn.init.zeros_(parameter)
    for stack in (folded.encoder, folded.decoder):
        for layer in range(stack.config.n_layers if stack is not None else 0):
            _fold_block(cast(Stack, stack).block(layer))
    reader = folded.unembed if folded.transform is None else folded.transform.dense
    if reader is not None:
        _fold(folded.main.ln_final, reader)
    return folded


def _fold_block(block: Block) -> None:
    attention, mlp = [block.attn.q, block.attn.k, block.attn.v], []
    if hasattr(block, "mlp"):
        mlp = [linear for name in ("gate", "up") if (linear := getattr(block.mlp, name, None)) is not None]
    if block.config.norms in ("post", "output"):
        return  # no weights read a norm of this block alone
    if isinstance(block, CrossBlock):
        _fold(_norm(block, "ln1"), *attention)
        _fold(_norm(block, "ln2"), block.cross_attn.q)
        _fold(_norm(block, "ln3"), *mlp)
    elif isinstance(block, ParallelBlock) and block.config.shared_norm:
        _fold(_norm(block, "ln1"), *attention, *mlp)
    else:
        _fold(_norm(block, "ln1"), *attention)
        if mlp:
            _fold(_norm(block, "ln2"), *mlp)


def _norm(block: Block, part: str) -> Norm:
    return cast(Norm, getattr(block, part))


def _fold(norm: Norm, *linears: nn.Linear) -> None:
    """Move one norm's gain and bias into the weights behind it."""
    if norm.config.kind == "none":
        return
    for linear in linears:
        if norm.b is not None:
            linear.bias.add_(linear.weight @ norm.b)
        linear.weight.mul_(norm.gain)
    _fill(norm.w, 1.0 - norm.config.gain_offset)
    if norm.b is not None:
        _fill(norm.b, 0.0)


def _fill(x: Float[Tensor, " d_model"], value: float) -> None:
    x.copy_(torch.full_like(x, value))


def _folded_config(config: ModelConfig) -> ModelConfig:
    """The same architecture, untied, with biases wherever a norm's bias has to go."""
    final = (config.decoder or config.encoder or StackConfig(())).final_norm
    return replace(
        config,
        decoder=config.decoder and _folded_stack(config.decoder),
        encoder=config.encoder and _folded_stack(config.encoder),
        tie_word_embeddings=False,
        bias_unembed=config.bias_unembed or (config.has_unembed and config.transform is None and _has_bias(final)),
    )


def _folded_stack(stack: StackConfig) -> StackConfig:
    return replace(stack, blocks=tuple(_folded_block_config(block) for block in stack.blocks))


def _folded_block_config(block: BlockConfig) -> BlockConfig:
    if not _has_bias(block.norm) or block.norms in ("post", "output"):
        return block
    return replace(
        block,
        attn=replace(block.attn, bias_qkv=True),
        mlp=block.mlp and replace(block.mlp, bias=True),
        cross_attn=block.cross_attn and replace(block.cross_attn, bias_qkv=True),
    )


def _has_bias(norm: NormConfig | None) -> bool:
    return norm is not None and norm.kind != "none" and norm.bias
