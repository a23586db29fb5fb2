"""Work that takes longer than a page may: threads with progress and cancel, which a reload does not stop.

A job's thread calls no `st.*`; pages poll it from a fragment. One registry serves all sessions.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import streamlit as st
from torch.overrides import TorchFunctionMode

from interp.errors import InputError, InterpError

__all__ = ["MOST_RUNNING", "Job", "Jobs", "Stoppable", "shared_jobs"]

MOST_RUNNING = 6
_KEPT = 20
_log = logging.getLogger("interp.app")


class _Cancelled(Exception):
    """Raised inside the work, when it next asks, once it was cancelled."""


@dataclass
class Job:
    """One piece of work. `stage`, `done` and `total` are what it reported last; `result` is set when it is done, or by
    work that kept what it had finished when it was stopped."""

    name: str
    number: int
    state: Literal["running", "done", "failed", "cancelled"] = "running"
    stage: str = "starting"
    done: int = 0
    total: int = 0
    result: Any = None
    error: str = ""
    started: float = field(default_factory=time.monotonic)
    stage_started: float = field(default_factory=time.monotonic)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    def cancel(self) -> None:
        """Stop the work when it next reports or asks."""
        self._stop.set()

    @property
    def cancelling(self) -> bool:
        return self.state == "running" and self._stop.is_set()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        """What the running stage still needs at its rate so far; None while that says little."""
        spent = time.monotonic() - self.stage_started
        return None if self.done < 2 or spent < 1 else spent / self.done * (self.total - self.done)

    def report(self, stage: str, done: int, total: int) -> None:
        """What the work calls as it goes on; raises once the job was cancelled."""
        if stage == self.stage:
            self.done, self.total = done, total  # what was done counts, also when nothing more will be
        self.check()
        if stage != self.stage:
            self.stage_started = time.monotonic()
        self.stage, self.done, self.total = stage, done, total

    def check(self) -> None:
        """What long work calls between reports: raises once the job was cancelled."""
        if self._stop.is_set():
            raise _Cancelled

    def run(self, work: Callable[[Job], Any]) -> None:
        """Do the work, which gets this job to report to; whatever happens ends in `state`."""
        try:
            result = work(self)
        except _Cancelled:
            self.state = "cancelled"
        except InterpError as error:
            self.error, self.state = str(error), "failed"
        except Exception as error:
            _log.exception("%s failed", self.name)
            self.error, self.state = f"{type(error).__name__}: {error}", "failed"
        else:
            self.result, self.state = result, "done"


class Stoppable(TorchFunctionMode):
    """Asks before each torch operation of this thread whether to go on, so that a cancel need not wait for a stage."""

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self._check = check

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._check()
        return func(*args, **(kwargs or {}))


class Jobs:
    """The jobs of this server, newest last."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._lock = threading.Lock()
        self._count = 0

    def start(self, name: str, work: Callable[[Job], Any]) -> Job:
        """Start some work in a thread. While a job of that name runs, it is returned instead. Raises `InputError`
        while as many others run as this server has room for."""
        with self._lock:
            running = self.running(name)
            if running is not None:
                return running
            busy = self.every_running()
            if len(busy) >= MOST_RUNNING:
                oldest = f"; the oldest is {busy[0].name!r}" if busy else ""
                raise InputError(
                    f"This server runs {len(busy)} jobs already, as many as it has room for{oldest}. Wait until one "
                    "ends, or cancel one, and try again."
                )
            self._count += 1
            job = Job(name, self._count)
            ended = [one for one in self._jobs if one.state != "running"][: max(0, len(self._jobs) + 1 - _KEPT)]
            self._jobs = [*(one for one in self._jobs if one not in ended), job]  # what runs is never forgotten
        threading.Thread(target=job.run, args=(work,), name=f"job {job.number}", daemon=True).start()
        return job

    def running(self, name: str) -> Job | None:
        return next((job for job in self._jobs if job.name == name and job.state == "running"), None)

    def every_running(self) -> list[Job]:
        """The jobs that run, of whatever name, oldest first."""
        return [job for job in self._jobs if job.state == "running"]

    def latest(self, name: str) -> Job | None:
        return next((job for job in reversed(self._jobs) if job.name == name), None)


@st.cache_resource(show_spinner=False)
def shared_jobs() -> Jobs:
    """The one registry of this server."""
    return Jobs()
