"""Conflict (Yu 2023; Jin 2024): the context says something false about what the model knows.

"In this story the capital of France is Rome. The capital of France is": the answer is the context's " Rome", the foil
what the model remembers, " Paris". Only facts are taken that the model knows when nothing is said about them. Each is
put into every template of its split, since the template decides much.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from random import Random
from typing import Any

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.tasks.base import SPLITS, Request, Task, TaskDefinition
from interp.tasks.conflict_words import COLOR, FRAMES, THINGS, VALUES, Frame
from interp.tasks.countries import countries, nonce_words
from interp.tasks.fact_recall import TASK as FACTS
from interp.tasks.prompts import Filled, Prompt, fill, task_of
from interp.tasks.words import half, rng

__all__ = ["RELATIONS", "TASK"]

RELATIONS = ("capital", "language")
_ALL = 1_000_000  # facts: as many as there are
_SUCH = "Countries are those of a million inhabitants and more, and answers must not share a word with their name."
_CORRUPTIONS = {
    "consistent": "the context says the truth, so context and memory agree",
    "irrelevant": "the context says the color of an unrelated thing, in as many tokens",
    "unknown": "a made-up name stands for the subject, in the context and in the question: there is no memory of it",
}


@dataclass(frozen=True)
class _Fact:
    """What is known of a country; `others` could be said of it instead."""

    country: str
    relation: str
    memory: str
    others: tuple[str, ...]
    split: str


def _make(model: HookedTransformer, request: Request) -> Task:
    facts, measured = _known(model, request)
    size = _Sizes(model)
    prompts: list[Prompt] = []
    dropped: Counter[str] = Counter()
    for split in request.splits:
        by_country: dict[str, list[_Fact]] = {}
        for fact in _facts(size, facts, split):
            by_country.setdefault(fact.country, []).append(fact)
        drawn = list(by_country)
        rng(request.seed, "conflict", split).shuffle(drawn)
        n_items = 0
        for country in drawn:
            if n_items == request.n:
                break
            made = [_prompt(size, request, fact, one) for fact in by_country[country] for one in half(FRAMES, split)]
            dropped.update(one for one in made if isinstance(one, str))
            there = [one for one in made if isinstance(one, Prompt)]
            prompts += there
            n_items += bool(there)
    if not prompts:
        why = ", ".join(f"{n} × {one}" for one, n in dropped.items()) or "no fact has another answer of as many tokens"
        raise InputError(f"Of these facts none could be put into a prompt for {model.cfg.model_name}: {why}.")
    answers = {one: sorted({c.answers[one] for c in countries() if one in c.answers}) for one in facts}
    about = {
        "corruption": _CORRUPTIONS[request.corruption],
        "facts": facts,
        **measured,
        "prompts_per_item": "one for each relation that is known and each template of the split",
        "same_relation_answers": {one: [size.ids(text) for text in texts] for one, texts in answers.items()},
        "seed": request.seed,
        "left_out": dict(dropped),
    }
    return task_of(TASK, model, request, prompts, about)


def _known(model: HookedTransformer, request: Request) -> tuple[dict[str, list[str]], dict[str, object]]:
    """Countries by relation: those that were given, or those whose answer the model knows."""
    given = request.options.get("facts")
    if given is not None:
        return _checked(given), {"known": "the facts that were given"}
    relations = request.options.get("relations", RELATIONS)
    options = {"relations": relations, "keep_unknown": request.options.get("keep_unknown", False)}
    asked = Request("noise", request.splits, _ALL, request.seed, request.bos, options, request.known)
    known = FACTS.make(model, asked)  # "noise" changes no token, so nothing is left out for want of alignment
    found: dict[str, list[str]] = {}
    for relation, country in sorted(zip(known.labels["relation"], known.labels["subject"], strict=True)):
        found.setdefault(relation, []).append(country)
    return found, {name: known.about[name] for name in ("known", "known_means")}


def _checked(given: Any) -> dict[str, list[str]]:
    """Facts that were given, if there are such."""
    by_name = {one.name: one.answers for one in countries()}
    if not isinstance(given, Mapping) or not given:
        raise InputError(f'facts is {given!r}. Give countries by relation: {{"capital": ["France", "Peru"]}}.')
    for relation, some in given.items():
        for country in some:
            if relation not in by_name.get(country, {}):
                raise InputError(f"There is no {relation} of {country!r} to ask for. {_SUCH}")
    return {relation: sorted(set(some)) for relation, some in given.items()}


class _Sizes:
    """How many tokens texts have; those of words are remembered."""

    def __init__(self, model: HookedTransformer):
        self.encode = model.tokenizer.backend.encode
        self.known: dict[str, tuple[int, ...]] = {}
        self.by_length: dict[tuple[str, ...], dict[int, list[str]]] = {}

    def ids(self, word: str) -> tuple[int, ...]:
        """A word's tokens within a text (a space in front)."""
        if word not in self.known:
            self.known[word] = tuple(self.encode(f" {word}", add_special_tokens=False).ids)
        return self.known[word]

    def alike(self, word: str, other: str) -> bool:
        return len(self.ids(word)) == len(self.ids(other))

    def as_long(self, words: tuple[str, ...], word: str) -> list[str]:
        """Those of some words that have as many tokens as another."""
        if words not in self.by_length:
            found = self.by_length[words] = {}
            for one in words:
                found.setdefault(len(self.ids(one)), []).append(one)
        return self.by_length[words].get(len(self.ids(word)), [])

    def shape(self, filled: Filled) -> tuple[int, ...]:
        """How many tokens there are up to the end of each slot, and in all."""
        ends = [*sorted(end for _, end in filled.spans.values()), len(filled.text)]
        return tuple(len(self.encode(filled.text[:end], add_special_tokens=False).ids) for end in ends)


