"""Results are tables that survive a disk, a page and a notebook."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from interp.errors import InputError, StorageError
from interp.figures.tables import table_html
from interp.results import HeadScores


@pytest.fixture
def scores() -> HeadScores:
    rows = [
        {"kind": "induction", "stack": "", "sublayer": "attn", "layer": layer, "head": head, "verdict": "",
         "score": 0.1 * layer + 0.01 * head, "score_low": 0.0, "score_high": 1.0, "writing": np.nan, "effect": np.nan}
        for layer in range(2) for head in range(3)
    ]  # fmt: skip
    rows[4] |= {"effect": 1.5, "effect_low": 1.0, "effect_high": 2.0, "verdict": "induction"}
    sets = pd.DataFrame([{"kind": "induction", "heads": "1.1", "effect": 1.5}])
    return HeadScores(pd.DataFrame(rows), sets, {"model": "<b>tiny</b>", "definitions": {"induction": "a <i>test</i>"}})


def test_a_saved_result_comes_back_equal(scores, tmp_path):
    loaded = HeadScores.load(scores.save(tmp_path / "run"))
    pd.testing.assert_frame_equal(loaded.frame, scores.frame)
    pd.testing.assert_frame_equal(loaded.sets, scores.sets)
    assert loaded.about == scores.about


def test_saving_again_replaces_and_a_failed_save_keeps_the_old(scores, tmp_path, monkeypatch):
    scores.save(tmp_path / "run")
    monkeypatch.setattr(pd.DataFrame, "to_parquet", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(StorageError, match="No space left"):
        scores.save(tmp_path / "run")
    monkeypatch.undo()
    pd.testing.assert_frame_equal(HeadScores.load(tmp_path / "run").frame, scores.frame)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("damage", ["about", "heads", "newer"])
def test_damaged_and_newer_folders_are_named(scores, tmp_path, damage):
    folder = scores.save(tmp_path / "run")
    if damage == "heads":
        (folder / "heads.parquet").write_bytes(b"PAR1 not really")
    else:
        (folder / "about.json").write_text("{" if damage == "about" else json.dumps({"format": 99}))
    with pytest.raises(StorageError, match="run"):
        HeadScores.load(folder)


def test_a_value_without_an_interval_is_shown_by_itself(scores):
    frame = scores.frame.drop(columns=["score_low"])
    frame.loc[4, "effect_low"] = np.nan
    summary = HeadScores(frame, scores.sets).summary("induction", 2)
    assert list(summary["score (95%)"]) == ["0.12", "0.11"] and list(summary["effect (95%)"]) == ["–", "1.50"]


def test_top_is_sorted_and_summary_dashes_what_was_not_measured(scores):
    assert list(scores.top("induction", 2)["head"]) == [2, 1]
    summary = scores.summary("induction", 2)
    assert list(summary["head"]) == ["1.2", "1.1"]
    assert list(summary["effect (95%)"]) == ["–", "1.50 (1.00 to 2.00)"]
    with pytest.raises(InputError, match="They hold induction"):
        scores.top("copying")


def test_figures_leave_unmeasured_heads_empty(scores):
    heat = scores.plot("induction", "effect").data[0]
    assert np.isnan(np.array(heat.z, dtype=float)).sum() == 5
    with pytest.raises(InputError, match="There are"):
        scores.plot("induction", "verdict")


def test_pages_are_self_contained_and_escape_text(scores, tmp_path):
    page = scores.to_html(tmp_path / "page.html").read_text()
    assert "<b>tiny</b>" not in page and "<i>test</i>" not in page and "&lt;i&gt;test&lt;/i&gt;" in page
    body = page.split("</script>", 1)[1]  # behind plotly's own script
    assert "http://" not in body and "https://" not in body
    assert page.count("Plotly.newPlot(") >= 1 and "<script src" not in page


def test_notebooks_get_a_small_static_table(scores):
    html = scores._repr_html_()
    assert len(html) < 20_000 and "<script" not in html and "<b>tiny" not in html


def test_table_cells_are_text_never_markup():
    assert "<td>&lt;img src=x&gt;</td>" in table_html(pd.DataFrame({"token": ["<img src=x>"]}))
