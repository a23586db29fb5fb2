"""Facts as pairs: for each one another subject of the same relation, whose prompt aligns token by token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from interp.pairs.answers import answer_ids
from interp.pairs.inputs import need_tokenizer
from interp.pairs.places import text_row
from interp.readers.facts import Fact
from interp.text import Tokenizer

__all__ = ["paired"]

_TRIES = 50  # partners with a subject of as many tokens, of which one usually aligns


@dataclass(frozen=True)
class _Known:
    """What is looked up of every fact: tokens of its subject alone, and of its answer."""

    n_subject: int
    answer: tuple[int, ...]


def paired(
    facts: Sequence[Fact], model: Any, seed: int, prepend_bos: bool | None
) -> tuple[list[tuple[int, Fact]], list[tuple[int, str]]]:
    """The facts that have a partner (by index) with the partner as it stands in their own prompt, and the others with
    the reason. A partner is of the same relation, has another subject and answer, and as many tokens."""
    tokenizer = need_tokenizer(model)
    known = [_known(one, tokenizer) for one in facts]
    groups: dict[str, list[int]] = defaultdict(list)
    for i, one in enumerate(facts):
        groups[one.group].append(i)
    chosen, left = [], []
    for i, fact in enumerate(facts):
        found = _partner(i, facts, known, groups[fact.group], seed, tokenizer, prepend_bos)
        if isinstance(found, str):
            left.append((i, found))
        else:
            chosen.append((i, found))
    return chosen, left


def _known(fact: Fact, tokenizer: Tokenizer) -> _Known:
    start = fact.span[0]
    subject = f" {fact.subject}" if start and fact.prompt[start - 1].isspace() else fact.subject
    n = len(tokenizer.backend.encode(subject, add_special_tokens=False).ids)
    return _Known(n, answer_ids(tokenizer, fact.attribute, fact.prompt))


def _partner(
    i: int,
    facts: Sequence[Fact],
    known: Sequence[_Known],
    group: Sequence[int],
    seed: int,
    tokenizer: Tokenizer,
    prepend_bos: bool | None,
) -> Fact | str:
    fact = facts[i]
    if not known[i].answer or tokenizer.unk_id in known[i].answer:
        return f"its attribute {fact.attribute!r} is not in the vocabulary"
    others = [
        j
        for j in group
        if facts[j].subject != fact.subject
        and known[j].answer != known[i].answer
        and known[j].answer
        and tokenizer.unk_id not in known[j].answer
    ]
    if not others:
        return "no other subject of its relation has another attribute"
    alike = [j for j in others if known[j].n_subject == known[i].n_subject] or others
    generator = Random(f"{seed} {fact.prompt} {fact.attribute}")
    clean = _shape(fact, tokenizer, prepend_bos)
    for j in generator.sample(alike, min(len(alike), _TRIES)):
        corrupt = _about(fact, facts[j])
        if _shape(corrupt, tokenizer, prepend_bos) == clean:
            return corrupt
    return "no other subject of its relation has as many tokens"


def _about(fact: Fact, other: Fact) -> Fact:
    """A fact's prompt about another subject, with that one's attribute."""
    start, end = fact.span
    prompt = fact.prompt[:start] + other.subject + fact.prompt[end:]
    return replace(
        fact, prompt=prompt, subject=other.subject, span=(start, start + len(other.subject)), attribute=other.attribute
    )


def _shape(fact: Fact, tokenizer: Tokenizer, prepend_bos: bool | None) -> tuple[int, tuple[int, ...]]:
    """How many tokens a prompt has, and where its subject stands among them."""
    row = text_row(tokenizer, fact.prompt, prepend_bos)
    return len(row.ids), row.tokens_of(*fact.span)
