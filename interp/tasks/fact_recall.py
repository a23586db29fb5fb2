"""Fact recall: capital, language and continent of a country, asked only where the model knows the answer.

The frames put each relation into words of equally many tokens, so that exchanging the relation keeps the prompts
aligned. Answers of several tokens are scored by their log-probability.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.tasks.base import Request, Task, TaskDefinition
from interp.tasks.countries import RELATIONS, Country, countries, nonce_words
from interp.tasks.measure import best_of
from interp.tasks.prompts import Filled, Prompt, fill, task_of, with_bos
from interp.tasks.words import half, rng

__all__ = ["FRAMES", "TASK"]

_WORDS = dict(zip(RELATIONS, RELATIONS, strict=True))
_TWO = {"capital": "national capital", "language": "official language", "continent": "home continent"}
FRAMES = (
    ("The {R} of {X} is", _TWO),
    ("On the map {X} is marked in red. Its {R} is", _WORDS),
    ("Name of the country: {X}. Name of the {R}:", _WORDS),
    ("They asked about {X}: its {R} is", _WORDS),
)
_CORRUPTIONS = {
    "subject": "another country of as many tokens, which has another answer; that answer is the foil",
    "relation": "another relation of the same country; its answer is the foil",
    "nonce": "a made-up country of as many tokens, which has no answer",
    "noise": "none in the tokens: give the pairs to interp.causal_trace, which noises the embeddings of the subject",
}


@dataclass(frozen=True)
class _Fact:
    country: Country
    relation: str
    frame: int  # in its split
    split: str
    filled: Filled
    size: int  # tokens of the subject

    @property
    def answer(self) -> str:
        return self.country.answers[self.relation]


def _make(model: HookedTransformer, request: Request) -> Task:
    relations = request.options.get("relations", RELATIONS)
    relations = (relations,) if isinstance(relations, str) else tuple(relations)
    keep = bool(request.options.get("keep_unknown", False))
    if not relations or set(relations) - set(RELATIONS):
        raise InputError(f"relations is {relations!r}. Choose among {', '.join(RELATIONS)}.")
    answers = {one: sorted({c.answers[one] for c in countries() if one in c.answers}) for one in RELATIONS}
    ids = {one: {text: _ids(model, text) for text in texts} for one, texts in answers.items()}
    asked = [fact for split in request.splits for fact in _facts(model, split, relations, request)]
    right, top = _judge(model, asked, ids, request)
    known = [fact for fact, ok in zip(asked, right, strict=True) if ok]
    first = dict(zip(map(id, asked), top, strict=True))
    prompts: list[Prompt] = []
    dropped: dict[str, int] = defaultdict(int)
    taken: dict[str, dict[str, int]] = {one: dict.fromkeys(request.splits, 0) for one in relations}
    knows = set(map(id, known))
    for fact in asked:
        if not (keep or id(fact) in knows) or taken[fact.relation][fact.split] == request.n:
            continue
        pool = [o for o in (asked if keep else known) if (o.split, o.relation) == (fact.split, fact.relation)]
        made = _prompt(model, request, fact, pool, {"known": id(fact) in knows, "top1": first[id(fact)]}, ids)
        if isinstance(made, str):
            dropped[made] += 1
            continue
        prompts.append(made)
        taken[fact.relation][fact.split] += 1
    if not prompts:
        raise InputError(
            f"{model.cfg.model_name} gives the right answer to none of the {len(asked)} questions that can be asked. "
            "keep_unknown=True takes those that it gets wrong too."
        )
    about = {
        "corruption": _CORRUPTIONS[request.corruption],
        "known": {one: _rates(asked, right, top, one) for one in relations},
        "known_means": "each token of the answer beats those with which the relation's other answers go on there",
        "kept_unknown": keep,
        "per_relation": taken,
        "same_relation_answers": {one: [ids[one][text] for text in answers[one]] for one in relations},
        "left_out": {"not known": 0 if keep else len(asked) - len(known), **dropped},
    }
    return task_of(TASK, model, request, prompts, about)


def _facts(model: HookedTransformer, split: str, relations: Sequence[str], request: Request) -> list[_Fact]:
    """Every country of a split with each relation, in one frame each, in the order in which they are taken."""
    frames = half(FRAMES, split)
    mine = list(half(countries(), split))
    rng(request.seed, "fact_recall", split).shuffle(mine)
    made = []
    for i, country in enumerate(mine):
        size = len(_ids(model, country.name))
        for k, relation in enumerate(relations):
            if relation in country.answers:
                frame = (i + k) % len(frames)
                filled = _asked(frames[frame], country.name, relation)
                made.append(_Fact(country, relation, frame, split, filled, size))
    return made


def _asked(frame: tuple[str, dict[str, str]], subject: str, relation: str) -> Filled:
    template, words = frame
    return fill(template, {"X": subject, "R": words[relation]})


def _judge(
    model: HookedTransformer, asked: Sequence[_Fact], ids: Any, request: Request
) -> tuple[list[bool], list[bool]]:
    """Which answers the model prefers to all others of the relation, and which of them to any other text."""
    prepend = with_bos(model, request.bos)
    rows = [model.tokenizer.encode(fact.filled.text, prepend_bos=prepend) for fact in asked]
    wanted = [ids[fact.relation][fact.answer] for fact in asked]
    key = ("fact_recall", prepend, tuple((fact.filled.text, fact.relation) for fact in asked))
    if key not in request.known:
        request.known[key] = best_of(model, rows, wanted, [list(ids[fact.relation].values()) for fact in asked])
    return request.known[key]


def _prompt(
    model: HookedTransformer, request: Request, fact: _Fact, pool: Sequence[_Fact], seen: dict[str, bool], ids: Any
) -> Prompt | str:
    """The pair of a fact, or why there is none."""
    generator = rng(request.seed, "fact_recall", request.corruption, fact.country.name, fact.relation)
    frames = half(FRAMES, fact.split)
    others = [one for one in pool if one.answer != fact.answer]
    alike = [one for one in others if one.size == fact.size]
    if request.corruption == "relation":
        corrupt = _other_relation(model, fact, frames, generator)
        if corrupt is None:
            return "no other relation of as many tokens"
        filled, foil = corrupt
    else:
        drawn = alike if request.corruption == "subject" else (alike or others)
        if not drawn:
            return "no other known country of as many tokens"
        other = generator.choice(drawn)
        filled, foil = _asked(frames[fact.frame], other.country.name, fact.relation), other.answer
        if request.corruption == "noise":
            filled = fact.filled
        elif request.corruption == "nonce":
            name = _nonce(model, fact, generator)
            if name is None:
                return "no made-up name of as many tokens"
            filled = _asked(frames[fact.frame], name, fact.relation)
    if len(_ids(model, filled.text)) != len(_ids(model, fact.filled.text)):
        return "tokens that do not align"
    labels = {
        "relation": fact.relation,
        "answer": fact.answer,
        "n_answer_tokens": len(ids[fact.relation][fact.answer]),
        "foil": foil,
        "subject": fact.country.name,
        "corrupt_subject": filled.text[slice(*filled.spans["X"])],
        "split": fact.split,
        **seen,
    }
    places = {"subject": fact.filled.spans["X"], "relation": fact.filled.spans["R"]}
    template = f"{fact.split} {fact.frame}"
    item = fact.country.name
    return Prompt(fact.filled, filled, f" {fact.answer}", f" {foil}", places, item, template, labels)


def _other_relation(
    model: HookedTransformer, fact: _Fact, frames: Sequence[Any], generator: Random
) -> tuple[Filled, str] | None:
    relations = [one for one in fact.country.answers if one != fact.relation]
    generator.shuffle(relations)
    for relation in relations:
        filled = _asked(frames[fact.frame], fact.country.name, relation)
        if len(_ids(model, filled.text)) == len(_ids(model, fact.filled.text)):
            return filled, fact.country.answers[relation]
    return None


def _nonce(model: HookedTransformer, fact: _Fact, generator: Random) -> str | None:
    """A made-up name of as many tokens; some hundred are tried."""
    words = list(half(nonce_words(), fact.split))
    generator.shuffle(words)
    return next((word for word in words if len(_ids(model, word)) == fact.size), None)


def _rates(asked: Sequence[_Fact], right: Sequence[bool], top: Sequence[bool], relation: str) -> dict[str, Any]:
    mine = [(fact, ok, first) for fact, ok, first in zip(asked, right, top, strict=True) if fact.relation == relation]
    by_template: dict[str, list[bool]] = defaultdict(list)
    for fact, ok, _ in mine:
        by_template[f"{fact.split} {fact.frame}"].append(ok)
    n, n_known = len(mine), sum(ok for _, ok, _ in mine)
    return {
        "asked": n,
        "known": n_known,
        "rate": n_known / n if n else None,
        "top1": sum(first for _, _, first in mine) / n if n else None,
        "templates": {name: sum(oks) / len(oks) for name, oks in sorted(by_template.items())},
    }


def _ids(model: HookedTransformer, word: str) -> tuple[int, ...]:
    return tuple(model.tokenizer.backend.encode(f" {word}", add_special_tokens=False).ids)


TASK = TaskDefinition(
    name="fact_recall",
    definition="a country's capital, language or continent, known to the model and not said in the prompt",
    corruptions=tuple(_CORRUPTIONS),
    applies_to=frozenset({"decoder"}),
    positions=("subject", "relation", "END"),
    make=_make,
    options=("relations", "keep_unknown"),
)
