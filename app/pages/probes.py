"""Probes: what can be decoded where, against control and baselines; one probe on a text; and whether it is used."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import models, state, store
from app.as_python import of_run
from app.components.text import details, notice, plain, table
from app.components.token_strip import token_strip
from app.components.toolbar import Frames, toolbar
from app.computing import computed
from probes.projection import Projection, project
from probes.results import FoundProbe, ProbeResults
from probes.used import Use

_MAX_TOKENS = 256
_ROWS = 12


def _choose(name: str, label: str, options: list[str], first: str) -> str:
    chosen = state.get(name)
    if chosen is not None and chosen not in options:
        state.refuse(name, f"This run has no {label.lower()} {chosen}; it has {', '.join(options[:6])}, …", None)
        st.rerun()
    chosen = chosen or first
    st.selectbox(label, options, width=320, **state.widget(name, chosen))
    return chosen


def _results(found: ProbeResults) -> FoundProbe:
    """What a run found of one target, and the probe that is looked into."""
    with st.container(horizontal=True):
        target = _choose("target", "Target", list(found.targets), found.targets[0])
        rows = found.frame.loc[found.frame["target"] == target]
        best = str(found.best(target).place)
        place = _choose("place", "Place", [str(one) for one in rows["place"]], best)
    plain(found.describe(target))
    left, right = st.columns([5, 4], gap="medium")
    with left:
        of_heads = rows["head"].notna()
        for heads in (False, True):
            if (of_heads == heads).to_numpy().any():
                figure = found.plot(target, heads=heads)
                figure.update_layout(title=None, margin={"t": 16, "l": 8, "r": 8, "b": 8})
                st.plotly_chart(figure, key=f"decoded {heads}", config={"displaylogo": False})
    with right:
        table(found.top(target, _ROWS).drop(columns="target"), height="24rem")
    notice("Decodable is not used: what a probe reads, the model may never read. Below, where it was tested.")
    return found.at(place, target)


def _on_text(run: store.RunInfo, probe: FoundProbe) -> pd.DataFrame | None:
    """One probe on a text; returns its numbers by token, where they are there."""
    st.markdown("#### A text along this probe")
    model = str(run.model)
    if model not in models.installed():
        notice(f"The probes are of {model}, which is not at hand here, so no text can be read along them.", "warning")
        return None
    st.session_state["widget:prompt"] = state.get("prompt")
    with st.form("text", border=False):
        st.text_area("Text", key="widget:prompt", height=70, max_chars=state.MAX_PROMPT)
        st.form_submit_button(
            "Read it", type="primary", on_click=lambda: state.put("prompt", st.session_state["widget:prompt"])
        )
    text = state.get("prompt")

    def work() -> Projection:
        return project(probe, models.loaded(model), text, prepend_bos=state_bos)

    state_bos = bool(state.get("bos"))
    key = ("projection", models.content_hash(model), run.id, str(probe.place), probe.target, text, state_bos)
    found: Projection | None = computed(f"{probe.target} at {probe.place} on a text", key, work)
    if found is None:
        return None
    tokens, values = list(found.tokens[:_MAX_TOKENS]), found.values[:_MAX_TOKENS].tolist()
    token_strip(tokens, values, (found.below, found.above), key="strip")
    if len(found.tokens) > _MAX_TOKENS:
        plain(f"The text has {len(found.tokens):,} tokens; the first {_MAX_TOKENS} are shown.")
    where = probe.row.get("balance", "")
    plain(
        f"{probe.target} at {probe.place}, in distances between the two class means; 0 is the threshold. The probe was "
        f"fitted on the rows of its data only ({where}); at other tokens its numbers may mean nothing."
    )
    rows = pd.DataFrame({"token": [repr(one) for one in tokens], probe.target: [f"{one:+.2f}" for one in values]})
    with st.expander("As a table"):
        table(rows, height="20rem")
    return pd.DataFrame({"token": list(found.tokens), "value": found.values})


def _used(model: str | None, probe: FoundProbe) -> str | None:
    """Tests of use of the same model; those of this target first. Returns the run that is shown."""
    st.markdown("#### Is it used?")
    runs = {
        run.id: run for run in store.runs() if run.status == "ok" and run.kind == "probe_use" and run.model == model
    }
    if not runs:
        notice(
            f"No test of use of {model} is stored. Make one with: interp probe {model} --task agreement --store "
            f"{store.run_store().path}"
        )
        return None
    uses: dict[str, Use] = {name: store.opened(run) for name, run in runs.items()}
    mine = [name for name, use in uses.items() if use.about.get("target") == probe.target]
    here = [name for name in mine if use_place(uses[name]) == str(probe.place)]
    order = [*here, *(one for one in mine if one not in here), *(one for one in uses if one not in mine)]
    chosen = state.get("use")
    if chosen is not None and chosen not in uses:
        state.refuse("use", f"There is no test of use {chosen} of {model}.", None)
        st.rerun()
    chosen = chosen or order[0]
    titles = {name: f"{use.about.get('target')} at {use_place(use)}: {use.verdict}" for name, use in uses.items()}
    st.selectbox("Test", order, format_func=titles.__getitem__, **state.widget("use", chosen))
    use = uses[chosen]
    notice(use.sentence)
    left, right = st.columns([5, 4], gap="medium")
    with left:
        figure = use.plot()
        figure.update_layout(title=None, margin={"t": 16, "l": 8, "r": 8, "b": 8})
        st.plotly_chart(figure, key="dose", config={"displaylogo": False})
    with right:
        table(use.summary(), height="24rem")
    with st.expander("How it was tested"):
        table(details({key: one for key, one in use.about.items() if key != "sentence"}), words=True)
    return chosen if chosen != order[0] else None


def _share(run: store.RunInfo, results: ProbeResults, probe: FoundProbe, along: pd.DataFrame | None) -> None:
    """The bar: the run's numbers, and those of the text where it was read."""
    given = f"{str(probe.place)!r}, {probe.target!r}"
    lines = [f"print(found.top({probe.target!r}, {_ROWS}))", f"probe = found.at({given})"]
    tables: Frames = {"places": results.to_frame}
    if along is not None:
        bos = bool(state.get("bos"))
        lines += [
            "from probes.projection import project",
            f"along = project(probe, interp.load({run.model!r}), {state.get('prompt')!r}, prepend_bos={bos})",
            "print(along)",
        ]
        tables = {**tables, "text": along}
    toolbar(f"probes_{run.id}", of_run(run.id, *lines), tables, page=results.to_html)


def use_place(use: Use) -> str:
    return str(use.about.get("place"))


def _forget() -> None:
    """Another run has other targets and places."""
    for name in ("target", "place", "use"):
        state.put(name, None)


run = store.choose_run("probes", "probes", on_choice=_forget)
shown: dict[str, Any] = {}
if run is None:
    notice(
        "The store holds no probes yet. Make some with: interp probe smollm2-135m --task agreement --store "
        f"{store.run_store().path}"
    )
else:
    results: ProbeResults = store.opened(run)
    bar = st.container()
    probe = _results(results)
    along = _on_text(run, probe)
    with bar:
        _share(run, results, probe, along)
    use = _used(run.model, probe)
    with st.expander("All places"):
        n_places = len(results.frame.loc[results.frame["target"] == probe.target])
        table(results.top(probe.target, n_places).drop(columns="target"), height="30rem")
    with st.expander("How it was measured"):
        table(details(dict(results.about)), words=True)
    shown = {"probes": run.id, "target": probe.target, "place": str(probe.place), "use": use}
    shown |= {"prompt": state.get("prompt"), "bos": state.get("bos")}
state.write_back(**shown)
