"""Where every item gave the same, nothing is certain: a share has its exact interval, anything else has none."""

from __future__ import annotations

from fractions import Fraction
from math import comb, isnan

import numpy as np
import pandas as pd
import pytest

import interp
from interp.report.claim import CANNOT_TELL, DOES_NOT_HOLD, HOLDS, Measured, judged
from interp.report.evidence import Evidence
from interp.report.intervals import EXACT, NO_SPREAD, clopper_pearson, from_items, of_cells, of_items

ITEMS = [f"{i:03}" for i in range(50)]


def tail(k: int, n: int, p: float) -> Fraction:
    """P(at least k of n), without rounding."""
    share = Fraction(p)
    return sum((comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(k, n + 1)), Fraction(0))


@pytest.mark.parametrize(("right", "n"), [(1, 2), (7, 12), (1, 50), (49, 50), (30, 200)])
def test_beyond_an_end_what_was_seen_has_less_than_a_fortieth(right, n):
    low, high = clopper_pearson(right, n)
    assert low < right / n < high
    assert tail(right, n, low - 1e-9) < Fraction(1, 40) < tail(right, n, low + 1e-9)
    assert 1 - tail(right + 1, n, high + 1e-9) < Fraction(1, 40) < 1 - tail(right + 1, n, high - 1e-9)
    mirrored = clopper_pearson(n - right, n)
    assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))


def test_all_and_none_of_fifty():
    assert clopper_pearson(50, 50) == (pytest.approx(0.025 ** (1 / 50)), 1.0)
    assert clopper_pearson(0, 50) == (0.0, pytest.approx(1 - 0.025 ** (1 / 50)))
    assert round(clopper_pearson(50, 50)[0], 3) == 0.929


@pytest.mark.parametrize(
    ("right", "n", "cutoff", "verdict"),
    [
        (True, 50, 0.9, HOLDS),
        (True, 50, 0.95, CANNOT_TELL),
        (True, 10, 0.9, CANNOT_TELL),
        (False, 50, 0.1, DOES_NOT_HOLD),
        (False, 20, 0.1, CANNOT_TELL),
    ],
)
def test_a_share_that_is_the_same_for_every_item_is_judged_by_the_exact_interval(right, n, cutoff, verdict):
    measured = from_items(of_items(np.full(n, right), ITEMS[:n]), "of prompts")
    assert judged(measured, "≥", cutoff) == verdict and EXACT in measured.note


def test_prompts_of_an_item_are_one_item():
    value, low, _, n = of_items(np.ones(100), [item for item in ITEMS for _ in range(2)])
    assert (value, n) == (1, 50) and low == clopper_pearson(50, 50)[0]


@pytest.mark.parametrize(
    ("values", "share"), [(np.full(50, 0.5), True), (np.zeros(50), False), (np.full(50, 3.0), False)]
)
def test_what_is_the_same_for_every_item_and_no_share_of_all_or_nothing_has_no_interval(values, share):
    found = of_items(values, ITEMS, share=share)
    assert found[0] == values[0] and isnan(found[1]) and isnan(found[2])
    measured = from_items(found, "logits")
    assert NO_SPREAD in measured.note and judged(measured, "≥", -1) == CANNOT_TELL


def test_a_ratio_that_is_whole_for_every_item_counts_as_one():
    under = np.arange(1.0, 51.0)
    assert of_items(under, ITEMS, divisor=under)[1:3] == list(clopper_pearson(50, 50))
    assert all(isnan(end) for end in of_items(2 * under, ITEMS, divisor=under)[1:3])


def test_what_varies_keeps_its_bootstrap_interval():
    values = (np.arange(50) % 5 > 0).astype(float)
    measured = from_items(of_items(values, ITEMS), "of prompts")
    assert measured.low < 0.8 < measured.high and measured.note == ""


def test_cells_have_the_same_intervals_one_by_one():
    values = np.stack([np.ones(50), np.zeros(50), np.full(50, 0.3), np.arange(50) / 50], axis=1)
    values[:10, 0] = np.nan
    low, high = of_cells(values)
    assert (low[0], high[0]) == clopper_pearson(40, 40) and (low[1], high[1]) == clopper_pearson(0, 50)
    assert np.isnan([low[2], high[2]]).all()
    assert [low[3], high[3]] == of_items(values[:, 3], ITEMS)[1:3]


@pytest.fixture
def column(names):
    def ask(kind: str, name: str, value: float, width: float = 0.0) -> Measured:
        row = {"kind": kind, "stack": "", "sublayer": "attn", "layer": 0, "head": 1, "verdict": "", "reason": ""}
        row |= {"score": 0.5, name: value, f"{name}_low": value - width, f"{name}_high": value + width}
        about = {"tasks": {"ioi": {"n_items": {"report": 50}}}}
        found = interp.HeadScores(pd.DataFrame([row]), pd.DataFrame(), about)
        return Evidence(names.model, found, 20, 0).column(kind, "0.1", name)

    return ask


def test_scores_of_heads_are_shares_and_are_treated_as_such(column):
    mine = column("name_mover", "score", 1.0)
    assert (mine.low, mine.high) == clopper_pearson(50, 50) and EXACT in mine.note
    assert column("previous_token", "score", 0.0).high == clopper_pearson(0, 20)[1]
    assert isnan(column("name_mover", "score", 0.5).low)
    assert isnan(column("backup", "score", 0.0).low), "the rise of an effect is no share of anything counted"
    assert column("name_mover", "score", 0.5, 0.1).low == pytest.approx(0.4)


def test_effects_in_shares_are_treated_so_and_those_in_nats_have_none(column):
    assert column("name_mover", "effect", 1.0).low == clopper_pearson(50, 50)[0]
    assert isnan(column("previous_token", "effect", 1.0).low) and NO_SPREAD in column("induction", "effect", 1.0).note
    assert isnan(column("name_mover", "writing", 0.0).low)
