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


def test_the_time_left_in_all_is_that_of_the_whole(clock, capsys):
    with progress("everything") as report:
        for done in range(1, 26):
            clock[0] += 1
            report("everything", 10 * done, 1000)
            report("looking", done, 25)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "looking: 10/25, 1.1/s, 14 s left; about 2 min left in all"
    assert len(lines) == 2 and not any(line.startswith("everything") for line in lines)


def test_long_times_are_in_minutes_and_nothing_done_says_nothing(clock, capsys):
    with progress("everything") as report:
        report("everything", 0, 1000)
        clock[0] += 20
        report("looking", 1, 1)
        report("everything", 10, 1000)
        clock[0] += 20
        report("looking on", 1, 1)
    assert capsys.readouterr().err.splitlines() == ["looking: 1/1", "looking on: 1/1; about 33 min left in all"]


def test_a_terminal_shows_the_whole_as_a_share_with_its_time_left(monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "160")
    with progress("everything") as report:
        for done in range(100):
            report("everything", done, 200)
            report("looking", done, 100)
    assert "left in all" in screen.getvalue() and "50%" in screen.getvalue()
