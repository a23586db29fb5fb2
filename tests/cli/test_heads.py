"""`interp heads` stores its run, says how to open it, and leaves the store whole whatever happens to it."""

from __future__ import annotations

import inspect
import json
import os
import signal

import pytest

import interp
from interp.cli.heads import heads
from interp.runs.store import RunStore

KIND = ("--kind", "induction")


def test_the_defaults_are_those_of_find_heads():
    ours, theirs = inspect.signature(heads).parameters, inspect.signature(interp.find_heads).parameters
    for name in ("n", "screen", "top", "alpha", "corpus", "seed"):
        assert ours[name].default == theirs[name].default, name


def test_a_run_is_stored_with_how_it_was_made_and_the_way_to_open_it(run, fake, tmp_path):
    done = run("heads", "tiny", *KIND, "--n", 9, "--seed", 3, "--store", "my runs", code=fake)
    assert done.code == 0 and "induction" in done.out
    (info,) = RunStore(tmp_path / "my runs").list()
    stored = RunStore(tmp_path / "my runs").open(info.id)
    assert stored.manifest["spec"] == {
        "model": "tiny",
        "kinds": ["induction"],
        "n": 9,
        "screen": "attention",
        "top": 8,
        "alpha": 0.05,
        "seed": 3,
    }
    assert info.title == "heads of tiny: induction" and info.seed == 3 and len(info.model_hash) == 64
    assert set(stored.manifest["timings"]) == {"load", "find", "hash"}
    assert f"stored as run {info.id} in my runs" in done.err
    assert "app --store 'my runs'" in done.err and f"runs show {info.id} --store 'my runs'" in done.err
    shown = run("runs", "show", info.id, "--store", "my runs")
    assert shown.code == 0 and done.out in shown.out, "the stored tables are those that were printed"


def test_json_has_the_run_and_its_tables(run, fake):
    done = run("heads", "tiny", *KIND, "--store", "runs", "--json", code=fake)
    data = json.loads(done.out)
    assert len(data["heads"]) == 12 and data["sets"][0]["kind"] == "induction" and data["about"]["model"] == "tiny"
    assert data["heads"][0]["writing"] is None, "what was not measured is null"
    assert [one["id"] for one in json.loads(run("runs", "list", "--json").out)] == [data["run"]]


def test_without_a_store_nothing_is_stored(run, fake, tmp_path):
    assert run("heads", "tiny", *KIND, code=fake).code == 0
    assert os.listdir(tmp_path) == []


def test_a_store_that_refuses_is_said_before_the_model_is_loaded(run, fake, tmp_path):
    (tmp_path / "file").write_text("mine")
    code = fake + "\ndef never(*_, **__): raise SystemExit('loaded')\ninterp.load = never\n"
    done = run("heads", "tiny", "--store", "file", code=code)
    assert done.code == 2 and "file is no folder" in done.err and "loaded" not in done.err


def test_an_unknown_kind_is_said_before_the_model_is_loaded(run, fake):
    code = fake + "\ndef never(*_, **__): raise SystemExit('loaded')\ninterp.load = never\n"
    done = run("heads", "tiny", "--kind", "nonsense", code=code + "interp.cli.heads._kinds = real_kinds\n")
    assert done.code == 2 and "Known are" in done.err and "loaded" not in done.err


def test_what_was_found_is_shown_also_where_the_disk_is_full(run, fake, tmp_path):
    run("heads", "tiny", *KIND, "--store", "runs", code=fake)
    before = os.listdir(tmp_path / "runs")
    full = "\nimport errno, os\ndef full(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\nos.fsync = full\n"
    done = run("heads", "tiny", *KIND, "--store", "runs", code=fake + full)
    assert done.code == 1, "a full disk is no mistake of the user's"
    assert "induction" in done.out and done.err.count("\n") == 1
    assert "Cannot store the run in runs: No space left on device. The store is as it was" in done.err
    assert os.listdir(tmp_path / "runs") == before and RunStore(tmp_path / "runs").check() == {}


SLOW_FINDER = """
import time
def slow(model, kinds, *, progress, **settings):
    print("inside", flush=True)
    for i in range(600):
        progress("looking", i, 600)
        time.sleep(0.1)
interp.find_heads = slow
"""
SLOW_SAVE = """
import time
from interp.results import HeadScores
real = HeadScores.save
def slow(self, path):
    real(self, path)
    print("inside", flush=True)
    time.sleep(60)
HeadScores.save = slow
"""


@pytest.mark.parametrize("slow", [SLOW_FINDER, SLOW_SAVE], ids=["while finding", "while saving"])
def test_ctrl_c_leaves_the_store_whole_and_exits_with_130(run, begin, fake, tmp_path, slow):
    run("heads", "tiny", *KIND, "--store", "runs", code=fake)
    before = os.listdir(tmp_path / "runs")
    process = begin("heads", "tiny", *KIND, "--store", "runs", code=fake + slow)
    assert process.stdout.readline() == "inside\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "stopped\n"
    assert os.listdir(tmp_path / "runs") == before and RunStore(tmp_path / "runs").check() == {}
