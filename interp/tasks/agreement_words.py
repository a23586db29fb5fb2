"""Frames and nouns of the agreement task."""

from __future__ import annotations

from dataclasses import dataclass

from interp.circuits.cue_prompts import NOUNS

__all__ = ["CONDITIONS", "FRAMES", "PEOPLE", "THINGS", "Frame"]

CONDITIONS = ("none", "PP", "object relative")


@dataclass(frozen=True)
class Frame:
    """A prompt with the slots {S} for the subject and {A} for the noun between it and the verb. Where there is none
    ("none"), {A} holds `neutral`, a word without number. The verb {V} of an object relative has one form behind one
    attractor and another behind several. `opening`: "bare", or "embedded" behind other words."""

    condition: str
    opening: str
    text: str
    neutral: str = ""
    verb: tuple[str, str] = ("", "")


# A frame never ends with {A}: what a head reads from its own place is no attention to an attractor. Its words fit all
# three verbs, so nothing in front says a tense. Each split has a bare and an embedded frame of every condition: how a
# prompt opens decides much (see docs/tasks.md).
FRAMES: dict[str, tuple[Frame, ...]] = {
    "none": (
        Frame("none", "bare", "The {S} {A} still", "outside"),
        Frame("none", "bare", "The {S} {A} also", "there"),
        Frame("none", "embedded", "We know that the {S} {A} really", "inside"),
        Frame("none", "embedded", "It seems that the {S} {A} clearly", "here"),
    ),
    "PP": (
        Frame("PP", "bare", "The {S} near the {A} still"),
        Frame("PP", "bare", "The {S} behind the {A} also"),
        Frame("PP", "embedded", "We know that the {S} beside the {A} really"),
        Frame("PP", "embedded", "It seems that the {S} by the {A} clearly"),
    ),
    "object relative": (
        Frame("object relative", "bare", "The {S} that the {A} {V}", verb=("knows", "know")),
        Frame("object relative", "bare", "The {S} that the {A} {V}", verb=("loves", "love")),
        Frame("object relative", "embedded", "We know that the {S} that the {A} {V}", verb=("needs", "need")),
        Frame("object relative", "embedded", "It seems that the {S} that the {A} {V}", verb=("sees", "see")),
    ),
}
_REGULAR_PEOPLE = (
    "author", "teacher", "doctor", "lawyer", "farmer", "soldier", "student", "king", "queen", "prince", "judge",
    "pilot", "nurse", "writer", "artist", "actor", "dancer", "singer", "driver", "player", "worker", "leader",
    "officer", "engineer", "manager", "guard", "hunter", "sailor", "painter", "poet", "scientist", "researcher",
    "professor", "neighbor", "friend", "brother", "sister", "cousin", "mother", "father", "son", "daughter", "boy",
    "girl", "guest", "visitor", "customer", "client", "tourist", "stranger", "citizen", "senator", "president",
    "minister", "priest", "monk", "knight", "giant", "captain", "editor", "reader", "owner", "parent", "builder",
    "clerk", "reporter", "critic", "expert", "consultant", "director", "producer", "investor", "employer", "employee",
    "victim", "prisoner", "warrior", "ruler", "emperor", "villain", "rival", "opponent", "partner", "member", "voter",
    "dentist", "surgeon", "therapist", "librarian", "chef", "designer", "developer", "programmer", "analyst",
    "historian", "philosopher", "musician", "speaker", "winner", "beginner", "runner", "swimmer", "teenager",
    "adult", "infant", "kid", "ambassador", "detective", "pirate", "servant", "tutor", "trainer", "volunteer",
    "donor", "sponsor", "inspector", "agent", "seller", "buyer", "dealer", "trader", "merchant", "landlord", "tenant",
    "settler", "explorer", "pioneer", "inventor", "founder", "composer", "scholar", "pupil", "mechanic", "gardener",
)  # fmt: skip
_REGULAR_THINGS = (
    "cabinet", "desk", "clock", "phone", "camera", "computer", "screen", "keyboard", "bicycle", "wheel", "engine",
    "train", "truck", "ship", "plane", "rocket", "bridge", "road", "street", "river", "lake", "mountain", "hill",
    "island", "forest", "garden", "farm", "field", "barn", "fence", "gate", "roof", "floor", "room", "kitchen", "hall",
    "office", "store", "school", "temple", "castle", "palace", "hotel", "museum", "station", "airport", "village",
    "town", "statue", "painting", "photo", "poster", "map", "card", "ticket", "poem", "song", "novel", "article",
    "report", "document", "folder", "pen", "pencil", "fork", "spoon", "bowl", "pot", "mirror", "candle", "rope",
    "chain", "ring", "crown", "hat", "coat", "shirt", "shoe", "boot", "button", "pillow", "blanket", "curtain",
    "carpet", "basket", "bucket", "barrel", "package", "gift", "toy", "doll", "ball", "drum", "guitar", "bell", "tool",
    "machine", "robot", "device", "sensor", "cable", "pipe", "tank", "pump", "satellite", "telescope", "planet",
    "star", "cloud", "plant", "apple", "lemon", "egg", "cake", "snake", "frog", "rabbit", "lion", "tiger", "bear",
    "elephant", "monkey", "spider", "turtle", "whale", "eagle", "duck", "cow", "pig", "goat", "dragon", "ghost",
    "flag", "symbol", "album", "film", "tent", "cabin", "cave", "tunnel", "pool", "sword", "shield", "arrow", "wagon",
)  # fmt: skip
PEOPLE = tuple((word, f"{word}s") for word in _REGULAR_PEOPLE)
"""Who can see and choose: those that stand in object relatives. One and several."""
THINGS = (*NOUNS, *((word, f"{word}s") for word in _REGULAR_THINGS))
"""What competing cues are shown with, and more."""
