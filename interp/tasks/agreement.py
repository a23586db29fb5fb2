"""Agreement (Linzen 2016; Finlayson 2021): "The keys near the cabinet still" wants " are" and not " is".

An item is a subject noun, asked about in three conditions: nothing with a number between it and the verb ("none"), a
noun in a prepositional phrase ("PP"), the subject of an object relative ("object relative"). In each every number of
the subject meets every number of the noun between, the attractor, so that "plural verbs are rarer" and "the nearest
noun decides" are each right in half of the prompts with an attractor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from interp.circuits.cue_prompts import VERBS
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.tasks.agreement_words import CONDITIONS, FRAMES, PEOPLE, THINGS, Frame
from interp.tasks.base import SPLITS, Request, Task, TaskDefinition
from interp.tasks.prompts import Prompt, fill, task_of
from interp.tasks.words import draw, half, is_one_token, rng

__all__ = ["TASK"]

Noun = tuple[str, str]  # one, several
_CORRUPTIONS = {
    "subject": "the number of the subject is swapped and the attractor stays, so that the corrupt prompt wants the "
    "foil; each corrupt prompt is a clean one of the same item",
    "attractor": "the number of the attractor (with that of its own verb) is swapped and the subject stays, so answer "
    "and foil stay; clean prompts are those with subject and attractor of one number (over all of them clean − corrupt "
    "is 0, whatever the model)",
}
_NUMBERS = ("singular", "plural")


def _make(model: HookedTransformer, request: Request) -> Task:
    prompts: list[Prompt] = []
    for split in request.splits:
        people, things = (
            [noun for noun in half(nouns, split) if all(is_one_token(model.tokenizer, word) for word in noun)]
            for nouns in (PEOPLE, THINGS)
        )
        generator = rng(request.seed, "agreement", split)
        chosen = draw([*people, *things], request.n, generator, f"nouns in {split}")
        if len(people) < 2 or len(people) + len(things) < 3:
            raise InputError(f"agreement needs attractors too, and {split} has {len(people)} people of one token each.")
        for number, noun in enumerate(chosen):
            prompts += _item(noun, number, people, things, split, request)
    every = [*PEOPLE, *THINGS]
    about = {
        "corruption": _CORRUPTIONS[request.corruption],
        "prompts_per_item": "10: 2 without an attractor, 4 with one in a PP, 4 with one in an object relative"
        if request.corruption == "subject"
        else "4: 2 with an attractor in a PP, 2 with one in an object relative",
        "seed": request.seed,
        "left_out": {
            "nouns of several tokens": [
                one[0] for one in every if not all(is_one_token(model.tokenizer, w) for w in one)
            ]
        },
    }
    return task_of(TASK, model, request, prompts, about)


def _item(
    noun: Noun, number: int, people: Sequence[Noun], things: Sequence[Noun], split: str, request: Request
) -> list[Prompt]:
    """All prompts of one subject: verbs and openings by turns, so that each verb meets each frame."""
    own = rng(request.seed, "agreement", split, noun[0])
    verbs, turn = VERBS[number % len(VERBS)], number // len(VERBS)
    made = []
    for condition in CONDITIONS:
        frames = half(FRAMES[condition], split)
        which = turn % len(frames)
        pool = people if condition == "object relative" else [*people, *things]
        attractor = own.choice([one for one in pool if one != noun])
        made += [
            _prompt(
                frames[which],
                f"{split} {condition} {frames[which].opening}",
                noun,
                attractor,
                one,
                verbs,
                split,
                request,
            )
            for one in _numbers(condition, request.corruption)
        ]
    return made


def _numbers(condition: str, corruption: str) -> list[tuple[int, int | None]]:
    """Numbers of subject and attractor in the clean prompts of one item, 0 for one and 1 for several."""
    if corruption == "attractor":
        return [] if condition == "none" else [(0, 0), (1, 1)]
    return list(product((0, 1), (None,) if condition == "none" else (0, 1)))


def _prompt(
    frame: Frame,
    template: str,
    noun: Noun,
    attractor: Noun,
    numbers: tuple[int, int | None],
    verbs: tuple[str, str],
    split: str,
    request: Request,
) -> Prompt:
    subject, between = numbers

    def filled(subject: int, between: int | None) -> dict[str, str]:
        if between is None:
            return {"S": noun[subject], "A": frame.neutral}
        return {"S": noun[subject], "A": attractor[between], "V": frame.verb[between]}

    words = filled(subject, between)
    swaps = request.corruption == "attractor"
    changed = filled(subject, 1 - between) if swaps and between is not None else filled(1 - subject, between)
    right, wrong = verbs[::-1] if subject == 0 else verbs
    clean = fill(frame.text, words)
    congruence = "no attractor" if between is None else "congruent" if between == subject else "incongruent"
    labels: Mapping[str, str] = {
        "condition": frame.condition,
        "congruence": congruence,
        "opening": frame.opening,
        "number": _NUMBERS[subject],
        "verb": f"{verbs[1].strip()}/{verbs[0].strip()}",
        "subject": words["S"],
        "attractor": words["A"],
        "split": split,
    }
    places = {"subject": clean.spans["S"], "attractor": clean.spans["A"]}
    return Prompt(clean, fill(frame.text, changed), right, wrong, places, noun[0], template, labels)


TASK = TaskDefinition(
    name="agreement",
    definition="the form of the verb that agrees with its subject in number, whatever noun stands between the two",
    corruptions=tuple(_CORRUPTIONS),
    applies_to=frozenset({"decoder"}),
    positions=("subject", "attractor", "END"),
    make=_make,
)
assert all(len(half(frames, one)) >= 2 for frames in FRAMES.values() for one in SPLITS)
