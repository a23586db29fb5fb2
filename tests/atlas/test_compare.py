"""What moved between two atlases: nothing for other items, the right heads where weights were exchanged."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

import interp
from interp.atlas.compare import compare
from interp.atlas.comparison import Comparison
from interp.atlas.results import Atlas
from interp.errors import InputError
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.results import HeadScores
from interp.runs.store import RunStore
from tests.atlas.conftest import IOI, pairs_of


@pytest.fixture(scope="module")
def exchanged(names):
    """The planted model with heads 1 and 3 of its last layer exchanged."""
    model = copy.deepcopy(names.model)
    attn = model.main.block(2).attn
    order = [0, 3, 2, 1]
    with torch.no_grad():
        for weight in (attn.W_Q, attn.W_O):
            weight.copy_(weight[order].clone())
        for weight in (attn.W_K, attn.W_V):
            if len(weight) == len(order):
                weight.copy_(weight[order].clone())
    return model


def test_between_two_seeds_nothing_moved(made, names):
    other = interp.atlas(names.model, pairs=pairs_of(names), n=12, seed=1)
    found = made.compare(other)
    assert not (found.kinds["moved"] == "yes").any() and not len(found.changes())
    row = found.kinds.set_index("kind").loc["name_mover"]
    assert row["both"] == "2.1" and row["jaccard"] == 1 and row["only_before"] == row["only_after"] == ""
    assert found.about["differences"] == []


def test_a_head_that_took_anothers_place_is_found(names, exchanged):
    before, after = (interp.atlas(model, IOI, pairs=pairs_of(names), n=12) for model in (names.model, exchanged))
    found = compare(before, after)
    row = found.kinds.set_index("kind").loc["name_mover"]
    assert (row["only_before"], row["only_after"], row["both"]) == ("2.1", "2.3", "")
    assert row["jaccard"] == 0 and row["moved"] == "yes"
    assert found.kinds.set_index("kind").loc["s_inhibition", "moved"] == "no"
    heads = found.heads.set_index(["kind", "address"])
    lost, won = heads.loc[("name_mover", "2.1")], heads.loc[("name_mover", "2.3")]
    assert (lost["verdict_before"], won["verdict_after"]) == ("name_mover", "name_mover")
    assert lost["verdict_after"] != "name_mover" != won["verdict_before"]
    for one in (lost, won):  # a head that one of them did not test has no change of effect: absent, never 0
        tested = not (math.isnan(one["effect_before"]) or math.isnan(one["effect_after"]))
        assert math.isnan(one["effect_change"]) != tested


def test_a_head_that_only_missed_its_p_did_not_surely_move(made):
    frame = made.scores.frame.copy()
    lost = (frame["kind"] == "name_mover") & (frame["verdict"] == "name_mover")
    frame.loc[lost, ["verdict", "reason", "p_corrected"]] = "attends like name_mover", "p 0.08 > 0.05", 0.08
    row = (
        made.compare(replace(made, scores=replace(made.scores, frame=frame))).kinds.set_index("kind").loc["name_mover"]
    )
    assert row["only_before"] == "2.1" and row["jaccard"] == 0 < row["stability_before"]
    assert row["moved"].startswith("cannot tell")


def test_syntax_heads_of_two_relations_have_no_change_of_score():
    def one(role: str, score: float) -> Atlas:
        row = {"kind": "syntax", "stack": "", "sublayer": "attn", "layer": 0, "head": 0, "reason": ""}
        row |= {"score": score, "score_low": score - 0.01, "score_high": score + 0.01, "effect": math.nan}
        row |= {"control": math.nan, "p_corrected": 0.001, "role": role, "verdict": f"syntax ({role})"}
        return Atlas(HeadScores(pd.DataFrame([row]), pd.DataFrame(), {}), pd.DataFrame(), {})

    verb = one("nsubj: verb → subject", 0.9)
    (same,) = compare(verb, one("nsubj: verb → subject", 0.5)).heads.to_dict("records")
    (other,) = compare(verb, one("det: noun → determiner", 0.5)).heads.to_dict("records")
    assert same["score_change"] == pytest.approx(-0.4) and same["surely"]
    assert math.isnan(other["score_change"]) and not other["surely"]


def test_a_head_that_writes_half_as_much_has_changed_in_pairs(made, names):
    model = copy.deepcopy(names.model)
    with torch.no_grad():
        model.main.block(2).attn.W_O[1] *= 0.5
    found = compare(made, interp.atlas(model, pairs=pairs_of(names), n=12))
    row = found.heads.set_index(["kind", "address"]).loc[("s_inhibition", "1.2")]
    assert row["paired"] and row["score_change"] == row["score_change_low"] == row["score_change_high"] == 0
    before, after = made.scores, interp.find_heads(model, ["s_inhibition"], pairs=pairs_of(names), n=12)
    changed = [one.of("s_inhibition").set_index(["layer", "head"]).loc[(1, 2), "effect"] for one in (before, after)]
    assert row["effect_change"] == pytest.approx(changed[1] - changed[0], abs=1e-6)
    assert row["effect_change_low"] <= row["effect_change"] <= row["effect_change_high"]


def test_models_of_other_shapes_are_compared_by_kind_only(made, names):
    size = names.model.cfg
    cfg = ModelConfig.decoder_only(n_layers=2, d_model=32, n_heads=4, d_vocab=size.d_vocab, n_ctx=size.n_ctx, d_mlp=64)
    other = interp.atlas(HookedTransformer(cfg, seed=0), ["name_mover"], pairs=pairs_of(names), n=12)
    found = compare(made, other)
    assert not len(found.heads) and found.about["same_shape"] is False
    assert "other heads" in found.kinds["moved"].iloc[0]
    assert "p corrected for" in found.describe() and found.about["only_before"]


def test_settings_that_differ_are_said(made, names):
    other = interp.atlas(names.model, IOI, pairs=pairs_of(names), n=10)
    assert "n 12 and 10" in compare(made, other).describe()


def test_a_comparison_is_saved_and_stored(made, tmp_path):
    found = made.compare(made)
    again = Comparison.load(found.save(tmp_path / "moved"))
    assert str(again) == str(found) and again.heads.equals(found.heads)
    store = RunStore(tmp_path / "runs")
    assert str(store.open(store.save(found, spec={}, title="moved").info.id).results()) == str(found)
    assert found.plot().data and "name_mover" in found._repr_html_()


def test_only_atlases_with_a_kind_in_common_are_compared(made, names):
    with pytest.raises(InputError, match="two atlases, not HeadScores"):
        compare(made, made.scores)
    parts = [
        interp.atlas(names.model, [kind], pairs=pairs_of(names), n=12) for kind in ("name_mover", "negative_mover")
    ]
    with pytest.raises(InputError, match="no kind in common"):
        compare(*parts)
