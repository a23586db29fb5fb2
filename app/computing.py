"""Results that may take longer than a page: kept for all sessions, and made by a job that can be cancelled."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

import streamlit as st

from app.components.text import notice
from app.following import follow, started
from app.jobs import Job, Stoppable, shared_jobs

__all__ = ["PATIENCE", "computed", "known"]

PATIENCE = 2.0  # seconds that a page waits before it shows the job
_KEPT = 32


class _Memo:
    """What jobs found, by what was asked; the oldest is forgotten."""

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        return self._found.get(key)

    def put(self, key: Hashable, found: Any) -> None:
        with self._lock:
            self._found = dict([*list(self._found.items())[-(_KEPT - 1) :], (key, found)])


@st.cache_resource(show_spinner=False)
def _memo() -> _Memo:
    return _Memo()


def known(key: Hashable) -> Any:
    """What was found for a key; None unless it is there."""
    return _memo().get(key)


def computed(name: str, key: Hashable, work: Callable[[], Any], *, button: str = "", note: str = "") -> Any:
    """The result of `work` for `key`, or None while there is none: then its job, or how it ended, is shown instead.

    With a `button`, nothing begins before it is pressed; `note` stands beside it. Work runs in a thread, so it draws
    nothing; whatever it finds is shared between sessions: nothing may write into it.
    """
    memo, jobs = _memo(), shared_jobs()
    if (found := memo.get(key)) is not None:
        return found
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:6]
    title = f"{name} ({digest})"

    def run(job: Job) -> None:
        job.report("asking the model", 0, 1)
        with Stoppable(job.check):
            memo.put(key, work())

    job = jobs.latest(title)
    ended = job is not None and job.state in ("failed", "cancelled")
    if job is not None and ended:
        notice(job.error if job.state == "failed" else f"{name}: cancelled.", "error" if job.error else "info")
    if (job is None or job.state != "running") and (button or ended):
        place = st.empty()
        with place.container(horizontal=True, vertical_alignment="center"):
            pressed = st.button("Try again" if ended else button, key=f"start {name}")
            if note and not ended:
                st.caption(note)
        if not pressed:
            return None
        place.empty()  # the job stands here instead
        job = None
    elif job is not None and job.state == "done":  # done, and forgotten since
        job = None
    if job is None:
        if not started(title, run):
            return None
        job = jobs.latest(title)
        assert job is not None
    _wait(job)
    if job.state == "running":
        follow(job, lambda ended: None)
        return None
    if (found := memo.get(key)) is None:
        st.rerun()
    if button:
        st.rerun()  # without the button
    return found


def _wait(job: Job) -> None:
    until = time.monotonic() + PATIENCE
    while job.state == "running" and time.monotonic() < until:
        time.sleep(0.01)
