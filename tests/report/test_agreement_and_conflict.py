"""Claims on agreement and on conflicts: what is planted holds, and what the model does not do cannot be told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import interp
from interp import planted
from interp.heads.study import Study
from interp.report.claim import CANNOT_TELL, DOES_NOT_HOLD, HOLDS, Claim, Missing, judged
from interp.report.claims import EVERY, NAMED
from interp.report.evidence import Evidence
from interp.tasks import load

CLAIMS = {claim.id: claim for claim in (*EVERY, *NAMED["smollm2-135m"])}


def verdict(claim: Claim, evidence: Evidence) -> str:
    return judged(claim.measure(evidence), claim.side, claim.cutoff)


def row(report, id: str) -> dict:
    return report.claims.set_index("id").loc[id].to_dict()


def reported(name: str, kinds: list[str]):
    made = planted.make(name, n=24, noise=0.005)  # without noise every item gives the same
    found = interp.find_heads(made.model, kinds, top=2, n_random_sets=2, pairs=made.pairs)
    return interp.report(made.model, found=found, pairs=made.pairs)


@pytest.fixture(scope="module")
def planted_agreement():
    return reported("agreement", ["agreement"])


@pytest.fixture(scope="module")
def planted_conflict():
    return reported("conflict", ["in_context", "in_weights"])


def test_a_planted_agreement_head_is_told_of_in_words(planted_agreement):
    for id in ("agreement.exists", "agreement.joint", "agreement.verbs_attend"):
        assert planted_agreement.verdict(id) == HOLDS, id
    mine = row(planted_agreement, "agreement.verbs_attend")
    assert mine["value"] > 0.9 and "to the subject with 1.00 and to the noun between with 0.00 in 1.1" in mine["note"]
    writing = planted_agreement.found.of("agreement").set_index(["layer", "head"]).loc[(1, 1), "writing"]
    assert 9 < writing < 11 and f"moves {writing:+.2f} logits of the right form" in mine["note"]


def test_given_pairs_do_not_say_their_condition_so_accuracy_by_condition_cannot_be_told(planted_agreement):
    mine = row(planted_agreement, "agreement.relative_above_chance")
    assert mine["verdict"] == CANNOT_TELL and "do not say what stands between" in mine["why"]


@pytest.mark.slow
def test_planted_heads_of_a_conflict_and_its_controls_are_told(planted_conflict):
    for id in ("in_context.exists", "in_context.joint", "in_weights.exists", "in_weights.joint"):
        assert planted_conflict.verdict(id) == HOLDS, (id, row(planted_conflict, id))
    assert row(planted_conflict, "in_context.exists")["note"].startswith("heads: 1.1")
    assert row(planted_conflict, "in_weights.exists")["note"].startswith("heads: 1.2")
    assert row(planted_conflict, "in_weights.joint")["value"] == pytest.approx(-1, abs=0.05)
    for id in ("conflict.unknown", "conflict.consistent", "conflict.irrelevant"):
        mine = row(planted_conflict, id)
        assert mine["value"] == 1.0 and mine["n_items"] == 12, "all items of the reported half"


@pytest.mark.slow
def test_templates_that_are_not_there_are_said_to_be_missing(planted_conflict):
    mine = row(planted_conflict, "conflict.templates")
    assert mine["verdict"] == CANNOT_TELL and "only one template" in mine["why"]


# Behaviour that is absent


@pytest.fixture
def at_chance(smollm2, monkeypatch):
    """Agreement is kept without an attractor and across a PP, and a coin's across an object relative."""
    task = load("agreement", smollm2, split="report", n=40)
    condition, congruence, opening = (np.array(task.labels[name]) for name in ("condition", "congruence", "opening"))
    values = np.where((condition == "PP") & (congruence == "incongruent") & (np.arange(len(task)) % 7 == 0), -1.0, 1.0)
    relative = (condition == "object relative") & (congruence == "incongruent") & (opening == "bare")
    values[relative] = np.where(np.random.default_rng(0).random(relative.sum()) < 0.5, 1.0, -1.0)
    monkeypatch.setattr("interp.report.agreement.baseline", lambda study: (values[: len(study.main)], -values))
    heads = {"kind": "agreement", "stack": "", "sublayer": "attn", "layer": 3, "head": 1, "verdict": "agreement"}
    found = interp.HeadScores(pd.DataFrame([{**heads, "score": 0.3, "score_select": 0.3}]), pd.DataFrame(), {}, {})
    evidence = Evidence(smollm2, found, 30, 0)
    study = Study(smollm2, {"subject": task.pairs}, ("END",), task.labels, task.about)
    evidence._studies["agreement", "report", "subject"] = study
    return evidence


