"""Weights of all layers by their papers' names. Single layers give views; stacked ones are copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import InputError

__all__ = ["StackedWeights", "UnembeddingWeights"]


class StackedWeights:
    """`W_Q`, `W_O`, … over all layers of a stack, or of a model with one; and the embeddings."""

    @property
    def only(self) -> Any:
        """The stack whose weights these are."""
        raise NotImplementedError

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        return self.only.embed.weight

    @property
    def W_pos(self) -> Float[Tensor, "n_ctx d_model"]:
        if self.only.pos_embed is None:
            raise InputError("This model has no learned positions. Its cfg.positional_embedding_type says what it has.")
        return self.only.pos_embed.weight

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        return self._all(lambda block: block.attn.W_Q)

    @property
    def W_K(self) -> Float[Tensor, "layer kv_head d_model d_head"]:
        return self._all(lambda block: block.attn.W_K)

    @property
    def W_V(self) -> Float[Tensor, "layer kv_head d_model d_head"]:
        return self._all(lambda block: block.attn.W_V)

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:
        return self._all(lambda block: block.attn.W_O)

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        return self._all(lambda block: block.attn.b_Q)

    @property
    def b_K(self) -> Float[Tensor, "layer kv_head d_head"]:
        return self._all(lambda block: block.attn.b_K)

    @property
    def b_V(self) -> Float[Tensor, "layer kv_head d_head"]:
        return self._all(lambda block: block.attn.b_V)

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        return self._all(lambda block: block.attn.b_O)

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:
        return self._all(lambda block: block.mlp.W_in)

    @property
    def W_gate(self) -> Float[Tensor, "layer d_model d_mlp"]:
        return self._all(lambda block: block.mlp.W_gate)

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:
        return self._all(lambda block: block.mlp.W_out)

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        return self._all(lambda block: block.mlp.b_in)

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        return self._all(lambda block: block.mlp.b_out)

    def _all(self, read: Callable[[Any], Tensor]) -> Tensor:
        tensors = [read(block) for block in self.only.blocks]
        if len({x.shape for x in tensors}) != 1:
            raise InputError("The layers of this model differ in shape. Ask model.blocks[layer] for one of them.")
        return torch.stack(tensors)


class UnembeddingWeights(StackedWeights):
    """And those of a model's unembedding."""

    def need_unembed(self) -> nn.Linear:
        raise NotImplementedError

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        return self.need_unembed().weight.T

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        weight, bias = self.need_unembed().weight, self.need_unembed().bias
        return bias if bias is not None else weight.new_zeros(len(weight))
