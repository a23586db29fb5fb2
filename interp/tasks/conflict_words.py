"""Frames of the conflict task, and the unrelated things that its control speaks of."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COLOR", "FRAMES", "THINGS", "VALUES", "Frame"]


@dataclass(frozen=True)
class Frame:
    """A context that says {CO} to be the {R} of {CX}, and a question that asks for the {Q} of {X}."""

    name: str
    text: str


# How the context is put decides much, so no two are alike; every other one is of the reporting split.
FRAMES = (
    Frame("guide", "A guide says that the {R} of {CX} is {CO}. So the {Q} of {X} is"),
    Frame("story", "In this story the {R} of {CX} is {CO}. The {Q} of {X} is"),
    Frame("imagine", "Imagine that the {R} of {CX} is {CO}. Then the {Q} of {X} is"),
    Frame("plain", "{CX}'s {R} is {CO}. The {Q} of {X} is"),
    Frame("read", "We read that {CX}'s {R} is {CO}. What is the {Q} of {X}? It is"),
    Frame("friend", "My friend told me that {CO} is the {R} of {CX}. The {Q} of {X} is"),
    Frame("today", "As of today {CO} is the {R} of {CX}. On the map, the {Q} of {X} is"),
    Frame("news", "From the news: the {R} of {CX} is now {CO}. Question: what is the {Q} of {X}? Answer:"),
)
COLOR = "color"  # what an unrelated context says, in the relation's place
# Of as many tokens as countries and their answers may have; which has how many depends on the model's tokenizer.
THINGS = (
    "snow", "grass", "milk", "sand", "bread", "silk", "rice", "wood", "salt", "corn", "wet snow", "tall grass",
    "warm milk", "dry sand", "fresh bread", "soft silk", "old wood", "sweet corn", "the old door", "the big ship",
    "the small box", "the new car", "the long wall", "the round table", "the very old door", "the very big ship",
    "the very small box", "the very new car", "the very long wall", "the very round table", "the door of the barn",
    "the box on the floor", "the wall of the house", "the car in the street",
)  # fmt: skip
VALUES = (
    "red", "blue", "green", "white", "black", "yellow", "brown", "orange", "dark red", "dark blue", "light green",
    "light brown", "very dark red", "very dark blue", "very light green", "very light brown",
)  # fmt: skip
