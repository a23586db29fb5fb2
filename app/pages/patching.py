"""Patching: a pair of prompts, what is copied from one run into the other, and where that matters."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import streamlit as st

from app import models, state, store
from app.as_python import of_run, of_text
from app.components.text import details, notice, plain, table
from app.components.token_pair import token_pair
from app.components.toolbar import toolbar
from app.patching import CHOICES, DEFAULTS, TEXTS, Asked, arguments, axes_of, panel
from interp.errors import InterpError
from interp.results import Effects

_SIGNED = {  # as components/colour.js has them: what is near 0 is near the page's own colour
    "light": ["#8c2d04", "#e07b39", "#f6f4f2", "#5a9bd0", "#0b3c78"],
    "dark": ["#ffb37a", "#c2622a", "#262a31", "#2f7fbf", "#a9d8ff"],
}
_LABELS = {"clean": "Clean prompt", "corrupt": "Corrupt prompt", "answer": "Answer", "foil": "Foil"}
_HELP = {
    "clean": "The prompt that the answer fits.",
    "corrupt": "As many tokens as the clean prompt, and it leads to the foil.",
    "answer": "What the clean prompt goes on with. A space in front is added where the text asks for one.",
    "foil": "What the corrupt prompt goes on with. May be empty for metrics that need none.",
    "site": "What is copied: the residual stream before, within or behind a layer, what attention or MLP write, or "
    "what single heads compute.",
    "direction": "denoise copies clean into the corrupt run: what suffices? noise copies corrupt into the clean run: "
    "what is needed?",
    "metric": "What is measured at the last token.",
}


def _as_the_run() -> None:
    """Another run was chosen: the editor shows what that run was asked."""
    for name in (*TEXTS, *CHOICES, "over", "model"):
        state.put(name, None)


def _editor(base: dict[str, str], own_model: str | None) -> Asked:
    """The controls; a value that was not chosen is that of `base`."""
    chosen: dict[str, str] = {}

    def text(name: str) -> None:
        chosen[name] = base[name] if state.get(name) is None else state.get(name)
        bound = state.widget(name, chosen[name])
        st.text_input(_LABELS[name], max_chars=state.MAX_PAIR_TEXT, help=_HELP[name], **bound)

    for place, name in zip(st.columns(2), ("clean", "corrupt"), strict=True):
        with place:
            text(name)
    with st.container(horizontal=True):
        text("answer")
        text("foil")
        model = models.choose_model(own_model)
        chosen["site"] = _one_of("Site", "site", base["site"])
        chosen["over"] = _axes(chosen["site"], base.get("over") if chosen["site"] == base["site"] else None)
        chosen["direction"] = _one_of("Direction", "direction", base["direction"])
        chosen["metric"] = _one_of("Metric", "metric", base["metric"])
    return Asked(model=model, **chosen)


def _one_of(label: str, name: str, fallback: str) -> str:
    options, chosen = CHOICES[name], state.get(name) or fallback
    if chosen not in options:
        state.refuse(name, f"There is no {name} {chosen} on this page; there are {', '.join(options)}.", None)
        st.rerun()
    st.selectbox(label, options, help=_HELP[name], **state.widget(name, chosen))
    return chosen


def _axes(site: str, of_run: str | None) -> str:
    """The axes; those that another site had give way to this one's."""
    options, chosen = axes_of(site), state.get("over") or of_run
    if chosen is not None and not any(chosen in axes_of(one) for one in CHOICES["site"]):
        state.refuse("over", f"This page has no map over {chosen}; for {site} there are {', '.join(options)}.", None)
        st.rerun()
    chosen = chosen if chosen in options else next(iter(options))
    st.selectbox("Axes", list(options), format_func=options.__getitem__, **state.widget("over", chosen))
    return chosen


def _ask(asked: Asked) -> bool:
    """The aligned tokens, or why they do not align; then what patching them costs, and the job. Whether they do."""
    try:
        with st.spinner("Loading the model…", show_time=True):
            model = models.loaded(asked.model)
        pairs = asked.pairs(model)
    except InterpError as error:
        said, _, drawn = str(getattr(error, "what", error)).partition("\n")
        notice(said[:1].upper() + said[1:], "error", drawn=drawn)
        return False
    differ = [a != b for a, b in zip(pairs.clean[0], pairs.corrupt[0], strict=True)]
    token_pair(pairs.aligned(0), differ, key="tokens")
    panel(asked)
    return True


