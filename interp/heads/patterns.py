"""Which keys a head of some kind should attend to, and how much of its attention goes there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.circuits.streaming import LayerHeads, head_grid, key_share, stream_heads
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer

__all__ = ["TARGETS", "attention_shares", "duplicate_token", "first_token", "prefix_match", "previous_token"]

Targets = Bool[Tensor, "batch q_pos k_pos"]
TargetRule = Callable[[Int[Tensor, "batch pos"], Int[Tensor, " q_pos"]], Targets]


def previous_token(tokens: Int[Tensor, "batch pos"], queries: Int[Tensor, " q_pos"]) -> Targets:
    """The key just before the query. The first token has none."""
    keys = torch.arange(tokens.shape[1], device=tokens.device)
    return (keys == queries[:, None] - 1).expand(len(tokens), -1, -1)


def duplicate_token(tokens: Int[Tensor, "batch pos"], queries: Int[Tensor, " q_pos"]) -> Targets:
    """Earlier copies of the query's own token."""
    keys = torch.arange(tokens.shape[1], device=tokens.device)
    return (tokens[:, queries, None] == tokens[:, None, :]) & (keys < queries[:, None])


def prefix_match(tokens: Int[Tensor, "batch pos"], queries: Int[Tensor, " q_pos"]) -> Targets:
    """The keys that follow earlier copies of the query's token: what an induction head attends to (Olsson 2022)."""
    copies = duplicate_token(tokens, queries)
    return torch.nn.functional.pad(copies, (1, 0))[:, :, :-1]


def first_token(tokens: Int[Tensor, "batch pos"], queries: Int[Tensor, " q_pos"]) -> Targets:
    """The first key, for every query but the first."""
    keys = torch.arange(tokens.shape[1], device=tokens.device)
    return ((keys == 0) & (queries[:, None] > 0)).expand(len(tokens), -1, -1)


TARGETS: dict[str, TargetRule] = {
    "previous_token": previous_token,
    "duplicate_token": duplicate_token,
    "prefix_match": prefix_match,
    "first_token": first_token,
}


def attention_shares(
    model: HookedTransformer,
    batch: Batch,
    rules: Mapping[str, TargetRule],
    *,
    rows_at_once: int = 16,
) -> dict[str, Float[Tensor, "prompt layer head"]]:
    """For each rule, the attention a head pays to the rule's keys, averaged over a prompt's queries that have any:
    a share from 0 to 1, NaN for a prompt without such a query. Padding neither asks nor counts.

    Cost: one forward pass without logits, patterns chunked; memory grows with the text's length, not its square.
    """
    parts = [_shares(model, _rows(batch, i, rows_at_once), rules) for i in range(0, len(batch.tokens), rows_at_once)]
    return {name: torch.cat([part[name] for part in parts]) for name in rules}


def _shares(model: HookedTransformer, batch: Batch, rules: Mapping[str, TargetRule]) -> dict[str, Tensor]:
    grid, tokens = head_grid(model), batch.tokens
    shape = (len(tokens), grid.n_layers, grid.n_heads)
    total = {name: torch.full(shape, torch.nan) for name in rules}
    asked = {name: torch.zeros(len(tokens), grid.n_layers, 1) for name in rules}

    def visit(heads: LayerHeads) -> None:
        n_heads = heads.q.shape[2]
        for name in rules:
            total[name][:, heads.layer, :n_heads] = 0.0
        for queries, pattern in heads.patterns():
            for name, rule in rules.items():
                keys = rule(tokens, queries)
                if batch.mask is not None:
                    keys = keys & batch.mask[:, queries, None] & batch.mask[:, None, :]
                has_any = keys.any(dim=-1)
                total[name][:, heads.layer, :n_heads] += key_share(pattern, keys).sum(-1).float().cpu()
                asked[name][:, heads.layer, 0] += has_any.sum(-1).float().cpu()

    stream_heads(model, batch, visit)
    return {name: total[name] / asked[name] for name in rules}  # 0 / 0 is NaN: a prompt that asks nothing


def _rows(batch: Batch, start: int, n: int) -> Batch:
    mask = None if batch.mask is None else batch.mask[start : start + n]
    return Batch(batch.tokens[start : start + n], mask)
