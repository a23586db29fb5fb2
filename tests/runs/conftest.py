"""Small head scores, made without a model, and a store of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from interp.results import HeadScores
from interp.runs.store import RunStore
from tests.runs.sample import make_scores


@pytest.fixture(scope="session")
def scores() -> Callable[..., HeadScores]:
    return make_scores


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")
