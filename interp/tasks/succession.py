"""What comes next in an order that everyone knows (Gould 2023): days, months, numbers in words, letters and the like.

An item is one member of a class: the last one said, whose successor is the answer. It is asked for behind a list of
three and behind the member alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.tasks.base import Request, Task, TaskDefinition
from interp.tasks.prompts import Prompt, fill, task_of
from interp.tasks.words import half, in_turns, is_one_token, rng, word_id

__all__ = ["ALONE", "CLASSES", "CYCLIC", "LISTS", "TASK"]

CLASSES: dict[str, tuple[str, ...]] = {
    "days": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "months": (
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
        "December",
    ),
    "number words": (
        "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
        "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
    ),
    "tens": ("ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),
    "ordinals": (
        "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
        "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth",
        "twentieth",
    ),
    "letters": tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "roman numerals": ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV"),
    "numbers": tuple(str(number) for number in range(1, 31)),
}  # fmt: skip
CYCLIC = ("days", "months")  # whose last one is followed by the first
LISTS = (
    "Say them in order: {A}, {B}, {C},",
    "They go like this: {A}, then {B}, then {C}, then",
    "The next ones in the right order are {A} {B} {C}",
    "The signs along the road read {A}, {B}, {C},",
)
ALONE = (
    "The one that comes right after {C} is",
    "We all know that {C} is followed by",
    "On the list, directly behind {C} stands",
    "The next one after {C} is called",
)
_CORRUPTIONS = {
    "start": "the list begins elsewhere in the class, so that the corrupt prompt wants another successor: the foil",
    "shuffled": "the last member stays, and the two before it are others of the class in no order; only lists are "
    "asked. The foil is a member that stands in neither prompt",
}
_LEAST = 6  # members in a row; fewer leave no other list to begin


def _make(model: HookedTransformer, request: Request) -> Task:
    known = {name: _single_tokens(model, words) for name, words in CLASSES.items()}
    classes = {name: words for name, words in known.items() if len(words) >= _LEAST}
    if not classes:
        raise InputError("succession needs classes of words that are single tokens; this tokenizer splits them all.")
    prompts = [one for split in request.splits for one in _prompts(classes, split, request)]
    about = {
        "corruption": _CORRUPTIONS[request.corruption],
        "same_relation_answers": {
            name: [(word_id(model.tokenizer, word),) for word in words] for name, words in classes.items()
        },
        "left_out": {name: f"{len(CLASSES[name]) - len(classes.get(name, ()))} of several tokens, or behind such a one"
                     for name in CLASSES if len(classes.get(name, ())) < len(CLASSES[name])},
    }  # fmt: skip
    return task_of(TASK, model, request, prompts, about)


def _single_tokens(model: HookedTransformer, words: Sequence[str]) -> tuple[str, ...]:
    """The first members, up to one that is several tokens: behind a gap the next one is no successor."""
    single = [is_one_token(model.tokenizer, word) for word in words]
    return tuple(words[: single.index(False)]) if False in single else tuple(words)


def _prompts(classes: dict[str, tuple[str, ...]], split: str, request: Request) -> list[Prompt]:
    """Two prompts of each item of a split: as many items as are asked for, or all there are."""
    every = [(name, at) for name, words in classes.items() for at in half(_places(name, len(words)), split)]
    drawn = in_turns(rng(request.seed, "succession", split).sample(every, len(every)), lambda one: one[0])[: request.n]
    lists, alone = half(LISTS, split), half(ALONE, split)
    made = []
    for i, (name, at) in enumerate(drawn):
        chosen = [(lists[i % len(lists)], f"{split} list {i % len(lists)}")]
        if request.corruption == "start":
            chosen.append((alone[i % len(alone)], f"{split} alone {i % len(alone)}"))
        else:
            chosen.append((lists[(i + 1) % len(lists)], f"{split} list {(i + 1) % len(lists)}"))
        generator = rng(request.seed, "succession", request.corruption, name, str(at))
        made += [_prompt(name, classes[name], at, *one, split, request, generator) for one in chosen]
    return made


def _places(name: str, n: int) -> list[int]:
    """Which members may stand last in a list of three, with another one behind them."""
    return list(range(n)) if name in CYCLIC else list(range(2, n - 1))


def _prompt(
    name: str, words: Sequence[str], at: int, frame: str, template: str, split: str, request: Request, draw: Random
) -> Prompt:
    n = len(words)
    clean = [(at + step) % n for step in (-2, -1, 0, 1)]
    corrupt = _elsewhere(name, n, at, draw) if request.corruption == "start" else _shuffled(n, clean, draw)
    a, b, c, answer = (words[i] for i in clean)
    others = dict(zip("ABC", (words[i] for i in corrupt), strict=False))
    filled = fill(frame, {"A": a, "B": b, "C": c})
    labels = {
        "relation": name,
        "ordinal": c,
        "corrupt_ordinal": others["C"],
        "asked": "list" if "{A}" in frame else "alone",
        "split": split,
    }
    return Prompt(
        filled,
        fill(frame, others),
        f" {answer}",
        f" {words[corrupt[3]]}",
        {"ordinal": filled.spans["C"]},
        f"{name} {c}",
        template,
        labels,
    )


def _elsewhere(name: str, n: int, at: int, draw: Random) -> list[int]:
    """Another list of three and what follows it: one that shares nothing with the clean one, if the class is long
    enough; else one that at least does not hold the clean answer."""
    own = [(at + step) % n for step in (-2, -1, 0, 1)]
    lists = [[(to + step) % n for step in (-2, -1, 0, 1)] for to in _places(name, n) if to != at]
    apart = [one for one in lists if not set(one) & set(own)]
    apart = apart or [one for one in lists if own[3] not in one and one[3] not in (own[2], own[3])]
    return draw.choice(apart)


def _shuffled(n: int, clean: Sequence[int], draw: Random) -> list[int]:
    """Two other members that are in no order, the last one of the clean list, and a member that stands nowhere."""
    free = [i for i in range(n) if i not in clean]
    while True:
        a, b, foil = draw.sample(free, 3)
        if (a + 1) % n != b and (b + 1) % n != clean[2]:
            return [a, b, clean[2], foil]


TASK = TaskDefinition(
    name="succession",
    definition="the next one of an ordered class: days, months, numbers in words, ordinals, letters",
    corruptions=tuple(_CORRUPTIONS),
    applies_to=frozenset({"decoder"}),
    positions=("ordinal", "END"),
    make=_make,
)
