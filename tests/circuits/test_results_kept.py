"""Explanations, composition scores and tables of heads: saved, stored, drawn, and shown as escaped text."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import interp
from interp.errors import InputError, StorageError
from interp.results.composition import CompositionScores
from interp.results.explanation import AttentionExplanation
from interp.results.tables import HeadTable
from interp.runs.store import RunStore
from tests.browser.serving import HOSTILE, tiny_model

TEXT = " ".join(["the", HOSTILE[0], HOSTILE[2], "cat"])
MAKE: dict[str, Callable[[Any], Any]] = {
    "explanation": lambda model: interp.explain_attention(model, TEXT, "2.1", 3, 1, view="head", confirm=True),
    "composition": lambda model: interp.composition(model, "K", n_random=4),
    "head_table": lambda model: interp.ov(model, "2.1").tokens(TEXT, 1, k=12),
}

CLASSES = (AttentionExplanation, CompositionScores, HeadTable)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.mark.parametrize("kind", MAKE)
def test_what_is_stored_comes_back_as_it_was(kind: str, model: Any, tmp_path: Path) -> None:
    found = MAKE[kind](model)
    run = RunStore(tmp_path / "runs").save(found, spec={"analysis": kind, "model": "tiny"})
    assert run.info.kind == kind
    back = run.results()
    assert type(back) is type(found) and repr(back) == repr(found)
    pd.testing.assert_frame_equal(back.to_frame(), found.to_frame())
    assert dict(back.about) == dict(found.about) and back.leaves_out == found.leaves_out
    if kind == "explanation":
        pd.testing.assert_frame_equal(back.confirmed, found.confirmed)
        pd.testing.assert_frame_equal(back.keys, found.keys)
        np.testing.assert_array_equal(back.values, found.values)
        assert back.total() == found.total() and set(back.values.coords) == set(found.values.coords)
    if kind == "composition":
        np.testing.assert_array_equal(back.z, found.z)


@pytest.mark.parametrize("kind", MAKE)
def test_pages_and_notebooks_show_tokens_as_text(kind: str, model: Any, tmp_path: Path) -> None:
    found = MAKE[kind](model)
    page = found.to_html(tmp_path / "page.html").read_text("utf-8")
    for html in (page, found._repr_html_()):
        assert "<img" not in html and "<script>alert" not in html
        assert escape(found.leaves_out) in html, "it says what it leaves out"
    if kind != "composition":
        assert "&lt;img" in found._repr_html_()


@pytest.mark.parametrize("kind", MAKE)
def test_each_can_be_drawn(kind: str, model: Any) -> None:
    figure = MAKE[kind](model).plot()
    assert len(figure.data) == 1 and figure.layout.title.text


@pytest.mark.parametrize(("kind", "cls"), list(zip(MAKE, CLASSES, strict=True)))
def test_damaged_folders_are_one_storage_error(kind: str, cls: Any, model: Any, tmp_path: Path) -> None:
    MAKE[kind](model).save(tmp_path / "kept")
    about = tmp_path / "kept" / "about.json"
    text = about.read_text()
    about.write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(StorageError, match="of format 1"):
        cls.load(tmp_path / "kept")
    about.write_text(text)
    for table in (tmp_path / "kept").glob("*.parquet"):
        table.write_bytes(b"no table")
    with pytest.raises(StorageError, match="Cannot read"):
        cls.load(tmp_path / "kept")


def test_a_map_of_parts_keeps_their_sum(model: Any) -> None:
    found = MAKE["explanation"](model)
    figure = found.plot(n=3)
    grid = np.array(figure.data[0].z, dtype=float)
    assert grid.shape == (4, 4) and grid.sum() == pytest.approx(found.total(), abs=1e-6)


def test_an_unknown_measure_or_column_is_refused(model: Any) -> None:
    with pytest.raises(InputError, match="There is score and contrast"):
        MAKE["explanation"](model).total("logit")
    with pytest.raises(InputError, match="no column 'x'"):
        HeadTable(pd.DataFrame({"a": [1.0]}), "t", "x", ("a",), "nothing")


def test_the_text_is_run_once_without_gradients_and_leaves_nothing(model: Any) -> None:
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with torch.enable_grad():
        MAKE["explanation"](model)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
