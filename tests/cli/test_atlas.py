"""`interp atlas` prints, writes and stores what it found; `interp compare` takes stored atlases only."""

from __future__ import annotations

import inspect
import json

import interp.atlas.make
from interp.cli.atlas import atlas
from interp.runs.store import RunStore

FAKE = """
import interp
import interp.runs.provenance
import pandas as pd
from interp.atlas.results import Atlas
from interp.atlas.together import COLUMNS
from tests.runs.sample import make_scores

def load(name, **options):
    return name

def made(model, kinds, *, rigor, n, seed, keep, progress):
    progress("looking", 1, 3)
    scores = make_scores(seed)
    scores.frame["verdict"] = ["induction" if i == seed + 3 else "" for i in range(12)]
    scores.frame["reason"] = ""
    about = {"model": "tiny", "caveat": "One model.", "kept": str(keep), "rigor": rigor, "n": n, "seed": seed}
    return Atlas(scores, pd.DataFrame(columns=list(COLUMNS)), about)

interp.load, interp.atlas = load, made
interp.runs.provenance.model_hash = lambda model: "ab" * 32
"""
STOPPED = FAKE + "\ndef stop(*_, **__): raise KeyboardInterrupt\ninterp.atlas = stop\n"
NEVER = FAKE + "\ndef never(*_, **__): raise SystemExit('loaded')\ninterp.load = never\n"


def test_the_defaults_are_those_of_the_function():
    ours, theirs = (inspect.signature(one).parameters for one in (atlas, interp.atlas.make.atlas))
    for name in ("rigor", "n", "seed"):
        assert ours[name].default == theirs[name].default, name


def test_heads_are_printed_written_and_stored(run, tmp_path):
    places = ("--html", "page.html", "--markdown", "docs.md", "--store", "runs")
    done = run("atlas", "tiny", "--rigor", "full", "--n", 9, *places, code=FAKE)
    assert done.code == 0, done.err
    assert "0.3" in done.out and "12 heads, 1 named" in done.out and "One model." in done.out
    assert "What remains unexplained" in done.out
    assert "Which head does what: tiny" in (tmp_path / "page.html").read_text()
    assert (tmp_path / "docs.md").read_text().startswith("# Which head does what: tiny")
    (info,) = RunStore(tmp_path / "runs").list()
    assert info.kind == "atlas" and info.title == "atlas of tiny: induction"
    spec = RunStore(tmp_path / "runs").open(info.id).manifest["spec"]
    assert spec == {"model": "tiny", "kinds": "all", "rigor": "full", "n": 9, "seed": 0}
    shown = run("runs", "show", info.id, "--store", "runs")
    assert shown.code == 0 and "induction" in shown.out


def test_two_stored_atlases_are_compared(run, tmp_path):
    for seed in (0, 1):
        assert run("atlas", "tiny", "--seed", seed, "--store", "runs", code=FAKE).code == 0
    newer, older = (info.id for info in RunStore(tmp_path / "runs").list())
    done = run("compare", older, newer, "--store", "runs", "--keep")
    assert done.code == 0, done.err
    assert "0.3" in done.out and "1.0" in done.out and "cannot tell: no items were kept" in done.out
    data = json.loads(run("compare", older, newer, "--store", "runs", "--json").out)
    assert data["kinds"][0]["jaccard"] == 0 and data["kinds"][0]["only_before"] == "0.3"
    kept = next(info for info in RunStore(tmp_path / "runs").list() if info.kind == "atlas_comparison")
    assert "induction" in run("runs", "show", kept.id, "--store", "runs").out
    refused = run("compare", older, kept.id, "--store", "runs")
    assert refused.code == 2 and "not an atlas" in refused.err


def test_json_has_every_table(run):
    data = json.loads(run("atlas", "tiny", "--json", code=FAKE).out)
    assert data["heads"][0]["is"] == "induction" and data["run"] is None and data["about"]["model"] == "tiny"
    assert {"kinds", "overlap", "unexplained", "together"} <= set(data)


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(run):
    done = run("atlas", "tiny", "--keep", "my kept", code=STOPPED)
    assert done.code == 130 and "kept in my kept" in done.err and "stopped" in done.err


def test_what_cannot_be_done_is_said_before_the_model_is_loaded(run, tmp_path):
    (tmp_path / "folder").mkdir()
    for arguments, said in (
        (("--rigor", "hasty"), "Choose quick or full"),
        (("--kind", "nonsense"), "no kind of head called 'nonsense'"),
        (("--markdown", "folder"), "is a folder"),
        (("--html", "folder"), "is a folder"),
    ):
        done = run("atlas", "tiny", *arguments, code=NEVER)
        assert done.code == 2 and said in done.err and "loaded" not in done.err, arguments
