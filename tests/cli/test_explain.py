"""`interp explain`: the same numbers as `interp.explain_attention`, stored, shown again, refused in one sentence."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

import interp
from interp.cli.explain import _place, explain
from interp.runs.store import RunStore
from tests.browser.serving import tiny_model

FAKE = """
import interp
from tests.browser.serving import tiny_model
interp.load = tiny_model
"""
TEXT = "the cat sat on a mat"
EDGE = ["--head", "2.1", "--query", "mat", "--key", "cat"]


def test_the_defaults_are_those_of_explain_attention():
    ours, theirs = inspect.signature(explain).parameters, inspect.signature(interp.explain_attention).parameters
    for name in ("view", "against", "confirm", "replace_with", "answer", "foil", "decoder_input"):
        assert ours[name].default == theirs[name].default, name


def test_a_run_is_stored_with_how_it_was_made_and_shown_again(run, tmp_path):
    done = run("explain", "tiny", TEXT, *EDGE, "--confirm", "--store", "runs", "--html", "page.html", code=FAKE)
    assert done.code == 0, done.err
    (info,) = RunStore(tmp_path / "runs").list()
    assert info.kind == "explanation" and info.title == "head 2.1 of tiny: mat → cat" and len(info.model_hash) == 64
    stored = RunStore(tmp_path / "runs").open(info.id)
    expected = interp.explain_attention(tiny_model(), TEXT, "2.1", "mat", "cat", confirm=True)
    np.testing.assert_allclose(stored.results().values, expected.values, atol=1e-5)
    assert stored.manifest["spec"] | {"analysis": "explain", "head": "2.1", "confirm": True} == stored.manifest["spec"]
    assert "0_mlp_out" in done.out and "replaced in the" in done.out and "contrast" in done.out
    assert "Scales of norms are frozen" in done.out and (tmp_path / "page.html").is_file()
    shown = run("runs", "show", info.id, "--store", "runs")
    assert shown.code == 0 and "0_mlp_out" in shown.out and "Scales of norms are frozen" in shown.out


def test_json_holds_all_parts_keys_and_what_was_confirmed(run):
    done = run("explain", "tiny", TEXT, "--head", "1.0", "--query", "-1", "--key", "2", "--source", "embed",
               "--view", "head", "--against", "none", "--json", code=FAKE)  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    expected = interp.explain_attention(tiny_model(), TEXT, "1.0", -1, 2, view="head", against=None)
    assert sum(row["part"] for row in found["rows"]) == pytest.approx(expected.total("score"), abs=1e-4)
    assert {row["side"] for row in found["confirmed"]} == {"query", "key"} and len(found["keys"]) == 6
    assert found["run"] is None and "frozen" in found["leaves_out"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--head", "x", "--query", "mat", "--key", "cat"], "is not a head"),
        (["--head", "2.1", "--query", "cat", "--key", "mat"], "cannot see"),
        (["--head", "2.1", "--query", "dog", "--key", "cat"], "stands in the text 0 times"),
        ([*EDGE, "--view", "fine"], "view is 'fine'"),
        ([*EDGE, "--source", "9_mlp_out"], "no source that can be replaced"),
        ([*EDGE, "--confirm", "--answer", "sat on"], "is 2 tokens"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(run, arguments, message):
    done = run("explain", "tiny", TEXT, *arguments, code=FAKE)
    assert done.code == 2 and message in done.err and "Traceback" not in done.err


def test_numbers_are_indices_and_everything_else_is_text():
    assert [_place(x) for x in ("3", "-1", "cat", "3rd")] == [3, -1, "cat", "3rd"]