def _facts(size: _Sizes, facts: Mapping[str, Sequence[str]], split: str) -> list[_Fact]:
    """The facts of one split, with the answers of its others that have as many tokens and begin otherwise."""
    found = []
    for relation, some in facts.items():
        mine = {one.name: one.answers[relation] for one in half(countries(), split) if one.name in set(some)}
        for country, memory in mine.items():
            others = [
                one
                for one in sorted(set(mine.values()))
                if size.alike(one, memory) and size.ids(one)[0] != size.ids(memory)[0] and one not in country
            ]
            if others:
                found.append(_Fact(country, relation, memory, tuple(others), split))
    return found


def _prompt(size: _Sizes, request: Request, fact: _Fact, frame: Frame) -> Prompt | str:
    what = ("conflict", fact.country, fact.relation, frame.name)
    said = rng(request.seed, *what).choice(fact.others)
    words = {"R": fact.relation, "Q": fact.relation, "CX": fact.country, "X": fact.country, "CO": said}
    clean = fill(frame.text, words)
    changed = _changed(size, request.corruption, fact, frame, words, rng(request.seed, *what, request.corruption))
    if changed is None:
        return f"no {request.corruption} prompt of as many tokens"
    corrupt = fill(frame.text, changed)
    labels: Mapping[str, str] = {
        "relation": fact.relation,
        "frame": frame.name,
        "subject": fact.country,
        "said": said,
        "memory": fact.memory,
        "corrupt_subject": changed["X"],
        "corrupt_context": f"{changed['R']} of {changed['CX']}: {changed['CO']}",
        "split": fact.split,
    }
    places = {"context_object": "CO", "context_subject": "CX", "subject": "X"}
    spans = {name: clean.spans[slot] for name, slot in places.items()}
    template = f"{fact.split} {frame.name}"
    return Prompt(clean, corrupt, f" {said}", f" {fact.memory}", spans, fact.country, template, labels)


def _changed(
    size: _Sizes, corruption: str, fact: _Fact, frame: Frame, words: Mapping[str, str], generator: Random
) -> dict[str, str] | None:
    """The words of the corrupt prompt; None where no others have as many tokens in the same places."""
    if corruption == "consistent":
        return {**words, "CO": fact.memory}
    if corruption == "unknown":
        names = size.as_long(_made_up(fact.split), fact.country)
        said = f"{words['CO']} {fact.memory}".lower()  # a name must not hint at an answer
        tried = [{**words, "CX": name, "X": name} for name in names if name.lower() not in said]
    else:
        things, values = (half(some, fact.split) for some in (THINGS, VALUES))
        begins = frame.text.startswith("{CX}")  # there a word has other tokens than behind a space
        both = product(things if begins else size.as_long(things, fact.country), size.as_long(values, words["CO"]))
        tried = [{**words, "R": COLOR, "CX": _cased(thing, frame), "CO": value} for thing, value in both]
    generator.shuffle(tried)
    shape = size.shape(fill(frame.text, words))
    return next((one for one in tried if size.shape(fill(frame.text, one)) == shape), None)


@cache
def _made_up(split: str) -> tuple[str, ...]:
    return half(nonce_words(), split)


def _cased(thing: str, frame: Frame) -> str:
    return thing[0].upper() + thing[1:] if frame.text.startswith("{CX}") else thing


TASK = TaskDefinition(
    name="conflict",
    definition="what a false context says of a country, above what the model knows of it",
    corruptions=tuple(_CORRUPTIONS),
    applies_to=frozenset({"decoder"}),
    positions=("context_object", "context_subject", "subject", "END"),
    make=_make,
    options=("relations", "keep_unknown", "facts"),
)
assert all(len(half(FRAMES, one)) >= 4 for one in SPLITS)
