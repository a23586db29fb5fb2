"""The randomly initialised twin: same shape, same prompts, and nothing that trained heads do."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

import interp
import interp.planted as planted
from interp.heads.patterns import attention_shares, duplicate_token
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.report.evidence import Evidence
from interp.report.null import TITLE, random_twin, table
from tests.report.conftest import ioi_pairs


def test_a_twin_has_the_shape_and_other_weights_the_same_for_the_same_seed(names):
    one, again, other = (random_twin(names.model, seed) for seed in (0, 0, 1))
    ours = dict(names.model.named_parameters())
    for name, weight in one.named_parameters():
        assert weight.shape == ours[name].shape and weight.dtype == ours[name].dtype
    matrices = [name for name, weight in ours.items() if weight.ndim > 1]
    theirs, same, different = (dict(model.named_parameters()) for model in (one, again, other))
    assert all(torch.equal(theirs[name], same[name]) for name in matrices)
    assert not any(
        torch.equal(theirs[name], different[name]) or torch.equal(theirs[name], ours[name]) for name in matrices
    )


def test_planted_movers_lie_above_the_twin_on_the_same_prompts(names, ioi_report):
    row = ioi_report.tables[TITLE].set_index("kind").loc["name_mover"]
    assert row["head"] in ("2.0", "2.1") and row["difference"] == pytest.approx(row["score"] - row["random_score"])
    assert row["n_items"] == 12 and row["passing"] == 2 and row["passing_and_writing"] == 1, (
        "its twin-headed decoy writes nothing"
    )
    assert row["random_passing"] == row["random_passing_and_writing"] == 0
    assert ioi_report.verdict("name_mover.above_random") == "holds"
    twin, half = random_twin(names.model), ioi_pairs(names)["abc"]
    halved = interp.heads.splits.halves(half, 0)[1]
    study = interp.heads.study.Study(twin, {"abc": half.select(halved)}, ("END",))
    best = np.nanmax(study.by_item(study.attention("END", "IO")).mean(axis=0))
    assert row["random_score"] == pytest.approx(best)


@pytest.fixture(scope="module")
def reader():
    """An untrained model that reads texts as long as patterns are looked for in."""
    size = {"n_layers": 2, "d_model": 32, "n_heads": 4, "n_key_value_heads": 2, "d_mlp": 64}
    return HookedTransformer(ModelConfig.decoder_only(d_vocab=120, n_ctx=128, **size), seed=5)


def test_one_random_model_does_not_lie_above_another_by_more_than_luck(reader):
    rows = torch.randint(5, 120, (64, 40), generator=torch.Generator().manual_seed(9))
    found = interp.find_heads(reader, ["previous_token", "sink", "duplicate_token"], corpus=rows, n=24, top=2)
    report = interp.report(reader, found=found, corpus=rows)
    mine = report.tables[TITLE].set_index("kind")
    assert (mine["random_passing"] == 0).all() and (mine["passing"] == 0).all()
    assert (mine["difference"].abs() < 0.2).all(), "an untrained model is no better than its twin"


def test_patterns_are_read_on_the_rows_that_were_reported_on(reader):
    rows = torch.randint(5, 120, (64, 40), generator=torch.Generator().manual_seed(9))
    found = interp.find_heads(reader, ["duplicate_token"], corpus=rows, n=16, top=2)
    evidence = Evidence(reader, found, 16, 0, corpus=rows)
    mine = table(evidence).iloc[0]
    ours = found.of("duplicate_token")
    assert mine["score"] == pytest.approx(ours.loc[ours["score_select"].idxmax(), "score"], abs=1e-6)
    batch, _, items = evidence.shared("rows of blocks of 25 random tokens, four times over", pytest.fail)
    twin = attention_shares(random_twin(reader), batch, {"d": duplicate_token})["d"].mean(0)
    assert len(items) == 16 and mine["random_score"] == pytest.approx(float(twin.max()), abs=1e-6)


def test_backups_have_no_null_and_it_says_why(names):
    found = interp.find_heads(names.model, ["backup"], pairs=ioi_pairs(names), top=2, n_random_sets=1)
    report = interp.report(names.model, found=found, pairs=ioi_pairs(names))
    row = report.tables[TITLE].iloc[0]
    assert math.isnan(row["difference"]) and row["why"]
    assert report.verdict("backup.above_random") == "cannot tell" and "not measured" in report.to_markdown()


def test_it_is_kept_like_other_quantities(names, ioi_report, tmp_path, monkeypatch):
    first = Evidence(names.model, ioi_report.found, 12, 0, pairs=ioi_pairs(names), folder=tmp_path, key="k")
    one = table(first)
    monkeypatch.setattr("interp.report.null.random_twin", lambda *_: pytest.fail("made twice"))
    again = Evidence(names.model, ioi_report.found, 12, 0, pairs=ioi_pairs(names), folder=tmp_path, key="k")
    pd.testing.assert_frame_equal(table(again), one)


def test_coreference_is_held_against_its_baseline_too():
    made = planted.make("coreference", n=32)
    report = interp.report(made.model, ["coreference"], n=12, pairs=made.pairs)
    row = report.tables[TITLE].iloc[0]
    assert row["passing"] >= 1 and math.isnan(row["passing_and_writing"]), "what it writes only an intervention shows"
