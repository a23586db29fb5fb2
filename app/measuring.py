"""Finding heads from the page: the job, and the panel that starts it, follows it and cancels it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st
import torch
from torch.overrides import TorchFunctionMode

import interp
from app import models, state, store
from app.components.text import notice, plain
from app.jobs import Job, shared_jobs
from interp.heads.base import finders

__all__ = ["is_running", "measure_heads", "panel"]

_DEFAULT_KINDS = ("previous_token", "induction")


class _Stoppable(TorchFunctionMode):
    """Asks before each torch operation of this thread whether to go on, so that a cancel need not wait for a stage."""

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self._check = check

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._check()
        return func(*args, **(kwargs or {}))


def measure_heads(model: str, kinds: Sequence[str], job: Job) -> str:
    """Find heads with the default settings and store them; returns the run's id. Calls no `st.*` that draws."""
    job.report("loading the model", 0, 1)
    goal = store.run_store()
    goal.must_be_writable()
    started = time.perf_counter()
    loaded = models.loaded(model)  # not to be stopped half-way: other sessions may wait for it
    with torch.no_grad(), _Stoppable(job.check):
        found = interp.find_heads(loaded, list(kinds), progress=job.report)
    job.report("storing", 0, 1)
    spec = {"analysis": "find_heads", "model": model, "kinds": list(kinds)}
    return goal.save(found, spec=spec, timings={"find_heads": time.perf_counter() - started}).id


def panel(model: str) -> None:
    """Start, follow or cancel the job that finds the heads of a model. When it is done, the page shows its run."""
    name = _job_name(model)
    job = shared_jobs().running(name)
    if job is None:
        _report_end(shared_jobs().latest(name))
        _start(model, name)
    else:
        _follow(job)


def is_running(model: str) -> bool:
    """Whether the heads of a model are being found just now."""
    return shared_jobs().running(_job_name(model)) is not None


def _job_name(model: str) -> str:
    return f"find heads of {model}"


def _start(model: str, name: str) -> None:
    kinds = st.multiselect("Kinds of heads", list(finders()), default=[k for k in _DEFAULT_KINDS if k in finders()])
    if st.button("Find heads", type="primary", disabled=not kinds, key="start the job"):
        shared_jobs().start(name, lambda job: measure_heads(model, kinds, job))
        st.rerun()
    plain(f"Finds them in {model} in the background (minutes, even for a small model) and stores the run.")


@st.fragment(run_every=0.5)
def _follow(job: Job) -> None:
    if job.state != "running":
        if job.state == "done" and job.result:
            state.put("run", job.result)
        st.rerun(scope="app")
    left = "" if job.seconds_left is None else f", about {math.ceil(job.seconds_left)} s left"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(min(1.0, job.done / job.total) if job.total else 0.0)
        if st.button("Cancel", disabled=job.cancelling, key="cancel the job"):
            job.cancel()
    step = "stopping" if job.cancelling else f"{job.stage}: {job.done} of {job.total}{left}"
    plain(f"{job.name} · {step} · {job.seconds:.0f} s so far. It goes on if this page is closed.")


def _report_end(job: Job | None) -> None:
    if job is None:
        return
    if job.state == "failed":
        notice(f"The last attempt to {job.name} failed. {job.error}", "error")
    elif job.state == "cancelled":
        notice(f"{job.name}: cancelled after {job.stage} ({job.done} of {job.total}). Nothing was stored.")
