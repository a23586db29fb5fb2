"""Progress: a bar with rate and time left on a terminal, a line now and then in a log, nothing for what is quick."""

from __future__ import annotations

import io
import sys

import pytest

from interp.cli import progress as module
from interp.cli.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_terminal_gets_a_bar_with_rate_and_time_left(monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    with progress() as report:
        for done in range(200):
            report("[bold]looking[/bold]", done, 200)
    assert "[bold]looking[/bold]" in screen.getvalue() and "/s" in screen.getvalue() and ":" in screen.getvalue()


def test_a_log_gets_a_line_every_ten_seconds(clock, capsys):
    with progress() as report:
        for done in range(31):
            report("looking", done, 60)
            clock[0] += 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "looking: 10/60, 1.0/s, 50 s left",
        "looking: 20/60, 1.0/s, 40 s left",
        "looking: 30/60, 1.0/s, 30 s left",
    ]


def test_each_stage_has_a_rate_of_its_own(clock, capsys):
    with progress() as report:
        for done in range(9):
            report("first", done, 9)
            clock[0] += 1
        for done in range(1, 9):
            report("second", done, 8)
            clock[0] += 2
    assert capsys.readouterr().err.startswith("second: 2/8, 1.0/s")


def test_a_quick_command_says_nothing(capsys):
    with progress() as report:
        for done in range(5):
            report("looking", done, 5)
    assert capsys.readouterr().err == ""
