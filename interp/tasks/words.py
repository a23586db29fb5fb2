"""The words that tasks are made of. Every list is halved between the splits by position, so the halves never meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from interp.errors import InputError

__all__ = ["MEN", "OBJECTS", "PLACES", "WOMEN", "draw", "half", "in_turns", "is_one_token", "rng", "word_id"]

# fmt: off
WOMEN = (
    "Alice", "Amy", "Anna", "Barbara", "Betty", "Carol", "Catherine", "Clara", "Diana", "Elizabeth", "Ellen", "Emily",
    "Emma", "Eva", "Grace", "Hannah", "Helen", "Jane", "Jennifer", "Jessica", "Julia", "Karen", "Kate", "Laura",
    "Linda", "Lisa", "Lucy", "Margaret", "Maria", "Mary", "Nancy", "Rachel", "Rebecca", "Rose", "Ruth", "Sally",
    "Sarah", "Sophie", "Susan", "Victoria",
)
MEN = (
    "Adam", "Andrew", "Anthony", "Ben", "Brian", "Carl", "Charles", "Daniel", "David", "Edward", "Eric", "Frank",
    "George", "Harry", "Henry", "Jack", "James", "John", "Joseph", "Kevin", "Mark", "Martin", "Matthew", "Michael",
    "Nick", "Oliver", "Paul", "Peter", "Philip", "Richard", "Robert", "Ryan", "Samuel", "Simon", "Steven", "Thomas",
    "Tim", "Tom", "Walter", "William",
)
OBJECTS = (
    "a basket", "a book", "a letter", "a ticket", "a drink", "a key", "a coat", "a photo", "a ring", "a map",
    "an apple", "a pencil", "a ball", "a lamp", "a flower", "a cup", "a knife", "a watch", "a guitar", "a blanket",
)
PLACES = (
    "market", "station", "office", "garden", "library", "museum", "harbor", "school", "bakery", "park", "hospital",
    "theater", "kitchen", "beach", "church", "farm",
)
# fmt: on


def half(words: Sequence[Any], split: str) -> tuple:
    """The words of one split: every other one, whatever a model's vocabulary then leaves out of them."""
    return tuple(words[0 if split == "select" else 1 :: 2])


def rng(seed: int, *what: str) -> Random:
    """A generator of its own for each purpose, so that one purpose's draws do not move another's."""
    return Random(":".join([str(seed), *what]))  # a text seeds the same on every machine


def in_turns(every: Sequence[Any], of: Callable[[Any], Any]) -> list:
    """The same ones, the first of each group before the second of any, else in the order given."""
    met = Counter[Any]()
    turns = []
    for one in every:
        turns.append(met[of(one)])
        met[of(one)] += 1
    return [every[i] for i in sorted(range(len(every)), key=turns.__getitem__)]


def draw(every: Sequence[Any], n: int, generator: Random, what: str) -> list:
    """`n` different ones in random order; more of them begin with those of fewer. Raises `InputError` for too many."""
    if n > len(every):
        raise InputError(f"n={n} is more than there are: {len(every)} {what}. Ask for n={len(every)} or fewer.")
    return generator.sample(list(every), len(every))[:n]


def word_id(tokenizer: Any, word: str) -> int | None:
    """The token of a word within a text (a space in front); None where it is several or unknown."""
    ids = tokenizer.backend.encode(f" {word}", add_special_tokens=False).ids
    return ids[0] if len(ids) == 1 and ids[0] != tokenizer.unk_id else None


def is_one_token(tokenizer: Any, word: str) -> bool:
    return word_id(tokenizer, word) is not None
