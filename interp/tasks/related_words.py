"""Words and what is related to them: "The opposite of hot is cold". The related word stays in the text behind the place
that is read, so that it can be seen where it looks itself.

Only pairs are asked whose related word the model finds likelier than those of the relation's other pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.tasks.base import Request, Task, TaskDefinition
from interp.tasks.measure import best_of
from interp.tasks.prompts import Filled, Prompt, fill, task_of, with_bos
from interp.tasks.related_pairs import FRAMES, PAIRS
from interp.tasks.words import half, in_turns, is_one_token, rng, word_id

__all__ = ["TASK"]

_CORRUPTIONS = {
    "mismatched": "the first word is that of another pair of the same relation, and the related one stays: two words "
    "that are not related, as far apart. The foil is what is related to the other word"
}


@dataclass(frozen=True)
class _Asked:
    relation: str
    cue: str
    related: str
    split: str
    frame: int  # in its split
    filled: Filled


def _make(model: HookedTransformer, request: Request) -> Task:
    relations = request.options.get("relations", tuple(PAIRS))
    relations = (relations,) if isinstance(relations, str) else tuple(relations)
    if not relations or set(relations) - set(PAIRS):
        raise InputError(f"relations is {relations!r}. Choose among {', '.join(PAIRS)}.")
    encodes = model.tokenizer
    pairs = {
        name: [pair for pair in PAIRS[name] if all(is_one_token(encodes, word) for word in pair)] for name in relations
    }
    asked = [one for split in request.splits for one in _questions(pairs, split, request)]
    if not asked:
        raise InputError("related_words needs pairs of words that are single tokens; this tokenizer splits them all.")
    answers = {name: sorted({related for _, related in some}) for name, some in pairs.items()}
    right = _judge(model, asked, answers, request)
    prompts: list[Prompt] = []
    items: dict[str, dict[str, None]] = {split: {} for split in request.splits}
    for one, knows in zip(asked, right, strict=True):
        mine, item = items[one.split], f"{one.cue} {one.related}"
        if not knows or (item not in mine and len(mine) == request.n):
            continue
        if (made := _prompt(one, pairs[one.relation], request)) is not None:
            mine[item] = None
            prompts.append(made)
    if not prompts:
        raise InputError(
            f"{model.cfg.model_name} finds the related word of none of the {len(asked)} questions that can be asked."
        )
    about = {
        "corruption": _CORRUPTIONS[request.corruption],
        "known": {one: _rates(asked, right, one) for one in relations},
        "known_means": "the related word is likelier than those of all other pairs of the relation",
        "same_relation_answers": {one: [(word_id(encodes, word),) for word in some] for one, some in answers.items()},
        "left_out": {
            "pairs of several tokens": sum(len(PAIRS[name]) - len(some) for name, some in pairs.items()),
            "questions not known": len(asked) - sum(right),
        },
    }
    task = task_of(TASK, model, request, prompts, about)
    assert task.pairs is not None
    return replace(task, pairs=_read_before(task.pairs))


def _read_before(pairs: Any) -> Any:
    """The same pairs, read where the related word is still to come."""
    read = tuple(span[0] - 1 for span in pairs.positions["related"])
    return replace(pairs, read=read, positions={**pairs.positions, "END": tuple((at,) for at in read)})


def _questions(pairs: dict[str, list[tuple[str, str]]], split: str, request: Request) -> list[_Asked]:
    """Every pair of a split in each of the split's frames, the pairs in random order, the relations in
    turns."""
    every = [(name, cue, related) for name, some in pairs.items() for cue, related in half(some, split)]
    rng(request.seed, "related_words", split).shuffle(every)
    made = []
    for name, cue, related in in_turns(every, lambda one: one[0]):
        for frame, text in enumerate(half(FRAMES[name], split)):
            made.append(_Asked(name, cue, related, split, frame, fill(text, {"C": cue, "R": related})))
    return made


def _judge(
    model: HookedTransformer, asked: Sequence[_Asked], answers: dict[str, list[str]], request: Request
) -> list[bool]:
    """Whose related word is the likeliest of its relation's."""
    prepend = with_bos(model, request.bos)
    rows = [model.tokenizer.encode(one.filled.text, prepend_bos=prepend)[:-1] for one in asked]
    key = ("related_words", prepend, tuple(one.filled.text for one in asked))
    if key not in request.known:
        ids = {name: {word: (word_id(model.tokenizer, word),) for word in some} for name, some in answers.items()}
        wanted = [ids[one.relation][one.related] for one in asked]
        candidates = [list(ids[one.relation].values()) for one in asked]
        request.known[key] = best_of(model, rows, wanted, candidates)[0]  # type: ignore[arg-type]
    return request.known[key]


def _prompt(one: _Asked, pairs: Sequence[tuple[str, str]], request: Request) -> Prompt | None:
    """The pair of a question; none without another word that is related to something else."""
    others = [(cue, related) for cue, related in half(pairs, one.split) if related != one.related]
    if not others:
        return None
    cue, foil = rng(request.seed, "related_words", one.relation, one.cue, str(one.frame)).choice(others)
    corrupt = fill(half(FRAMES[one.relation], one.split)[one.frame], {"C": cue, "R": one.related})
    labels = {
        "relation": one.relation,
        "cue": one.cue,
        "related": one.related,
        "corrupt_cue": cue,
        "split": one.split,
    }
    places = {"cue": one.filled.spans["C"], "related": one.filled.spans["R"]}
    template = f"{one.split} {one.relation} {one.frame}"
    return Prompt(
        one.filled, corrupt, f" {one.related}", f" {foil}", places, f"{one.cue} {one.related}", template, labels
    )


def _rates(asked: Sequence[_Asked], right: Sequence[bool], relation: str) -> dict[str, Any]:
    mine = [(one, ok) for one, ok in zip(asked, right, strict=True) if one.relation == relation]
    by_template: dict[str, list[bool]] = defaultdict(list)
    for one, ok in mine:
        by_template[f"{one.split} {one.frame}"].append(ok)
    n, known = len(mine), sum(ok for _, ok in mine)
    return {
        "pairs": len({one.cue for one, _ in mine}),
        "asked": n,
        "known": known,
        "rate": known / n if n else None,
        "templates": {name: sum(oks) / len(oks) for name, oks in sorted(by_template.items())},
    }


TASK = TaskDefinition(
    name="related_words",
    definition="a word related to one before it: its opposite, young, home, use, whole, category or workplace",
    corruptions=tuple(_CORRUPTIONS),
    applies_to=frozenset({"decoder"}),
    positions=("cue", "related", "END"),
    make=_make,
    options=("relations",),
)
