"""Hostile names in results stay text in notebooks, in charts and in self-contained pages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from serving import HOSTILE, task_scores, tiny_model

import interp
from app.run_list import difference, summary_of
from interp.figures.page import figure_html

TEXT = " ".join(["the", *HOSTILE[:3], "cat", "the", HOSTILE[0]])


def _patched() -> Any:
    model = tiny_model(HOSTILE[2])
    pairs = interp.PromptPairs.from_text(model, TEXT, TEXT.replace("cat", "mat"), HOSTILE[0], HOSTILE[1])
    return interp.patch(model, pairs, "resid_pre")


MADE: dict[str, Callable[[], Any]] = {
    "lens": lambda: interp.lens(tiny_model(HOSTILE[2]), TEXT, pins=HOSTILE[:2], k=3),
    "attribution": lambda: interp.logit_attribution(tiny_model(HOSTILE[2]), TEXT, by="source", answer=HOSTILE[0]),
    "graph": lambda: interp.attention_graph(tiny_model(HOSTILE[2]), TEXT, top_k=20),
    "explanation": lambda: interp.explain_attention(tiny_model(HOSTILE[2]), TEXT, "1.0", 4, 1),
    "effects": _patched,
    "heads": lambda: task_scores(HOSTILE[2]),
}


def harmless(html: str) -> None:
    """No element and no script that a hostile name would make; what is escaped is text."""
    assert HOSTILE[0] not in html and HOSTILE[2] not in html
    assert "<img" not in html and "alert(2)</script>" not in html.replace("&lt;/script", "")


@pytest.mark.parametrize("name", list(MADE))
def test_results_show_hostile_names_as_text(name: str, tmp_path: Path):
    found = MADE[name]()
    harmless(found._repr_html_())
    page = found.to_html(tmp_path / "page.html").read_text()
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    own = page.replace(max(scripts, key=len), "") if scripts else page  # without plotly's own code
    harmless(own)
    assert any(mark in own for mark in ("&lt;img/src", "\\u003c", "&lt;/script&gt;"))
    for address in re.findall(r"(?:src|href)\s*=\s*[\"']?(\w+://[^\"'> ]+)", own):
        raise AssertionError(f"the page of {name} asks for {address}")


def test_plotly_labels_hold_no_markup():
    found = MADE["lens"]()
    for figure in (found.plot(), found.plot("ranks"), MADE["attribution"]().plot(), _patched().plot()):
        drawn = json.dumps(json.loads(figure.to_json()), ensure_ascii=False)
        assert "<img" not in drawn and "<script" not in drawn and "<a " not in drawn
        assert "</script" not in figure_html(figure, HOSTILE[2]).removesuffix("</script>")


def test_tables_of_runs_are_made_of_hostile_results_too():
    made = task_scores(HOSTILE[2])
    assert isinstance(summary_of(made), pd.DataFrame)
    assert HOSTILE[0] in set(difference(made, made).tables["changes"]["kind"])
