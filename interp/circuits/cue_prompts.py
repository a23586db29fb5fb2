"""Prompts in which cues agree or conflict: every item in every combination, so that the cues can be told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from random import Random
from typing import Any

from interp.errors import InputError

__all__ = ["DESIGNS", "NOUNS", "VERBS", "CuePrompt", "Design"]

_MEN = (
    "John", "David", "Michael", "James", "Robert", "William", "Richard", "Thomas", "Daniel", "Paul", "Mark", "George",
    "Steven", "Andrew", "Peter", "Kevin", "Brian", "Jason", "Tom", "Jack", "Henry", "Adam", "Frank", "Simon",
)  # fmt: skip
_WOMEN = (
    "Mary", "Sarah", "Emma", "Anna", "Susan", "Lisa", "Karen", "Nancy", "Betty", "Helen", "Sandra", "Laura", "Emily",
    "Rachel", "Kate", "Julia", "Alice", "Jane", "Lucy", "Maria", "Rebecca", "Amy", "Diana", "Linda",
)  # fmt: skip
# The same scene with the subject first, and with the subject behind the other.
_SCENES = (
    (
        "Last year {A} stood behind {B} in the long queue.",
        "Last year behind {A} in the long queue stood {B}.",
        "felt hungry",
    ),
    ("Last year {A} sat next to {B} on the bench.", "Last year next to {A} on the bench sat {B}.", "fell asleep"),
    (
        "Last year {A} lived above {B} in the old house.",
        "Last year above {A} in the old house lived {B}.",
        "moved away",
    ),
    (
        "Last year {A} walked in front of {B} on the path.",
        "Last year in front of {A} on the path walked {B}.",
        "got lost",
    ),
)
NOUNS = (  # one and several
    ("key", "keys"), ("book", "books"), ("cup", "cups"), ("box", "boxes"), ("chair", "chairs"), ("table", "tables"),
    ("picture", "pictures"), ("letter", "letters"), ("bottle", "bottles"), ("lamp", "lamps"), ("tree", "trees"),
    ("house", "houses"), ("car", "cars"), ("door", "doors"), ("window", "windows"), ("flower", "flowers"),
    ("dog", "dogs"), ("cat", "cats"), ("bird", "birds"), ("horse", "horses"), ("stone", "stones"), ("coin", "coins"),
    ("plate", "plates"), ("wall", "walls"), ("bag", "bags"), ("boat", "boats"), ("tower", "towers"), ("bed", "beds"),
)  # fmt: skip
_PLACES = ("near", "behind", "beside", "above")
VERBS = ((" are", " is"), (" were", " was"), (" have", " has"))  # of several, and of one


@dataclass(frozen=True)
class CuePrompt:
    """One prompt, and the one with every cue turned round. `cues` are +½ where a cue favours the answer, −½ where the
    foil; `kind` names the set of prompts whose cues are estimated together."""

    text: str
    turned: str
    answer: str
    foil: str
    item: str
    template: str
    kind: str
    cues: dict[str, float]
    nuisance: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Design:
    """A task of competing cues: how its prompts are made, and what is said of it."""

    make: Callable[[Any, int, int], list[CuePrompt]]
    cues: dict[str, str]
    answer: str


def _coreference(tokenizer: Any, n: int, seed: int) -> list[CuePrompt]:
    """Per item 8 prompts in which the pronoun fits one name, and 4 in which it fits both."""
    men, women = (_single(tokenizer, words) for words in (_MEN, _WOMEN))
    generator = Random(f"cues coreference {seed}")
    couples = list(product(range(len(men)), range(len(women))))
    made: list[CuePrompt] = []
    for i, (m, w) in enumerate(_drawn(couples, n, generator, "pairs of names")):
        one, other = (men[m], women[w]) if i % 2 else (women[w], men[m])
        same = men if i % 2 else women  # of the first's gender
        stand_in = same[(same.index(one) + 1 + i % (len(same) - 1)) % len(same)]
        pronouns = ("he", "she") if i % 2 else ("she", "he")
        scene, item = _SCENES[i % len(_SCENES)], f"{one} {other}"
        for subject, last in product((True, False), repeat=2):
            for gender in (0, 1):
                made.append(_resolved(scene, (one, other), pronouns[gender], subject, last, item, gender))
            made.append(_resolved(scene, (one, stand_in), pronouns[0], subject, last, item, None, pronouns[0]))
    return made


def _resolved(
    scene: tuple[str, str, str],
    names: tuple[str, str],
    pronoun: str,
    subject: bool,
    last: bool,
    item: str,
    gender: int | None,
    turned: str | None = None,
) -> CuePrompt:
    """A scene whose first name is subject or not, and stands last or first; `turned` is the other pronoun."""
    subject_last = subject == last
    frame, event = scene[int(subject_last)], scene[2]
    tail = f" Then {{P}} {event}. The one who {event} was"
    opposite = turned or ("he" if pronoun == "she" else "she")
    texts = []
    for order, said in ((last, pronoun), (not last, opposite)):
        first, second = names[::-1] if order else names
        texts.append(frame.format(A=first, B=second) + tail.format(P=said))
    cues = {"recency": 0.5 if last else -0.5, "subject": 0.5 if subject else -0.5}
    if gender is None:
        kind, cues = "pronoun fits both", {f"{name} (pronoun fits both)": value for name, value in cues.items()}
    else:
        kind, cues = "pronoun fits one", {"gender": 0.5 - gender, **cues}
    template = f"{scene[0 if not subject_last else 1]} {pronoun if gender is None else ''}"
    return CuePrompt(texts[0], texts[1], f" {names[0]}", f" {names[1]}", item, template.strip(), kind, cues)


def _agreement(tokenizer: Any, n: int, seed: int) -> list[CuePrompt]:
    """Per item 8 prompts: number of the subject × number of the other noun × which of them stands next to the verb."""
    nouns = [one for one in NOUNS if len(_single(tokenizer, one)) == 2]
    generator = Random(f"cues agreement {seed}")
    couples = [(a, b) for a, b in product(range(len(nouns)), repeat=2) if a != b]
    made = []
    for i, (a, b) in enumerate(_drawn(couples, n, generator, "pairs of nouns")):
        place, verbs = _PLACES[i % len(_PLACES)], VERBS[i % len(VERBS)]
        for subject, other, near in product((0, 1), repeat=3):
            texts = []
            for s, o in ((subject, other), (1 - subject, 1 - other)):
                words = nouns[a][s], nouns[b][o]
                texts.append(
                    f"The {words[0]} {place} the {words[1]}"
                    if near
                    else f"{place.capitalize()} the {words[1]}, the {words[0]}"
                )
            cues = {
                "subject": subject - 0.5,
                "other noun": other - 0.5,
                "nearest noun": (other if near else subject) - 0.5,
            }
            template = f"{place} {'other noun last' if near else 'subject last'}"
            item = f"{nouns[a][0]} {nouns[b][0]} {verbs[0].strip()}"
            order = {"order": near - 0.5}
            made.append(CuePrompt(texts[0], texts[1], verbs[0], verbs[1], item, template, "all", cues, order))
    return made


def _single(tokenizer: Any, words: Sequence[str]) -> list[str]:
    return [word for word in words if len(tokenizer.encode(f" {word}", prepend_bos=False)) == 1]


def _drawn(couples: list[tuple[int, int]], n: int, generator: Random, what: str) -> list[tuple[int, int]]:
    if len(couples) < n:
        raise InputError(f"n is {n}; of single tokens of this model's there are {len(couples)} {what}.")
    return generator.sample(couples, n)


DESIGNS = {
    "coreference": Design(
        _coreference,
        {
            "gender": "the pronoun's gender",
            "recency": "the name that stands nearer",
            "subject": "the name that is the subject",
            "recency (pronoun fits both)": "the name that stands nearer, where gender says nothing",
            "subject (pronoun fits both)": "the name that is the subject, where gender says nothing",
        },
        "one name over the other",
    ),
    "agreement": Design(
        _agreement,
        {
            "subject": "the subject's number",
            "other noun": "the number of the noun in the prepositional phrase",
            "nearest noun": "the number of whichever noun stands next to the verb",
        },
        "a plural verb over a singular one",
    ),
}
