"""A head's own examples: prompts of the task that a kind serves, and what the head attends to there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
import torch

from app import models
from app.jobs import Job, Stoppable, shared_jobs
from interp import tasks
from interp.errors import InputError
from interp.heads.base import finder
from interp.heads.study import END
from interp.heads.task_finder import TaskFinder
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.sites import Head, Site

__all__ = ["Example", "Prompts", "examples", "found_or_job", "prompts", "read_from", "reads"]

N_ITEMS = 8
_KEPT = 12
_MAIN = {"s_inhibition": "S2"}  # where it is not the first position that a kind names


@dataclass(frozen=True)
class Prompts:
    """Some prompts of a task, as tokens; `positions` name places in each. `has_bos`: a BOS stands in front."""

    tokens: tuple[tuple[int, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    positions: dict[str, tuple[tuple[int, ...], ...]]
    has_bos: bool


@dataclass(frozen=True)
class Example:
    """One head on one prompt: `weights[q_pos, k_pos]`, read at `query`; `shares` is its attention from there to each
    named position, `marks` the names of tokens."""

    tokens: list[str]
    weights: np.ndarray
    query: int
    shares: dict[str, float]
    marks: dict[int, str]
    has_bos: bool


def read_from(one: TaskFinder) -> str:
    """The position that a kind attends from."""
    return one.queries[0]


def reads(one: TaskFinder) -> str:
    """The position that a kind attends to, by which its examples are ordered."""
    return _MAIN.get(one.name) or next(name for name in one.positions if name not in one.queries)


def prompts(model_name: str, kind: str, seed: int, job: Job | None = None) -> Prompts:
    """Prompts of the reporting split of a kind's task. Calls no `st.*` that draws."""
    one = finder(kind)
    if not isinstance(one, TaskFinder):
        raise InputError(f"{kind} is known by its pattern and serves no task. Any prompt above shows it.")
    model = models.loaded(model_name)
    with torch.no_grad(), Stoppable(job.check if job is not None else lambda: None):
        task = tasks.load(one.task, model, one.corruptions[0], split="report", n=N_ITEMS, seed=seed)
    if task.pairs is None:
        raise InputError(f"The task {one.task} has no pairs of prompts to show.")
    return _some(model, task.pairs, bool(task.about.get("bos")))


def _some(model: HookedTransformer, pairs: PromptPairs, has_bos: bool) -> Prompts:
    """One prompt of each item."""
    first = {item: i for i, item in reversed(list(enumerate(pairs.items)))}
    chosen = sorted(first.values())[:N_ITEMS]
    rows = tuple(tuple(pairs.clean[i])[: models.MAX_TOKENS] for i in chosen)
    texts = tuple(tuple(_texts(model, row)) for row in rows)
    positions = {name: tuple(spans[i] for i in chosen) for name, spans in pairs.positions.items()}
    positions.setdefault(END, tuple((pairs.read[i],) for i in chosen))
    return Prompts(rows, texts, positions, has_bos)


def _texts(model: HookedTransformer, row: tuple[int, ...]) -> list[str]:
    return model.tokenizer.str_tokens(list(row)) if model.tokenizer is not None else [str(one) for one in row]


def examples(model_name: str, head: Head, kind: str, found: Prompts) -> list[Example]:
    """The prompts by how strongly the head attends from the kind's query to what the kind attends to, strongest first.
    One forward pass each up to the head's layer, kept for its other heads."""
    one, model = finder(kind), models.loaded(model_name)
    if read_from(one) not in found.positions:
        raise InputError(f"The prompts of the task {one.task} name no {read_from(one)}, from which {kind} heads read.")
    patterns = _patterns(models.content_hash(model_name), head.stack, head.layer, found.tokens, _model=model)
    shown = [_example(found, i, pattern[head.head], one) for i, pattern in enumerate(patterns)]
    return sorted(shown, key=lambda example: -example.shares.get(reads(one), 0.0))


def _example(found: Prompts, i: int, weights: np.ndarray, one: TaskFinder) -> Example:
    query = found.positions[read_from(one)][i][-1]
    spans = {name: of[i] for name, of in found.positions.items()}
    shares = {
        name: float(weights[query, list(span)].astype(float).sum())
        for name, span in spans.items()
        if name != read_from(one) and len(span) > 0 and max(span) < len(weights)
    }
    marks: dict[int, str] = {}
    for name, span in spans.items():
        if span:
            marks[span[-1]] = f"{marks[span[-1]]} {name}" if span[-1] in marks else name
    return Example(list(found.texts[i]), weights, query, shares, marks, found.has_bos)


@st.cache_resource(max_entries=8, show_spinner=False)
def _patterns(
    content: str, stack: str, layer: int, rows: tuple[tuple[int, ...], ...], *, _model: HookedTransformer
) -> list[np.ndarray]:
    """Attention of all heads of a layer on each row, `[head q_pos k_pos]` as float16."""
    site, found = str(Site("hook_pattern", "attn", layer, stack)), []
    for row in rows:
        with torch.no_grad():
            _, cache = _model.run_with_cache(
                torch.tensor([list(row)], device=_model.device), [site], stop_at_layer=layer + 1
            )
        found.append(cache[site][0].to(torch.float16).cpu().numpy())
    return found


class Memo:
    """What jobs found, by key; the oldest is forgotten."""

    def __init__(self) -> None:
        self._found: dict[Any, Prompts] = {}
        self._lock = threading.Lock()

    def get(self, key: Any) -> Prompts | None:
        return self._found.get(key)

    def put(self, key: Any, found: Prompts) -> None:
        with self._lock:
            self._found = dict([*list(self._found.items())[-(_KEPT - 1) :], (key, found)])


@st.cache_resource(show_spinner=False)
def memo() -> Memo:
    """The prompts of this server's sessions."""
    return Memo()


def found_or_job(model_name: str, kind: str, seed: int, *, patience: float, again: bool = False) -> Prompts | Job:
    """The prompts of a kind's task, or after `patience` seconds the job that makes them. One that failed or was
    cancelled is started `again` only when that is asked for."""
    one = finder(kind)
    key, known = (models.content_hash(model_name), one.task, one.corruptions[0], seed), memo()
    if (found := known.get(key)) is not None:
        return found
    name = f"draw prompts of the task {one.task} for {model_name} (seed {seed})"

    def work(job: Job) -> None:
        job.report("asking the model", 0, 1)
        known.put(key, prompts(model_name, kind, seed, job))

    job = shared_jobs().latest(name)
    if job is None or job.state == "done" or (again and job.state != "running"):
        job = shared_jobs().start(name, work)
    _wait(lambda: job.state == "running", patience)
    return known.get(key) or job


def _wait(running: Callable[[], bool], seconds: float) -> None:
    pause = threading.Event()
    for _ in range(max(1, round(seconds / 0.02))):
        if not running():
            return
        pause.wait(0.02)
