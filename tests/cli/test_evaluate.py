"""`interp evaluate`: the same numbers as `interp.evaluate`, printed, stored and shown again."""

from __future__ import annotations

import inspect
import json

import pytest

import interp
from interp.cli.evaluate import evaluate
from interp.readers import read_blimp
from interp.runs.store import RunStore
from tests.browser.serving import tiny_model

FAKE = """
import interp
from tests.browser.serving import tiny_model
interp.load = tiny_model
"""
NEVER = "\nimport interp\ndef never(*_, **__): raise SystemExit('loaded')\ninterp.load = never\n"
PAIRS = [("the cat sat", "cat the sat"), ("a mat sat on the cat", "a mat on sat the cat"), ("the mat", "mat the")]
BLIMP = "".join(
    json.dumps({"sentence_good": good, "sentence_bad": bad, "UID": "order", "pairID": str(i)}) + "\n"
    for i, (good, bad) in enumerate(PAIRS)
)
WINO = "sentid\tsentence\ncat.mat.0.male.txt\tthe cat sat\ncat.mat.0.female.txt\tthe mat sat\n"
FACTS = json.dumps([{"prompt": "the cat", "subject": "cat", "attribute": "sat", "relation_id": "P1"}])


@pytest.fixture
def files(tmp_path):
    for name, text in (("b.jsonl", BLIMP), ("w.tsv", WINO), ("f.json", FACTS)):
        (tmp_path / name).write_text(text)


def test_the_defaults_are_those_of_evaluate():
    ours, theirs = inspect.signature(evaluate).parameters, inspect.signature(interp.evaluate).parameters
    assert ours["batch"].default == theirs["batch_size"].default
    assert all(ours[name].default == theirs[name].default for name in ("bos", "seed"))


def test_accuracy_is_printed_with_its_interval_stored_and_shown_again(run, files, tmp_path):
    arguments = ["--store", "runs", "--html", "page.html", "--out", "bare", "--batch", "2"]
    done = run("evaluate", "tiny", "--blimp", "b.jsonl", *arguments, code=FAKE)
    assert done.code == 0, done.err
    expected = interp.evaluate(tiny_model(), read_blimp(tmp_path / "b.jsonl"))
    value, low, high = expected.value()
    assert f"{value:.3f} ({low:.3f} to {high:.3f})" in done.out and "order" in done.out
    assert "stored as run" in done.err and "3 lines read, 0 skipped" in " ".join(done.out.split())
    (info,) = RunStore(tmp_path / "runs").list()
    stored = RunStore(tmp_path / "runs").open(info.id)
    assert info.kind == "evaluation" and info.title == "minimal pairs on tiny"
    assert stored.results().value() == pytest.approx((value, low, high))
    assert stored.manifest["spec"]["files"] == ["b.jsonl"] and len(stored.manifest["spec"]["sha256"][0]) == 64
    shown = run("runs", "show", info.id)
    assert shown.code == 0 and f"{value:.3f} ({low:.3f} to {high:.3f})" in shown.out
    assert len(json.loads(run("runs", "show", info.id, "--json").out)["rows"]) == 3
    assert (tmp_path / "page.html").exists() and (tmp_path / "bare" / "rows.parquet").exists()


@pytest.mark.parametrize(
    ("option", "file", "measure"), [("--winogender", "w.tsv", "male_minus_female"), ("--facts", "f.json", "top1")]
)
def test_every_kind_of_file_is_taken(run, files, option, file, measure):
    done = run("evaluate", "tiny", option, file, code=FAKE)
    assert done.code == 0, done.err
    assert measure in done.out and "skipped" in done.out


def test_json_has_the_groups_the_rows_and_the_run(run, files, tmp_path):
    (tmp_path / "c.jsonl").write_text(BLIMP.replace("order", "other"))
    done = run("evaluate", "tiny", "--blimp", "b.jsonl", "--blimp", "c.jsonl", "--json", code=FAKE)
    data = json.loads(done.out)
    assert [one["group"] for one in data["groups"]] == ["", "order", "other"] and len(data["rows"]) == 6
    assert data["run"] is None and data["about"]["files"] == ["b.jsonl", "c.jsonl"]


def test_malformed_lines_are_refused_or_skipped_and_said(run, files, tmp_path):
    (tmp_path / "b.jsonl").write_text(BLIMP + "{broken\n" * 12)
    done = run("evaluate", "tiny", "--blimp", "b.jsonl", code=NEVER)
    assert done.code == 2 and "b.jsonl, line 4: it is not JSON" in done.err and "--skip-bad" in done.err
    done = run("evaluate", "tiny", "--blimp", "b.jsonl", "--skip-bad", code=FAKE)
    assert done.code == 0 and "skipped 12 of 15 lines" in done.err and "line 13: it is not JSON" in done.err
    assert "line 14" not in done.err and "2 more problems" in done.err and "12 skipped" in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give files of one kind"),
        (["--blimp", "b.jsonl", "--facts", "f.json"], "Give files of one kind"),
        (["--blimp", "none.jsonl"], "There is no file none.jsonl"),
        (["--blimp", "w.tsv"], "w.tsv, line 1: it is not JSON"),
        (["--winogender", "b.jsonl"], "the header should name sentid and sentence"),
        (["--blimp", "b.jsonl", "--html", "."], "--html . is a folder"),
    ],
)
def test_a_mistake_is_said_before_anything_is_loaded(run, files, arguments, message):
    done = run("evaluate", "tiny", *arguments, code=NEVER)
    assert done.code == 2 and message in done.err and done.out == ""


def test_an_impossible_batch_is_said(run, files):
    done = run("evaluate", "tiny", "--blimp", "b.jsonl", "--batch", "0", code=FAKE)
    assert done.code == 2 and "batch_size is 0" in done.err
