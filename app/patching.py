"""Patching from the page: what is asked, its cost, the job, and the panel that starts, follows and cancels it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import streamlit as st

import interp
from app import models, state, store
from app.components.text import notice, plain
from app.following import duration, follow, mine, started
from app.jobs import Job, Stoppable, shared_jobs
from interp.causal.plan import Plan
from interp.errors import InterpError
from interp.metrics import METRICS
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results import Effects

__all__ = ["CHOICES", "DEFAULTS", "MAX_BYTES", "TEXTS", "Asked", "arguments", "axes_of", "job_name", "panel", "patch"]

TEXTS = ("clean", "corrupt", "answer", "foil")
_UNITS = {"z": "head", "q": "head", "pattern": "head", "k": "kv_head", "v": "kv_head"}
CHOICES = {
    "site": ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern"),
    "direction": ("denoise", "noise"),
    "metric": tuple(METRICS),
}
DEFAULTS = {
    "clean": "When Mary and John went to the store, John gave a drink to",
    "corrupt": "When Mary and John went to the store, Mary gave a drink to",
    "answer": "Mary",
    "foil": "John",
    "site": "resid_pre",
    "direction": "denoise",
    "metric": "logit_diff",
}
MAX_BYTES: int | None = None  # of a job, above the weights; None: what the engine takes by itself
_JOB = "patching in"  # how the names of these jobs begin
_STAGE = "cells patched"


@dataclass(frozen=True)
class Asked:
    """One pair, and what is patched in it. `foil` may be empty."""

    model: str
    clean: str
    corrupt: str
    answer: str
    foil: str
    site: str
    over: str  # axes with a comma between them
    direction: str
    metric: str

    def pairs(self, model: HookedTransformer) -> PromptPairs:
        return PromptPairs.from_text(model, self.clean, self.corrupt, self.answer, self.foil or None)

    def plan(self, model: HookedTransformer) -> Plan:
        """The checked plan. Raises `InterpError` for whatever cannot be patched."""
        direction: Any = self.direction
        return interp.patch.plan(
            model,
            self.pairs(model),
            self.site,
            self.over.split(","),
            direction=direction,
            metric=self.metric,
            max_bytes=MAX_BYTES,
        )

    @property
    def spec(self) -> dict[str, Any]:
        return {"analysis": "patch", **asdict(self), "over": self.over.split(",")}

    @property
    def title(self) -> str:
        axes = self.over.replace(",", " × ")
        text = self.clean if len(self.clean) <= 40 else f"{self.clean[:40]}…"
        return f"{self.site}, {axes}, {self.direction}: {text}"


def axes_of(site: str) -> dict[str, str]:
    """The axes that a site's cells can be spread over, with their names; the first ones by default."""
    unit = _UNITS.get(site)
    found = [f"layer,{unit}", "layer,pos"] if unit else ["layer,pos"]
    return {axes: axes.replace(",", " × ") for axes in found}


def arguments(spec: Mapping[str, Any]) -> dict[str, str]:
    """What a stored run was asked, as far as this page can ask it: a run of several pairs leaves the texts out."""
    found: dict[str, str] = {}
    for name in TEXTS:
        given = spec.get(name, "" if name == "foil" else None)
        given = given[0] if isinstance(given, list) and len(given) == 1 else given
        if isinstance(given, str):
            found[name] = given
    if not {"clean", "corrupt", "answer"} <= found.keys():
        found = {}
    found |= {name: spec[name] for name, known in CHOICES.items() if spec.get(name) in known}
    axes = spec.get("over")
    if isinstance(axes, list) and ",".join(map(str, axes)) in axes_of(found.get("site", "")):
        found["over"] = ",".join(axes)
    return found


def patch(asked: Asked, job: Job) -> str:
    """Patch and store the effects; returns the run's id. What was finished when it is stopped is stored too, marked
    partial, and is the job's result. Calls no `st.*` that draws."""
    job.report("loading the model", 0, 1)
    goal = store.run_store()
    goal.must_be_writable()
    model = models.loaded(asked.model)  # not to be stopped half-way: other sessions may wait for it
    content = models.content_hash(asked.model)
    began = time.perf_counter()

    def keep(found: Effects) -> str:
        timings = {"patch": round(time.perf_counter() - began, 3)}
        title = f"{'partial: ' if found.about.get('partial') else ''}{asked.title}"
        return goal.save(found, spec=asked.spec, model_hash=content, timings=timings, title=title).id

    try:
        with Stoppable(job.check):
            found = asked.plan(model).run(lambda done, total: job.report(_STAGE, done, total))
    except Exception as error:
        partial = getattr(error, "partial", None)
        if partial is not None and job.stage == _STAGE and job.done:
            job.result = keep(partial)
        raise
    return keep(found)


def panel(asked: Asked) -> None:
    """Say what it would cost and start the job, or follow and cancel the one that runs. When it ends, the page shows
    what it stored."""
    name = job_name(asked)
    for other in shared_jobs().every_running():
        if mine(other) and other.name.startswith(_JOB) and other.name != name:
            follow(other, lambda ended: None)  # asked before the editor was changed: it can still be cancelled
    job = shared_jobs().running(name)
    if job is not None:
        follow(job, _show_run)
        return
    _report_end(shared_jobs().latest(name))
    try:
        cells, skipped, seconds = _cost(asked)
    except InterpError as error:
        notice(str(error), "error")
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Patch", type="primary", key="start the job") and started(name, lambda job: patch(asked, job)):
            st.rerun()
        known = f" ({skipped:,} more are known to be 0)" if skipped else ""
        spent = "less than a second" if seconds < 1 else f"about {duration(seconds)}"
        plain(f"{cells:,} cells to compute{known}, {spent}. Runs in the background and stores the run.")


def job_name(asked: Asked) -> str:
    """What the job of a question is called: whoever asks the same, also after a reload, follows it, and nobody else."""
    digest = hashlib.sha256(repr(asked).encode()).hexdigest()[:6]
    return f"{_JOB} {asked.model} ({digest})"


@st.cache_data(max_entries=64, show_spinner=False)
def _cost(asked: Asked) -> tuple[int, int, float]:
    """Cells to compute, cells known to be 0, and seconds."""
    cost = asked.plan(models.loaded(asked.model)).cost
    return cost.cells, cost.skipped, cost.seconds


def _show_run(job: Job) -> None:
    if job.result:
        state.put("effects", job.result)


def _report_end(job: Job | None) -> None:
    if job is None or job.state not in ("failed", "cancelled"):
        return
    kept = f"What was finished is run {job.result}." if job.result else "Nothing was stored."
    if job.state == "failed":
        notice(f"The last attempt at {job.name} failed. {job.error}\n{kept}", "error")
    else:
        notice(f"{job.name}: cancelled after {job.done:,} of {job.total:,} {job.stage}. {kept}")
