"""The command line says one sentence about a mistake and exits with 2."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from interp import cli


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from interp.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["heads", "no-such-model"], "no-such-model"),
        (["heads", "smollm2-135m", "--kind", "nonsense"], "Known are"),
        (["heads", "smollm2-135m", "--n", "two"], "--n"),
        (["heads"], "model"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == "" and done.stderr.count("\n") == 1


def test_debug_shows_the_traceback():
    done = run("--debug", "heads", "no-such-model")
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_heads_prints_saves_and_draws(planted, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("interp.families.load.load", lambda name, **options: planted)
    monkeypatch.setattr("interp.load", lambda name, **options: planted, raising=False)
    page, folder = tmp_path / "heads.html", tmp_path / "run"
    arguments = ["interp", "heads", "planted", "--n", "8", "--top", "2", "--html", str(page), "--out", str(folder)]
    monkeypatch.setattr(sys, "argv", arguments)
    cli.main()
    out = capsys.readouterr().out
    assert "0.1" in out and "previous_token" in out and "Loss on copied tokens" in out
    assert page.stat().st_size > 1_000_000 and (folder / "heads.parquet").exists()


def test_json_output_is_json(planted, monkeypatch, capsys):
    monkeypatch.setattr("interp.load", lambda name, **options: planted, raising=False)
    monkeypatch.setattr(sys, "argv", ["interp", "heads", "planted", "--n", "8", "--top", "1", "--json"])
    cli.main()
    data = json.loads(capsys.readouterr().out)
    assert len(data["heads"]) == 16 and data["about"]["n"] == 8