def test_what_a_coin_would_give_cannot_be_told_and_what_heads_do_for_it_neither(at_chance):
    assert verdict(CLAIMS["agreement.accuracy"], at_chance) == HOLDS
    assert verdict(CLAIMS["agreement.pp_above_chance"], at_chance) == HOLDS
    assert verdict(CLAIMS["agreement.relative_above_chance"], at_chance) == CANNOT_TELL
    assert verdict(CLAIMS["agreement.pilot_relative"], at_chance) == CANNOT_TELL
    assert verdict(CLAIMS["agreement.relative_embedded_above_chance"], at_chance) == HOLDS, (
        "the openings are told apart"
    )
    with pytest.raises(Missing, match="not surely more than a coin: there is no behaviour to explain"):
        CLAIMS["agreement.serves_relative"].measure(at_chance)


def runs(**by_frame: list[int]) -> dict:
    """Whether the context won, for each of some items in each template."""
    context = [bool(won) for some in by_frame.values() for won in some]
    items = [f"country {i:02}" for some in by_frame.values() for i in range(len(some))]
    return {"context": context, "items": items, "frames": [name for name, some in by_frame.items() for _ in some]}


@pytest.fixture
def told(names):
    found = interp.HeadScores(pd.DataFrame([{"kind": "in_context"}]), pd.DataFrame(), {}, {})
    evidence = Evidence(names.model, found, 30, 0)
    some = {"story": [1] * 24 + [0] * 6, "plain": [0] * 24 + [1] * 6, "friend": [0, 1] * 15}
    evidence._known["conflict: the unedited runs, conflict"] = runs(**some)
    evidence._known["conflict: the unedited runs, consistent"] = runs(story=[0] * 40, plain=[0] * 39 + [1])
    evidence._known["conflict: the unedited runs, unknown"] = runs(story=[0] * 30)
    return evidence


def test_shares_are_of_the_template_that_is_named(told):
    story, plain = CLAIMS["conflict.pilot_story"].measure(told), CLAIMS["conflict.pilot_plain"].measure(told)
    assert (story.value, story.n_items, plain.value) == (0.8, 30, 0.8)
    assert story.low < 0.74 < story.high, "the pilot lies within"
    assert verdict(CLAIMS["conflict.consistent"], told) == HOLDS
    assert verdict(CLAIMS["conflict.unknown"], told) == DOES_NOT_HOLD


def test_the_templates_that_differ_most_are_compared_item_by_item(told):
    found = CLAIMS["conflict.templates"].measure(told)
    assert found.value == pytest.approx(0.6) and found.n_items == 30
    assert found.note.startswith("context wins: story 0.80, friend 0.50, plain 0.20; the two were chosen")
    assert verdict(CLAIMS["conflict.templates"], told) == HOLDS


def test_nothing_is_said_of_conflicts_that_were_not_looked_for(names, ioi_report):
    with pytest.raises(Missing, match="no kind of head that serves conflicts"):
        CLAIMS["conflict.unknown"].measure(Evidence(names.model, ioi_report.found, 12, 0))
