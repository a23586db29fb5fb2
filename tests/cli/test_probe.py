"""`interp probe`: what it asks for, where it keeps it, and how it says no."""

from __future__ import annotations

import json

import pytest

# The command stands in an entry point of the installed package; here it is put where that would put it.
COMMAND = """
import interp.cli.commands as commands
from interp.runs.kinds import register_kind
from probes.cli import probe
if "probe" not in {one.name for one in commands.app.registered_commands}:
    commands.app.command("probe")(probe)
register_kind("probes", "probes.results:ProbeResults")
register_kind("probe_use", "probes.used:Use")
"""
FAKE = (
    COMMAND
    + """
import interp, interp.runs.provenance, numpy as np, pandas as pd
import interp.planted
import probes
from probes.data import ProbeDataset
from probes.demonstration import Demonstration

model = interp.planted.make("agreement", n=4).model
interp.load = lambda name: model
interp.runs.provenance.model_hash = lambda model: "ab" * 32

def data(*given, **options):
    print(sorted(map(str, options.items())), [type(one).__name__ for one in given])
    x = np.random.default_rng(0).normal(size=(60, 4))
    table = {"text": range(60), "pos": 0, "token": "x", "group": [i // 3 for i in range(60)]}
    table = pd.DataFrame(table | {"type": [f"w{i % 20}" for i in range(60)]})
    sites = {"blocks.0.hook_resid_pre": x, "blocks.1.hook_resid_pre": x[:, ::-1].copy()}
    return ProbeDataset(sites, table, pd.DataFrame({"number": np.where(x[:, 0] > 0, "one", "several")}))

def demonstrate(model, **options):
    import tests.probes.test_use as planted

    found = planted.planted_at("resid_pre.1", "subject:last")
    where = {"position": "subject:last", "wrong_position": "END", "n_random": 2, "doses": (1,)}
    use = planted.test_use(found, planted.PLANTED.model, planted.PAIRS, **where)
    results = probes.sweep(data(model), "ridge")
    line = {"target": "number", "place": "resid_pre.1", "score": 1.0, "score_low": 0.9, "score_high": 1.0}
    for name in ("steer", "swap", "wrong", "interchange"):
        line |= {name: 0.5, f"{name}_low": 0.4, f"{name}_high": 0.6}
    lines = pd.DataFrame([{**line, "random": 0.1, "verdict": use.verdict}])
    return Demonstration(results, (use,), lines, {"model": "planted"})

probes.dataset, probes.demonstrate = data, demonstrate
"""
)


def test_the_demonstration_is_printed_stored_and_written(run, tmp_path) -> None:
    found = run(
        *("probe", "m", "--task", "agreement", "--store", "runs", "--html", "p.html"),
        *("--markdown", "p.md", "--csv", "p.csv"),
        code=FAKE,
    )
    assert found.code == 0, found.err
    assert "Decoded and used" in found.out and "decodable and used here" in found.out
    assert "steering by 1 at 'subject:last' moves 1.00" in found.out
    assert (tmp_path / "p.csv").read_text().startswith("target,place") and "Through the model" in (
        tmp_path / "p.md"
    ).read_text()
    assert "Plotly" in (tmp_path / "p.html").read_text()
    listed = run("runs", "list", "--store", "runs", "--json", code=COMMAND)
    assert listed.code == 0 and {"probes", "probe_use"} <= set(listed.out.split('"')), listed.out


