"""Progress of a long command on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Report", "progress"]

Report = Callable[[str, int, int], None]  # stage, done, total
_EVERY = 10.0  # seconds between lines where there is no terminal


@contextmanager
def progress(whole: str = "") -> Iterator[Report]:
    """Gives a function (stage, done, total) that shows how far each stage is, its rate, and the time left. `whole`
    names the stage that counts all of them, if one does: its time left is that of the whole command."""
    if sys.stderr.isatty():
        with _bars(whole) as report:
            yield report
    else:
        yield _Lines(whole)


def _left(done: float | int, total: float | int, seconds: float) -> str:
    """The time left at the mean rate so far, in words; "" where nothing is done yet."""
    if not done:
        return ""
    left = seconds * (total - done) / done
    return f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min"


class _Lines:
    """One line every ten seconds, so that a log shows that something happens, and a short command stays quiet."""

    def __init__(self, whole: str = "") -> None:
        self.stage, self.started = "", time.monotonic()
        self.said = self.began = self.started
        self.whole, self.in_all = whole, ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage == self.whole:
            left = _left(done, total, now - self.began)
            self.in_all = f"; about {left} left in all" if left else ""
            return
        if stage != self.stage:
            self.stage, self.started = stage, now
        if now - self.said < _EVERY or not done:
            return
        self.said = now
        rate = done / max(now - self.started, 1e-9)
        speed = f", {rate:.1f}/s, {(total - done) / rate:.0f} s left" if done < total else ""
        print(f"{stage}: {done}/{total}{speed}{self.in_all}", file=sys.stderr, flush=True)


@contextmanager
def _bars(whole: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Steps per second."""

        def render(self, task: Any) -> Text:
            rate = task.finished_speed or task.speed
            if task.fields["whole"]:
                return Text("")
            return Text(f"{rate:.1f}/s" if rate else "–/s", style="progress.data.speed")

    class Count(MofNCompleteColumn):
        """Steps; of the whole, which has none, the share."""

        def render(self, task: Any) -> Text:
            return Text(f"{task.percentage:.0f}%") if task.fields["whole"] else super().render(task)

    class Left(TimeRemainingColumn):
        """Of the whole: by its mean rate, since stages differ in theirs."""

        def render(self, task: Any) -> Text:
            if not task.fields["whole"]:
                return super().render(task)
            left = _left(task.completed, task.total or 0, task.elapsed or 0.0)
            return Text(f"about {left} left in all" if left else "", style="progress.remaining")

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), Count(), Rate())
    with Progress(*columns, Left(), console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, whole=stage == whole)
            bar.update(tasks[stage], completed=done, total=total)

        yield report
