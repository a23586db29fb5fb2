"""`interp attribute`: the same sum as `interp.logit_attribution`, printed with its check, stored and shown again."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

import interp
from interp.cli.attribute import attribute
from interp.runs.store import RunStore
from tests.browser.serving import tiny_model

FAKE = """
import interp
from tests.browser.serving import tiny_model
interp.load = tiny_model
"""
NEVER = "\nimport interp\ndef never(*_, **__): raise SystemExit('loaded')\ninterp.load = never\n"
ASKED = ["--answer", "mat", "--foil", "on"]


def test_the_defaults_are_those_of_logit_attribution():
    ours, theirs = inspect.signature(attribute).parameters, inspect.signature(interp.logit_attribution).parameters
    assert ours["by"].default == theirs["by"].default and ours["top"].default == theirs["top"].default


@pytest.mark.parametrize("by", ["component", "head", "neuron", "source"])
def test_a_sum_is_printed_with_its_check_stored_and_shown_again(run, tmp_path, by):
    done = run("attribute", "tiny", "the cat sat", *ASKED, "--by", by, "--store", "runs", code=FAKE)
    assert done.code == 0, done.err
    assert "parts sum to the logit of 'mat' − 'on'" in done.out and "Direct effects only" in done.out
    (info,) = RunStore(tmp_path / "runs").list()
    found = RunStore(tmp_path / "runs").open(info.id).results()
    expected = interp.logit_attribution(tiny_model(), "the cat sat", by=by, answer="mat", foil="on")
    assert info.kind == "logit_attribution" and info.title == f"logit attribution of tiny by {by}: the cat sat"
    np.testing.assert_allclose(found.frame["value"], expected.frame["value"], atol=1e-5)
    shown = run("runs", "show", info.id)
    assert shown.code == 0 and "parts sum to the logit of" in shown.out
    data = json.loads(run("runs", "show", info.id, "--json").out)
    assert len(data["parts"]) == len(expected.frame) and data["check"][0]["ok"] is True


def test_several_prompts_share_an_answer_or_have_their_own(run):
    two = ["the cat sat", "a cat"]
    done = run("attribute", "tiny", *two, "--answer", "mat", "--answer", "on", "--json", code=FAKE)
    data = json.loads(done.out)
    assert [row["prompt"] for row in data["check"]] == [0, 1] and data["about"]["answer"] == ["'mat'", "'on'"]
    alone = run("attribute", "tiny", "the cat sat", "--json", code=FAKE)
    assert json.loads(alone.out)["about"]["answer"].startswith("'"), "the model's own choice"


def test_help_tells_it_from_attribution_patching(run):
    said = " ".join(run("attribute", "--help").out.split())
    assert "attribution patching" in said and "interp.logit_attribution" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "layer"], "--by is 'layer'"),
        (["--rows", "0"], "--rows is 0"),
        (["--answer", "a", "--answer", "b"], "There are 1 prompts and 2 --answer"),
        (["--out", "file"], "--out file is a file"),
    ],
)
def test_a_mistake_is_said_before_anything_is_loaded(run, tmp_path, arguments, message):
    (tmp_path / "file").write_text("mine")
    done = run("attribute", "tiny", "the cat", *arguments, code=NEVER)
    assert done.code == 2 and message in done.err and done.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--answer", "the cat"], "is 2 tokens"),
        (["--foil", "mat"], "There is a foil but no answer"),
        (["--by", "neuron", "--top", "0"], "top is 0"),
    ],
)
def test_what_only_the_model_can_tell_is_said_too(run, tmp_path, arguments, message):
    done = run("attribute", "tiny", "the cat", *arguments, "--store", "runs", code=FAKE)
    assert done.code == 2 and message in done.err and not (tmp_path / "runs").exists()
