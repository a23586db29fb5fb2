"""What is planted holds, what is not planted does not, and an untrained model gives nothing to tell."""

from __future__ import annotations

from math import nan

import pandas as pd
import pytest
import torch

import interp
import interp.planted as planted
from interp.errors import InputError
from interp.report.claim import Missing
from interp.report.counting import some_head
from interp.report.evidence import Evidence
from interp.report.intervals import of_items
from tests.report.conftest import IOI, ioi_pairs


def row(report, id: str) -> dict:
    return report.claims.set_index("id").loc[id].to_dict()


def test_planted_kinds_are_there_and_others_are_not(ioi_report):
    accuracy = row(ioi_report, "ioi.accuracy")
    assert accuracy["value"] == 1 and accuracy["n_items"] == 12 and accuracy["verdict"] == "cannot tell"
    assert accuracy["low"] == pytest.approx(0.025 ** (1 / 12)), "twelve of twelve do not show nine in ten"
    for id in ("ioi.few_heads", "ioi.strongest_looks_at_io", "name_mover.exists", "name_mover.joint"):
        assert ioi_report.verdict(id) == "holds", id
    assert ioi_report.verdict("s_inhibition.exists") == "holds"
    assert ioi_report.verdict("negative_mover.exists") == "does not hold"


def test_a_claim_says_which_heads_it_rests_on_and_how_many_items(ioi_report):
    mine = row(ioi_report, "name_mover.exists")
    assert (mine["value"], mine["low"], mine["high"]) == (1, 1, 1) and mine["note"] == "heads: 2.1"
    assert mine["n_items"] == ioi_report.found.about["tasks"]["ioi"]["n_items"]["report"]


def test_of_an_untrained_model_nothing_is_said_to_hold(untrained, names):
    report = interp.report(untrained, IOI, n=12, pairs=ioi_pairs(names))
    assert not report.found.about["tasks"]["ioi"]["is done"]
    for id in ("ioi.few_heads", "ioi.strongest_looks_at_io", *(f"{kind}.exists" for kind in IOI)):
        mine = row(report, id)
        assert mine["verdict"] == "cannot tell" and "does not do the task ioi" in mine["why"], id
    assert row(report, "ioi.accuracy")["verdict"] != "holds"


def test_a_head_that_looks_at_the_nearest_mention_is_unmasked_by_the_order():
    made = planted.make("coreference", n=32)
    report = interp.report(made.model, ["coreference"], n=12, pairs=made.pairs)
    mine = row(report, "coreference.nearest_unmasked")
    assert mine["value"] == mine["high"] == 1 and "0.2 (0.00/1.00)" in mine["note"]
    assert mine["verdict"] == "cannot tell", "eight items of each order do not show nine in ten"
    assert "called coreference heads: 0" in mine["note"]
    assert report.verdict("coreference.exists") == report.verdict("coreference.resolves") == "holds"


def test_with_one_order_there_is_no_telling_whether_balance_matters():
    made = planted.make("coreference", n=64)
    first = made.pairs["pronoun"]
    nearer = [i for i in range(len(first)) if first.span("antecedent", i)[0] > first.span("distractor", i)[0]]
    report = interp.report(made.model, ["coreference"], n=12, pairs={"pronoun": first.select(nearer)})
    mine = row(report, "coreference.nearest_unmasked")
    assert mine["verdict"] == "cannot tell" and "same side" in mine["why"]
    assert report.verdict("coreference.exists") == "cannot tell"


def test_the_sites_of_a_planted_fact_are_where_they_were_planted():
    made = planted.make("fact_recall", n=32, noise=0.005)  # without noise every item gives the same
    found = interp.find_heads(made.model, ["fact_recall"], n=12, top=2, pairs=made.pairs)
    report = interp.report(made.model, found=found, pairs=made.pairs)
    for id in ("exists", "joint", "early_site", "end_knows_nothing", "late_site", "knockout"):
        assert report.verdict(f"fact_recall.{id}") == "holds", id
    assert row(report, "fact_recall.known")["why"] == "no capital was asked for", "these facts have no such relation"


