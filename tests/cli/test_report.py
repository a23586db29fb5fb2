"""`interp report` writes what it was asked to, and what was finished outlives Ctrl-C."""

from __future__ import annotations

import inspect
import json
import re

import interp.report.make
from interp.cli.report import report
from interp.runs.store import RunStore

FAKE = """
import interp
import interp.runs.provenance
import pandas as pd
from interp.report.results import Report
from tests.runs.sample import make_scores

def load(name, **options):
    return name

def made(model, kinds, *, rigor, n, seed, keep, progress):
    progress("looking", 1, 3)
    row = dict.fromkeys(Report.COLUMNS, "") | {"id": "induction.exists", "kind": "induction", "verdict": "holds"}
    row |= {"claim": "Some head.", "value": 2.0, "low": 1.0, "high": 3.0, "n_items": float("nan")}
    row |= {"unit": "heads", "must_be": "≥ 1", "pilot": float("nan")}
    about = {"model": "tiny", "caveat": "One model.", "kept": str(keep), "rigor": rigor, "n": n}
    return Report(pd.DataFrame([row]), make_scores(seed), about)

interp.load, interp.report = load, made
interp.runs.provenance.model_hash = lambda model: "ab" * 32
"""
STOPPED = FAKE + "\ndef stop(*_, **__): raise KeyboardInterrupt\ninterp.report = stop\n"
NEVER = FAKE + "\ndef never(*_, **__): raise SystemExit('loaded')\ninterp.load = never\n"


def test_the_defaults_are_those_of_the_function():
    ours, theirs = (inspect.signature(one).parameters for one in (report, interp.report.make.report))
    for name in ("rigor", "n", "seed"):
        assert ours[name].default == theirs[name].default, name


def test_claims_are_printed_written_and_stored(run, tmp_path):
    places = ("--html", "page.html", "--markdown", "docs.md", "--store", "runs")
    done = run("report", "tiny", "--rigor", "full", "--n", 9, "--seed", 3, *places, code=FAKE)
    assert done.code == 0, done.err
    assert "induction.exists" in done.out and "2 (1 to 3) heads" in done.out and "One model." in done.out
    assert "1 holds, 0 does not hold, 0 cannot tell" in done.out
    assert not re.search("<script", (tmp_path / "page.html").read_text())
    assert (tmp_path / "docs.md").read_text().startswith("# What the heads of tiny do")
    (info,) = RunStore(tmp_path / "runs").list()
    assert info.kind == "report" and info.seed == 3 and info.title == "report on tiny: induction"
    spec = RunStore(tmp_path / "runs").open(info.id).manifest["spec"]
    assert spec == {"model": "tiny", "kinds": "all", "rigor": "full", "n": 9, "seed": 3}
    shown = run("runs", "show", info.id, "--store", "runs")
    assert shown.code == 0 and "induction.exists" in shown.out


def test_json_has_every_claim(run):
    data = json.loads(run("report", "tiny", "--json", code=FAKE).out)
    assert data["claims"][0]["verdict"] == "holds" and data["claims"][0]["pilot"] is None
    assert data["counts"]["holds"] == 1 and data["about"]["model"] == "tiny" and data["run"] is None


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(run):
    done = run("report", "tiny", "--keep", "my kept", code=STOPPED)
    assert done.code == 130 and "kept in my kept" in done.err and "stopped" in done.err


def test_without_a_folder_parts_are_kept_beside_the_cache(run):
    kept = json.loads(run("report", "tiny", "--json", code=FAKE).out)["about"]["kept"]
    assert kept.endswith("reports")


def test_what_cannot_be_done_is_said_before_the_model_is_loaded(run, tmp_path):
    (tmp_path / "folder").mkdir()
    for arguments, said in (
        (("--rigor", "hasty"), "Choose quick or full"),
        (("--kind", "nonsense"), "no kind of head called 'nonsense'"),
        (("--markdown", "folder"), "is a folder"),
        (("--html", "folder"), "is a folder"),
    ):
        done = run("report", "tiny", *arguments, code=NEVER)
        assert done.code == 2 and said in done.err and "loaded" not in done.err, arguments


def test_stored_runs_are_told_behind_the_claims(run, tmp_path):
    from tests.runs.sample import make_scores

    store = RunStore(tmp_path / "runs")
    heads = store.save(make_scores(0), spec={}, model_hash="ab" * 32).id
    refused = run("report", "tiny", "--beside", heads, "--store", "runs", code=NEVER)
    assert refused.code == 2 and "has no heading" in refused.err, refused.err
    assert "--store FOLDER" in run("report", "tiny", "--beside", heads, code=NEVER).err
    told = (
        "\nfrom interp.runs.kinds import register_kind\nregister_kind('probe_beside', 'probes.beside:Beside')\n"
        "old = made\ndef made(*given, beside, **options):\n"
        "    print([one.heading for one in beside])\n    return old(*given, **options)\ninterp.report = made\n"
    )
    from interp.runs.kinds import register_kind
    from tests.probes.test_use_beside import EFFECTS, SCORES, results
    from tests.probes.test_use_beside import heads as found

    register_kind("probe_beside", "probes.beside:Beside")
    from probes.beside import beside_causes

    mine = store.save(beside_causes(results(SCORES), found(EFFECTS)), spec={}, model_hash="ab" * 32).id
    done = run("report", "tiny", "--beside", mine, "--store", "runs", code=FAKE + told)
    assert done.code == 0 and "What probes decode from heads" in done.out, done.err
