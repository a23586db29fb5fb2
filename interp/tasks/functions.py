"""Functions from word to word, as pairs: what prompts of few shots are made of."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

from interp.tasks.countries import countries
from interp.tasks.related_pairs import PAIRS
from interp.tasks.succession import CLASSES

__all__ = ["functions"]

_NOUNS = (
    "cat", "dog", "house", "car", "tree", "bird", "book", "table", "river", "stone", "flower", "garden", "window",
    "letter", "finger", "apple", "road", "hand", "king", "teacher", "doctor", "farmer", "planet", "engine", "song",
    "ship", "door", "nation", "color", "machine", "mountain", "soldier", "student", "animal", "lawyer", "bottle",
)  # fmt: skip
_PAST = (
    ("go", "went"), ("see", "saw"), ("take", "took"), ("give", "gave"), ("write", "wrote"), ("run", "ran"),
    ("speak", "spoke"), ("know", "knew"), ("grow", "grew"), ("fly", "flew"), ("drink", "drank"), ("sing", "sang"),
    ("break", "broke"), ("choose", "chose"), ("fall", "fell"), ("find", "found"), ("build", "built"),
    ("send", "sent"), ("teach", "taught"), ("think", "thought"), ("bring", "brought"), ("walk", "walked"),
    ("play", "played"), ("open", "opened"), ("help", "helped"), ("ask", "asked"), ("want", "wanted"),
    ("jump", "jumped"), ("call", "called"), ("learn", "learned"), ("sleep", "slept"), ("leave", "left"),
)  # fmt: skip
_PARTICIPLES = (
    ("run", "running"), ("walk", "walking"), ("write", "writing"), ("sing", "singing"), ("read", "reading"),
    ("make", "making"), ("take", "taking"), ("give", "giving"), ("swim", "swimming"), ("drive", "driving"),
    ("eat", "eating"), ("drink", "drinking"), ("sleep", "sleeping"), ("play", "playing"), ("work", "working"),
    ("build", "building"), ("fly", "flying"), ("speak", "speaking"), ("think", "thinking"), ("grow", "growing"),
    ("fall", "falling"), ("open", "opening"), ("move", "moving"), ("help", "helping"), ("teach", "teaching"),
    ("learn", "learning"), ("leave", "leaving"), ("wait", "waiting"), ("look", "looking"), ("cut", "cutting"),
)  # fmt: skip
_PLAIN = (
    "water", "music", "family", "market", "summer", "power", "light", "green", "history", "science", "energy", "space",
    "health", "world", "school", "public", "early", "modern", "simple", "winter", "nature", "paper", "human", "city",
    "small", "north", "general", "central", "church", "story", "animal", "system", "market", "silver", "future",
)  # fmt: skip


@cache
def functions() -> dict[str, tuple[tuple[str, str], ...]]:
    """Function -> pairs of a word and what it becomes; no word comes twice in one function."""
    numbers = CLASSES["number words"]
    known = {
        one: tuple((country.name, country.answers[one]) for country in countries() if one in country.answers)
        for one in ("capital", "language")
    }
    return {
        "antonym": PAIRS["antonym"],
        "plural": tuple((word, f"{word}s") for word in _NOUNS),
        "past tense": _PAST,
        "present participle": _PARTICIPLES,
        "capital letter": tuple((word, word.capitalize()) for word in dict.fromkeys(_PLAIN)),
        "next number": tuple(pairwise(numbers)),
        **known,
    }
