"""Heads of a fact with something else swapped: the largest effect of those that are named."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

import interp
from interp.report.claim import Missing
from interp.report.claims import EVERY
from interp.report.evidence import Evidence

CLAIM = next(claim for claim in EVERY if claim.id == "fact_recall.not_the_relation")
TABLE = "fact_recall: effects by corruption"


@pytest.fixture
def evidence(names):
    row = {"kind": "fact_recall", "stack": "", "sublayer": "attn", "layer": 2, "score": 0.5}
    named = [{"head": 0, "role": "subject"}, {"head": 1, "role": "subject"}, {"head": 2, "role": "mixed"}]
    rows = [{**row, **one, "verdict": f"fact_recall ({one['role']})"} for one in named]
    rows.append({**row, "head": 3, "role": "subject", "verdict": "attends like fact_recall"})
    effects = [("2.0", 0.01), ("2.1", 0.03), ("2.2", 0.5), ("2.3", 0.9)]
    base = {"kind": "fact_recall", "corruption": "relation", "direction": "noise", "n_items": 30}
    table = [{**base, "head": h, "effect": x, "effect_low": x - 0.01, "effect_high": x + 0.01} for h, x in effects]
    table += [{**one, "corruption": "subject", "effect": 0.7} for one in table]
    table += [{**one, "direction": "denoise", "effect": 0.8} for one in table[:4]]
    found = interp.HeadScores(pd.DataFrame(rows), pd.DataFrame(), {}, {TABLE: pd.DataFrame(table)})
    return Evidence(names.model, found, 30, 0)


def test_it_is_the_largest_of_the_named_heads_of_the_role(evidence):
    measured = CLAIM.measure(evidence)
    assert (measured.value, measured.low, measured.n_items) == (0.03, pytest.approx(0.02), 30)
    assert measured.note == "2.1, the largest of 2.0, 2.1"


def test_without_the_table_or_a_named_head_it_cannot_be_told(evidence):
    with pytest.raises(Missing, match="relation swapped were not measured"):
        CLAIM.measure(replace(evidence, found=replace(evidence.found, tables={})))
    nameless = evidence.found.frame.assign(verdict="")
    with pytest.raises(Missing, match="no head is called fact_recall"):
        CLAIM.measure(replace(evidence, found=replace(evidence.found, frame=nameless)))
