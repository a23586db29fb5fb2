"""What is finished is kept: a report that was stopped goes on, and a finished one runs nothing."""

from __future__ import annotations

import math

import pandas as pd
import pytest

import interp
import interp.heads.find as finding
from interp.report.claim import Missing
from interp.report.evidence import Evidence
from tests.report.conftest import IOI, ioi_pairs


class Stages:
    def __init__(self):
        self.every = []

    def __call__(self, stage, done, total):
        self.every.append(stage)

    @property
    def measured(self):
        return {stage for stage in self.every if stage.startswith("measuring ")}


def test_a_stopped_report_goes_on_where_it_was_and_gives_the_same(names, ioi_report, tmp_path, monkeypatch):
    seen = Stages()

    def stop(stage, done, total):
        seen(stage, done, total)
        if stage == "measuring indirect objects: three heads ablated together":
            raise KeyboardInterrupt

    call = {"n": 12, "pairs": ioi_pairs(names), "keep": tmp_path / "kept"}
    with pytest.raises(KeyboardInterrupt):
        interp.report(names.model, IOI, **call, progress=stop)
    assert any(stage.startswith("ioi: ") for stage in seen.every)

    monkeypatch.setattr(finding, "_search", lambda *_: pytest.fail("heads were looked for twice"))
    again = Stages()
    report = interp.report(names.model, IOI, **call, progress=again)
    stopped_at = "measuring indirect objects: three heads ablated together"
    assert stopped_at in again.measured and not again.measured & (seen.measured - {stopped_at})
    pd.testing.assert_frame_equal(report.claims, ioi_report.claims)

    third = Stages()
    interp.report(names.model, IOI, **call, progress=third)
    assert not third.measured and third.every[-1] == "claims"


STOPS = {
    "in the search": lambda stage, done, total: stage.startswith("ioi: logit difference") and done > 0,
    "behind the search": lambda stage, done, total: stage == "claims",
    "at the first further quantity": lambda stage, done, total: stage.startswith("measuring ") and not done,
    "behind it": lambda stage, done, total: stage.startswith("measuring ") and done,
    "at the random model": lambda stage, done, total: stage.startswith("measuring random model"),
    "at the last claim": lambda stage, done, total: stage == "claims" and done == total - 1,
}


@pytest.mark.parametrize("where", STOPS)
def test_wherever_a_report_is_stopped_it_ends_as_if_it_had_not_been(where, names, ioi_report, tmp_path):
    def stop(stage, done, total):
        if STOPS[where](stage, done, total):
            raise KeyboardInterrupt

    call = {"n": 12, "pairs": ioi_pairs(names), "keep": tmp_path / "kept"}
    with pytest.raises(KeyboardInterrupt):
        interp.report(names.model, IOI, **call, progress=stop)
    report = interp.report(names.model, IOI, **call)
    pd.testing.assert_frame_equal(report.claims, ioi_report.claims)
    pd.testing.assert_frame_equal(report.found.frame, ioi_report.found.frame)
    pd.testing.assert_frame_equal(report.found.sets, ioi_report.found.sets)
    for name, table in ioi_report.tables.items():
        pd.testing.assert_frame_equal(report.tables[name], table)


def test_another_seed_is_measured_anew(names, tmp_path):
    first, second = Stages(), Stages()
    call = {"n": 12, "pairs": ioi_pairs(names), "keep": tmp_path}
    interp.report(names.model, ["name_mover"], **call, progress=first)
    interp.report(names.model, ["name_mover"], **call, seed=1, progress=second)
    assert second.measured == first.measured != set()


def test_what_could_not_be_measured_is_tried_again_and_nan_survives(names, tmp_path):
    def evidence():
        found = interp.HeadScores(pd.DataFrame({"kind": []}), pd.DataFrame())
        return Evidence(names.model, found, 12, 0, folder=tmp_path, key="k")

    def fail():
        raise Missing("no such thing")

    with pytest.raises(Missing, match="no such thing"):
        evidence().once("a thing", fail)
    first = evidence().once("a thing", lambda: {"values": [1.0, math.nan], "n": 2})
    again = evidence().once("a thing", lambda: pytest.fail("measured twice"))
    assert first["n"] == again["n"] == 2 and again["values"][0] == 1.0 and math.isnan(again["values"][1])
