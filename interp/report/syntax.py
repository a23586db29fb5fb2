"""Claims on syntax: who depends on whom, beyond what a fixed offset or a favourite word would find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from interp.heads.find import find_heads
from interp.heads.syntax_search import BEST
from interp.heads.syntax_words import DIRECTIONS
from interp.report.claim import Claim, Measured, Missing, Pilot
from interp.report.counting import is_kind, some_head
from interp.report.evidence import Evidence
from interp.report.null import random_twin

__all__ = ["CLAIMS", "ENCODER"]

_MARGIN = 0.10
_OURS = (
    "The pilot had its own sentences, one seed, and no other ones to choose the best head on; ours are longer, with "
    "words between a word and its partner, and heads are chosen on other sentences than those reported on."
)


def _best(evidence: Evidence, relation: str, direction: str) -> Mapping[Any, Any]:
    """The row of the head that was best in a relation and direction on the selecting sentences."""
    evidence.rows("syntax")
    table = evidence.table(BEST)
    mine = table.loc[(table["relation"] == relation) & (table["direction"] == direction)]
    if mine.empty:
        raise Missing(f"{relation}, {direction}, does not stand often enough in these sentences, or cannot be seen")
    return mine.iloc[0].to_dict()


def _said(row: Mapping[Any, Any]) -> str:
    shares = f"{row['score']:.2f} against offset {row['offset']:+.0f} {row['baseline']:.2f}"
    return f"{row['head']}, {row['role']}: {shares}, other words {row['other_words']:.2f}"


def _beyond(relation: str, direction: str) -> Callable[[Evidence], Measured]:
    """How far the best head's share lies above the better of both rules."""

    def measure(evidence: Evidence) -> Measured:
        row = _best(evidence, relation, direction)
        rule = max(row["baseline"], row["other_words"])
        score, low, high = (row[name] - rule for name in ("score", "score_low", "score_high"))
        unit = "share of words beyond the better rule"
        return Measured(score, low, high, unit, int(row["n_sentences"]), _said(row))

    return measure


def _share(relation: str) -> Callable[[Evidence], Measured]:
    """The share of words of the direction in which the best head found more on the selecting sentences."""

    def measure(evidence: Evidence) -> Measured:
        both = [_best(evidence, relation, direction) for direction in DIRECTIONS]
        row = max(both, key=lambda one: one["score_select"] - one["baseline"])
        score, low, high = (row[name] for name in ("score", "score_low", "score_high"))
        return Measured(score, low, high, "of words", int(row["n_sentences"]), _said(row))

    return measure


def _random(evidence: Evidence) -> Measured:
    """How many heads of a randomly initialised model of the same shape are named."""
    rows = evidence.rows("syntax")
    alpha = evidence.found.about.get("alpha", 0.05)

    def make() -> list[str]:
        twin = random_twin(evidence.model, evidence.seed)
        options: dict[str, Any] = {"n": evidence.n, "seed": evidence.seed, "top": 1, "alpha": alpha}
        found = find_heads(twin, "syntax", corpus=evidence.corpus, **options)
        named = [row for row in found.frame.to_dict("records") if is_kind(row)]
        return [f"{row['layer']}.{row['head']} {row['role']}" for row in named]

    named = evidence.once("syntax: a random model of the same shape", make)
    ours = int(np.count_nonzero([is_kind(row) for row in rows.to_dict("records")]))
    note = f"{', '.join(named) or 'none'}; {ours} in the model itself"
    return Measured(len(named), len(named), len(named), "heads", evidence.n, note)


def _claim(id: str, text: str, relation: str, direction: str) -> Claim:
    return Claim(f"syntax.{id}", "syntax", text, _beyond(relation, direction), "≥", _MARGIN)


CLAIMS = (
    Claim(
        "syntax.exists",
        "syntax",
        "Some head finds the partners of words in one relation .1 more often than the best fixed offset does, and than "
        "it looks at these partners from other words.",
        some_head("syntax"),
        "≥",
        1,
    ),
    _claim(
        "verb_to_subject",
        "Verbs attend to their subjects: the best head lies .1 above both rules.",
        "nsubj",
        DIRECTIONS[0],
    ),
    _claim(
        "subject_to_verb",
        "Subjects attend to their verbs: the best head lies .1 above both rules.",
        "nsubj",
        DIRECTIONS[1],
    ),
    _claim(
        "verb_to_object",
        "Verbs attend to their objects: the best head lies .1 above both rules.",
        "obj",
        DIRECTIONS[0],
    ),
    _claim(
        "object_to_verb",
        "Objects attend to their verbs: the best head lies .1 above both rules.",
        "obj",
        DIRECTIONS[1],
    ),
    Claim(
        "syntax.random",
        "syntax",
        "In a randomly initialised model of the same shape no head is called syntactic.",
        _random,
        "≤",
        0,
    ),
)
_PILOTS = (("det", 0.88, 0.52), ("amod", 0.93, 0.67), ("nsubj", 0.89, 0.59), ("obj", 0.94, 0.54), ("case", 0.79, 0.45))
ENCODER = tuple(
    Claim(
        f"syntax.{relation}",
        "syntax",
        f"Some head finds the {relation} partner of at least {100 * (offset + _MARGIN):.0f}% of words: .1 above the "
        "pilot's best offset.",
        _share(relation),
        "≥",
        round(offset + _MARGIN, 2),
        Pilot(pilot, _OURS, "METHODS pilot, MiniLM"),
    )
    for relation, pilot, offset in _PILOTS
)
