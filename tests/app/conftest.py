"""The pages' logic without a browser: a tiny store, a tiny model, and one script that runs a page as main.py would."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "browser"))
sys.path.insert(0, str(Path(__file__).parent))
from serving import ROOT, tiny_model, tiny_store

_PAGE = """
import runpy
from app import state
from app.components.text import notice
state.seed()
for complaint in state.complaints():
    notice(complaint, "warning")
runpy.run_path({path!r}, run_name="__main__")
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """The ids of the older and the newer run of a fresh store, which pages show; the only model is tiny."""
    from app import computing, models

    st.cache_resource.clear()
    monkeypatch.setenv("INTERP_STORE", str(tmp_path / "runs"))
    monkeypatch.setattr("interp.load", tiny_model, raising=False)
    monkeypatch.setattr(computing, "PATIENCE", 20.0)  # so that a busy machine shows results, not their jobs
    monkeypatch.setattr(models, "installed", lambda: ["tiny"])
    monkeypatch.setattr(models, "default_model", lambda: "tiny")
    yield tiny_store(tmp_path / "runs")
    st.cache_resource.clear()


@pytest.fixture
def opened(runs: tuple[str, str]) -> Callable[..., AppTest]:
    """Opens a page by name with query parameters."""

    def run(name: str, **query: str) -> AppTest:
        script = _PAGE.format(path=str(ROOT / "app" / "pages" / f"{name}.py"))
        at = AppTest.from_string(script, default_timeout=30)
        for key, value in query.items():
            at.query_params[key] = value
        return at.run()

    return run
