"""The interval decides, right up to its ends; and every claim is one that can fail."""

from __future__ import annotations

from math import nan

import pytest

from interp.heads.base import finders
from interp.report.claim import CANNOT_TELL, DOES_NOT_HOLD, HOLDS, Measured, judged
from interp.report.claims import EVERY, NAMED, claims_for


@pytest.mark.parametrize(
    ("low", "high", "side", "verdict"),
    [
        (0.5, 0.6, "≥", HOLDS),
        (0.4, 0.6, "≥", CANNOT_TELL),
        (0.4, 0.5, "≥", CANNOT_TELL),
        (0.4, 0.4999, "≥", DOES_NOT_HOLD),
        (0.5, 0.5, "≥", HOLDS),
        (0.4, 0.5, "≤", HOLDS),
        (0.4, 0.6, "≤", CANNOT_TELL),
        (0.5, 0.6, "≤", CANNOT_TELL),
        (0.5001, 0.6, "≤", DOES_NOT_HOLD),
        (nan, nan, "≥", CANNOT_TELL),
        (0.6, nan, "≥", CANNOT_TELL),
    ],
)
def test_the_whole_interval_has_to_lie_on_one_side_of_the_cutoff(low, high, side, verdict):
    assert judged(Measured(0.5, low, high), side, 0.5) == verdict


def test_claims_have_names_of_their_own_and_are_about_kinds_that_there_are():
    every = [*EVERY, *(claim for claims in NAMED.values() for claim in claims)]
    assert len({claim.id for claim in every}) == len(every)
    assert {claim.kind for claim in every} <= set(finders())
    assert {claim.kind for claim in EVERY} >= {"induction", "sink", "backup", "coreference", "fact_recall"}
    assert all(claim.pilot is None for claim in EVERY), "pilots were of one model"


def test_named_heads_are_asked_only_of_the_model_that_they_were_seen_in():
    general, named = claims_for("another", ["name_mover"]), claims_for("SmolLM2-135M", ["name_mover"])
    assert {claim.id for claim in named} > {claim.id for claim in general}
    assert any("23.3" in claim.text for claim in named) and not any("23.3" in claim.text for claim in general)
    assert {claim.id for claim in claims_for("minilm-l6", ["coreference"])} >= {"coreference.2.4", "coreference.1.3"}
