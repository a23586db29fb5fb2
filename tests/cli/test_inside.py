"""`interp ov`, `composition`, `graph`, `cues` and `walkthrough`: what the functions find, printed, stored, refused."""

from __future__ import annotations

import inspect
import json

import pytest

import interp
from interp.cli.inside import cues
from interp.cli.walk import walkthrough
from interp.runs.store import RunStore
from tests.browser.serving import tiny_model

FAKE = """
import interp
from tests.browser.serving import tiny_model
interp.load = tiny_model
"""
NEVER = "\nimport interp\ndef never(*_, **__): raise SystemExit('loaded')\ninterp.load = never\n"
WALK = ["--text", "the cat sat on", "--corrupt", "the mat sat on", "--answer", "mat", "--foil", "cat"]


def test_the_defaults_are_those_of_the_functions():
    for ours, theirs, names in (
        (cues, interp.cue_competition, ("task", "n", "top", "seed")),
        (walkthrough, interp.walkthrough, ("text", "answer", "foil", "corrupt", "n", "seed")),
    ):
        mine, other = (inspect.signature(one).parameters for one in (ours, theirs))
        assert [mine[name].default for name in names] == [other[name].default for name in names]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--text", "the cat sat", "--pos", "1"], lambda head: head.tokens("the cat sat", 1, k=3)),
        (["--token", "cat"], lambda head: head.token("cat", k=3)),
        (["--text", "the cat sat", "--answer", "mat"], lambda head: head.attribution("the cat sat", "mat")),
        ([], lambda head: head.whole(k=3)),
    ],
)
def test_ov_says_what_the_head_writes(run, arguments, expected):
    done = run("ov", "tiny", "2.1", *arguments, "-k", "3", "--json", code=FAKE)
    assert done.code == 0, done.err
    table = expected(interp.ov(tiny_model(), "2.1")).to_frame()
    rows = json.loads(done.out)["rows"]
    assert len(rows) == len(table)
    column = "logit"
    assert [row[column] for row in rows] == pytest.approx(table[column].tolist(), abs=1e-5)


def test_tokens_are_printed_in_quotes(run):
    done = run("ov", "tiny", "2.1", "--text", "the cat sat", "--answer", "mat", code=FAKE)
    assert done.code == 0, done.err
    assert all(f"'{word}'" in done.out for word in ("the", "cat", "sat"))


def test_composition_shows_what_one_head_reads_and_is_stored(run, tmp_path):
    done = run("composition", "tiny", "--kind", "V", "--into", "2.1", "--store", "runs", code=FAKE)
    assert done.code == 0, done.err
    (info,) = RunStore(tmp_path / "runs").list()
    assert info.kind == "composition" and "Weights only" in done.out
    best = interp.composition(tiny_model(), "V").into(2, 1)
    assert f"{float(best.max()):.3f}"[:4] in done.out


def test_graph_measures_its_faithfulness_and_writes_graphml(run, tmp_path):
    done = run("graph", "tiny", "the cat sat on", "--top-k", "10", "--graphml", "graph.xml", code=FAKE)
    assert done.code == 0, done.err
    assert "moved" in done.out and "<graphml" in (tmp_path / "graph.xml").read_text("utf-8")


def test_a_walk_is_printed_stored_and_written_as_markdown(run, tmp_path):
    done = run("walkthrough", "tiny", *WALK, "--markdown", "walk.md", "--store", "runs", code=FAKE)
    assert done.code == 0, done.err
    (info,) = RunStore(tmp_path / "runs").list()
    text = (tmp_path / "walk.md").read_text("utf-8")
    assert info.kind == "walkthrough" and text.startswith("# A walk-through") and "Made by `interp walkthrough" in text
    stored = RunStore(tmp_path / "runs").open(info.id).results()
    assert all(title in done.out for title in stored.steps["title"])
    assert run("runs", "show", info.id, "--store", "runs", "--json", code=FAKE).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ov", "tiny", "2.1", "--text", "a", "--token", "b"], "two questions"),
        (["ov", "tiny", "2.1", "--answer", "mat"], "needs --text"),
        (["graph", "tiny", "the cat", "--foil", "mat"], "needs --answer"),
        (["walkthrough", "tiny", "--text", "the cat sat on"], "needs all four"),
        (["walkthrough", "tiny", "--others", "x.csv", "--capitals"], "Give one"),
        (["composition", "tiny", "--into", "x"], "x"),
    ],
)
def test_a_mistake_is_refused_before_the_model_is_loaded(run, arguments, message):
    done = run(*arguments, code=NEVER)
    assert done.code == 2 and message in done.err and "Traceback" not in done.err
