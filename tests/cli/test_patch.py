"""`interp patch`: pairs from options or a table, the grid as asked, and the same effects as `interp.patch`."""

from __future__ import annotations

import inspect
import json
import os
import signal

import numpy as np
import pytest

import interp
from interp.cli.patch import _named, _numbers, patch
from interp.errors import InputError
from interp.runs.store import RunStore
from tests.browser.serving import tiny_model

FAKE = """
import interp
from tests.browser.serving import tiny_model
interp.load = tiny_model
"""
NEVER = "\nimport interp\ndef never(*_, **__): raise SystemExit('loaded')\ninterp.load = never\n"
TEXTS = {"clean": "the cat sat on", "corrupt": "the mat sat on", "answer": "a", "foil": "cat"}
PAIR = [part for name, text in TEXTS.items() for part in (f"--{name}", text)]


def exact(site: str = "resid_pre", *arguments, **options) -> interp.Effects:
    model = tiny_model()
    return interp.patch(model, interp.PromptPairs.from_text(model, **TEXTS), site, *arguments, **options)


def cells(done) -> np.ndarray:
    return np.array([cell["effect"] for cell in json.loads(done.out)["cells"]])


def test_the_defaults_are_those_of_patch():
    ours, theirs = inspect.signature(patch).parameters, inspect.signature(interp.patch).parameters
    for name in ("direction", "window", "metric", "ungroup", "max_bytes"):
        assert ours[name].default == theirs[name].default, name
    assert tuple(ours["over"].default.split(",")) == theirs["over"].default


def test_a_run_is_stored_with_how_it_was_made_and_shown_again(run, tmp_path):
    done = run("patch", "tiny", *PAIR, "--site", "z", "--over", "layer,head", "--store", "my runs", code=FAKE)
    assert done.code == 0, done.err
    (info,) = RunStore(tmp_path / "my runs").list()
    stored = RunStore(tmp_path / "my runs").open(info.id)
    assert info.kind == "effects" and info.title == "patching z of tiny: denoise, 1 pair" and len(info.model_hash) == 64
    spec = stored.manifest["spec"]
    assert spec | {"analysis": "patch", "site": "z", "over": ["layer", "head"], "clean": [TEXTS["clean"]]} == spec
    assert set(stored.manifest["timings"]) == {"load", "patch", "hash"}
    np.testing.assert_allclose(stored.results().values, exact("z", ("layer", "head")).values, atol=1e-6)
    assert "answer: 'a'" in done.out and "differs" in done.out, "the pair is shown as it was taken"
    assert "corrupt: logit_diff" in done.out and "clean: logit_diff" in done.out and "largest of Effects(" in done.out
    assert f"stored as run {info.id} in my runs" in done.err and "app --store 'my runs'" in done.err
    shown = run("runs", "show", info.id, "--store", "my runs")
    assert shown.code == 0 and info.title in shown.out
    assert done.out[done.out.index("base run") :] in shown.out, "the stored tables are those that were printed"
    data = json.loads(run("runs", "show", info.id, "--store", "my runs", "--json").out)
    assert len(data["cells"]) == 12 and data["about"]["site"] == "z" and len(data["base"]) == len(data["source"]) == 1


def test_json_has_every_cell_and_the_run(run):
    done = run("patch", "tiny", *PAIR, "--store", "runs", "--json", code=FAKE)
    data = json.loads(done.out)
    assert set(data["cells"][0]) >= {"layer", "pos", "effect"} and data["about"]["metric"] == "logit_diff"
    np.testing.assert_allclose(cells(done), exact().values.values.ravel(), atol=1e-6)
    assert [one["id"] for one in json.loads(run("runs", "list", "--json").out)] == [data["run"]]


def test_a_plan_costs_nothing_and_stores_nothing(run, tmp_path):
    code = FAKE + "\nfrom interp.causal.plan import Plan\nPlan.run = None\n"
    done = run("patch", "tiny", *PAIR, "--plan", "--store", "runs", code=code)
    assert done.code == 0 and "3 layer × 4 pos" in done.out and "to compute" in done.out
    as_json = json.loads(run("patch", "tiny", *PAIR, "--plan", "--json", code=code).out)
    assert set(as_json) == {"cells", "skipped", "token_layers", "seconds", "peak_bytes"}
    assert as_json["cells"] + as_json["skipped"] == 12 and os.listdir(tmp_path) == []


