"""Claims on conflicts between what the context says and what the model remembers."""

from __future__ import annotations

from typing import Any

import numpy as np

from interp.heads.study import END
from interp.heads.ways import baseline
from interp.report.claim import Claim, Measured, Missing, Pilot
from interp.report.counting import joint_effect, some_head
from interp.report.evidence import Evidence
from interp.report.intervals import from_items, of_items

__all__ = ["CLAIMS", "NAMED"]

CONTEXT, WEIGHTS = "in_context", "in_weights"
CLEAN = "conflict"  # the prompts whose context contradicts what is remembered
_PROMPTS = (
    "The pilot had its own wording and one seed; ours are capitals and languages that the model knows, in held-out "
    "templates, with an interval over countries."
)


def _looked_for(evidence: Evidence) -> None:
    if not {CONTEXT, WEIGHTS} & set(evidence.found.kinds):
        raise Missing("no kind of head that serves conflicts was looked for")


def _runs(evidence: Evidence, which: str) -> dict[str, Any]:
    """Whether the context's answer is above the memory's, for each prompt with its item and template: of the conflict,
    or of a control."""
    _looked_for(evidence)

    def make() -> dict[str, Any]:
        study = evidence.study("conflict", (END,), corruption="" if which == CLEAN else which)
        values = baseline(study)[which != CLEAN]
        frames = study.labels.get("frame", [""] * len(study.main))
        return {"context": (values > 0).tolist(), "items": list(study.main.items), "frames": [str(f) for f in frames]}

    return evidence.once(f"conflict: the unedited runs, {which}", make)


def _wins(who: str, which: str = CLEAN, frame: str = "") -> Any:
    """How often the context's answer, or the memory's, is the likelier of the two."""

    def measure(evidence: Evidence) -> Measured:
        runs = _runs(evidence, which)
        mine = np.array([not frame or one == frame for one in runs["frames"]])
        if not mine.any():
            raise Missing(f"no prompt is of the template “{frame}”")
        context = np.array(runs["context"])
        right = (context if who == "context" else ~context)[mine]
        return from_items(of_items(right, np.array(runs["items"])[mine].tolist(), seed=evidence.seed), "of prompts")

    return measure


def _between_templates(evidence: Evidence) -> Measured:
    """How much more often the context wins in the template where it wins most than where it wins least, over items that
    both have."""
    runs = _runs(evidence, CLEAN)
    context, frames, items = (np.array(runs[name]) for name in ("context", "frames", "items"))
    shares = {frame: float(context[frames == frame].mean()) for frame in dict.fromkeys(runs["frames"])}
    if len(shares) < 2:
        raise Missing("there is only one template")
    most, least = (chosen(shares, key=lambda frame: shares[frame]) for chosen in (max, min))
    both = sorted(set(items[frames == most]) & set(items[frames == least]))
    if not both:
        raise Missing("no item is in both templates")
    means = [[context[(frames == frame) & (items == item)].mean() for item in both] for frame in (most, least)]
    found = of_items(np.array(means[0]) - np.array(means[1]), both, seed=evidence.seed, share=False)
    said = ", ".join(f"{frame} {share:.2f}" for frame, share in sorted(shares.items(), key=lambda one: -one[1]))
    return from_items(found, "of prompts", f"context wins: {said}; the two were chosen by this very figure")


CLAIMS = (
    Claim(
        "conflict.templates",
        CONTEXT,
        "The template decides much: between the one where the context wins most and the one where it wins least lie at "
        "least .1 of the prompts.",
        _between_templates,
        "≥",
        0.1,
    ),
    Claim(
        "conflict.unknown",
        CONTEXT,
        "Of a subject that does not exist the model believes the context, on at least 90% of the prompts.",
        _wins("context", "unknown"),
        "≥",
        0.9,
    ),
    Claim(
        "conflict.consistent",
        WEIGHTS,
        "Where the context says what is remembered the model gives that answer rather than another country's, on at "
        "least 90% of the prompts.",
        _wins("memory", "consistent"),
        "≥",
        0.9,
    ),
    Claim(
        "conflict.irrelevant",
        WEIGHTS,
        "Where the context speaks of something else the model gives what it remembers rather than another country's "
        "answer, on at least 90% of the prompts.",
        _wins("memory", "irrelevant"),
        "≥",
        0.9,
    ),
    Claim(
        "in_context.exists",
        CONTEXT,
        "Some head writes the context's answer above the memory's, and carries at least 5% of the difference from "
        "prompts whose context says the truth.",
        some_head(CONTEXT),
        "≥",
        1,
    ),
    Claim(
        "in_context.joint",
        CONTEXT,
        "The in-context heads' candidates, exchanged together, carry at least 5% of that difference more than any "
        "random set of the same layers.",
        joint_effect(CONTEXT, beyond_random=True),
        "≥",
        0.05,
    ),
    Claim(
        "in_weights.exists",
        WEIGHTS,
        "Some head writes the memory's answer above the context's, and without what it knows of the subject the "
        "context's answer gains at least 5% of the difference from prompts about a subject that does not exist.",
        some_head(WEIGHTS),
        "≥",
        1,
    ),
    Claim(
        "in_weights.joint",
        WEIGHTS,
        "When the in-weights heads' candidates are exchanged together the context's answer gains at least 5% of that "
        "difference more than with any random set of the same layers.",
        joint_effect(WEIGHTS, beyond_random=True),
        "≤",
        -0.05,
    ),
)
NAMED = (
    Claim(
        "conflict.pilot_story",
        CONTEXT,
        "“In this story the capital of X is Y.”: the context wins on at least half of the prompts.",
        _wins("context", frame="story"),
        "≥",
        0.5,
        Pilot(0.74, _PROMPTS),
    ),
    Claim(
        "conflict.pilot_plain",
        WEIGHTS,
        "“X's capital is Y.”: the memory wins on at least half of the prompts.",
        _wins("memory", frame="plain"),
        "≥",
        0.5,
        Pilot(0.65, _PROMPTS),
    ),
)
