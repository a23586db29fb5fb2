"""Claims on syntax: what the tables hold decides, and a relation that cannot be seen is missing, not false."""

from __future__ import annotations

from dataclasses import replace

import pytest

import interp
from interp.heads.syntax_search import BEST
from interp.planted.syntax import sentences
from interp.report.claims import claims_for
from interp.report.syntax import ENCODER
from tests.heads.syntax_models import reader


@pytest.fixture(scope="module")
def planted_report():
    one = interp.planted.make("syntax", n=8)
    return interp.report(one.model, "syntax", n=8, corpus=sentences(160))


def by_id(report) -> dict[str, dict]:
    return report.claims.set_index("id").to_dict("index")


def test_planted_subjects_hold_and_what_a_decoder_cannot_see_is_missing(planted_report):
    claims = by_id(planted_report)
    assert claims["syntax.exists"]["verdict"] == "holds" and claims["syntax.exists"]["value"] == 2
    subject = claims["syntax.verb_to_subject"]
    best = planted_report.found.tables[BEST].set_index("relation").loc["nsubj"]
    assert subject["verdict"] == "holds" and "0.1, nsubj: verb → subject: 1.00" in subject["note"]
    assert subject["value"] == pytest.approx(1 - max(best["baseline"], best["other_words"]))
    for name in ("subject_to_verb", "verb_to_object", "object_to_verb"):
        assert (
            claims[f"syntax.{name}"]["verdict"] == "cannot tell" and "cannot be seen" in claims[f"syntax.{name}"]["why"]
        )


def test_the_random_model_of_the_same_shape_is_searched_in_the_same_sentences(planted_report):
    claim = by_id(planted_report)["syntax.random"]
    assert claim["verdict"] == "holds" and claim["value"] == 0 and "2 in the model itself" in claim["note"]
    assert "syntax.random compares them" in planted_report.tables[interp.report.null.TITLE].iloc[0]["why"]


def test_a_random_encoder_attends_to_nothing_by_syntax():
    claims = by_id(interp.report(reader("encoder"), "syntax", n=6))
    assert {claims[f"syntax.{name}"]["verdict"] for name in ("exists", "verb_to_subject", "verb_to_object")} <= {
        "does not hold",
        "cannot tell",
    }
    assert claims["syntax.exists"]["value"] == 0


def test_pilots_are_compared_in_minilm_only_and_their_bar_is_the_pilots_offset():
    asked = {claim.id for claim in claims_for("minilm-l6", ["syntax"])}
    assert {one.id for one in ENCODER} <= asked and not {one.id for one in ENCODER} & {
        claim.id for claim in claims_for("another", ["syntax"])
    }
    assert {one.id: (one.cutoff, one.pilot.value) for one in ENCODER}["syntax.obj"] == (0.64, 0.94)
    assert all(replace(one).pilot.set_up for one in ENCODER)
