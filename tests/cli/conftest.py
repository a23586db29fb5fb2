"""The command line in a process of its own, with finders and models that cost nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., SimpleNamespace]

FAKE = """
import interp
import interp.cli.heads
import interp.runs.provenance
from tests.runs.sample import make_scores

def load(name, **options):
    return name

def find_heads(model, kinds, *, progress, **settings):
    for i in range(3):
        progress("looking", i + 1, 3)
    return make_scores(settings["seed"])

interp.load, interp.find_heads = load, find_heads
interp.runs.provenance.model_hash = lambda model: "ab" * 32
real_kinds, interp.cli.heads._kinds = interp.cli.heads._kinds, lambda asked: asked  # the registry imports torch
"""
MAIN = "\nfrom interp.cli import main\nmain()\n"


def start(arguments: tuple, *, code: str = "", **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code + MAIN, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, **{**pipes, **options})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command in an empty folder; `code` comes before it, `answer` stands on its standard input."""

    def call(*arguments: object, code: str = "", answer: str | None = None) -> SimpleNamespace:
        pipe = {} if answer is None else {"stdin": subprocess.PIPE}
        process = start(arguments, code=code, cwd=tmp_path, **pipe)
        out, err = process.communicate(answer, timeout=120)
        return SimpleNamespace(code=process.returncode, out=out, err=err)

    return call


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a command and leave it running."""
    return lambda *arguments, code="": start(arguments, code=code, cwd=tmp_path)


@pytest.fixture
def fake() -> str:
    """Code that replaces loading and finding."""
    return FAKE
