"""Which head of a model is meant, and which token of a text."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import InputError
from interp.model.attention import Attention
from interp.model.config import AttentionConfig
from interp.model.stack import Stack
from interp.model.transformer import HookedTransformer
from interp.pairs.places import text_row
from interp.sites import Head

__all__ = ["HeadPlace", "ReadText", "head_place", "must_be_dot", "positions_of", "read_text", "token_place"]


@dataclass(frozen=True)
class HeadPlace:
    """A head in its model: its address with the stack filled in, the stack and the attention that hold it."""

    address: Head
    stack: Stack
    attn: Attention

    @property
    def site(self) -> str:
        """What the names of its tensors begin with."""
        return f"{self.stack.address}blocks.{self.address.layer}.{self.address.sublayer}."

    @property
    def kv_head(self) -> int:
        """The key/value head that it shares."""
        return self.address.head // (self.attn.config.n_heads // self.attn.config.n_key_value_heads)

    @property
    def is_cross(self) -> bool:
        return self.address.sublayer == "cross_attn"


@dataclass(frozen=True)
class ReadText:
    """One text as the model reads it, with what each token stands for; `text` is None where ids were given."""

    ids: Int[Tensor, "1 pos"]
    tokens: tuple[str, ...]
    text: str | None = None
    places: Any = None


def head_place(model: HookedTransformer, head: Head | str) -> HeadPlace:
    """Find a head; `InputError` says which there are. Without a stack the decoder's is meant."""
    if not isinstance(head, (str, Head)):
        raise InputError(f'head is {head!r}. Write layer.head, as in "23.4", or give an interp.Head.')
    asked = Head.parse(head) if isinstance(head, str) else head
    stacks = {stack.name: stack for stack in (model.encoder, model.decoder) if stack is not None}
    if asked.stack and asked.stack not in stacks:
        raise InputError(
            f"{asked} names the {asked.stack}; this model has one stack. Write {asked.layer}.{asked.head}."
        )
    stack = stacks.get(asked.stack, model.main)
    n_layers = stack.config.n_layers
    if not 0 <= asked.layer < n_layers:
        raise InputError(f"There is no head {asked}: the layers are 0 to {n_layers - 1}.")
    attn = getattr(stack.block(asked.layer), asked.sublayer, None)
    if attn is None:
        raise InputError(f"There is no head {asked}: layer {asked.layer} has no {asked.sublayer}.")
    n_heads = cast(Attention, attn).config.n_heads
    if not 0 <= asked.head < n_heads:
        raise InputError(f"There is no head {asked}: layer {asked.layer} has heads 0 to {n_heads - 1}.")
    return HeadPlace(Head(asked.layer, asked.head, asked.sublayer, stack.name), stack, attn)


def must_be_dot(config: AttentionConfig, what: str) -> None:
    """Refuse what takes scores for products of queries and keys, in attention that scores by v·tanh(q + k)."""
    if config.scoring == "additive":
        raise InputError(
            f"{what} takes scores q·k apart. This attention scores additively, by v·tanh(q + k), which is no product. "
            "Patch or ablate its queries, keys, scores or pattern instead."
        )


def read_text(model: HookedTransformer, given: Any, *, prepend_bos: bool | None = None) -> ReadText:
    """One text, or the ids of one, checked."""
    batch = model.batch(given, prepend_bos=prepend_bos)
    if len(batch.tokens) != 1:
        raise InputError(f"One text at a time, please: these are {len(batch.tokens)}.")
    ids = batch.tokens
    if model.tokenizer is None:
        return ReadText(ids, tuple(str(one) for one in ids[0].tolist()))
    tokens = tuple(model.tokenizer.str_tokens(ids[0].tolist()))
    if not isinstance(given, str):
        return ReadText(ids, tokens)
    return ReadText(ids, tokens, given, text_row(model.tokenizer, given, prepend_bos))


def token_place(row: ReadText, given: Any, what: str) -> int:
    """The position of a token, given as an index or as a piece of the text.

    A piece that is the whole word of exactly one token is that token; else it has to stand in the text once, and its
    last token is meant.
    """
    n = len(row.tokens)
    given = int(given) if isinstance(given, Integral) and not isinstance(given, bool) else given
    if isinstance(given, bool) or not isinstance(given, (int, str)):
        raise InputError(f"{what} is {given!r}. Give a token's index, or a piece of the text.")
    shown = " ".join(f"{i}:{token!r}" for i, token in enumerate(row.tokens[:40]))
    if isinstance(given, int):
        if not -n <= given < n:
            raise InputError(f"{what} is {given}; the text has {n} tokens: {shown}.")
        return given % n
    exact = [i for i, token in enumerate(row.tokens) if given.strip() and token.strip() == given.strip()]
    if len(exact) == 1:
        return exact[0]
    starts = [i for i in range(len(row.text)) if given and row.text.startswith(given, i)] if row.text else []
    if len(starts) == 1 and not exact:
        found = row.places.tokens_of(starts[0], starts[0] + len(given))
        if found:
            return found[-1]
    times = len(exact) or len(starts)
    raise InputError(
        f"{what} {given!r} stands in the text {times} times. Give the index of the token you mean: {shown}."
    )


def positions_of(ids: Int[Tensor, "1 pos"]) -> Int[Tensor, " pos"]:
    """All positions of a text."""
    return torch.arange(ids.shape[1], device=ids.device)
