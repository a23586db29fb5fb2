"""Atlas: which heads of a model do something, as a layer by head map; a click opens a head."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import measuring, models, state, store
from app.components.head_map import head_map
from app.components.text import details, notice, plain, table
from app.navigation import open_page
from interp.results import HeadScores

_VALUES = {
    "score": "attention score",
    "effect": "effect of ablating it alone",
    "writing": "what it writes",
    "score_no_bos": "attention score without BOS",
    "score_select": "attention score on the selecting prompts",
    "control": "effect of other heads of its layer",
}


def _values(results: HeadScores, kind: str) -> dict[str, str]:
    """The columns that hold a number for some head of a kind, with their names."""
    rows = results.of(kind)
    found = {name: label for name, label in _VALUES.items() if name in rows and rows[name].notna().to_numpy().any()}
    label = results.about.get("writing", {}).get(kind)
    return found | ({"writing": f"writing: {label}"} if label and "writing" in found else {})


def _show(run: store.RunInfo, controls: list) -> None:
    results = store.results(run)
    kind = state.get("kind")
    if kind not in results.kinds:
        if kind is not None:
            state.refuse("kind", f"This run holds no kind {kind}; it holds {', '.join(results.kinds)}.", None)
            st.rerun()
        kind = results.kinds[0]
    values = _values(results, kind)
    value = state.get("value")
    if value not in values:
        value = next(iter(values))
        if state.get("value") not in _VALUES:
            state.refuse("value", f"There is no column {state.get('value')}; there are {', '.join(values)}.", value)
            st.rerun()
    controls[0].selectbox("Kind of head", results.kinds, **state.widget("kind", kind))
    controls[1].selectbox("Shown", list(values), format_func=values.__getitem__, **state.widget("value", value))
    state.write_back(run=run.id, kind=kind, value=value)
    writing = results.about.get("writing", {}).get(kind)
    also = f"; writing: {writing}" if writing else ""
    plain(f"{kind}: {results.about.get('definitions', {}).get(kind, '')}{also}")
    left, right = st.columns([5, 9], gap="medium")
    with left:
        opened = head_map(results.of(kind), kind, value, key="map")
    with right:
        picked = _top(run, results, kind)
        _sets(results)
    with st.expander("How it was measured"):
        table(details({key: value for key, value in results.about.items() if key != "definitions"}), words=True)
    if opened is not None or picked is not None:
        state.put("head", str(opened) if opened is not None else picked)
        st.session_state["visits"] = (
            st.session_state.get("visits", 0) + 1
        )  # or the table would come back with its row chosen
        open_page("head")


def _top(run: store.RunInfo, results: HeadScores, kind: str) -> str | None:
    """The table of the best heads; returns the one whose row was chosen."""
    st.markdown("**Highest scores**, with 95% intervals; tick a row to open its head")
    label = results.about.get("writing", {}).get(kind, "")
    rows = results.summary(kind, n=10).rename(columns={label: "writing"})
    first = ["head", "verdict"]
    rows = rows[first + [name for name in rows.columns if name not in first]]
    chosen = st.dataframe(
        rows,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key=f"top:{run.id}:{kind}:{st.session_state.get('visits', 0)}",
        row_height=30,
    )
    selected = chosen["selection"]["rows"]
    return list(rows["head"])[selected[0]] if selected else None


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
