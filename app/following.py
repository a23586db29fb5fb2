"""A job on a page: how far it is, how long it still takes, and the button that cancels it."""

from __future__ import annotations

import math
from collections.abc import Callable

import streamlit as st

from app.components.text import plain
from app.jobs import Job

__all__ = ["duration", "follow"]


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
