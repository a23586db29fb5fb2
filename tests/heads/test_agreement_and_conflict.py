"""Agreement, in-context and in-weights heads: found where they were planted, in all variants, and nowhere else."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

import interp
from interp import planted
from interp.heads.agreement import ACCURACY
from interp.heads.base import finder
from interp.heads.conflict import EFFECT, SHARES, pushes
from interp.heads.shares import share_above_zero
from interp.heads.study import Study
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.tasks import load
from tests.heads.test_null import ALPHA, binomial_bound, false_positives_of_task

# circuit -> corruptions, kinds to look for
CIRCUITS = {
    "agreement": ("subject attractor", ("agreement",)),
    "conflict": ("consistent unknown irrelevant", ("in_context", "in_weights")),
}
VARIANTS = [
    {"norm": norm, "rotate": rotate, "noisy": noisy}
    for norm in ("none", "rms", "layer")
    for rotate in (False, True)
    for noisy in (False, True)
]
PUSHES = {
    "in_context": "conflict: which answer heads push",
    "in_weights": "conflict by subject: which answer heads push",
}


@cache
def found(name: str, norm: str = "none", rotate: bool = False, noisy: bool = False, seed: int = 0):
    made = planted.make(name, norm=norm, rotate=rotate, noise=planted.EPSILON[name] if noisy else 0.0, seed=seed)
    corruptions, kinds = CIRCUITS[name]
    pairs = {one: made.pairs[one] for one in corruptions.split()}
    return made, interp.find_heads(made.model, kinds, pairs=pairs, top=4, n_random_sets=2, seed=0)


def row(name: str, kind: str, head: str) -> pd.Series:
    layer, number = map(int, head.split("."))
    return found(name)[1].of(kind).set_index(["layer", "head"]).loc[(layer, number)]


def must_match(name: str, **variant) -> None:
    made, scores = found(name, **variant)
    for kind in CIRCUITS[name][1]:
        rows = scores.of(kind)
        named = rows[rows["verdict"].str.split(" (", regex=False).str[0] == kind]
        truth = {str(head) for head in made.truth.heads[kind]}
        assert {f"{one.layer}.{one.head}" for one in named.itertuples()} == truth, (
            kind,
            rows[["layer", "head", "verdict", "reason"]].to_string(),
        )


@pytest.mark.parametrize("name", CIRCUITS)
def test_planted_heads_are_found_and_no_others(name):
    must_match(name)


@pytest.mark.parametrize("name", CIRCUITS)
def test_planted_heads_are_found_behind_norms_a_rotation_and_noise(name):
    must_match(name, **VARIANTS[-1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("name", CIRCUITS)
def test_planted_heads_are_found_in_every_variant(name, variant, seed):
    must_match(name, **variant, seed=seed)


# Decoys, each rejected by the part of the definition that it lacks


def test_a_head_that_attends_to_the_subject_and_writes_nothing_is_no_agreement_head():
    true, decoy = row("agreement", "agreement", "1.1"), row("agreement", "agreement", "1.0")
    assert decoy["score"] == pytest.approx(true["score"], abs=1e-6) and true["score"] > 0.99
    assert decoy["verdict"] == "attends like agreement" and "writes nothing that is read" in decoy["reason"]
    assert "effect 0.000" in decoy["reason"] and abs(decoy["writing"]) < 1e-6 < 9 < true["writing"]


def test_a_head_that_takes_the_attractors_number_is_no_agreement_head_though_it_moves_the_answer():
    attracted = row("agreement", "agreement", "1.2")
    assert attracted["score"] < -0.99 and attracted["verdict"] == "" and abs(attracted["effect"]) < 1e-6
    table = found("agreement")[1].tables["agreement: effects by corruption"]
    mine = table[(table["head"] == "1.2") & (table["direction"] == "noise")].set_index("corruption")["effect"]
    assert mine["attractor"] == pytest.approx(1.0, abs=1e-3) and mine["subject"] == pytest.approx(0.0, abs=1e-3)


def test_a_head_that_matters_without_attending_to_the_subject_is_said_to_matter():
    mover = row("agreement", "agreement", "0.1")
    assert mover["effect"] > 0.9 and mover["verdict"] == "matters for agreement" and "score" in mover["reason"]


@pytest.mark.parametrize(("kind", "true", "decoy"), [("in_context", "1.1", "1.0"), ("in_weights", "1.2", "1.3")])
def test_a_head_that_attends_as_one_that_answers_and_writes_nothing_has_no_name(kind, true, decoy):
    real, twin = row("conflict", kind, true), row("conflict", kind, decoy)
    assert twin["score"] == pytest.approx(real["score"], abs=1e-6) and real["score"] > 0.99
    assert twin["verdict"] == "" and "writes nothing that is read" in twin["reason"]
    assert real["verdict"] == kind and real["reason"] == ""


def test_memory_is_known_by_the_sign_of_what_it_writes_and_causes():
    memory, context = row("conflict", "in_weights", "1.2"), row("conflict", "in_context", "1.1")
    assert memory["writing"] == pytest.approx(-6.0, abs=0.1) and memory["effect"] == pytest.approx(-1.0, abs=0.01)
    assert context["writing"] == pytest.approx(10.0, abs=0.1) and context["effect"] == pytest.approx(1.0, abs=0.01)
    asked = row("conflict", "in_weights", "0.2")  # without it the context is no longer believed: the other sign
    assert asked["effect"] > 1 and asked["verdict"] == ""


def test_where_the_corruption_raises_the_metric_the_set_is_said_to_raise_it_too():
    sets = found("conflict")[1].sets.set_index("kind")
    mine = sets.loc["in_weights"]
    assert mine["heads"] == "1.2" and (mine["clean"], mine["ablated"]) == pytest.approx((4.0, 10.0), abs=0.01)
    assert sets.loc["in_context", "ablated"] == pytest.approx(-16.0, abs=0.01)


def test_kinds_that_no_score_decides_have_no_cutoff_of_it():
    _, scores = found("conflict")
    for kind in ("in_context", "in_weights"):
        assert finder(kind).score_cutoff is None and "score" not in scores.about["cutoffs"][kind]
        assert not scores.of(kind)["verdict"].str.startswith("attends like").any()


# What stands beside the verdicts


@pytest.mark.parametrize("kind", PUSHES)
def test_every_head_is_said_to_push_the_answer_that_it_writes(kind):
    table = found("conflict")[1].tables[PUSHES[kind]]
    assert len(table) == 8
    by_head = {f"{one.layer}.{one.head}": one._asdict() for one in table.itertuples()}
    named = table.assign(name=[f"{a}.{b}" for a, b in zip(table["layer"], table["head"], strict=True)]).set_index(
        "name"
    )
    assert set(by_head) == {f"{layer}.{head}" for layer in (0, 1) for head in range(4)}
    assert named["pushes"].to_dict() == {**dict.fromkeys(by_head, ""), "1.1": "context", "1.2": "memory"}
    assert named.loc["1.1", ["context", "memory"]].tolist() == pytest.approx([10, 0], abs=0.01)
    assert named.loc["1.2", ["context", "memory"]].tolist() == pytest.approx([0, 6], abs=0.01)
    shown = "1.1" if kind == "in_context" else "1.2"
    exact = row("conflict", kind, shown)["effect"]
    assert named.loc[shown, EFFECT] == pytest.approx(exact, abs=0.01), "nothing but a sum lies behind these heads"
    assert np.sign(named.loc[shown, EFFECT]) == finder(kind).sign
    assert named[EFFECT].drop(shown).abs().max() < 0.01


def test_what_heads_push_is_above_the_other_answers_and_is_said_where_it_is_sure():
    model = HookedTransformer(ModelConfig.decoder_only(n_layers=2, d_model=32, n_heads=4, d_vocab=60, n_ctx=8), seed=1)
    rows, other = torch.randint(2, 60, (2, 96, 5), generator=torch.Generator().manual_seed(0))
    answers, foils = [3, 4, 5] * 32, [6, 7, 8] * 32
    study = Study(model, {"consistent": PromptPairs.from_tokens(rows, other, answers, foils)}, ("END",))
    table = pushes(study).sort_values(["layer", "head"])
    direct = {token: study.writes("END", up=[[token]] * 96) for token in range(3, 9)}
    both = []
    for i, pair in enumerate(zip(answers, foils, strict=True)):
        rest = np.mean([direct[token][i] for token in range(3, 9) if token not in pair], axis=0)
        both.append([direct[token][i] - rest for token in pair])
    wanted = np.mean(both, axis=0).reshape(2, -1)
    np.testing.assert_allclose(table[["context", "memory"]].to_numpy().T, wanted, atol=1e-5)
    low, high = table["context − memory_low"], table["context − memory_high"]
    assert table["pushes"].tolist() == np.select([low > 0, high < 0], ["context", "memory"], "").tolist()
    assert 0 < (table["pushes"] == "").sum() < len(table) and ((table["context − memory"] > 0) & (low < 0)).any()


def test_of_given_pairs_it_is_told_how_often_the_context_wins():
    table = found("conflict")[1].tables[SHARES].set_index("prompts")
    assert table["context"].to_dict() == {"conflict": 1.0, "consistent": 0.0}
    accuracy = found("agreement")[1].tables[ACCURACY]
    assert accuracy["accuracy"].tolist() == [1.0] and accuracy["verdict"].tolist() == ["above chance"]


def test_accuracy_is_told_by_condition_over_all_prompts_of_the_split(smollm2, monkeypatch):
    task = load("agreement", smollm2, split="report", n=12, seed=3)
    said = np.where(np.array(task.labels["congruence"]) == "incongruent", -1.0, 1.0)
    said[np.array(task.labels["condition"]) == "object relative"] *= np.tile([1, -1], 24)
    monkeypatch.setattr("interp.heads.agreement.values_of", lambda task, model: said)
    some = task.select(range(0, len(task), 5))
    study = Study(smollm2, {"subject": some.pairs}, ("END",), some.labels, some.about)
    table = pd.DataFrame(finder("agreement").tables[ACCURACY](study))
    every = table[table["of"] == "all"].set_index(["condition", "congruence"])
    assert every["n_items"].tolist() == [12] * 5 and every["n_prompts"].sum() == len(task) > len(some)
    assert every.loc[("PP", "congruent"), "verdict"] == "above chance"
    assert every.loc[("PP", "incongruent"), "verdict"] == "below chance"
    assert every.loc[("object relative", "incongruent"), ["accuracy", "verdict"]].tolist() == [0.5, "cannot tell"]
    assert table[table["condition"] == "PP"].groupby("of")["n_prompts"].sum()["singular"] == 24
    assert table[table["condition"] == "none"]["of"].tolist()[-4:] == [
        f"{opening}, {number}" for opening in ("bare", "embedded") for number in ("singular", "plural")
    ]


def test_how_often_the_context_wins_is_told_by_template_and_for_every_control(smollm2, monkeypatch):
    some = ["France", "Spain", "Italy", "Japan", "Germany", "Poland", "Egypt", "Greece", "Austria", "Portugal"]
    facts = {"capital": some, "language": ["France", "Spain", "Italy", "Japan", "Poland", "Egypt"]}
    task = load("conflict", smollm2, split="report", n=4, seed=1, facts=facts)
    asked = []

    def values(task, model, side):
        asked.append((task.corruption, side))
        return np.where(np.array(task.labels["frame"]) == "story", 1.0, -1.0) * (1 if side == "clean" else -1)

    monkeypatch.setattr("interp.heads.conflict.values_of", values)
    some = task.select(range(0, len(task), 3))
    study = Study(smollm2, {"consistent": some.pairs}, ("END",), some.labels, some.about)
    table = pd.DataFrame(finder("in_context").tables[SHARES](study))
    corrupt = [(one, "corrupt") for one in ("consistent", "irrelevant", "unknown")]
    assert sorted(asked) == sorted([("consistent", "clean"), *corrupt])
    every = table[table["relation"] == "all"].set_index(["prompts", "template"])["context"]
    assert every["conflict", "story"] == 1.0 and every["conflict", "plain"] == 0.0
    assert every["unknown", "story"] == 0.0 and every["unknown", "all"] == pytest.approx(0.75, abs=0.05)


def test_a_share_that_all_items_agree_in_has_the_exact_interval_and_not_none():
    items = np.array([f"{i:02}" for i in range(20) for _ in range(2)])
    right, wrong = (share_above_zero(np.full(40, sign), items, "right") for sign in (2.0, -2.0))
    assert (right["right"], right["right_high"]) == (1.0, 1.0) and right["right_low"] == pytest.approx(0.832, abs=5e-4)
    assert (wrong["right"], wrong["right_low"]) == (0.0, 0.0) and wrong["right_high"] == pytest.approx(0.168, abs=5e-4)
    assert right["right_low"] ** 20 == pytest.approx(0.025), "as many right ones have half of what the level leaves"
    mixed = share_above_zero(np.tile([1.0, -1.0], 20), items, "right")
    assert (mixed["right"], mixed["n_items"], mixed["n_prompts"], mixed["mean"]) == (0.5, 20, 40, 0.0)


# Nothing to find


@pytest.mark.parametrize("kind", ["agreement", "in_weights"])
def test_a_few_random_models_with_shuffled_labels_have_no_such_heads(kind, placed):
    assert max(false_positives_of_task(kind, range(5), placed)) <= binomial_bound(5, ALPHA)


def test_the_count_would_see_a_broken_test(placed, monkeypatch):
    broken = lambda values, **options: (np.zeros(values.shape[1]), np.zeros(values.shape[1]))  # noqa: E731
    monkeypatch.setattr("interp.heads.rows.sign_flip", broken)
    rejected, _ = false_positives_of_task("in_weights", range(3), placed)
    assert rejected > binomial_bound(3, ALPHA)
