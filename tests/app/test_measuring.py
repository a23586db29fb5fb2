"""The job that the Atlas starts stores a run that the store can open."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from serving import tiny_scores

from app import measuring
from app.jobs import Job, Jobs
from app.store import run_store
from interp.errors import StorageError


def test_heads_are_found_and_stored(runs, monkeypatch):
    job, stages = Job("one", 1), []
    monkeypatch.setattr(job, "report", lambda *stage: stages.append(stage[0]))
    monkeypatch.setattr(
        "interp.find_heads", lambda model, kinds, n, keep, progress: tiny_scores(model.cfg.model_name), raising=False
    )
    run_id = measuring.measure_heads("tiny", ["induction"], job)
    run = run_store().open(run_id)
    assert run.results().kinds == ["previous_token", "induction"]
    assert run.manifest["spec"] == {"analysis": "find_heads", "model": "tiny", "kinds": ["induction"], "n": 32}
    assert stages == ["loading the model", "storing"] and run_store().list()[0].id == run_id


def test_a_store_that_cannot_be_written_is_said_before_anything_runs(runs, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTERP_STORE", str(tmp_path / "file"))
    monkeypatch.setattr("interp.find_heads", None, raising=False)
    with pytest.raises(StorageError, match="Cannot write"):
        measuring.measure_heads("tiny", ["induction"], Job("one", 1))


def test_a_cancel_does_not_wait_for_the_next_report(runs, monkeypatch):
    started = threading.Event()

    def endless(model, kinds, *, n, keep, progress):
        while True:
            torch.ones(2) + 1
            started.set()

    monkeypatch.setattr("interp.find_heads", endless, raising=False)
    before = len(run_store().list())
    job = Jobs().start("one", lambda job: measuring.measure_heads("tiny", ["induction"], job))
    assert started.wait(10)
    job.cancel()
    until = time.monotonic() + 1
    while job.state == "running" and time.monotonic() < until:
        time.sleep(0.01)
    assert job.state == "cancelled" and len(run_store().list()) == before


def test_a_cancelled_search_goes_on_from_what_it_finished_and_leaves_nothing_behind(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    kept: list = []

    def find(model, kinds, *, n, keep, progress):
        kept.append((keep, n, sorted(one.name for one in keep.iterdir()) if keep.exists() else []))
        keep.mkdir(parents=True, exist_ok=True)
        (keep / "part").mkdir(exist_ok=True)
        progress("second part", len(kept) - 1, 2)
        return tiny_scores(model.cfg.model_name)

    monkeypatch.setattr("interp.find_heads", find, raising=False)
    cancelled = Job("one", 1)
    report = cancelled.report

    def cancel_in_the_second_part(stage, done, total):
        if stage == "second part":
            cancelled.cancel()
        report(stage, done, total)

    monkeypatch.setattr(cancelled, "report", cancel_in_the_second_part)
    cancelled.run(lambda job: measuring.measure_heads("tiny", ["name_mover", "sink"], job, n=16))
    assert cancelled.state == "cancelled"
    run_id = measuring.measure_heads("tiny", ["sink", "name_mover"], Job("one", 2), n=16)
    (first, n, before), (second, _, after) = kept
    assert first == second and n == 16 and before == [] and after == ["part"]
    assert not first.exists() and run_store().open(run_id).manifest["spec"]["n"] == 16
    measuring.measure_heads("tiny", ["sink", "name_mover"], Job("one", 3), n=17)
    assert kept[2][0] != first


def test_the_panel_begins_with_the_basic_kinds_and_warns_of_slow_ones(opened):
    at = opened("atlas")
    (kinds,) = at.multiselect
    assert kinds.value == ["previous_token", "duplicate_token", "induction", "sink"]
    assert "task coreference · coreference" in kinds.options and "pattern · sink" in kinds.options
    warned = "What is finished is kept when you cancel"
    assert not any(warned in element.proto.body for element in at.get("html"))
    kinds.select("coreference").run()
    assert any(warned in element.proto.body for element in at.get("html"))
