"""Finding heads from the page: the job, and the panel that starts it, follows it and cancels it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import streamlit as st
import torch

import interp
from app import models, state, store
from app.components.text import notice, plain
from app.following import follow
from app.jobs import Job, Stoppable, shared_jobs
from interp.heads.base import finders

__all__ = ["is_running", "measure_heads", "panel"]

_DEFAULT_KINDS = ("previous_token", "induction")


def measure_heads(model: str, kinds: Sequence[str], job: Job) -> str:
    """Find heads with the default settings and store them; returns the run's id. Calls no `st.*` that draws."""
    job.report("loading the model", 0, 1)
    goal = store.run_store()
    goal.must_be_writable()
    started = time.perf_counter()
    loaded = models.loaded(model)  # not to be stopped half-way: other sessions may wait for it
    with torch.no_grad(), Stoppable(job.check):
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
        follow(job, _show_run)


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


def _show_run(job: Job) -> None:
    if job.state == "done" and job.result:
        state.put("run", job.result)


def _report_end(job: Job | None) -> None:
    if job is None:
        return
    if job.state == "failed":
        notice(f"The last attempt to {job.name} failed. {job.error}", "error")
    elif job.state == "cancelled":
        notice(f"{job.name}: cancelled after {job.stage} ({job.done} of {job.total}). Nothing was stored.")
