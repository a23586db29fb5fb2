"""The Atlas with something to compare with: another kind or another run, two maps side by side or their difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from app import comparing, state, store
from app.comparing import Side
from app.components.head_map import head_map, map_data
from app.components.text import notice, plain, table
from app.computing import computed
from app.wording import column_names, grouped
from interp.results import HeadScores
from interp.results.heads import with_interval
from interp.sites import Head

__all__ = ["Other", "choose", "draw"]

_NOTHING = "nothing"
_WAYS = {"beside": "side by side", "difference": "as a difference"}
_CHANGES = 10  # heads of a comparison of atlases


@dataclass(frozen=True)
class Other:
    """What the map is held against."""

    run: store.RunInfo
    results: HeadScores
    kind: str


def choose(run: store.RunInfo, results: HeadScores, kind: str) -> Other | None:
    """Boxes for the other run and kind; None where nothing is compared."""
    every = {one.id: one for one in store.runs() if one.status == "ok" and one.kind in store.WITH_HEADS}
    asked = state.get("against_run")
    if asked is not None and asked not in every:
        state.refuse("against_run", f"There is no readable run {asked} to compare with.", None)
        st.rerun()
    titles = {_NOTHING: "nothing", run.id: "this run, another kind"}
    titles |= {name: store.title(one) for name, one in every.items() if name != run.id}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        bound = state.widget("against_run", asked or _NOTHING)

        def take() -> None:
            given = st.session_state[bound["key"]]
            state.put("against_run", None if given == _NOTHING else given)

        st.selectbox(
            "Compare with", list(titles), format_func=titles.__getitem__, key=bound["key"], on_change=take, width=360
        )
        if asked is None:
            return None
        other = every[asked]
        found = results if other.id == run.id else store.results(other)
        return _kind_and_way(run, kind, Other(other, found, ""))


def _kind_and_way(run: store.RunInfo, kind: str, other: Other) -> Other | None:
    kinds = grouped(other.results)
    if other.run.id == run.id and len(kinds) < 2:
        notice("This run holds one kind only. Compare it with another run.")
        return None
    wanted = state.get("against")
    if wanted is not None and wanted not in kinds:
        state.refuse("against", f"The other run holds no kind {wanted}; it holds {', '.join(kinds)}.", None)
        st.rerun()
    others = [name for name in kinds if name != kind]
    chosen = wanted or (kind if other.run.id != run.id and kind in kinds else next(iter(others or kinds)))
    way = state.get("compared")
    if way not in _WAYS:
        state.refuse("compared", f"Maps are not compared {way}; choose {', '.join(_WAYS)}.", "beside")
        st.rerun()
    st.selectbox("Its kind", list(kinds), format_func=kinds.__getitem__, width=260, **state.widget("against", chosen))
    st.selectbox("Drawn", list(_WAYS), format_func=_WAYS.__getitem__, width=180, **state.widget("compared", way))
    return Other(other.run, other.results, chosen)


def draw(
    run: store.RunInfo,
    results: HeadScores,
    other: Other,
    rows: pd.DataFrame,
    data: dict[str, Any],
    shown: tuple[str, str],
) -> tuple[Head | None, str | None, Mapping[str, pd.DataFrame]]:
    """Draw both sides and their table; returns the head that was clicked, the one whose row was ticked, and tables."""
    value, name = shown
    if value not in column_names(other.results, other.kind):
        notice(f"{other.kind} of the other run has no column {name}. The score is compared instead.", "warning")
        value, name = "score", "score"
        data = map_data(rows, state.get("kind") or str(rows["kind"].iloc[0]), value, name=name)
    kind = str(rows["kind"].iloc[0])
    names = _names(run, kind, other)
    one, two = Side(results, kind, value, names[0]), Side(other.results, other.kind, value, names[1])
    between = comparing.difference_data(one, two, name=name)
    plain(f"{names[0]}: {store.title(run)}, {kind}\n{names[1]}: {store.title(other.run)}, {other.kind}")
    plain(comparing.agreement(one, two))
    rest = comparing.table_of(one, two)
    if between is not None and state.get("compared") == "difference":
        left, right = st.columns([5, 9], gap="medium")
        with left:
            st.markdown(f"**{name}**: {names[1]} − {names[0]}")
            opened = head_map(rows, between, key="map")
        with right:
            picked = _table(rest, names)
    else:
        if between is None:
            notice("The two have not the same heads, so they are drawn side by side.")
        left, right = st.columns(2, gap="medium")
        beside = map_data(two.rows, other.kind, value, name=name)
        if not data["signed"] and not beside["signed"]:
            data = data | {"high": max(data["high"], beside["high"])}  # one scale for both
            beside = beside | {"high": data["high"]}
        with left:
            st.markdown(f"**{name}**: {names[0]}")
            opened = head_map(rows, data, key="map")
        with right:
            st.markdown(f"**{name}**: {names[1]}")
            opened = head_map(two.rows, beside, key="other map") or opened
        picked = _table(rest, names) if len(rest) else None
    _moved(run, other, kind)
    tables = {"heads": rows, "other heads": two.rows}
    return opened, picked, tables | ({"differences": rest} if len(rest) else {})


def _names(run: store.RunInfo, kind: str, other: Other) -> tuple[str, str]:
    if other.run.id == run.id:
        return (kind, other.kind) if kind != other.kind else (kind, f"{kind} again")
    return ("this run", "other run") if other.kind == kind else (f"{kind}, this run", f"{other.kind}, other run")


def _table(rest: pd.DataFrame, names: tuple[str, str]) -> str | None:
    st.markdown("**Largest differences first**; tick a row to open its head")
    numbers = {one: st.column_config.NumberColumn(width=110, format="%.3f") for one in ("difference", *names)}
    chosen = st.dataframe(
        rest,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key=f"differences:{names}:{len(rest)}:{st.session_state.get('visits', 0)}",
        column_config={**numbers, "head": st.column_config.TextColumn(width=70)},
        row_height=30,
        height=430,
    )
    selected = chosen["selection"]["rows"]
    return str(rest["head"].iloc[selected[0]]) if selected else None


def _moved(run: store.RunInfo, other: Other, kind: str) -> None:
    """What two atlases say with intervals, on demand: every kind is resampled."""
    if other.run.id == run.id or other.kind != kind or {run.kind, other.run.kind} != {"atlas"}:
        return
    st.markdown("#### What moved from this atlas to the other")
    before, after = store.opened(run), store.opened(other.run)
    found = computed(
        "Comparison of two atlases",
        ("atlases", run.id, str(run.created), other.run.id, str(other.run.created)),
        lambda: before.compare(after),
        button="Compare with intervals",
        note="Resamples the items of every kind: about twenty seconds for twenty kinds.",
    )
    if found is None:
        return
    table(found.summary().set_index("kind", drop=False).loc[[kind]], wrap="moved")
    heads = found.heads.loc[(found.heads["kind"] == kind) & found.heads["surely"].astype(bool)]
    if heads.empty:
        plain("No head with a verdict surely changed.")
    else:
        order = heads["effect_change"].abs().fillna(0).sort_values(ascending=False, kind="stable").index
        lines = [
            {
                "head": row["address"],
                "before": row["verdict_before"] or "–",
                "after": row["verdict_after"] or "–",
                "change of score (95%)": with_interval(row, "score_change"),
                "change of effect (95%)": with_interval(row, "effect_change"),
            }
            for row in heads.loc[order].head(_CHANGES).to_dict("records")
        ]
        table(pd.DataFrame(lines))
    differing = found.about["differences"]
    plain((f"They differ in: {'; '.join(differing)}. " if differing else "") + found.leaves_out)
