"""A job on a page: how far it is, how long it still takes, and the button that cancels it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import streamlit as st

from app.components.text import notice, plain
from app.jobs import Job, shared_jobs
from interp.errors import InputError

__all__ = ["duration", "follow", "mine", "started"]


_MINE = "jobs that this session started"


def started(name: str, work: Callable[[Job], Any]) -> bool:
    """Start a job for this session, or say why the server cannot take it."""
    try:
        job = shared_jobs().start(name, work)
    except InputError as error:
        notice(str(error), "warning")
        return False
    st.session_state.setdefault(_MINE, set()).add(job.number)
    return True


def mine(job: Job) -> bool:
    """Whether this session started a job."""
    return job.number in st.session_state.get(_MINE, set())


@st.fragment(run_every=0.5)
def follow(job: Job, on_end: Callable[[Job], None]) -> None:
    """Show a running job until it ends; then `on_end(job)` is called and the page runs again."""
    if job.state != "running":
        on_end(job)
        st.rerun(scope="app")
    left = "" if job.seconds_left is None else f", about {duration(job.seconds_left)} left"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(min(1.0, job.done / job.total) if job.total else 0.0)
        if st.button("Cancel", disabled=job.cancelling, key=f"cancel job {job.number}"):
            job.cancel()
    step = "stopping" if job.cancelling else f"{job.stage}: {job.done:,} of {job.total:,}{left}"
    plain(f"{job.name} · {step} · {job.seconds:.0f} s so far. It goes on if this page is closed.")


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{max(1, math.ceil(seconds))} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
