"""Answers and foils, given as text or ids, as sets of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interp.errors import InputError
from interp.pairs.checks import PairError, is_index, plain
from interp.text import Tokenizer

__all__ = ["answer_ids", "answer_sets"]

Alternatives = tuple[tuple[int, ...], ...]


def answer_sets(
    given: Any, n: int, what: str, *, tokenizer: Tokenizer | None = None, before: Sequence[str] = ()
) -> tuple[Alternatives, ...]:
    """One set of alternatives per pair. `before` is the text that each answer follows; without a `tokenizer` there
    are only ids."""
    values = plain(given)
    if isinstance(values, str) or is_index(values):
        values = [values] * n
    if not isinstance(values, (list, tuple)):
        raise InputError(f"{what} is {given!r}. Give one text or token id for all pairs, or a list with one per pair.")
    if len(values) != n:
        raise InputError(
            f"There are {n} pairs, but {what} has {len(values)}. Give one for all of them or one per pair; "
            f'alternatives of one pair stand in a list of their own: {what}=[["a", "b"], …].'
        )
    return tuple(
        _alternatives(value, what, pair, tokenizer, before[pair] if before else "") for pair, value in enumerate(values)
    )


def answer_ids(tokenizer: Tokenizer, text: str, before: str) -> tuple[int, ...]:
    """The tokens of an answer behind the text `before`. An answer without leading white space gets a space in front
    if there is text before it, that text does not end in white space, and the tokens do not become more."""
    ids = tokenizer.backend.encode(text, add_special_tokens=False).ids
    if text[:1].strip() and before[-1:].strip():
        spaced = tokenizer.backend.encode(f" {text}", add_special_tokens=False).ids
        ids = spaced if len(spaced) <= len(ids) else ids
    return tuple(ids)


def _alternatives(value: Any, what: str, pair: int, tokenizer: Tokenizer | None, before: str) -> Alternatives:
    if isinstance(value, tuple) and value and all(is_index(one) for one in value):
        return (value,)  # several tokens in order
    members = value if isinstance(value, (list, tuple)) else [value]
    return tuple(_one(member, what, pair, tokenizer, before) for member in members)


def _one(value: Any, what: str, pair: int, tokenizer: Tokenizer | None, before: str) -> tuple[int, ...]:
    if is_index(value):
        return (value,)
    if isinstance(value, tuple) and value and all(is_index(one) for one in value):
        return value
    if not isinstance(value, str):
        raise PairError(pair, f"the {what} is {value!r}. Give a text, a token id, or a list of these.")
    if tokenizer is None:
        raise PairError(
            pair,
            f"the {what} is the text {value!r}, but these pairs are token ids. "
            "Give its id, e.g. model.to_single_token(' Paris'), or build the pairs with from_text.",
        )
    ids = answer_ids(tokenizer, value, before)
    if tokenizer.unk_id in ids and value.strip() != tokenizer.unk_token:
        raise PairError(pair, f"the {what} {value!r} is not in this vocabulary: it becomes {tokenizer.unk_token!r}.")
    return ids
