"""Conflict (Yu 2023; Jin 2024): the context says something false about what the model knows.

"In this story the capital of France is Rome. The capital of France is": the answer is the context's " Rome", the foil
what the model remembers, " Paris". Only facts are taken that the model knows when nothing is said about them. Each is
put into every template of its split, since the template decides much.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from random import Random

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.tasks.base import SPLITS, Request, Task, TaskDefinition
from interp.tasks.conflict_words import COLOR, FRAMES, THINGS, VALUES, Frame
from interp.tasks.countries import nonce_words
from interp.tasks.fact_recall import TASK as FACTS
from interp.tasks.prompts import Filled, Prompt, fill, task_of
from interp.tasks.words import half, rng

__all__ = ["RELATIONS", "TASK"]

RELATIONS = ("capital", "language")
_ALL = 1_000_000  # facts: as many as there are
_CORRUPTIONS = {
    "consistent": "the context says the truth, so context and memory agree",
    "irrelevant": "the context says the color of an unrelated thing, in as many tokens",
    "unknown": "a made-up name stands for the subject, in the context and in the question: there is no memory of it",
}


@dataclass(frozen=True)
class _Fact:
    """What the model knows of a country; `others` could be said of it instead."""

    country: str
    relation: str
    memory: str
    others: tuple[str, ...]
    split: str


def _make(model: HookedTransformer, request: Request) -> Task:
    relations = request.options.get("relations", RELATIONS)
    options = {"relations": relations, "keep_unknown": request.options.get("keep_unknown", False)}
    asked = Request("noise", request.splits, _ALL, request.seed, request.bos, options, request.known)
    known = FACTS.make(model, asked)  # "noise" changes no token, so nothing is left out for want of alignment
    size = _Sizes(model)
    prompts: list[Prompt] = []
    dropped: Counter[str] = Counter()
    taken: dict[str, Counter[str]] = {one: Counter() for one in request.splits}
    items: dict[str, set[str]] = {one: set() for one in request.splits}
    for fact in _facts(size, known):
        mine = items[fact.split]
        if fact.country not in mine and len(mine) == request.n:
            continue
        made = [_prompt(size, request, fact, frame) for frame in half(FRAMES, fact.split)]
        dropped.update(one for one in made if isinstance(one, str))
        there = [one for one in made if isinstance(one, Prompt)]
        if there:
            mine.add(fact.country)
            taken[fact.split][fact.relation] += 1
        prompts += there
    if not prompts:
        raise InputError(
            f"Of the {len(known)} facts that {model.cfg.model_name} knows none could be put into a prompt: "
            f"{', '.join(f'{n} × {why}' for why, n in dropped.items()) or 'none has another answer'}."
        )
    about = {
        "corruption": _CORRUPTIONS[request.corruption],
        "known": known.about["known"],
        "known_means": known.about["known_means"],
        "prompts_per_item": "one for each relation that is known and each template of the split",
        "facts": {split: dict(counts) for split, counts in taken.items()},
        "same_relation_answers": known.about["same_relation_answers"],
        "seed": request.seed,
        "left_out": dict(dropped),
    }
    return task_of(TASK, model, request, prompts, about)


class _Sizes:
    """How many tokens texts have; those of words are remembered."""

    def __init__(self, model: HookedTransformer):
        self.encode = model.tokenizer.backend.encode
        self.known: dict[str, tuple[int, ...]] = {}

    def ids(self, word: str) -> tuple[int, ...]:
        """A word's tokens within a text (a space in front)."""
        if word not in self.known:
            self.known[word] = tuple(self.encode(f" {word}", add_special_tokens=False).ids)
        return self.known[word]

    def alike(self, word: str, other: str) -> bool:
        return len(self.ids(word)) == len(self.ids(other))

    def shape(self, filled: Filled) -> tuple[int, ...]:
        """How many tokens there are up to the end of each slot, and in all."""
        ends = [*sorted(end for _, end in filled.spans.values()), len(filled.text)]
        return tuple(len(self.encode(filled.text[:end], add_special_tokens=False).ids) for end in ends)


def _facts(size: _Sizes, known: Task) -> list[_Fact]:
    """Every known fact, with the known answers of its split that have as many tokens and begin otherwise."""
    rows = list(zip(*(known.labels[name] for name in ("split", "relation", "subject", "answer")), strict=True))
    answers: dict[tuple[str, str], list[str]] = {}
    for split, relation, _, answer in rows:
        answers.setdefault((split, relation), []).append(answer)
    found = []
    for split, relation, country, memory in rows:
        others = [
            one
            for one in dict.fromkeys(answers[split, relation])
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
        names = [one for one in half(nonce_words(), fact.split) if size.alike(one, fact.country)]
        tried = [{**words, "CX": name, "X": name} for name in names]
    else:
        things, values = (half(some, fact.split) for some in (THINGS, VALUES))
        begins = frame.text.startswith("{CX}")  # there a word has other tokens than behind a space
        both = product(
            [one for one in things if begins or size.alike(one, fact.country)],
            [one for one in values if size.alike(one, words["CO"])],
        )
        tried = [{**words, "R": COLOR, "CX": _cased(thing, frame), "CO": value} for thing, value in both]
    generator.shuffle(tried)
    shape = size.shape(fill(frame.text, words))
    return next((one for one in tried if size.shape(fill(frame.text, one)) == shape), None)


def _cased(thing: str, frame: Frame) -> str:
    return thing[0].upper() + thing[1:] if frame.text.startswith("{CX}") else thing


TASK = TaskDefinition(
    name="conflict",
    definition="what a false context says of a country, above what the model knows of it",
    corruptions=tuple(_CORRUPTIONS),
    applies_to=frozenset({"decoder"}),
    positions=("context_object", "context_subject", "subject", "END"),
    make=_make,
    options=("relations", "keep_unknown"),
)
assert all(len(half(FRAMES, one)) >= 4 for one in SPLITS)
