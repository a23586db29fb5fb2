"""Repeated random tokens: nothing but the context tells what comes next, so copying has to come from attention.

Two layouts (Olsson 2022; METHODS of this project): `tiled` repeats one block several times; `single_repeats` puts a
block and one copy of it, of a varied length, at the end of random filler, so that position does not give it away.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import InputError
from interp.model.transformer import HookedTransformer

__all__ = ["RepeatedTokens", "common_vocabulary", "single_repeats", "tiled"]

_TAIL = 0.05  # share of the vocabulary left out at either end: the commonest and the rarest tokens


@dataclass(frozen=True)
class RepeatedTokens:
    """`tokens [batch pos]`; `period` of each row; `predictable [batch pos]`: tokens that the context determines."""

    tokens: Int[Tensor, "batch pos"]
    period: Int[Tensor, " batch"]
    predictable: Bool[Tensor, "batch pos"]
    has_bos: bool

    @property
    def fresh(self) -> Bool[Tensor, "batch pos"]:
        """Tokens that nothing determines: not BOS, not a copy."""
        fresh = torch.ones_like(self.predictable)
        fresh[:, 0] = False  # nothing is before it to predict it from
        copies = self.copies
        return fresh & ~copies

    @property
    def copies(self) -> Bool[Tensor, "batch pos"]:
        """Tokens that repeat an earlier one, the first of each copied block included."""
        same = self.tokens[:, :, None] == self.tokens[:, None, :]
        return same.tril(-1).any(dim=-1)


def common_vocabulary(model: HookedTransformer) -> Int[Tensor, " token"]:
    """Ids of ordinary tokens: no special ones, and without 5% at either end of the vocabulary. Byte-pair
    vocabularies list merges by falling frequency, so these ends are the commonest and the rarest tokens."""
    n_vocab = model.cfg.d_vocab
    special: set[int] = set()
    if model.tokenizer is not None:
        n_vocab = min(n_vocab, model.tokenizer.n_vocab)
        special = set(model.tokenizer.special_ids)
    tail = int(n_vocab * _TAIL)
    return torch.tensor([token for token in range(tail, n_vocab - tail) if token not in special])


def tiled(
    model: HookedTransformer, n: int, *, block: int = 25, repeats: int = 4, bos: bool = True, seed: int = 0
) -> RepeatedTokens:
    """`n` rows of one random block repeated, after BOS if the model has one and `bos`. Blocks hold no doubles."""
    generator = torch.Generator().manual_seed(seed)
    rows = _distinct_tokens(model, n, block, generator).repeat(1, repeats)
    predictable = torch.arange(block * repeats) > block  # the copy's first token only follows once the period is known
    return _finish(model, rows, torch.full((n,), block), predictable.expand(n, -1), bos)


def single_repeats(
    model: HookedTransformer,
    n: int,
    *,
    n_tokens: int = 64,
    periods: tuple[int, int] = (10, 25),
    bos: bool = True,
    seed: int = 0,
) -> RepeatedTokens:
    """`n` rows of `n_tokens`: filler, a block, and the block once more, its length drawn from `periods` (inclusive)."""
    low, high = periods
    if not 2 <= low <= high or 2 * high > n_tokens:
        raise InputError(
            f"Periods {periods} do not fit twice into {n_tokens} tokens. Choose 2 ≤ low ≤ high ≤ {n_tokens // 2}."
        )
    generator = torch.Generator().manual_seed(seed)
    rows = _distinct_tokens(model, n, n_tokens, generator)
    period = torch.randint(low, high + 1, (n,), generator=generator)
    place = torch.arange(n_tokens).expand(n, -1)
    copied = place >= n_tokens - period[:, None]
    rows = rows.gather(1, torch.where(copied, place - period[:, None], place))
    return _finish(model, rows, period, place > n_tokens - period[:, None], bos)


def _distinct_tokens(model: HookedTransformer, n: int, length: int, generator: torch.Generator) -> Tensor:
    vocabulary = common_vocabulary(model)
    if n < 1 or length > len(vocabulary):
        raise InputError(f"Cannot draw {n} rows of {length} different tokens from {len(vocabulary)}. Ask for fewer.")
    return torch.stack([vocabulary[torch.randperm(len(vocabulary), generator=generator)[:length]] for _ in range(n)])


def _finish(model: HookedTransformer, rows: Tensor, period: Tensor, predictable: Tensor, bos: bool) -> RepeatedTokens:
    bos_id = getattr(model.tokenizer, "bos_id", None)
    has_bos = bos and bos_id is not None
    if bos and bos_id is not None:
        rows = torch.cat([torch.full((len(rows), 1), bos_id), rows], dim=1)
        predictable = torch.cat([torch.zeros(len(rows), 1, dtype=torch.bool), predictable], dim=1)
    if rows.shape[1] > model.cfg.n_ctx:
        raise InputError(
            f"{rows.shape[1]} tokens are more than this model reads ({model.cfg.n_ctx}). Use shorter blocks."
        )
    device = model.device
    return RepeatedTokens(rows.to(device), period.to(device), predictable.to(device), has_bos)