def _code(asked: Asked, run: store.RunInfo | None) -> str:
    """What computes the effects anew, or, where that is more than one pair and one call, opens the run."""
    if run is not None:
        by_run = arguments(store.spec(run))
        whole = not store.effects(run).about.get("partial") and {*TEXTS, *CHOICES, "over"} <= by_run.keys()
        if not whole or not run.model or not store.spec(run).keys() <= {*by_run, "analysis", "model"}:
            return of_run(run.id, "print(found)")
        asked = Asked(model=run.model, **by_run)
    texts = ", ".join(repr(one) for one in (asked.clean, asked.corrupt, asked.answer, asked.foil or None))
    options = f"direction={asked.direction!r}, metric={asked.metric!r}"
    return of_text(
        asked.model,
        f"pairs = interp.PromptPairs.from_text(model, {texts})",
        f"found = interp.patch(model, pairs, {asked.site!r}, {asked.over.split(',')!r}, {options})",
        "print(found.top(12))",
    )


def _share_toggle(found: Effects) -> Literal["pooled"] | None:
    """Whether effects are shown as a share of source − base; only where these are known and differ."""
    try:
        found.normalize("pooled")
    except InterpError as error:
        plain(str(error))
        return None
    st.toggle(
        "As a share of source − base",
        help="0: as the run that is edited; 1: as the run that is copied from. It may lie outside.",
        **state.widget("share", state.get("share")),
    )
    return "pooled" if state.get("share") else None


def _unedited(found: Effects) -> None:
    """The metric of the run that is edited and of the one that is copied from, means over prompts."""
    about, rows = found.about, []
    for name, role, metric in (
        ("base", "edited (base)", found.base),
        ("source", "copied from (source)", found.source),
    ):
        if metric is not None:
            mean = "not computed" if np.isnan(metric).all() else f"{np.nanmean(metric):.3f}"
            rows.append({"run": f"{about.get(name) or name} run, {role}", str(about.get("metric", "metric")): mean})
    if rows:
        table(pd.DataFrame(rows))


def _result(run: store.RunInfo, asked: Asked, asked_by_run: dict[str, str], differs: bool) -> None:
    found = store.effects(run)
    toolbar(f"patching_{run.id}", _code(asked, run), {"effects": found.to_frame}, page=found.to_html)
    if found.about.get("partial"):
        missing = int(np.isnan(found.values.values).sum())
        notice(
            f"This run is partial: it was stopped, and {missing:,} of {found.values.size:,} cells have no value.",
            "warning",
        )
    if differs and "clean" in asked_by_run:
        plain("The editor above asks something else than this run; press Patch to compute that.")
    left, right = st.columns([9, 5], gap="medium")
    with right:
        normalize = _share_toggle(found)
        _unedited(found)
        unit = "share of source − base" if normalize else found.about.get("unit", "")
        st.markdown("**Largest effects**, either way")
        table(store.largest(run, normalize))
        plain(f"Unit: {unit}" if unit else "")
    with left:
        _map(found, normalize)
    with st.expander("How it was measured"):
        made = {name: value for name, value in store.spec(run).items() if value not in (None, {}, [])}
        facts = {name: value for name, value in found.about.items() if name != "tokens" and value not in (None, {})}
        table(details({"run": run.id, "model": run.model, **made, **facts}), words=True)


def _map(found: Effects, normalize: Literal["pooled"] | None) -> None:
    try:
        figure = found.plot(normalize=normalize)
    except InterpError as error:
        notice(str(error))
        return
    figure.update_layout(margin={"t": 48, "l": 8, "r": 8, "b": 8})
    colours = _SIGNED["dark" if st.context.theme.type == "dark" else "light"]
    figure.update_traces(colorscale=colours, selector={"type": "heatmap"})
    figure.update_traces(colorbar_thickness=14, colorbar_title_side="right", selector={"type": "heatmap"})
    st.plotly_chart(figure, key="map", config={"displaylogo": False})


editor, shown = st.container(), st.container()
with shown:
    run = store.choose_run("effects", "effects", _as_the_run)
asked_by_run = arguments(store.spec(run)) if run is not None else {}
base = {**DEFAULTS, **asked_by_run}
own_model = run.model if run is not None else None
with editor:
    asked = _editor(base, own_model)
    aligned = _ask(asked)
if "over" not in base:
    base["over"] = next(iter(axes_of(asked.site)))
wanted: dict[str, Any] = {name: getattr(asked, name) for name in (*TEXTS, *CHOICES, "over")}
changed = {name: value if value != base.get(name) else None for name, value in wanted.items()}
if run is not None:
    with shown:
        differs = any(value is not None for value in changed.values()) or asked.model != own_model
        _result(run, asked, asked_by_run, differs)
else:
    with shown:
        if aligned:
            toolbar("patching", _code(asked, None), {})
        plain("No patching run is stored yet; press Patch, or fill the store from a terminal with interp patch.")
state.write_back(
    effects=run.id if run is not None else None,
    model=asked.model if asked.model != (own_model or models.default_model()) else None,
    share=state.get("share"),
    **changed,
)
