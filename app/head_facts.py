"""The parts of the Head page below the attention: what runs say of the head, and its own examples."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import examples, facts, state, store
from app.components.text import notice, plain, table
from app.components.token_attention import token_attention
from app.following import follow
from app.jobs import Job
from app.navigation import open_page
from app.wording import group_of, task_of
from interp.errors import InterpError
from interp.heads.base import finder, finders
from interp.results import HeadScores
from interp.sites import Head

__all__ = ["known", "own_examples"]

_OTHER_RUNS = 6  # of the same model, that are looked at
_DRAWN = 3  # examples drawn in full
PATIENCE = 2.0  # seconds that a page waits for prompts before it shows the job


def known(run: store.RunInfo, head: str) -> None:
    """What a run says about a head, one row a kind, all that was measured of it, and what other runs say."""
    st.markdown(f"#### What is known about head {head}")
    results, rows = store.results(run), store.summaries(run)
    mine = rows.loc[rows["head"] == head]
    if mine.empty:
        notice(f"The run {run.id} holds no scores of head {head}.")
    else:
        shown = mine.drop(columns=["head", "outcome"])
        if (shown["why no better"] == "–").all():
            shown = shown.drop(columns="why no better")
        table(shown, wrap="why no better")
        _sets(results, head)
        _details(results, head, dict(zip(mine["kind"], mine["outcome"], strict=True)))
    _others(run, head)


def _sets(results: HeadScores, head: str) -> None:
    in_sets = [row["kind"] for row in results.sets.to_dict("records") if head in str(row.get("heads", "")).split()]
    if in_sets:
        plain(f"Among the heads that were ablated together: {', '.join(map(str, in_sets))}.")


def _details(results: HeadScores, head: str, outcomes: dict[str, str]) -> None:
    """One kind at a time: everything measured, and the way back to the map of that kind."""
    names = list(outcomes)
    best = next((kind for kind in names if outcomes[kind] == "named"), None)
    best = best or next((kind for kind in names if outcomes[kind] not in ("untested", "failed")), names[0])
    chosen = state.get("kind") if state.get("kind") in names else best
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Everything measured as",
            names,
            format_func=lambda kind: f"{group_of(kind, results.about)} · {kind}",
            width=360,
            **state.widget("kind", chosen),
        )
        if st.button("Show this kind in the Atlas", key="to the atlas", icon=":material/grid_on:"):
            state.put("kind", chosen)
            state.put("verdict", "all")
            open_page("atlas")
    (row,) = [row for row in facts.rows_of(results, head) if row["kind"] == chosen]
    plain(results.describe(chosen))
    table(facts.measures(results, row))


def _others(run: store.RunInfo, head: str) -> None:
    """What other runs of the same model say, newest first."""
    siblings = store.siblings(run)
    if not siblings or run.model is None:
        return
    lines: list[pd.DataFrame] = []
    unread = []
    for other in siblings[:_OTHER_RUNS]:
        try:
            rows = store.summaries(other)
        except InterpError as error:
            unread.append(f"{other.id}: {error}")
            continue
        mine = rows.loc[rows["head"] == head].drop(columns=["head", "outcome"])
        if not mine.empty:
            mine.insert(0, "run", store.title(other))
            lines.append(mine)
    with st.expander(f"In other runs of this model ({len(siblings)})"):
        if lines:
            table(pd.concat(lines, ignore_index=True), wrap="why no better")
        else:
            plain("None of them holds scores of this head.")
        if len(siblings) > _OTHER_RUNS:
            plain(f"The {_OTHER_RUNS} newest are shown.")
        if unread:
            notice("Runs that cannot be read:\n" + "\n".join(unread), "warning")


def own_examples(model: str, run: store.RunInfo | None, head: str) -> str | None:
    """Prompts of a task on which the head is read from the kind's own position; returns the kind that is shown, or
    None where the run holds no kind of a task."""
    if run is None:
        return None
    results, rows = store.results(run), store.summaries(run)
    kinds = [kind for kind in results.kinds if kind in finders() and task_of(kind, results.about) is not None]
    if not kinds:
        return None
    st.markdown("#### Its own examples")
    asked, outcome = state.get("examples"), rows.loc[rows["head"] == head].set_index("kind")["outcome"]
    if asked is not None and asked not in kinds:
        state.refuse("examples", f"This run has no examples of {asked}; it has those of {', '.join(kinds)}.", None)
        st.rerun()
    order = ["named", "attends", "matters"]
    best = next((kind for words in order for kind in kinds if outcome.get(kind) == words), kinds[0])
    chosen = asked or (state.get("kind") if state.get("kind") in kinds else best)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "As",
            kinds,
            format_func=lambda kind: f"{group_of(kind, results.about)} · {kind}",
            width=360,
            **state.widget("examples", chosen),
        )
    _examples(model, Head.parse(head), chosen, int(results.about.get("seed") or 0))
    return asked


def _examples(model: str, head: Head, kind: str, seed: int) -> None:
    try:
        found = examples.found_or_job(model, kind, seed, patience=PATIENCE)
        if isinstance(found, Job):
            if not _ended(found):
                return
            found = examples.found_or_job(model, kind, seed, patience=PATIENCE, again=True)
            if isinstance(found, Job):
                st.rerun()
        shown = examples.examples(model, head, kind, found)
    except InterpError as error:
        notice(str(error), "error")
        return
    one = finder(kind)
    query, key = examples.read_from(one), examples.reads(one)
    plain(
        f"Prompts of the task {one.task} that no head was chosen by, read from {query}; the strongest attention to "
        f"{key} first. Named positions are underlined; hover, click and arrow keys work as above."
    )
    for number, example in enumerate(shown[:_DRAWN]):
        token_attention(
            example.tokens,
            example.weights,
            has_bos=example.has_bos,
            key=f"example:{number}",
            start=example.query,
            marks=example.marks,
            compact=True,
        )
    table(_strengths(shown, query, key), wrap="prompt")


def _strengths(shown: list[examples.Example], query: str, key: str) -> pd.DataFrame:
    """Attention from the query to each named position, one row a prompt."""
    names = [key, *(name for name in shown[0].shares if name != key)]
    rows: list[dict[str, Any]] = []
    for example in shown:
        numbers = {f"{query}→{name}": example.shares.get(name, float("nan")) for name in names}
        rows.append({"prompt": "".join(example.tokens[int(example.has_bos) :])} | numbers)
    return pd.DataFrame(rows)


def _ended(job: Job) -> bool:
    """Follow a job, or say how it ended; whether the reader asks for it again."""
    if job.state == "running":
        follow(job, lambda ended: None)
        return False
    notice(job.error if job.state == "failed" else f"{job.name}: cancelled.", "error" if job.error else "info")
    return st.button("Try again", key="draw again")
