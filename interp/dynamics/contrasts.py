"""Pairs of rows of a recipe that differ in what decides one token: what activation patching needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp.dynamics.base import Data, drawn
from interp.dynamics.context import StatedFacts
from interp.dynamics.copying import CopyRows
from interp.dynamics.induction import TiledBlocks
from interp.dynamics.knowledge import FactSentences, PronounSentences
from interp.dynamics.reversal import ReversedRows
from interp.pairs import PromptPairs

__all__ = ["contrast"]

_TRIES = 8  # drawn for each pair that is wanted: some rows hold the same token twice
Rows = Int[Tensor, "n pos"]


def contrast(data: Data, n: int, generator: torch.Generator) -> tuple[PromptPairs, str] | None:
    """`n` pairs of a recipe's data and what differs in them, in words; None for data that no contrast is known of."""
    made = _KINDS.get(type(data))
    return None if made is None else made(data, n, generator)


def _predecessors(data: TiledBlocks, n: int, generator: torch.Generator) -> tuple[PromptPairs, str] | None:
    """X A … Y B … X: in the corrupt row X and Y stand in each other's place in the first copy, so that what followed X
    there is B. The row ends with the second X, before the second Y."""
    low, high = max(5, data.periods[0]), min(data.periods[1], data.length // 2)
    if high < low or data.d_vocab < 6:
        return None  # no room for two pairs of tokens that all differ
    clean, corrupt, answers, foils, reads, sources = [], [], [], [], [], []
    while len(clean) < n:
        period = int(drawn(low, high + 1, (1,), generator))
        block = drawn(1, data.d_vocab, (period,), generator)
        i = int(drawn(0, period - 3, (1,), generator))
        j = int(drawn(i + 2, period - 1, (1,), generator))
        X, A, Y, B = (int(block[k]) for k in (i, i + 1, j, j + 1))
        if len({X, A, Y, B}) < 4 or int((block == X).sum() + (block == Y).sum()) > 2:
            continue
        exchanged = block.clone()
        exchanged[[i, j]] = block[[j, i]]
        for rows, first in ((clean, block), (corrupt, exchanged)):
            rows.append([0, *first.tolist(), *block[: i + 1].tolist()])
        answers.append(A)
        foils.append(B)
        reads.append(period + i + 1)
        sources.append(i + 2)
    places = {"END": reads, "source": sources}
    return _pairs(clean, corrupt, answers, foils, places), "two tokens exchanged in the first copy"


def _subjects(data: FactSentences, n: int, generator: torch.Generator) -> tuple[PromptPairs, str]:
    size = (_TRIES * n,)
    subject, other = (drawn(0, data.n_subjects, size, generator) for _ in range(2))
    relation = drawn(0, data.n_relations, size, generator)
    return _last(data.rows(subject, relation), data.rows(other, relation), n), "another subject, the same relation"


def _names(data: PronounSentences, n: int, generator: torch.Generator) -> tuple[PromptPairs, str]:
    size = (_TRIES * n,)
    names, others = (drawn(0, data.n_names, (*size, 2), generator) for _ in range(2))
    verb = drawn(0, data.n_verbs, size, generator)
    second_first, pronoun = (drawn(0, 2, size, generator).bool() for _ in range(2))
    clean, corrupt = (data.rows(one, verb, second_first, pronoun.long()) for one in (names, others))
    return _last(clean, corrupt, n), "other names of the same kinds"


def _copied(data: CopyRows, n: int, generator: torch.Generator) -> tuple[PromptPairs, str]:
    rows = data.draw(n, generator).tokens
    at = drawn(0, data.length, (n,), generator)
    every = torch.arange(n)
    changed = rows.clone()
    changed[every, 1 + at] = _another(rows[every, 1 + at], 2, data.d_vocab, generator)
    ends = [data.length + 1 + int(one) for one in at]
    clean, corrupt = ([row[: end + 1].tolist() for row, end in zip(x, ends, strict=True)] for x in (rows, changed))
    answers, foils = (x[every, 1 + at].tolist() for x in (rows, changed))
    places = {"END": ends, "source": (1 + at).tolist()}
    return _pairs(clean, corrupt, answers, foils, places), "another token at the place that is copied"


def _reversed(data: ReversedRows, n: int, generator: torch.Generator) -> tuple[PromptPairs, str]:
    drawn_rows = data.draw(n, generator)
    source = drawn_rows.source
    assert source is not None
    every, counts = torch.arange(n), drawn_rows.scored["reversed"].sum(1)
    at = (torch.rand(n, generator=generator) * counts).long()  # of the decoder: one of those that are said
    place = counts - 1 - at
    changed = source.clone()
    changed[every, place] = _another(source[every, place], data.n_starts, data.d_vocab, generator)
    answers, foils = (x[every, place].tolist() for x in (source, changed))
    decoder = [row[: int(end) + 1].tolist() for row, end in zip(drawn_rows.tokens, at, strict=True)]
    pairs = PromptPairs.from_tokens(
        source, changed, answers, foils, decoder=decoder, templates=["row"] * n, items=[f"row {i}" for i in range(n)]
    )
    return pairs, "another token at the mirrored place"


def _stated(data: StatedFacts, n: int, generator: torch.Generator) -> tuple[PromptPairs, str]:
    rows = data.conflicts(n, generator)
    answers, foils = rows.stated.tolist(), rows.learned.tolist()
    places = {"END": rows.tokens.shape[1] - 1}
    pairs = _pairs(rows.tokens.tolist(), rows.unstated.tolist(), answers, foils, places)
    return pairs, "a statement against the table, or one of another subject"


def _another(tokens: Int[Tensor, " n"], low: int, high: int, generator: torch.Generator) -> Int[Tensor, " n"]:
    """A token from `low` to `high`, the latter not included, that is not the one given."""
    return low + (tokens - low + drawn(1, high - low, (len(tokens),), generator)) % (high - low)


def _last(clean: Rows, corrupt: Rows, n: int) -> PromptPairs:
    """Pairs whose last tokens differ, which are the answers."""
    differ = (clean[:, -1] != corrupt[:, -1]).nonzero()[:n, 0]
    clean, corrupt = clean[differ], corrupt[differ]
    answers, foils = clean[:, -1].tolist(), corrupt[:, -1].tolist()
    return _pairs(clean[:, :-1].tolist(), corrupt[:, :-1].tolist(), answers, foils, {"END": clean.shape[1] - 2})


def _pairs(clean: Any, corrupt: Any, answers: list[int], foils: list[int], positions: Any) -> PromptPairs:
    n = len(clean)
    named: dict[str, Any] = {"items": [f"row {i}" for i in range(n)], "templates": ["row"] * n}
    return PromptPairs.from_tokens(clean, corrupt, answers, foils, positions=positions, **named)


_KINDS: dict[type, Callable[[Any, int, torch.Generator], tuple[PromptPairs, str] | None]] = {
    TiledBlocks: _predecessors,
    FactSentences: _subjects,
    PronounSentences: _names,
    CopyRows: _copied,
    ReversedRows: _reversed,
    StatedFacts: _stated,
}
