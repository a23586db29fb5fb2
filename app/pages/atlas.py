"""Atlas: which heads of a model do something, as a layer by head map, alone or held against another; a click opens a
head."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from app import against, facts, measuring, models, state, store
from app.as_python import of_run, of_runs
from app.components.head_map import head_map, map_data
from app.components.layer_chart import show_table
from app.components.text import details, notice, plain, table
from app.components.toolbar import toolbar
from app.navigation import open_page
from app.wording import FILTERS, column_names, grouped, outcomes, passing
from interp.figures.tables import text_cell
from interp.results import HeadScores

_LONG = 40  # rows of a further table that is drawn in full
_SHOWN_OF_ALL = 10  # rows of the table where no filter is set
_SORTS = {
    "highest": "shown column, highest first",
    "lowest": "shown column, lowest first",
    "effect": "effect, largest first",
    "verdict": "verdict",
    "layer": "layer and head",
}
_SCORES = {"atlas": ".scores", "report": ".found"}  # where results that hold more hold head scores
_WITHOUT_VERDICT = ("attends", "matters", "failed", "any")  # whose reason is what one wants to read


def _choose(results: HeadScores, controls: list) -> tuple[str, str, dict[str, str]]:
    """The kind and the column to be shown, and all columns by name."""
    kinds = grouped(results)
    kind = state.get("kind")
    if kind not in kinds:
        if kind is not None:
            state.refuse("kind", f"This run holds no kind {kind}; it holds {', '.join(kinds)}.", None)
            st.rerun()
        kind = next(iter(kinds))
    values = column_names(results, kind)
    value = state.get("value")
    if value not in values:
        value = next(iter(values))
        if not any(state.get("value") in column_names(results, other) for other in kinds):
            state.refuse("value", f"There is no column {state.get('value')}; there are {', '.join(values)}.", value)
            st.rerun()
    controls[0].selectbox("Kind of head", list(kinds), format_func=kinds.__getitem__, **state.widget("kind", kind))
    controls[1].selectbox("Shown", list(values), format_func=values.__getitem__, **state.widget("value", value))
    return kind, value, values


def _filter(rows: pd.DataFrame) -> str:
    """The verdicts to be shown; each choice says how many heads it leaves."""
    chosen = state.get("verdict")
    if chosen not in FILTERS:
        state.refuse("verdict", f"There is no verdict filter {chosen}; there are {', '.join(FILTERS)}.", "all")
        st.rerun()
    found = outcomes(rows)
    counts = {name: int(passing(found, name).sum()) for name in FILTERS}
    bound = state.widget("verdict", chosen)

    def choose() -> None:
        state.put("verdict", st.session_state[bound["key"]] or "all")  # a second press on a choice takes it back

    st.segmented_control(
        "Verdict",
        list(FILTERS),
        format_func=lambda name: f"{FILTERS[name]} · {counts[name]}",
        key=bound["key"],
        on_change=choose,
        help="Failed candidates were tested and got no verdict; heads that were not tested are among all heads only.",
    )
    return chosen


def _show(run: store.RunInfo, controls: list) -> None:
    results = store.results(run)
    kind, value, values = _choose(results, controls)
    rows = results.of(kind)
    chosen = against.choose(run, results, kind)
    verdict = _filter(rows)
    sort = _sort()
    facts.of_kind(results, kind)
    bar = st.container()
    shown = passing(outcomes(rows), verdict)
    data = map_data(rows, kind, value, shown=shown, name=values[value])
    if chosen is None:
        left, right = st.columns([5, 9], gap="medium")
        with left:
            opened = head_map(rows, data, key="map")
        with right:
            picked = _top(run, results, kind, verdict, sort, (value, values[value]))
            _sets(results)
        tables = {"heads": rows}
    else:
        opened, picked, tables = against.draw(run, results, chosen, rows, data, (value, values[value]))
    with bar:
        toolbar(f"atlas {kind}", _code(run, kind, chosen), tables)
    for number, (name, further) in enumerate(facts.further_tables(results, kind)):
        further = further.loc[further["kind"] == kind] if "kind" in further else further
        if further.empty:
            continue  # of other kinds only
        if len(further) <= _LONG:
            show_table(name, further, key=f"further:{number}")
        else:
            with st.expander(f"{name} ({len(further):,} rows)"):
                st.dataframe(further, hide_index=True, key=f"further:{number}", height=420)
    with st.expander("All kinds of this run"):
        table(facts.overview(results))
    with st.expander("How it was measured"):
        table(details({key: value for key, value in results.about.items() if key != "definitions"}), words=True)
    asked = {}
    if chosen is not None:
        asked = {"against_run": chosen.run.id, "against": chosen.kind, "compared": state.get("compared")}
    state.write_back(run=run.id, kind=kind, value=value, verdict=verdict, sort=sort, **asked)
    if opened is not None or picked is not None:
        state.put("head", str(opened) if opened is not None else picked)
        st.session_state["visits"] = (
            st.session_state.get("visits", 0) + 1
        )  # or the table would come back with its row chosen
        open_page("head")


def _code(run: store.RunInfo, kind: str, chosen: against.Other | None) -> str:
    """Code of what is drawn: the rows of the map, and of the one beside it."""
    lines = [f"rows = found{_SCORES.get(str(run.kind), '')}.of({kind!r})", "print(rows)"]
    if chosen is None:
        return of_run(run.id, *lines)
    lines += [f"against = other{_SCORES.get(str(chosen.run.kind), '')}.of({chosen.kind!r})", "print(against)"]
    return of_runs({"found": run.id, "other": chosen.run.id}, *lines)


def _sort() -> str:
    """The order of the table."""
    chosen = state.get("sort")
    if chosen not in _SORTS:
        state.refuse("sort", f"Heads cannot be sorted by {chosen}; choose {', '.join(_SORTS)}.", "highest")
        st.rerun()
    return chosen


def _in_order(mine: pd.DataFrame, results: HeadScores, kind: str, value: str, sort: str) -> pd.DataFrame:
    """Heads as the reader wants them; what was not measured comes last."""
    if sort == "layer":
        return mine.iloc[sorted(range(len(mine)), key=lambda i: facts.place(mine["head"].iloc[i]))]
    frame = results.of(kind).set_index(["layer", "head"])
    if sort == "verdict":
        order = {"named": 0, "attends": 1, "matters": 2, "other": 3, "failed": 4, "untested": 5}
        return mine.iloc[np.argsort([order[str(one)] for one in mine["outcome"]], kind="stable")]
    column = "effect" if sort == "effect" else value
    if column not in frame:
        return mine
    numbers = pd.Series([float(frame[column].loc[facts.place(head)]) for head in mine["head"]])
    numbers = numbers.abs() if sort == "effect" else numbers
    return mine.iloc[numbers.sort_values(ascending=sort == "lowest", kind="stable", na_position="last").index]


def _top(
    run: store.RunInfo, results: HeadScores, kind: str, verdict: str, sort: str, shown: tuple[str, str]
) -> str | None:
    """The table of the best heads that the filter leaves; returns the one whose row was chosen."""
    all_heads = store.summaries(run)
    mine = all_heads.loc[all_heads["kind"] == kind]
    mine = mine.loc[passing(mine["outcome"].to_numpy(), verdict)]
    mine = _in_order(mine, results, kind, shown[0], sort)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        bound = state.widget("sort", sort)
        st.selectbox("Sorted by", list(_SORTS), format_func=_SORTS.__getitem__, width=280, **bound)
        every = verdict != "all" or st.toggle(f"All {len(mine)} heads", key="whole table")
        plain("With 95% intervals. Tick a row to open its head.")
    if not every:
        mine = mine.head(_SHOWN_OF_ALL)
    if mine.empty:
        notice("No head of this kind is left by the filter. Choose all heads above, or another kind.")
        return None
    rows = _columns(mine, results, kind, verdict, shown)
    chosen = st.dataframe(
        rows,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key=f"top:{run.id}:{kind}:{verdict}:{sort}:{st.session_state.get('visits', 0)}",
        column_config={
            shown[1]: st.column_config.NumberColumn(width=130, format="%.3f"),
            "head": st.column_config.TextColumn(width=70),
            "verdict": st.column_config.TextColumn(width=165),
            "score (95%)": st.column_config.TextColumn(width=130),
            "effect (95%)": st.column_config.TextColumn(width=135),
            "why no better": st.column_config.TextColumn(width=320, help="Double-click a cell to read all of it"),
        },
        row_height=30,
        height="auto" if len(rows) <= _SHOWN_OF_ALL else 30 * _SHOWN_OF_ALL + 40,
    )
    selected = chosen["selection"]["rows"]
    return list(rows["head"])[selected[0]] if selected else None


def _columns(mine: pd.DataFrame, results: HeadScores, kind: str, verdict: str, shown: tuple[str, str]) -> pd.DataFrame:
    """The columns that say something about these heads, and the one on the map."""
    frame = results.of(kind).set_index(["layer", "head"])
    value, name = shown
    rows = mine.drop(columns=["kind", "rank", "outcome"])
    rows = rows.drop(columns=[one for one in rows if (rows[one] == "–").to_numpy().all()])
    if value not in ("score", "baseline", "writing", "effect", "control", "p_corrected"):
        rows[name] = [float(frame[value].loc[facts.place(head)]) for head in rows["head"]]
    if "baseline" in frame and frame["baseline"].notna().to_numpy().any():
        at = list(rows.columns).index("score (95%)") + 1
        rows.insert(
            at, "best rule", [text_cell(float(frame["baseline"].loc[facts.place(head)])) for head in rows["head"]]
        )
    why = ["why no better"] if verdict in _WITHOUT_VERDICT else []
    first = [one for one in ("head", "verdict", *why, name) if one in rows]
    return rows.reindex(columns=first + [one for one in rows.columns if one not in first])


def _sets(results: HeadScores) -> None:
    """What ablating each kind's top heads together does, against random sets; the numbers of older runs as they are."""
    if not len(results.sets):
        return
    st.markdown("**Top heads ablated together**, against random sets of the same layers")
    rows = []
    for row in results.sets.to_dict("records"):
        line = {"kind": row["kind"], "heads": row["heads"]}
        if "clean" in row:
            line["measure"] = f"{row['clean']:.2f} → {row['ablated']:.2f}"
        line["effect (95%)"] = f"{row['effect']:.2f} ({row['effect_low']:.2f} to {row['effect_high']:.2f})"
        line["random sets (max)"] = f"{row['random_mean']:.2f} ({row['random_max']:.2f})"
        line["p"] = f"{row['p']:.2g}"
        rows.append(line)
    table(pd.DataFrame(rows), wrap="heads")
    for unit in dict.fromkeys(filter(None, map(results.unit, results.kinds))):
        kinds = ", ".join(kind for kind in results.kinds if results.unit(kind) == unit)
        plain(f"Measure and effect of {kinds}: {unit}")


run_column, *controls = st.columns([5, 3, 4])
with run_column:
    run = store.choose_run()
if run is not None:
    _show(run, controls)
else:
    st.subheader("No run is stored yet")
    notice(
        f"The store {store.run_store().path} holds no run that can be read. Fill it from a terminal with\n"
        f"interp heads {models.default_model()} --store {store.run_store().path}\nor start the same here:"
    )
    measuring.panel(models.default_model())
    state.write_back()
store.name_unreadable()
if run is not None:
    with st.expander("Find heads in a model", expanded=measuring.is_running(models.default_model())):
        measuring.panel(models.default_model())
