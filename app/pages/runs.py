"""Runs: what the store holds; one run with how it was made, two compared, and one for good deleted."""

from __future__ import annotations

import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app import models, state, store
from app.as_python import of_run, of_runs
from app.components.text import details, notice, plain, table
from app.components.toolbar import Frames, toolbar
from app.computing import computed
from app.navigation import open_page, pages
from app.run_list import difference, listed, matching, open_settings, restore, summary_of
from interp.errors import InterpError

_MOST = 300  # runs in the list
_ROWS = 40  # of a table on the page
_DELETED = "deleted run"


def _filters(every: list[store.RunInfo]) -> list[store.RunInfo]:
    """The search; it returns the runs that it leaves."""
    kinds = sorted({run.kind for run in every if run.kind})
    kind = state.get("run_kind")
    if kind is not None and kind not in kinds:
        state.refuse("run_kind", f"There is no run of kind {kind}; there are {', '.join(kinds) or 'none'}.", None)
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Search",
            placeholder="words of a title, model, task, kind or id",
            max_chars=state.MAX_TOKEN_TEXT,
            **state.widget("search", state.get("search")),
        )
        options = [None, *kinds]
        st.selectbox("Kind", options, placeholder="all", width=180, **state.widget("run_kind", kind))
        days = {name: _day(name) for name in ("since", "until")}
    return matching(every, state.get("search"), kind=kind, **days)


def _day(name: str) -> date | None:
    """A day to search from or to, in UTC."""
    chosen = state.get(name)
    key = f"widget:{name}"
    st.session_state[key] = None if chosen is None else date.fromisoformat(chosen)

    def take() -> None:
        found = st.session_state[key]
        state.put(name, None if found is None else found.isoformat())

    return st.date_input(name.capitalize(), key=key, on_change=take, width=150, format="YYYY-MM-DD")


def _list(found: list[store.RunInfo]) -> None:
    shown = found[:_MOST]
    key = f"list:{st.session_state.get('visits', 0)}:{','.join(run.id[-8:] for run in shown)}"

    def take() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        if rows:
            state.put("picked", shown[rows[0]].id)
            state.put("other", None)

    st.dataframe(
        listed(shown),
        hide_index=True,
        on_select=take,
        selection_mode="single-row",
        key=key,
        row_height=30,
        height=min(320, 30 * len(shown) + 40),
        column_config={
            "title": st.column_config.TextColumn(width=330),
            "status": st.column_config.TextColumn(width=90),
        },
    )
    more = f" The newest {_MOST} are listed; search for the others." if len(found) > _MOST else ""
    plain(f"{len(found):,} run{'' if len(found) == 1 else 's'}; tick a row to look at it.{more}")


def _choose(name: str, label: str, every: dict[str, store.RunInfo], first: str | None) -> str | None:
    chosen = state.get(name)
    if chosen is not None and chosen not in every:
        state.refuse(name, f"There is no run {chosen} in {store.run_store().path}.", None)
        st.rerun()
    chosen = chosen or first
    titles = {run_id: f"{store.title(run)} · {run_id}" for run_id, run in every.items()}
    options = list(every) if first else [None, *every]
    bound = state.widget(name, chosen)
    st.selectbox(
        label, options, format_func=lambda one: titles.get(one or "", "–"), placeholder="no other run", **bound
    )
    return chosen


def _show(run: store.RunInfo) -> None:
    """One run: what it found, how it was made, and what can be done with it."""
    if run.status != "ok":
        notice(f"This run cannot be opened: {run.reason}. It can be exported as it is, or deleted.", "warning")
        with st.container(horizontal=True):
            _archive(run)
            _delete(run)
        return
    bar = st.container()
    try:
        with st.spinner("Reading the run…", show_time=True):
            found = store.opened(run)
    except InterpError as error:
        notice(str(error), "error")
        found = None
    with st.container(horizontal=True):
        _open(run)
        _archive(run)
        _delete(run)
    if found is not None:
        with bar:
            tables: Frames = {"results": found.to_frame}
            toolbar(f"run_{run.id}", of_run(run.id, "print(found)"), tables, page=found.to_html, pictures=False)
        _found(run, found)
    with st.expander("Provenance: how it was made", expanded=found is None):
        _provenance(run)


