"""Frames and words of the coreference task, one table per cue that decides whom the pronoun means."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ASKS", "FRAMES", "GIVES", "NOUNS", "OCCUPATIONS", "PARTICIPANTS", "PRONOUNS", "Frame"]


@dataclass(frozen=True)
class Frame:
    """A prompt with slots {A} and {B} for the two, {P} for the pronoun (and {V}, {W} for what was done). `tail` ends
    the sentence for models that read whole ones. `subject` is the grammatical subject of the first clause, `form` the
    pronoun's."""

    text: str
    tail: str
    subject: str
    form: str


# Names stand inside the sentence, so that they are the same token there as in the answer (a space in front).
FRAMES: dict[str, tuple[Frame, ...]] = {
    "gender": (
        Frame("Last summer {A} met {B} at the lake. {P} name was", " on the list.", "A", "possessive"),
        Frame("Next to {A} sat {B}, and both were silent. {P} first name is", " a secret.", "B", "possessive"),
        Frame("In the morning {A} called {B} on the phone. {P} real name is", " a secret.", "A", "possessive"),
        Frame("In the picture on the wall, beside {A} stood {B}. {P} name was", " on the back.", "B", "possessive"),
        Frame('On Monday {A} met {B} at the party. {P} told everyone, "My name is', ' not important."', "A", "subject"),
        Frame("In the garden of {A} worked {B}, day after day. {P} name was", " on the gate.", "B", "possessive"),
        Frame("One evening {A} visited {B} with a cake. {P} real name was", " on it.", "A", "possessive"),
        Frame("Across the road from {A} lives {B}. {P} full name is", " on the door.", "B", "possessive"),
    ),
    "number": (
        Frame(
            "Yesterday the {A} met the {B} near the barn. {P} made a noise. The noise came from the",
            " left.",
            "A",
            "subject",
        ),
        Frame("After the {A} came the {B}. {P} stood still, and everyone looked at the", " right.", "B", "subject"),
        Frame(
            'Today the {A} saw the {B}. {P} slept. "Be quiet," we said, "do not wake the', ' others."', "A", "subject"
        ),
        Frame("Beside the {A} waited the {B}. {P} had no water, so we gave some to the", " group.", "B", "subject"),
        Frame(
            "Slowly the {A} followed the {B} home. {P} got tired. We had to wait for the", " others.", "A", "subject"
        ),
        Frame("Behind the {A} walked the {B}. {P} began to sing. It was the song of the", " day.", "B", "subject"),
    ),
    "occupation": (
        Frame("The {A} phoned the {B} because {P} {V} help. The one who {W} help was the", " first.", "A", "lower"),
        Frame(
            "Next to the {A} waited the {B} because {P} {V} money. The person who {W} money was the",
            " other.",
            "B",
            "lower",
        ),
        Frame(
            "The {A} spoke to the {B} because {P} {V} advice. The one who {W} advice was the", " first.", "A", "lower"
        ),
        Frame(
            "Behind the {A} came the {B} because {P} {V} support. The one who {W} support was the",
            " other.",
            "B",
            "lower",
        ),
        Frame("The {A} visited the {B} because {P} {V} work. The person who {W} work was the", " first.", "A", "lower"),
        Frame(
            "Near the {A} stayed the {B} because {P} {V} food. The person who {W} food was the", " other.", "B", "lower"
        ),
    ),
}
# The pronoun of the first and of the second kind: woman and man, one and several.
PRONOUNS = {
    "gender": {"subject": ("She", "He"), "possessive": ("Her", "His")},
    "number": {"subject": ("It", "They")},
    "occupation": {"lower": ("she", "he")},
}
NOUNS = (
    ("dog", "dogs"), ("cat", "cats"), ("horse", "horses"), ("cow", "cows"), ("pig", "pigs"), ("goat", "goats"),
    ("bird", "birds"), ("fox", "foxes"), ("wolf", "wolves"), ("bear", "bears"), ("duck", "ducks"), ("lion", "lions"),
    ("monkey", "monkeys"), ("snake", "snakes"), ("rabbit", "rabbits"), ("rat", "rats"), ("chicken", "chickens"),
    ("frog", "frogs"), ("elephant", "elephants"), ("tiger", "tigers"), ("bee", "bees"), ("turtle", "turtles"),
    ("robot", "robots"), ("machine", "machines"), ("train", "trains"), ("truck", "trucks"), ("ship", "ships"),
    ("car", "cars"), ("bus", "buses"), ("boat", "boats"), ("dragon", "dragons"), ("spider", "spiders"),
)  # fmt: skip
OCCUPATIONS = (
    "doctor", "lawyer", "teacher", "nurse", "farmer", "engineer", "manager", "judge", "chef", "pilot", "coach",
    "banker", "baker", "mayor", "writer", "pharmacist", "librarian", "dentist", "mechanic", "officer", "priest",
    "scientist", "consultant", "director",
)  # fmt: skip
PARTICIPANTS = (
    "customer", "client", "student", "visitor", "neighbor", "guest", "tourist", "child", "friend", "stranger",
    "cousin", "resident", "traveler", "witness",
)  # fmt: skip
# What was done: of an occupation and a participant the first gives, the second asks.
GIVES = ("offered", "gave", "provided", "supplied", "promised", "brought")
ASKS = ("needed", "sought", "wanted", "required", "requested", "expected")
