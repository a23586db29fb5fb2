"""Keeping what a page found: the same run as the command line would have stored, opened by its id."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import streamlit as st

from app import models, store
from app.components.text import notice, plain
from interp.errors import InterpError

__all__ = ["keep"]

_KEPT = "kept runs"  # (store, what was found) -> id of its run


def keep(found: Any, key: Hashable, model: str, spec: Mapping[str, Any], title: str) -> None:
    """A button that stores a result as a run; once it is stored, the run's id instead. `spec` is what was asked, as the
    command of the same name stores it, `key` what was found. Nothing is stored twice by one session."""
    goal = store.run_store()
    kept: dict[Any, str] = st.session_state.setdefault(_KEPT, {})
    place = (str(goal.path), key)
    if (run := kept.get(place)) is not None and not (goal.path / run).exists():
        del kept[place]  # removed since
    if place not in kept:
        label = f"Keep as a run: {spec['analysis'].replace('_', ' ')}"
        if not st.button(label, key=f"keep {spec['analysis']}", icon=":material/save:"):
            return
        try:
            with st.spinner("Storing the run…"):
                content = models.content_hash(model)
                kept[place] = goal.save(found, spec={**spec, "model": model}, model_hash=content, title=title).id
        except InterpError as error:
            notice(str(error), "error")
            return
        st.rerun()  # without the button
    plain(f"Kept as run {kept[place]} in {goal.path}: interp runs show {kept[place]} --store {goal.path}")