def test_label_sets_and_texts_of_the_users_are_decoded_and_called_untested(run, tmp_path) -> None:
    (tmp_path / "t.txt").write_text("A cat sat.\nTwo dogs ran.\n\n")
    (tmp_path / "l.csv").write_text("text,pos,label\n0,1,one\n1,1,several\n")
    named = run("probe", "m", "--labels", "part_of_speech", "-n", "7", "--sites", "resid", "--sites", "z", code=FAKE)
    assert named.code == 0 and "Decodable is not used" in named.out, named.err
    assert "('n', 7)" in named.out and "('sites', ['resid', 'z'])" in named.out
    own = run("probe", "m", "--texts", "t.txt", "--labels-csv", "l.csv", "--json", code=FAKE)
    assert own.code == 0 and "'list', 'DataFrame'" in own.out, own.err
    assert json.loads(own.out[own.out.index("\n") + 1 :])["probes"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "Give one of --task, --labels"),
        (["--task", "agreement", "--labels", "truth"], "--task and --labels"),
        (["--texts", "t.txt"], "Give one of --task"),
        (["--task", "agreement", "--estimator", "forest"], "--estimator is 'forest'"),
        (["--task", "agreement", "--rigor", "some"], "--rigor is 'some'"),
        (["--task", "agreement", "--csv", "."], "is a folder"),
        (["--texts", "t.txt", "--labels-csv", "l.csv", "-n", "3"], "Leave it out"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_loaded(run, tmp_path, options, said) -> None:
    (tmp_path / "t.txt").write_text("A cat sat.\n")
    (tmp_path / "l.csv").write_text("text,pos,label\n0,1,one\n")
    found = run("probe", "m", *options, code=COMMAND)
    assert found.code == 2 and said in found.err and found.err.count("\n") == 1, found.err


def test_a_table_without_texts_is_refused(run, tmp_path) -> None:
    (tmp_path / "t.txt").write_text("A cat sat.\n")
    (tmp_path / "l.csv").write_text("pos,label\n1,one\n")
    found = run("probe", "m", "--texts", "t.txt", "--labels-csv", "l.csv", code=FAKE)
    assert found.code == 2 and "column text" in found.err


def test_its_help_loads_no_torch(run) -> None:
    loud = "\nimport sys, atexit\natexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
    found = run("probe", "--help", code=COMMAND + loud)
    assert found.code == 0 and "--labels-csv" in found.out
    assert found.err.strip().endswith("False")


@pytest.mark.parametrize(
    ("lines", "said"),
    [("A cat sat.\n\nTwo dogs ran.\n", "Line 1 of t.txt (from 0) is blank"), ("", "Line 0 of t.txt")],
)
def test_blank_lines_would_leave_open_which_text_a_number_means(run, tmp_path, lines, said) -> None:
    (tmp_path / "t.txt").write_text(lines)
    (tmp_path / "l.csv").write_text("text,pos,label\n0,1,one\n1,1,several\n")
    found = run("probe", "m", "--texts", "t.txt", "--labels-csv", "l.csv", code=FAKE)
    assert found.code == 2 and said in found.err


def test_the_users_files_are_read_as_they_are(tmp_path) -> None:
    import interp.cli  # loads the command  # noqa: F401
    from probes.cli import _own

    (tmp_path / "t.txt").write_bytes("\ufeffA\u2028cat\x0csat.\r\nTwo dogs ran.\n".encode())
    (tmp_path / "l.csv").write_bytes("\ufefftext,pos,label,size\n0,1,NA,1\n1,1,None,\n".encode())
    lines, table = _own(tmp_path / "t.txt", tmp_path / "l.csv")
    assert lines == ["A\u2028cat\x0csat.", "Two dogs ran."]
    assert table["label"].tolist() == ["NA", "None"] and table["size"].isna().tolist() == [False, True]


def test_no_demonstration_of_nothing(run) -> None:
    loaded = COMMAND + "\nimport interp, interp.planted\nmodel = interp.planted.make('agreement', n=4).model\n"
    found = run("probe", "m", "--task", "agreement", "-n", "0", code=loaded + "interp.load = lambda name: model\n")
    assert found.code == 2 and "n is 0" in found.err


def test_probes_of_heads_are_set_beside_stored_heads(run, tmp_path) -> None:
    from interp.runs.store import RunStore
    from tests.probes.test_use_beside import EFFECTS, heads

    store = RunStore(tmp_path / "runs")
    causes = store.save(heads(EFFECTS), spec={}, model_hash="ab" * 32).id
    beside = "register_kind('probe_beside', 'probes.beside:Beside')\nplain = data\n"
    beside += "def data(*given, **options):\n    made = plain(*given, **options)\n"
    beside += "    x = np.random.default_rng(1).normal(size=(60, 2, 4))\n"
    beside += "    return ProbeDataset({'blocks.0.attn.hook_z': x}, made.table, made.labels)\nprobes.dataset = data\n"
    asked = ("probe", "m", "--labels", "part_of_speech", "--heads", causes)
    done = run(*asked, "--sites", "z", "--store", "runs", code=FAKE + beside)
    assert done.code == 0 and "rank correlation of accuracy" in done.out, done.err
    assert {one.kind for one in store.list()} == {"heads", "probes", "probe_beside"}
    for options, said in (((), "Give --store and --sites z"), (("--sites", "z"), "Give --store")):
        refused = run(*asked, *options, code=COMMAND)
        assert refused.code == 2 and said in refused.err
