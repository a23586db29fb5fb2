"""Finding heads from the page: the job, and the panel that starts it, follows it and cancels it."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import streamlit as st
import torch

import interp
from app import models, state, store
from app.components.text import notice, plain
from app.following import follow, mine, started
from app.jobs import Job, Stoppable, shared_jobs
from app.wording import group_of
from interp.families.converted import cache_folder
from interp.heads.base import finders
from interp.heads.find import BASIC_KINDS
from interp.heads.task_finder import TaskFinder

__all__ = ["DEFAULT_N", "is_running", "kept_folder", "measure_heads", "panel"]

DEFAULT_N = 32
_LEAST_N, _MOST_N = 8, 200


def measure_heads(model: str, kinds: Sequence[str], job: Job, *, n: int = DEFAULT_N) -> str:
    """Find heads and store them; returns the run's id. What is finished is kept in the cache until then, so that the
    same search goes on from there after a cancel. Calls no `st.*` that draws."""
    job.report("loading the model", 0, 1)
    goal = store.run_store()
    goal.must_be_writable()
    started, kept = time.perf_counter(), kept_folder(model, kinds, n)
    loaded = models.loaded(model)  # not to be stopped half-way: other sessions may wait for it
    with torch.no_grad(), Stoppable(job.check):
        found = interp.find_heads(loaded, list(kinds), n=n, keep=kept, progress=job.report)
    job.report("storing", 0, 1)
    spec = {"analysis": "find_heads", "model": model, "kinds": list(kinds), "n": n}
    run = goal.save(found, spec=spec, timings={"find_heads": time.perf_counter() - started}).id
    shutil.rmtree(kept, ignore_errors=True)
    return run


def kept_folder(model: str, kinds: Sequence[str], n: int) -> Path:
    """Where one search keeps what it has finished."""
    asked = hashlib.sha256(json.dumps([model, sorted(kinds), n]).encode()).hexdigest()[:16]
    return cache_folder().parent / "heads" / asked


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
    every = finders()
    groups = {kind: group_of(kind, {}) for kind in every}
    order = [*BASIC_KINDS, *sorted((kind for kind in every if kind not in BASIC_KINDS), key=lambda k: (groups[k], k))]
    kinds = st.multiselect(
        "Kinds of heads", order, default=list(BASIC_KINDS), format_func=lambda kind: f"{groups[kind]} · {kind}"
    )
    n = st.number_input(
        "Items",
        _LEAST_N,
        _MOST_N,
        DEFAULT_N,
        help="Items that heads are chosen by, and as many others that are reported on. Twice as many take twice as "
        "long, and intervals become narrower.",
        width=200,
    )
    slow = sorted({groups[kind] for kind in kinds if isinstance(every[kind], TaskFinder)})
    if slow:
        notice(
            f"Kinds of a task ({', '.join(slow)}) are put to many more tests than patterns: expect several minutes "
            "for each task even with a small model, more with more items. What is finished is kept when you cancel.",
            "warning",
        )
    pressed = st.button("Find heads", type="primary", disabled=not kinds, key="start the job")
    if pressed and started(name, lambda job: measure_heads(model, kinds, job, n=int(n))):
        st.rerun()
    plain(f"Finds them in {model} in the background (minutes, even for a small model) and stores the run.")


def _show_run(job: Job) -> None:
    if job.state == "done" and job.result and (mine(job) or state.get("run") is None):  # not on another's page
        state.put("run", job.result)


def _report_end(job: Job | None) -> None:
    if job is None:
        return
    if job.state == "failed":
        notice(f"The last attempt to {job.name} failed. {job.error}", "error")
    elif job.state == "cancelled":
        notice(
            f"{job.name}: cancelled after {job.stage} ({job.done} of {job.total}). Nothing was stored.\n"
            "Kinds whose tests were finished are kept: the same search goes on behind them."
        )
