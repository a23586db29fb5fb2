"""Stored runs as the pages need them: one root that the launcher names, opened by id, results kept in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pandas as pd
import streamlit as st

from app import state
from app.components.text import notice
from app.wording import outcomes
from interp.atlas.results import Atlas
from interp.errors import StorageError
from interp.report.results import Report
from interp.results import Effects, HeadScores
from interp.runs.manifest import RunInfo
from interp.runs.store import RunStore
from interp.sites import Head

__all__ = [
    "RunInfo",
    "addresses",
    "choose_run",
    "effects",
    "heads_in",
    "largest",
    "name_unreadable",
    "opened",
    "results",
    "run_store",
    "runs",
    "siblings",
    "spec",
    "summaries",
    "title",
    "tuned_lenses",
]

WITH_HEADS = ("heads", "atlas", "report")  # kinds of runs that hold head scores


def run_store() -> RunStore:
    """The store that the launcher named in INTERP_STORE."""
    return RunStore(os.environ.get("INTERP_STORE", "runs"))


def runs() -> list[RunInfo]:
    """What the store holds, newest first, damaged runs included."""
    return run_store().list()


def results(run: RunInfo) -> HeadScores:
    """The scores of a run that holds some. They are shared between sessions: nothing may write into them."""
    return heads_in(_results(os.environ.get("INTERP_STORE", "runs"), run.id, str(run.created)))


def heads_in(found: Any) -> Any:
    """The head scores in an atlas or a report; anything else as it is."""
    return found.scores if isinstance(found, Atlas) else found.found if isinstance(found, Report) else found


def effects(run: RunInfo) -> Effects:
    """What a run of interventions found."""
    return opened(run)


def opened(run: RunInfo) -> Any:
    """What any run holds, shared between sessions: nothing may write into it."""
    return _results(os.environ.get("INTERP_STORE", "runs"), run.id, str(run.created))


def spec(run: RunInfo) -> Mapping[str, Any]:
    """The arguments that a run was made with."""
    found = run_store().open(run.id).manifest.get("spec")
    return found if isinstance(found, dict) else {}


@st.cache_resource(max_entries=8, show_spinner=False)
def _results(store: str, run_id: str, created: str) -> Any:
    return RunStore(store).open(run_id).results()


def summaries(run: RunInfo) -> pd.DataFrame:
    """The summary of all heads of a run, with the rank of each within its kind, why its verdict is no better, and the
    verdict's class (see `wording.outcomes`)."""
    return _summaries(os.environ.get("INTERP_STORE", "runs"), run.id, str(run.created))


@st.cache_resource(max_entries=8, show_spinner=False)
def _summaries(store: str, run_id: str, created: str) -> pd.DataFrame:
    found = heads_in(_results(store, run_id, created))
    table = found.summary(n=len(found.frame))
    position, count = table.groupby("kind").cumcount() + 1, table.groupby("kind")["head"].transform("size")
    table.insert(2, "rank", [f"{one} of {total}" for one, total in zip(position, count, strict=True)])
    rows = found.top(n=len(found.frame))  # in the same order
    reasons = rows["reason"] if "reason" in rows else [""] * len(rows)
    table["why no better"] = [reason if isinstance(reason, str) and reason else "–" for reason in reasons]
    table["outcome"] = outcomes(rows)
    return table


def siblings(run: RunInfo) -> list[RunInfo]:
    """Other runs of heads of the same model, newest first."""
    mine = [one for one in runs() if one.status == "ok" and one.kind in WITH_HEADS and one.model == run.model]
    return [one for one in mine if one.id != run.id]


def largest(run: RunInfo, normalize: Literal["pooled"] | None) -> pd.DataFrame:
    """The cells of a run with the largest effects; seconds where there are many cells."""
    return _largest(os.environ.get("INTERP_STORE", "runs"), run.id, str(run.created), normalize)


@st.cache_resource(max_entries=16, show_spinner=False)
def _largest(store: str, run_id: str, created: str, normalize: Literal["pooled"] | None) -> pd.DataFrame:
    return _results(store, run_id, created).top(12, normalize=normalize)


def tuned_lenses(model: str, content: Callable[[], str]) -> list[RunInfo]:
    """Runs that hold a tuned lens of this model, newest first. `content`, the hash of its weights, is asked for only
    where there is such a run: one of other weights fits no more. A store that cannot be listed has none."""
    try:
        every = runs()
    except StorageError:
        return []
    named = [one for one in every if one.status == "ok" and one.kind == "tuned_lens" and one.model == model]
    return [one for one in named if one.model_hash in (None, content())]


def addresses(table: pd.DataFrame) -> list[str]:
    """The address of the head of each row."""
    rows = zip(table["layer"], table["head"], table["sublayer"], table["stack"], strict=True)
    return [str(Head(int(layer), int(head), sublayer, stack)) for layer, head, sublayer, stack in rows]


def choose_run(
    kind: str = "heads", setting: str = "run", on_choice: Callable[[], None] = lambda: None
) -> RunInfo | None:
    """A select box over the runs of a kind that can be read, the newest chosen first; None where there is none. Runs
    of "heads" are all that hold head scores.
    `on_choice` is called when the reader chooses another one."""
    kinds = WITH_HEADS if kind == "heads" else (kind,)
    readable = {run.id: run for run in runs() if run.status == "ok" and run.kind in kinds}
    chosen = state.get(setting)
    if chosen is not None and chosen not in readable:
        instead = "The newest run is shown instead." if readable else "Nor is there any other."
        state.refuse(setting, f"There is no readable run {chosen} in {run_store().path}. {instead}", None)
        st.rerun()
    if not readable:
        return None
    chosen = chosen or next(iter(readable))
    titles = {name: title(run) for name, run in readable.items()}
    bound = state.widget(setting, chosen)

    def choose() -> None:
        bound["on_change"]()
        on_choice()

    st.selectbox("Run", list(readable), format_func=titles.__getitem__, key=bound["key"], on_change=choose)
    return readable[chosen]


def name_unreadable() -> None:
    """Say which runs of the store cannot be read, and why."""
    broken = [f"{run.id}: {run.reason}" for run in runs() if run.status != "ok"]
    if broken:
        some = broken[:5] + ([f"and {len(broken) - 5} more"] if len(broken) > 5 else [])
        notice("Runs that cannot be read:\n" + "\n".join(some), "warning")


def title(run: RunInfo) -> str:
    """A run as a list names it."""
    when = f"{run.created:%Y-%m-%d %H:%M} UTC" if run.created else ""
    return " · ".join(part for part in (run.title, when) if part)
