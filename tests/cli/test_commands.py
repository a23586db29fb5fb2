"""What holds for every command: light to start, one sentence for an error, an exit code that says whose it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import typer

HEAVY = ("torch", "transformers", "transformer_lens", "streamlit", "plotly", "pandas", "numpy", "pyarrow")
WATCH = f"""
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted({set(HEAVY)!r} & set(sys.modules))), file=sys.stderr))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["heads", "--help"],
        ["runs", "list"],
        ["runs", "list", "--json"],
        ["runs", "check"],
        ["heads", "smollm2-135m", "--store", "/dev/null/x"],
    ],
)
def test_a_command_starts_without_the_libraries_it_does_not_need(run, arguments):
    done = run(*arguments, code=WATCH)
    assert json.loads(done.err.splitlines()[-1]) == []


def test_importing_the_command_line_makes_no_run_folder(run, tmp_path):
    assert run("--help").code == 0 and run("runs", "list").code == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "nonsense"),
        (["runs", "nonsense"], "nonsense"),
        (["runs", "show"], "id"),
        (["runs", "show", "2026"], "There is no run '2026' in runs. It holds no runs."),
        (["runs", "show", "../x"], "cannot be a run's id"),
        (["runs", "list", "--store", "file"], "file is no folder of runs: it is a file"),
        (["runs", "delete", "--yes", "x"], "There is no run"),
        (["runs", "export", "x"], "There is no run"),
        (["heads", "m", "--store", "file"], "Cannot write in file: file is no folder"),
        (["heads", "m", "--html", "."], "--html . is a folder"),
        (["heads", "m", "--html", "file/x.html"], "file is no folder"),
        (["heads", "m", "--out", "file"], "--out file is a file"),
        (["heads", "m", "--out", "."], "--out . holds other files"),
        (["heads", "m", "--corpus", "nowhere.txt"], "nowhere.txt"),
        (["heads"], "model"),
        (["heads", "m", "--n", "two"], "--n"),
        (["heads", "no-such-model", "--kind", "induction"], "no-such-model"),
        (["app", "--store", "file"], "it is a file"),
        (["app", "--port", "70000"], "--port 70000 is no port"),
        (["app", "--port", "x"], "--port"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(run, tmp_path, arguments, message):
    (tmp_path / "file").write_text("mine")
    done = run(*arguments)
    assert done.code == 2
    assert message in done.err and done.err.startswith("error: ") and done.err.count("\n") == 1
    assert done.out == "" and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("arguments", [["--debug", "runs", "show", "x"], ["runs", "show", "x", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(run, arguments):
    done = run(*arguments)
    assert done.code == 2 and "Traceback" in done.err and "InputError" in done.err
    assert done.err.splitlines()[-1].startswith("error: There is no run 'x'")


def test_a_fault_of_the_program_is_one_sentence_and_exit_code_1(run, fake):
    code = fake + "\ndef broken(*_, **__): raise ZeroDivisionError('by zero')\ninterp.find_heads = broken\n"
    done = run("heads", "m", "--kind", "induction", code=code)
    assert done.code == 1 and done.out == ""
    assert done.err == "error: ZeroDivisionError: by zero. This is a fault of the program; --debug shows where.\n"
    assert "Traceback" in run("heads", "m", "--kind", "induction", "--debug", code=code).err


def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path):
    code = "import sys; sys.argv = ['interp', 'models', '--json']\nfrom interp.cli import main\nmain()"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 1 and done.stderr == ""


def test_models_says_what_can_be_loaded(run):
    found = json.loads(run("models", "--json").out)
    assert {"name": "smollm2-135m", "installed": True}.items() <= found["models"][0].items()
    llama = next(family for family in found["families"] if family["name"] == "llama")
    assert "llama" in llama["model_types"] and llama["gguf"] and llama["refuses"]
    text = run("models").out
    assert "smollm2-135m" in text and "llama" in text and llama["refuses"][0] in text


def test_commands_of_other_packages_are_taken_and_a_broken_one_is_named(monkeypatch, capsys):
    from interp.cli import commands

    class Entry:
        def __init__(self, name: str, loads: bool) -> None:
            self.name, self.value, self.loads = name, f"{name}.cli:run", loads

        def __lt__(self, other: object) -> bool:
            return False

        def load(self):
            if not self.loads:
                raise ImportError("no such module")
            return lambda: print("it runs")

    monkeypatch.setattr(commands, "app", typer.Typer())
    monkeypatch.setattr(commands, "entry_points", lambda group: [Entry("broken", False), Entry("good", True)])
    commands._take_more()
    assert [one.name for one in commands.app.registered_commands] == ["good"]
    assert "The command broken (broken.cli:run) cannot be loaded: no such module" in capsys.readouterr().err


def test_the_installed_package_brings_the_command_probe():
    from importlib.metadata import entry_points

    found = {one.name: one.value for one in entry_points(group="interp.commands")}
    assert found.get("probe") == "probes.cli:probe"