def test_pairs_come_from_a_table_too(run, tmp_path):
    rows = ["clean,corrupt,answer,foil", "the cat sat on,the mat sat on,a,cat", "a mat sat,a cat sat,on,the"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    done = run("patch", "tiny", "--csv", "pairs.csv", "--store", "runs", code=FAKE)
    assert done.code == 0 and "… and 1 more pairs" in done.out
    (info,) = RunStore(tmp_path / "runs").list()
    stored = RunStore(tmp_path / "runs").open(info.id)
    assert stored.manifest["spec"]["csv"] == "pairs.csv" and info.title.endswith("2 pairs")
    found = stored.results().values
    np.testing.assert_allclose(found[0], exact().values[0], atol=1e-6)
    assert found.shape == (2, 3, 4) and np.isnan(found[1, :, 3]).all(), "the shorter prompt has no fourth token"


def test_options_given_several_times_are_several_pairs_and_one_answer_is_for_all(run):
    two = ["--clean", "the cat", "--clean", "a cat", "--corrupt", "the mat", "--corrupt", "a mat", "--answer", "on"]
    done = run("patch", "tiny", *two, "--metric", "prob", "--json", code=FAKE)
    assert done.code == 0 and len(json.loads(done.out)["base"]) == 2


def test_axes_are_restricted_and_positions_named(run):
    at = ["--at", "layer=0-1", "--at", "pos=1,-1"]
    done = run("patch", "tiny", *PAIR, *at, "--json", code=FAKE)
    np.testing.assert_allclose(
        cells(done), exact(at={"layer": [0, 1], "pos": [1, -1]}).values.values.ravel(), atol=1e-6
    )
    named = ["--position", "animal=cat", "--over", "layer,position", "--direction", "noise"]
    done = run("patch", "tiny", *PAIR, *named, "--json", code=FAKE)
    by_pos = exact(direction="noise").values.sel(pos=1).values.ravel()
    np.testing.assert_allclose(cells(done), by_pos, atol=1e-6)
    assert {cell["position"] for cell in json.loads(done.out)["cells"]} == {"animal"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("3", [3]),
        ("-1", [-1]),
        ("0,4,7", [0, 4, 7]),
        ("0-3", [0, 1, 2, 3]),
        ("0-1,5,-2", [0, 1, 5, -2]),
        ("subject", ["subject"]),
        ("subject:last", ["subject:last"]),
        ("to-do", ["to-do"]),
    ],
)
def test_places_are_numbers_ranges_or_names(text, found):
    assert _numbers(text) == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--clean is missing"),
        (["--clean", "x"], "--corrupt is missing"),
        (["--clean", "x", "--corrupt", "y"], "--answer is missing"),
        (["--csv", "pairs.csv", "--foil", "x"], "--csv holds the pairs, so --foil has no place"),
        ([*PAIR, "--at", "layer"], "--at 'layer' is not of the form layer=0-11"),
        ([*PAIR, "--at", "=3"], "--at '=3' is not of the form"),
        ([*PAIR, "--position", "cat"], "--position 'cat' is not of the form NAME=substring"),
        ([*PAIR, "--store", "file"], "Cannot write in file: file is no folder"),
        ([*PAIR, "--html", "."], "--html . is a folder"),
        ([*PAIR, "--out", "file"], "--out file is a file"),
        ([*PAIR, "--window", "two"], "--window"),
    ],
)
def test_a_mistake_is_said_before_anything_is_loaded(run, tmp_path, arguments, message):
    (tmp_path / "file").write_text("mine")
    done = run("patch", "tiny", *arguments, code=NEVER)
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1 and done.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*PAIR, "--site", "nonsense"], "nonsense"),
        ([*PAIR, "--over", "layer,head"], "head"),
        ([*PAIR, "--direction", "up"], "direction is 'up'"),
        ([*PAIR, "--metric", "nonsense"], "There is no metric 'nonsense'"),
        ([*PAIR, "--at", "layer=99"], "99"),
        ([*PAIR, "--position", "animal=dog", "--over", "layer,position"], "dog"),
        ([*PAIR[:2], "--corrupt", "the mat", *PAIR[4:]], "patching needs them to align"),
        (["--csv", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_what_only_the_model_can_tell_is_said_too_and_nothing_is_stored(run, tmp_path, arguments, message):
    done = run("patch", "tiny", *arguments, "--store", "runs", code=FAKE)
    assert done.code == 2 and message in done.err and done.err.startswith("error: ") and done.out == ""
    assert not (tmp_path / "runs").exists()


def test_a_page_and_the_bare_results_are_written_where_it_is_told(run, tmp_path):
    done = run("patch", "tiny", *PAIR, "--html", "page.html", "--out", "bare", code=FAKE)
    assert done.code == 0 and "page: page.html" in done.err and "saved in bare" in done.err
    assert "activation patching" in (tmp_path / "page.html").read_text()
    np.testing.assert_allclose(interp.Effects.load(tmp_path / "bare").values, exact().values, atol=1e-6)


def test_ctrl_c_leaves_the_store_whole_and_exits_with_130(run, begin, tmp_path):
    run("patch", "tiny", *PAIR, "--store", "runs", code=FAKE)
    before = os.listdir(tmp_path / "runs")
    slow = """
import time
from interp.causal.sweep import Sweep
def endless(self, report=None):
    print("inside", flush=True)
    time.sleep(60)
Sweep.run = endless
"""
    process = begin("patch", "tiny", *PAIR, "--store", "runs", "--json", code=FAKE + slow)
    assert process.stdout.readline() == "inside\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "stopped\n"
    assert os.listdir(tmp_path / "runs") == before and RunStore(tmp_path / "runs").check() == {}


def test_text_that_is_no_range_is_refused_only_where_it_has_no_value():
    with pytest.raises(InputError, match="is not of the form"):
        _named("layer=", "--at", "layer=0-11")
    assert _named("a=b=c", "--position", "NAME=substring") == ("a", "b=c")
