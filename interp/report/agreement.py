"""Claims on agreement: how often the verb has its subject's number, and which heads attend to the subject for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from interp.causal.patching import patch
from interp.heads.study import END, Study
from interp.heads.ways import baseline
from interp.report.claim import Claim, Measured, Missing, Pilot
from interp.report.counting import head_of, heads_of, joint_effect, some_head
from interp.report.evidence import Evidence
from interp.report.intervals import from_items, of_items

__all__ = ["CLAIMS", "NAMED"]

KIND, CHANCE = "agreement", 0.5
Cell = tuple[str, str, str]
NONE, PP = ("none", "no attractor", ""), ("PP", "incongruent", "bare")
RELATIVE = ("object relative", "incongruent", "bare")
EMBEDDED = {"pp": ("PP", "incongruent", "embedded"), "relative": ("object relative", "incongruent", "embedded")}
_WORDS = {
    NONE: "no noun between subject and verb",
    PP: "a noun of the other number in a prepositional phrase between (“The S near the A also …”)",
    RELATIVE: "an object relative with a noun of the other number between (“The S that the A love …”)",
    EMBEDDED["pp"]: "a noun of the other number in a prepositional phrase between, behind an opening (“It seems that "
    "the S by the A clearly …”)",
    EMBEDDED[
        "relative"
    ]: "an object relative with a noun of the other number between, behind an opening (“It seems that "
    "the S that the A see …”)",
}
_FRAMES = (
    "The pilot had its own nouns, frames and seed; ours are held-out frames that never end with the attractor, three "
    "verbs, and an interval over nouns."
)
_COIN = (
    "A coin would be right on half of the prompts. Where the interval holds that, it cannot be told whether the model "
    "does this at all, and then not what its heads do for it."
)


def _study(evidence: Evidence) -> Study:
    evidence.rows(KIND)
    study = evidence.study("agreement", (END,))
    if not {"condition", "congruence", "opening"} <= study.labels.keys():
        raise Missing("the pairs that were given do not say what stands between subject and verb")
    return study


def _of(study: Study, cell: Cell) -> np.ndarray:
    """Which prompts are of one condition, congruence and opening (of any, where it names none)."""
    both = zip(*(study.labels[name] for name in ("condition", "congruence", "opening")), strict=True)
    return np.array([all(mine in ("", one) for mine, one in zip(cell, some, strict=True)) for some in both])


def _accuracies(evidence: Evidence) -> dict[str, Any]:
    """By condition: how often the right form is above the wrong one."""

    def make() -> dict[str, Any]:
        study = _study(evidence)
        right = baseline(study)[0] > 0
        found = {}
        for cell in _WORDS:
            mine = _of(study, cell)
            found[" ".join(cell)] = of_items(right[mine], study.items[mine].tolist(), seed=evidence.seed)
        return found

    return evidence.once("agreement: accuracy by condition", make)


def _accuracy(cell: Cell) -> Any:
    return lambda evidence: from_items(_accuracies(evidence)[" ".join(cell)], "of prompts")


def _best(evidence: Evidence) -> dict[Any, Any]:
    """The head that attends most to the subject, by the prompts that heads were chosen by: of those that are called
    agreement heads, else of all."""
    rows = evidence.rows(KIND)
    named = set(heads_of(evidence, KIND))
    candidates = [row for row in rows.to_dict("records") if head_of(row) in named] or rows.to_dict("records")
    return max(candidates, key=lambda row: row["score_select"])


def _verbs_attend(evidence: Evidence) -> Measured:
    """How much more the best head attends to the subject than to what stands between, and in words what it does."""
    row = _best(evidence)
    head = head_of(row)
    others = [name for name in heads_of(evidence, KIND) if name != head]
    words = (
        f"the place where the verb is to come attends to the subject with {row['attention_to_subject']:.2f} and to the "
        f"noun between with {row['attention_to_attractor']:.2f} in {head}, which moves {row['writing']:+.2f} logits of "
        "the right form from there"
    )
    return evidence.column(KIND, head, "score", "of attention").plus(
        f"{words}; further agreement heads: {', '.join(others) or 'none'}"
    )


def _across(evidence: Evidence) -> Measured:
    """The same on prompts whose attractor has the other number."""
    row = _best(evidence)

    def make() -> list[float]:
        study = _study(evidence)
        mine = _of(study, ("", "incongruent", ""))
        more = (study.attention(END, "subject") - study.attention(END, "attractor"))[:, row["layer"], row["head"]]
        return of_items(more[mine], study.items[mine].tolist(), seed=evidence.seed, share=False)

    name = f"agreement: attention of {head_of(row)} across an attractor"
    return from_items(evidence.once(name, make), "of attention", head_of(row))


def _serves(cell: Cell) -> Any:
    """What the exchange of the best head costs on prompts of one condition; not to be told where the model is no
    better than a coin there."""

    def measure(evidence: Evidence) -> Measured:
        right, low, high, _ = _accuracies(evidence)[" ".join(cell)]
        if not low > CHANCE:
            raise Missing(
                f"with {_WORDS[cell]} the model is right on {right:.2f} of the prompts ({low:.2f} to {high:.2f}), not "
                "surely more than a coin: there is no behaviour to explain"
            )
        head = head_of(_best(evidence))

        def make() -> list[float]:
            whole = _study(evidence)
            study = whole.some(np.flatnonzero(_of(whole, cell)).tolist())
            clean, corrupt = baseline(study)
            effects = patch(
                study.model,
                study.main,
                [head],
                over=("target",),
                direction="noise",
                metric=study.metric,
                progress=False,
            )
            harm = -effects.values.values[:, 0]
            return of_items(harm, study.main.items, seed=evidence.seed, divisor=clean - corrupt)

        found = evidence.once(f"agreement: {head} with {' '.join(cell)}", make)
        return from_items(found, "share of clean − corrupt", head)

    return measure


CLAIMS = (
    Claim(
        "agreement.accuracy",
        KIND,
        "With no noun between subject and verb the model prefers the form that agrees on at least 90% of the prompts.",
        _accuracy(NONE),
        "≥",
        0.9,
    ),
    Claim(
        "agreement.pp_above_chance",
        KIND,
        f"With {_WORDS[PP]} it still prefers the form that agrees with the subject, more often than a coin would.",
        _accuracy(PP),
        "≥",
        CHANCE,
        explain=_COIN,
    ),
    Claim(
        "agreement.relative_above_chance",
        KIND,
        f"With {_WORDS[RELATIVE]} it still prefers the form that agrees with the subject, more often than a coin "
        "would.",
        _accuracy(RELATIVE),
        "≥",
        CHANCE,
        explain=_COIN,
    ),
    *(
        Claim(
            f"agreement.{name}_embedded_above_chance",
            KIND,
            f"With {_WORDS[cell]} it prefers the form that agrees with the subject, more often than a coin would.",
            _accuracy(cell),
            "≥",
            CHANCE,
            explain="The same construction as without the opening; only the words in front of the subject differ.",
        )
        for name, cell in EMBEDDED.items()
    ),
    Claim(
        "agreement.verbs_attend",
        KIND,
        "Verbs attend to their subjects: from the place where the verb is to come some head attends to the subject at "
        "least .05 more than to the noun between.",
        _verbs_attend,
        "≥",
        0.05,
        explain="The verb is not there yet: what attends is the token that has to predict it.",
    ),
    Claim(
        "agreement.verbs_attend_across",
        KIND,
        "That head does so across a noun of the other number too.",
        _across,
        "≥",
        0.05,
    ),
    Claim(
        "agreement.exists",
        KIND,
        "Some head attends so, raises the form that agrees by what it moves from the subject, and carries at least 5% "
        "of the logit difference when the subject's number is swapped.",
        some_head(KIND),
        "≥",
        1,
    ),
    Claim(
        "agreement.joint",
        KIND,
        "The agreement heads' candidates, exchanged together, carry at least 5% of the logit difference more than any "
        "random set of the same layers.",
        joint_effect(KIND, beyond_random=True),
        "≥",
        0.05,
    ),
    *(
        Claim(
            f"agreement.serves_{name}",
            KIND,
            f"With {_WORDS[cell]} the head of these claims carries at least 5% of the logit difference.",
            _serves(cell),
            "≥",
            0.05,
        )
        for name, cell in (("pp", PP), ("relative", RELATIVE))
    ),
)
NAMED = (
    Claim(
        "agreement.pilot_pp",
        KIND,
        f"With {_WORDS[PP]} the form that agrees is preferred on at least 70% of the prompts.",
        _accuracy(PP),
        "≥",
        0.7,
        Pilot(0.85, _FRAMES),
    ),
    Claim(
        "agreement.pilot_relative",
        KIND,
        f"Hard, but above chance: with {_WORDS[RELATIVE]} the form that agrees is preferred on at least half of the "
        "prompts.",
        _accuracy(RELATIVE),
        "≥",
        CHANCE,
        Pilot(0.59, _FRAMES),
        explain=_COIN,
    ),
    Claim(
        "agreement.pilot_relative_hard",
        KIND,
        f"With {_WORDS[RELATIVE]} it is preferred on at most 70% of the prompts.",
        _accuracy(RELATIVE),
        "≤",
        0.7,
        Pilot(0.59, _FRAMES),
    ),
)
