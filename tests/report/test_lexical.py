"""Claims on successors, retrieval, related words and functions: what was planted holds, and what was not does not."""

from __future__ import annotations

from functools import cache

import pandas as pd
import pytest

import interp
from interp.report.evidence import Evidence
from interp.report.lexical import _classes
from tests.heads.test_lexical_finders import counting, finding, relating, showing

NOISE = 0.005  # without any every item gives the same, and nothing can be told


@cache
def reported(circuit):
    model, pairs, found = circuit(NOISE)
    return interp.report(model, found=found, pairs={"pairs": pairs})


def row(report, id: str) -> dict:
    return report.claims.set_index("id").loc[id].to_dict()


@pytest.mark.parametrize(
    ("circuit", "holds", "fails"),
    [
        (counting, ["successor.score", "successor.exists"], []),
        (finding, ["retrieval.score", "retrieval.some", "retrieval.exists", "retrieval.joint"], ["retrieval.few"]),
        (relating, ["score", "on_average", "exists"], ["few"]),
        (showing, ["function_vector.score", "function_vector.exists"], []),
    ],
)
def test_planted_heads_are_claimed_as_they_are(circuit, holds, fails):
    report = reported(circuit)
    kind = report.found.kinds[0]
    for ids, verdict in ((holds, "holds"), (fails, "does not hold")):
        for id in ids:
            full = id if "." in id else f"{kind}.{id}"
            mine = row(report, full)
            assert mine["verdict"] == verdict, (full, mine)


def test_heads_that_look_at_the_needle_are_counted_with_and_without_the_first_token():
    report = reported(finding)
    mine = row(report, "retrieval.few")
    assert mine["value"] == pytest.approx(2 / 8) and mine["note"].startswith("2 of 8 heads; with the first token")


def test_relatedness_over_all_heads_is_the_mean_of_what_each_gains():
    report = reported(relating)
    scores = report.found.of("semantic_relation")["score"]
    mine = row(report, "semantic_relation.on_average")
    assert mine["value"] == pytest.approx(scores.mean(), abs=1e-6) and "unrelated in its place" in mine["note"]
    assert row(report, "semantic_relation.few")["value"] == pytest.approx((scores >= 0.05).mean())


def test_classes_are_counted_by_what_their_ordinals_allow_to_say():
    model, _, found = counting(NOISE)
    rows = found.of("successor")
    best = rows.loc[rows["score_select"].idxmax()]
    shares = {"all": 0.8, "a": 1.0, "b": 0.6, "c": 0.1, "n": "a 20, b 10, c 20"}
    table = pd.DataFrame([{"layer": best["layer"], "head": best["head"], **shares}])
    tables = {"successor: share of successors by class": table}
    mine = _classes(Evidence(model, interp.HeadScores(found.frame, found.sets, found.about, tables), 12, 0))
    assert (mine.low, mine.value, mine.high) == (1, 2, 2) and mine.note.endswith(": a 1.00, b 0.60, c 0.10")


def test_what_was_not_measured_is_said():
    report = reported(counting)
    mine = row(report, "successor.classes")
    assert mine["verdict"] == "cannot tell" and "not say which class" in mine["why"]
    accuracy = row(report, "succession.accuracy")
    assert accuracy["value"] == 1 and accuracy["verdict"] == "cannot tell", "twelve of twelve do not show nine in ten"