def _found(run: store.RunInfo, found: Any) -> None:
    try:
        rows = computed(f"Summary of run {run.id}", ("summary", run.id, str(run.created)), lambda: summary_of(found))
    except (InterpError, TypeError, ValueError) as error:
        notice(f"This kind has no short table here: {error}")
        return
    if rows is not None:
        st.markdown("#### What it found")
        table(rows, height="24rem")


def _open(run: store.RunInfo) -> None:
    target = open_settings(run)
    if target is None:
        st.button("Open", disabled=True, key="open", help="No page draws this kind, or its model is not at hand")
        return
    page, settings = target
    if st.button(f"Open in {pages()[page].title}", type="primary", key="open"):
        restore(settings)
        open_page(page)


def _archive(run: store.RunInfo) -> None:
    st.download_button(
        "Export archive (zip)",
        lambda: _zip(run.id),
        f"{run.id}.zip",
        "application/zip",
        on_click="ignore",
        icon=":material/download:",
        help="Unpacked in a folder of runs, it is a run again.",
        key="archive",
    )


def _zip(run_id: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return store.run_store().export(run_id, Path(folder)).read_bytes()


def _delete(run: store.RunInfo) -> None:
    with st.popover("Delete…", icon=":material/delete:"), st.form("delete", border=False, clear_on_submit=True):
        plain(f"This removes run {run.id} for good. Type its whole id to confirm.")
        typed = st.text_input("Id of the run to delete", max_chars=60, key="typed id")
        if st.form_submit_button("Delete for good"):
            if typed.strip() != run.id:
                notice(f"That is not {run.id}; nothing was deleted.", "warning")
                return
            try:
                store.run_store().delete(run.id)
            except InterpError as error:
                notice(str(error), "error")
                return
            st.session_state[_DELETED] = run.id
            state.put("picked", None)
            state.put("other", None)
            st.rerun()


def _provenance(run: store.RunInfo) -> None:
    try:
        manifest = dict(store.run_store().open(run.id).manifest)
    except InterpError as error:
        notice(str(error), "error")
        return
    files = manifest.pop("files", {})
    table(details(manifest), words=True)
    rows = [{"file": name, "bytes": f"{one['bytes']:,}", "sha256": one["sha256"]} for name, one in files.items()]
    table(pd.DataFrame(rows), words=True)


def _compare(run: store.RunInfo, other: store.RunInfo) -> None:
    key = ("comparison", run.id, str(run.created), other.id, str(other.created))
    found = computed(
        f"Comparison of {run.id} with {other.id}",
        key,
        lambda: difference(store.opened(run), store.opened(other)),
    )
    if found is None:
        return
    ids = {"before": run.id, "after": other.id}
    toolbar(f"compare_{run.id}_{other.id}", of_runs(ids, *found.lines), found.tables, pictures=False)
    plain(found.said)
    for name, rows in found.tables.items():
        st.markdown(f"#### {name.capitalize()}")
        if rows.empty:
            notice("None: nothing surely changed.")
        else:
            table(rows.head(_ROWS), height="28rem")
            if len(rows) > _ROWS:
                plain(f"The first {_ROWS} of {len(rows):,} rows; all of them are in the CSV above.")


if deleted := st.session_state.pop(_DELETED, None):
    notice(f"Run {deleted} was deleted.")
every = store.runs()
picked, other = None, None
if not every:
    notice(
        f"The store {store.run_store().path} holds no run yet. Find heads on the Atlas page, patch on Patching, "
        f"or fill it from a terminal with\ninterp heads {models.default_model()} --store {store.run_store().path}"
    )
else:
    found = _filters(every)
    by_id = {run.id: run for run in every}
    if found:
        _list(found)
    else:
        notice("No run matches. Use fewer words, another kind or other days.")
    if found or state.get("picked"):
        chosen, against = st.columns(2)
        with chosen:
            first = next((run.id for run in found if run.status == "ok"), (found or every)[0].id)
            picked = _choose("picked", "Run", by_id, first)
        readable = {name: run for name, run in by_id.items() if run.status == "ok" and name != picked}
        with against:
            other = _choose("other", "Compare with (the later one)", readable, None)
        if other is not None and picked is not None and by_id[picked].status == "ok":
            _compare(by_id[picked], by_id[other])
        elif picked is not None:
            _show(by_id[picked])
state.write_back(
    picked=picked, other=other, **{name: state.get(name) for name in ("search", "run_kind", "since", "until")}
)
