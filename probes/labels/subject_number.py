"""The number of a sentence's subject and of the noun between it and the verb: at either noun, and before the verb.

Two nouns share all their sentences and meet no other: each is the subject of some and the attractor of others. So
neither subjects nor attractors of one group stand in another. (Prompts of the task draw attractors freely; the nouns
that they link are one group there.) Before the verb the control task goes by the subject: the few words that stand
there themselves could be labelled at random and learned by heart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.tasks.agreement_words import CONDITIONS, FRAMES, PEOPLE, THINGS, Frame
from interp.tasks.base import Task
from interp.tasks.prompts import fill
from interp.tasks.words import half, is_one_token, rng
from probes.labels.base import LabelRequest, LabelSet
from probes.labels.tasks import rows_of_task
from probes.sources import Labelled, LabelledText, Mark, from_texts, label_column

__all__ = ["LABELS"]

Noun = tuple[str, str]  # one, several
_NUMBERS = ("singular", "plural")
_TARGETS = ("subject number", "attractor number")


def _make(model: HookedTransformer, request: LabelRequest) -> Labelled:
    texts: list[LabelledText] = []
    for split in request.splits:
        people, things = (
            [noun for noun in half(nouns, split) if all(is_one_token(model.tokenizer, word) for word in noun)]
            for nouns in (PEOPLE, THINGS)
        )
        generator = rng(request.seed, "subject number", split)
        drawn = [generator.sample(nouns, len(nouns)) for nouns in (people, things)]
        pairs = list(zip(*drawn, strict=False))
        if request.n > len(pairs):
            raise InputError(
                f"n={request.n} is more than there are: {len(pairs)} pairs of a person and a thing of one token each "
                f"in {split}. Ask for n={len(pairs)} or fewer."
            )
        for number, two in enumerate(pairs[: request.n]):
            texts += _pair(two, number, split)
    about = {"rows": "at the subject, at the attractor, and at the last token before the verb (column where)"}
    return from_texts(model, texts, about, prepend_bos=request.prepend_bos)


def _pair(two: Sequence[Noun], number: int, split: str) -> list[LabelledText]:
    """All sentences of a person and a thing; frames by turns."""
    person, thing = two
    made = []
    for condition in CONDITIONS:
        frames = half(FRAMES[condition], split)
        frame = frames[number % len(frames)]
        orders = [(thing, person)] if condition == "object relative" else [(person, thing), (thing, person)]
        for (subject, attractor), one in product(orders, (0, 1)):
            between = (None,) if condition == "none" else (0, 1)
            made += [
                _text(frame, subject, attractor, one, other, f"{person[0]} {thing[0]}", split) for other in between
            ]
    return made


def _text(
    frame: Frame, subject: Noun, attractor: Noun, one: int, other: int | None, group: str, split: str
) -> LabelledText:
    words = {"S": subject[one], "A": frame.neutral}
    if other is not None:
        words = {"S": subject[one], "A": attractor[other], "V": frame.verb[other]}
    filled = fill(frame.text, words)
    more: dict[str, Any] = {
        "condition": frame.condition,
        "congruence": "no attractor" if other is None else "congruent" if other == one else "incongruent",
        "subject": words["S"],
        "attractor": "" if other is None else words["A"],
        "template": f"{split} {frame.condition} {frame.opening}",
        "split": split,
    }
    labels = {_TARGETS[0]: _NUMBERS[one]}
    later = labels | ({} if other is None else {_TARGETS[1]: _NUMBERS[other]})  # the subject comes before the attractor
    end = len(filled.text)
    marks = [Mark(filled.spans["S"], labels, more={"where": "subject", **more})]
    marks += [Mark(filled.spans["A"], later, more={"where": "attractor", **more})] if other is not None else []
    marks.append(Mark((end - 1, end), later, words["S"], {"where": "before verb", **more}))
    return LabelledText(filled.text, group, marks)


def _from_task(model: HookedTransformer, task: Task) -> Labelled:
    """The prompts of a drawn task. Raises `InputError` where the nouns that they link are too few groups."""
    subject = list(task.items)
    number = list(task.labels["number"])
    has = [one != "none" for one in task.labels["condition"]]
    incongruent = [one == "incongruent" for one in task.labels["congruence"]]
    other = [_NUMBERS[(_NUMBERS.index(n) + odd) % 2] for n, odd in zip(number, incongruent, strict=True)]
    nouns: dict[str, str] = {word: noun[0] for noun in (*PEOPLE, *THINGS) for word in noun}
    attractor = [
        nouns.get(word, str(word)) if there else "" for word, there in zip(task.labels["attractor"], has, strict=True)
    ]
    groups = _linked(list(zip(subject, attractor, strict=True)))
    largest = Counter(groups).most_common(1)[0][1]
    if 3 * largest > len(groups):
        raise InputError(
            f"Attractors link the {len(set(subject))} subjects of this task so that {largest} of its {len(groups)} "
            "prompts are one group, and no split would hold out many nouns. Draw the labels themselves, "
            'dataset(model, "agreement"), or give labels= and positions= of your own with the task.'
        )
    labels = {_TARGETS[0]: number, _TARGETS[1]: [one if there else None for one, there in zip(other, has, strict=True)]}
    names = ("condition", "congruence", "subject", "split")
    more = {"attractor": [w if there else "" for w, there in zip(task.labels["attractor"], has, strict=True)]}
    more |= {name: list(task.labels[name]) for name in names}
    about = {"labels": LABELS.name, "definition": LABELS.definition, "group": "all nouns that the prompts link"}
    places = {"subject": "subject", "attractor": "attractor", "before verb": "END"}
    made = rows_of_task(
        model, task, places, labels, more, about, groups=groups, types={"before verb": task.labels["subject"]}
    )
    at = made.table["where"]
    kept = ((at != "attractor") | (made.table["attractor"] != "")).to_numpy()
    early = (at == "subject").to_numpy()  # the subject comes before the attractor
    columns = made.labels.assign(**{_TARGETS[1]: label_column(made.labels[_TARGETS[1]].mask(early, None).tolist())})
    tables = [frame[kept].reset_index(drop=True) for frame in (made.table, columns)]
    return replace(made, table=tables[0], labels=tables[1])


def _linked(links: Sequence[tuple[str, str]]) -> list[str]:
    """For each link the name of all nouns that it is joined to, through whatever others."""
    parent: dict[str, str] = {}

    def root(one: str) -> str:
        while parent.setdefault(one, one) != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for a, b in links:
        if b:
            parent[root(b)] = root(a)
    return [root(a) for a, _ in links]


LABELS = LabelSet(
    name="subject_number",
    definition="whether the subject of the sentence, and the noun between it and its verb, is one or several",
    targets=_TARGETS,
    unit="pairs of nouns",
    n=25,
    group="the pair of nouns that are subject and attractor by turns: no noun stands in two groups",
    make=_make,
    applies_to=frozenset({"decoder"}),
    task="agreement",
    from_task=_from_task,
)
