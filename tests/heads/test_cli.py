"""`interp heads` from end to end on a model whose heads are known (the rest of the command line: tests/cli)."""

from __future__ import annotations

import json
import sys

import pytest

from interp import cli
from interp.runs.store import RunStore


@pytest.fixture
def command(planted, monkeypatch, tmp_path, capsys):
    """Runs `interp heads` in an empty folder on the planted model; gives what it printed."""
    monkeypatch.setattr("interp.load", lambda name, **options: planted, raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["interp", "heads", "planted", "--kind", "induction", *arguments])
        cli.main()
        return capsys.readouterr().out

    return call


def test_heads_prints_stores_saves_and_draws(command, tmp_path):
    out = command("--n", "8", "--top", "2", "--html", "heads.html", "--out", "bare", "--store", "runs")
    assert "1.2" in out and "induction" in out and "With the top heads of a kind ablated together" in out
    assert (tmp_path / "heads.html").stat().st_size > 1_000_000 and (tmp_path / "bare" / "heads.parquet").exists()
    (info,) = RunStore("runs").list()
    best = RunStore("runs").open(info.id).results().top("induction", 1).iloc[0]
    assert (best["layer"], best["head"], best["verdict"]) == (1, 2, "induction")


def test_json_output_is_json(command):
    data = json.loads(command("--n", "8", "--top", "1", "--json"))
    assert len(data["heads"]) == 8 and data["about"]["n"] == 8 and data["run"] is None
    assert [row["kind"] for row in data["sets"]] == ["induction"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--n", "3"), "smallest corrected p that sign flips can reach"),
        (("--alpha", "2"), "alpha"),
        (("--screen", "nonsense"), "'nonsense'"),
        (("--top", "0"), "top is 0"),
    ],
)
def test_a_setting_that_cannot_work_is_one_sentence_and_exit_code_2(command, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        command(*arguments)
    printed = capsys.readouterr()
    assert stop.value.code == 2 and printed.out == "" and message in printed.err and printed.err.count("\n") == 1
