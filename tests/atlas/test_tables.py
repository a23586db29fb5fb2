"""The arithmetic of an atlas on scores made by hand: overlaps against chance, stability against resampling by loop."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from interp.atlas.stability import resample
from interp.atlas.tables import overlap_table, unexplained_table
from interp.heads.base import finder
from interp.results import HeadScores
from interp.results.heads import all_items, item_rows
from interp.sites import Head

N_ITEMS = 40


def scores(named: dict[str, list[tuple[int, int]]]) -> HeadScores:
    """Ten heads of a layer each; some are named."""
    rows = []
    for number, (kind, heads) in enumerate(named.items()):
        for head in range(10):
            row = {
                "kind": kind,
                "stack": "",
                "sublayer": "attn",
                "layer": 0,
                "head": head,
                "score": (head + number) % 10,
            }
            verdict = kind if (0, head) in heads else ""
            rows.append({**row, "effect": 0.1, "verdict": verdict, "reason": "", "control": 0.0, "p_corrected": 0.01})
    return HeadScores(pd.DataFrame(rows), pd.DataFrame(), {})


def test_overlap_is_counted_and_held_against_chance():
    a, b = [(0, 0), (0, 1), (0, 2)], [(0, 1), (0, 2), (0, 3), (0, 4)]
    table = overlap_table(scores({"induction": a, "sink": b, "name_mover": []}))
    row = table.set_index(["kind", "other"]).loc[("induction", "sink")]
    assert row["both"] == 2 and row["heads"] == "0.1 0.2" and row["jaccard"] == 2 / 5
    assert row["expected"] == pytest.approx(3 * 4 / 10)
    draws = [len(set(draw) & {0, 1, 2}) >= 2 for draw in combinations(range(10), 4)]
    assert row["p"] == pytest.approx(np.mean(draws))
    ranks = [pd.Series([(head + shift) % 10 for head in range(10)]).rank() for shift in (0, 1)]
    assert row["rank_correlation"] == pytest.approx(ranks[0].corr(ranks[1]))
    empty = table.set_index(["kind", "other"]).loc[("induction", "name_mover")]
    assert math.isnan(empty["p"]) and empty["jaccard"] == 0


def test_heads_that_matter_and_have_no_name_stand_by_their_largest_effect():
    found = scores({"name_mover": [], "s_inhibition": []})
    effects = {("name_mover", 1): 0.1, ("s_inhibition", 1): 0.9, ("name_mover", 2): 0.5, ("name_mover", 7): -0.7}
    rows = [
        {**row, "effect": effect, "verdict": "" if math.isnan(effect) else "matters for ioi"}
        for row in found.frame.to_dict("records")
        for effect in [effects.get((row["kind"], row["head"]), math.nan)]  # the others were not tested
    ]
    together = pd.DataFrame(columns=["task", "direction", "effect"])
    (rest,) = unexplained_table(HeadScores(pd.DataFrame(rows), pd.DataFrame(), {}), together).to_dict("records")
    assert rest["heads that matter and are not named"] == "0.1 0.7 0.2"


def with_items(
    effects: dict[int, np.ndarray], *, p: float = 0.001, supports: bool = True, named: bool = True
) -> HeadScores:
    """Name movers whose score and writing pass, with these effects by item."""
    limits = {"score": 0.3, "writing": 0.0, "effect": 0.05}
    rows, items = [], []
    for head, effect in effects.items():
        at = Head(0, head)
        row = {"kind": "name_mover", "stack": "", "sublayer": "attn", "layer": 0, "head": head, "score": 0.9}
        row |= {"writing": 1.0, "effect": effect.mean(), "control": 0.0, "p_corrected": p, "reason": ""}
        row["verdict"] = "name_mover" if named and effect.mean() >= limits["effect"] else ""
        rows.append({**row, "denoise_effect": 0.0, "denoise_control": 0.0, "denoise_p_corrected": 1.0})
        names = [f"item {i}" for i in range(len(effect))]
        half = effect if supports else 0 * effect
        for measure, values in (
            ("score", 0.9 + 0 * effect),
            ("noise", effect),
            ("mean", half),
            ("denoise", 0 * effect),
        ):
            items.append(item_rows("name_mover", at, measure, names, values))
        items.append(item_rows("name_mover", at, "writing", names, 1 + 0 * effect))
    about = {"cutoffs": {"name_mover": limits}, "alpha": 0.05}
    return HeadScores(pd.DataFrame(rows), pd.DataFrame(), about, items=all_items(items))


def test_a_firm_head_is_named_always_and_one_at_the_cutoff_half_of_the_time():
    noise = np.random.default_rng(0).normal(size=N_ITEMS)
    edge = 0.05 + 0.1 * (noise - noise.mean()) + 1e-12  # its mean lies on the cutoff
    found = resample(with_items({0: np.full(N_ITEMS, 0.5), 1: edge, 2: np.zeros(N_ITEMS)}), "name_mover")
    assert found.named == {"0.0", "0.1"}
    assert found.again["0.0"] == 1 and found.again["0.2"] == 0
    assert found.again["0.1"] == pytest.approx(0.5, abs=0.1)
    # Of the two that are named, one drops out in a share of resamples: the overlap is then 1/2.
    assert found.jaccard == pytest.approx(1 - 0.5 * (1 - found.again["0.1"])) and found.least == 0.5


def test_shares_of_resamples_are_those_of_a_plain_loop():
    effect = np.random.default_rng(1).exponential(0.045, size=N_ITEMS)
    found = resample(with_items({0: effect, 1: np.full(N_ITEMS, 0.5)}), "name_mover", n_resamples=4_000)
    generator = np.random.default_rng(99)
    loop = [generator.choice(effect, N_ITEMS).mean() >= 0.05 for _ in range(4_000)]
    assert found.again["0.0"] == pytest.approx(np.mean(loop), abs=0.03) and 0.6 < np.mean(loop) < 0.95
    # The other head is in every resample: in fewer than half, but in more than 2.5%, the overlap is one half.
    assert np.median(found.overlaps) == 1 and found.least == 0.5


@pytest.mark.parametrize("fault", ["p", "support", "verdict"])
def test_a_head_that_failed_otherwise_is_never_named(fault):
    firm = {0: np.full(N_ITEMS, 0.5)}
    options = {"p": {"p": 0.2}, "support": {"supports": False}, "verdict": {"named": False}}[fault]
    found = resample(with_items(firm, **options), "name_mover")
    assert not found.named and found.again == {"0.0": 0} and math.isnan(found.jaccard)
    assert resample(with_items(firm), "name_mover").again == {"0.0": 1}


def test_a_head_has_to_lie_above_its_baseline_by_the_margin():
    found = with_items({0: np.full(N_ITEMS, 0.5)})
    limits = {"name_mover": {**found.about["cutoffs"]["name_mover"], "margin": 0.1}}
    for baseline, named in ((0.79, {"0.0"}), (0.81, set())):  # the score is 0.9
        frame = found.frame.assign(baseline=baseline)
        again = resample(replace(found, frame=frame, about={**found.about, "cutoffs": limits}), "name_mover")
        assert again.named == named


def test_without_items_there_is_nothing_to_say():
    found = resample(scores({"induction": [(0, 0)]}), "induction")
    assert math.isnan(found.jaccard) and math.isnan(found.least) and not found.again


def test_the_hand_made_kind_asks_for_what_the_finder_asks():
    one = finder("name_mover")
    assert one.test.decisive == ("noise", "denoise") and "mean" in one.test.supporting and one.sign == 1