def test_planted_induction_copies_and_its_twin_only_matches():
    made = planted.make("induction", n=16, noise=0.01)  # without noise every item scores alike, and nothing can be told
    rows = torch.randint(5, 72, (64, 40), generator=torch.Generator().manual_seed(9))
    found = interp.find_heads(made.model, ["previous_token", "induction"], corpus=rows, n=12, top=2, n_random_sets=3)
    report = interp.report(made.model, found=found, corpus=rows)
    for id in ("induction.exists", "induction.repeats", "induction.matching_is_not_copying", "previous_token.exists"):
        assert report.verdict(id) == "holds", id
    note = row(report, "induction.matching_is_not_copying")["note"]
    assert note.startswith("heads: 1.0 (copying ") and "1.2" not in note


def test_kinds_without_prompts_are_left_out_with_the_reason(untrained):
    rows = torch.randint(5, 20, (64, 12), generator=torch.Generator().manual_seed(9))
    report = interp.report(untrained, ["induction", "coreference", "name_mover"], n=8, corpus=rows)
    assert report.found.kinds == ["name_mover"] and set(report.about["left_out"]) == {"induction", "coreference"}
    assert "no tokenizer" in report.about["left_out"]["coreference"]
    mine = row(report, "coreference.exists")
    assert mine["verdict"] == "cannot tell" and "no tokenizer" in mine["why"]
    assert "Not measured: coreference is made of words" in report.to_markdown()


def test_a_head_whose_interval_reaches_the_cutoff_leaves_the_claim_open(ioi_report, names):
    frame = ioi_report.found.frame.copy()
    at = frame.index[(frame["kind"] == "name_mover") & (frame["verdict"] == "name_mover")][0]
    for changes, counts in (
        ({}, (1, 1, 1)),
        ({"effect_low": 0.01}, (0, 1, 1)),
        ({"score_low": 0.2}, (0, 1, 1)),
        ({"verdict": "attends like name_mover", "effect_low": -0.1, "effect_high": 0.2}, (0, 0, 1)),
        (
            {"verdict": "attends like name_mover", "effect_high": 0.04, "denoise_effect_high": 0.04},
            (0, 0, 0),
        ),
        ({"verdict": "attends like name_mover", "score_high": 0.2}, (0, 0, 0)),
    ):
        changed = frame.copy()
        for name, value in changes.items():
            changed.loc[at, name] = value
        if "effect_low" in changes:
            changed.loc[at, "denoise_effect_low"] = changes["effect_low"]
        found = interp.HeadScores(changed, ioi_report.found.sets, ioi_report.found.about)
        measured = some_head("name_mover")(Evidence(names.model, found, 12, 0))
        assert (measured.low, measured.value, measured.high) == counts, changes


def test_one_item_has_no_interval_and_none_at_all_is_missing():
    value = of_items(torch.tensor([1.0, 2.0]).numpy(), ["a", "a"])
    assert value[0] == 1.5 and pd.isna(value[1]) and value[3] == 1
    with pytest.raises(Missing, match="no prompt"):
        of_items(torch.tensor([nan]).numpy(), ["a"])


def test_what_cannot_be_asked_is_said(names, untrained, ioi_report, tmp_path):
    with pytest.raises(InputError, match="rigor is 'hasty'"):
        interp.report(names.model, rigor="hasty")
    with pytest.raises(InputError, match="loaded model"):
        interp.report("smollm2-135m")
    with pytest.raises(InputError, match="found in 'planted-ioi'"):
        interp.report(untrained, found=ioi_report.found)
    with pytest.raises(InputError, match="no kind of head called"):
        interp.report(names.model, ["nonsense"])
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        interp.report(names.model, IOI, keep=tmp_path / "file")
