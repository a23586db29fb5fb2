"""`interp lens`: the same predictions as `interp.lens`, printed, stored and shown again."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

import interp
from interp.cli.lens import lens
from interp.runs.store import RunStore
from tests.browser.serving import tiny_model

FAKE = """
import interp
from tests.browser.serving import tiny_model
interp.load = tiny_model
"""
NEVER = "\nimport interp\ndef never(*_, **__): raise SystemExit('loaded')\ninterp.load = never\n"


def test_the_defaults_are_those_of_lens():
    ours, theirs = inspect.signature(lens).parameters, inspect.signature(interp.lens).parameters
    assert ours["kind"].default == theirs["kind"].default and ours["k"].default == theirs["k"].default


def test_a_lens_is_printed_stored_and_shown_again(run, tmp_path):
    arguments = ["--pin", "mat", "--pin", "on", "--store", "runs", "--html", "page.html", "--out", "bare"]
    done = run("lens", "tiny", "the cat sat", *arguments, code=FAKE)
    assert done.code == 0, done.err
    assert "rank of 'mat'" in done.out and "need not be used" in done.out and "stored as run" in done.err
    assert "KL(final ‖ layer) in nats" in done.out
    (info,) = RunStore(tmp_path / "runs").list()
    stored = RunStore(tmp_path / "runs").open(info.id)
    assert info.kind == "lens" and info.title == "logit lens of tiny: the cat sat"
    expected = interp.lens(tiny_model(), "the cat sat", pins=["mat", "on"])
    np.testing.assert_allclose(stored.results().frame["kl"], expected.frame["kl"], atol=1e-5)
    assert stored.manifest["spec"]["pins"] == ["mat", "on"]
    shown = run("runs", "show", info.id)
    assert shown.code == 0 and "rank of 'mat'" in shown.out and "need not be used" in shown.out
    assert len(json.loads(run("runs", "show", info.id, "--json").out)["places"]) == 3 * 4
    assert (tmp_path / "page.html").exists() and (tmp_path / "bare" / "pins.parquet").exists()


def test_json_has_every_place_and_the_run(run):
    done = run("lens", "tiny", "the cat", "--pin", "mat", "--json", code=FAKE)
    data = json.loads(done.out)
    assert len(data["places"]) == len(data["pins"]) == 2 * 4 and data["run"] is None
    assert data["pins"][0]["pin"] == "mat" and len(data["tokens"]) == 2 * 4 * 5


def test_a_tuned_lens_is_taken_from_its_folder(run, tmp_path):
    words = [[2, 3, 4, 5, 6, 7] * 4, [7, 6, 5, 4, 3, 2] * 4, [2, 4, 6] * 8]
    interp.TunedLens.fit(tiny_model(), words, rank=4, steps=2, n_tokens=32).save(tmp_path / "fitted")
    done = run("lens", "tiny", "the cat", "--kind", "tuned", "--lens", "fitted", code=FAKE)
    assert done.code == 0, done.err
    assert "tuned lens of tiny" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "tuned"], "--kind tuned and --lens FOLDER go together"),
        (["--lens", "somewhere"], "--kind tuned and --lens FOLDER go together"),
        (["--html", "."], "--html . is a folder"),
    ],
)
def test_a_mistake_is_said_before_anything_is_loaded(run, arguments, message):
    done = run("lens", "tiny", "the cat", *arguments, code=NEVER)
    assert done.code == 2 and message in done.err and done.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pin", "the cat"], "is 2 tokens"),
        (["--kind", "deep"], "kind is 'deep'"),
        (["--pos", "7"], "There is no position 7"),
        (["--k", "99"], "k is 99"),
    ],
)
def test_what_only_the_model_can_tell_is_said_too(run, tmp_path, arguments, message):
    done = run("lens", "tiny", "the cat", *arguments, "--store", "runs", code=FAKE)
    assert done.code == 2 and message in done.err and not (tmp_path / "runs").exists()


def test_a_lens_is_fitted_kept_stored_and_used(run, tmp_path):
    (tmp_path / "texts").mkdir()
    for i, words in enumerate(["the cat sat on the mat " * 6, "on the mat sat a cat " * 6, "a cat on a mat " * 6]):
        (tmp_path / "texts" / f"{i}.txt").write_text(words)
    arguments = ["--steps", "2", "--rank", "4", "--n-tokens", "40", "--corpus", "texts", "--keep", "kept"]
    done = run("tune", "tiny", *arguments, "--store", "runs", "--out", "fitted", "--html", "page.html", code=FAKE)
    assert done.code == 0, done.err
    assert "Not converged" in done.out and "still falling" in done.out and (tmp_path / "page.html").exists()
    assert len(list((tmp_path / "kept").iterdir())) == 3
    (info,) = RunStore(tmp_path / "runs").list()
    assert info.kind == "tuned_lens" and info.model_hash
    shown = run("runs", "show", info.id)
    assert shown.code == 0 and "Not converged" in shown.out
    used = run("lens", "tiny", "the cat", "--kind", "tuned", "--lens", "fitted", code=FAKE)
    assert used.code == 0 and "Not converged" in used.out
    further = run("tune", "tiny", *arguments, "--start", "fitted", "--json", code=FAKE)
    assert further.code == 0 and json.loads(further.out)["about"]["steps_in_all"] == 4
