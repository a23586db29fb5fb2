"""What a page found is kept as a run when that is asked for, once, and a stored tuned lens can be looked through."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from serving import tiny_model

import interp
from interp.runs.store import RunStore

PROMPT = "the cat sat on the mat"
ASKED = {"prompt": PROMPT, "bos": "0"}


def html(at) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def press(at, label: str):
    return next(one for one in at.button if one.label == label).click().run()


def labels(at) -> list[str]:
    return [one.label for one in at.button]


def stored(*kinds: str):
    runs = RunStore(os.environ["INTERP_STORE"])
    return [one for one in runs.list() if one.kind in kinds]


def results(run):
    return RunStore(os.environ["INTERP_STORE"]).open(run.id).results()


def ids() -> list[list[int]]:
    return [tiny_model().tokenizer.encode(PROMPT)]


def test_a_lens_and_an_attribution_are_kept_as_the_runs_of_their_commands(opened) -> None:
    at = opened("lens", **ASKED, answer_token="a", foil_token="cat", pins="a on")
    assert not stored("lens", "logit_attribution"), "nothing is stored unasked"
    press(at, "Keep as a run: lens")
    (run,) = stored("lens")
    assert not at.exception and f"Kept as run {run.id}" in html(at) and "Keep as a run: lens" not in labels(at)
    assert results(run).frame.equals(interp.lens(tiny_model(), ids(), pins=["a", "on"], k=3).frame)
    assert run.model == "tiny" and run.model_hash and run.title == f"logit lens of tiny: {PROMPT}"
    press(at, "Keep as a run: logit attribution")
    (run,) = stored("logit_attribution")
    spec = RunStore(os.environ["INTERP_STORE"]).open(run.id).manifest["spec"]
    assert spec["analysis"] == "logit_attribution" and spec["text"] == PROMPT and spec["read"] == 5
    want = interp.logit_attribution(tiny_model(), ids(), answer=spec["answer"], foil=spec["foil"], read=5)
    np.testing.assert_allclose(results(run).frame["value"], want.frame["value"], atol=1e-6)
    at.run()
    assert len(stored("lens")) == 1 and "Keep as a run: lens" not in labels(at)
    shutil.rmtree(Path(os.environ["INTERP_STORE"]) / stored("lens")[0].id)
    at.run()
    assert "Keep as a run: lens" in labels(at), "it is gone, so it can be kept again"


def test_a_graph_is_kept_with_what_was_measured_of_it(opened) -> None:
    at = opened("flow", **ASKED, edges="12", answer_token="a", foil_token="cat")
    press(at, "Keep as a run: graph")
    (plain,) = stored("attention_graph")
    assert len(results(plain).faithfulness) == 0 and len(results(plain).edges) == 12
    press(at, "Measure faithfulness")
    press(at, "Keep as a run: graph")
    assert not at.exception and len(stored("attention_graph")) == 2
    assert results(stored("attention_graph")[0]).faithfulness["graph"].tolist() == ["full", "empty", "shown", "random"]


def test_an_explained_edge_is_kept_with_its_confirmation(opened) -> None:
    at = opened("head", head="2.1", edge="5,3", **ASKED)
    press(at, "Confirm by intervention")
    press(at, "Keep as a run: explain")
    (run,) = stored("explanation")
    assert not at.exception and results(run).confirmed is not None and results(run).about["key"] == 3
    assert "The answer is read at 5: the last token" in html(at)


def test_a_store_that_cannot_be_written_is_said(opened, monkeypatch) -> None:
    at = opened("lens", **ASKED)
    blocked = Path(os.environ["INTERP_STORE"]).parent / "file"
    blocked.write_text("mine")
    monkeypatch.setenv("INTERP_STORE", str(blocked))
    press(at, "Keep as a run: lens")
    assert not at.exception and 'role="alert"' in html(at) and "Keep as a run: lens" in labels(at)


@pytest.fixture
def fitted(runs) -> str:
    texts = [[2, 3, 4, 5, 6, 7] * 4, [7, 6, 5, 4, 3, 2] * 4, [2, 4, 6] * 8]
    lens = interp.TunedLens.fit(tiny_model(), texts, rank=4, steps=2, n_tokens=32)
    store = RunStore(os.environ["INTERP_STORE"])
    return store.save(lens, spec={}, model_hash=lens.about["model_hash"], title="mine").id


def test_a_stored_tuned_lens_can_be_looked_through(fitted, opened) -> None:
    at = opened("lens", **ASKED, pins="a")
    box = next(one for one in at.selectbox if one.label == "Lens")
    assert box.value == "logit" and len(box.options) == 2
    box.set_value(fitted).run()
    assert not at.exception and "Not converged" in html(at) and "tuned lens" in html(at)
    assert at.query_params["lens"] in (fitted, [fitted])
    press(at, "Keep as a run: lens")
    (run,) = stored("lens")
    own = RunStore(os.environ["INTERP_STORE"]).open(fitted).results()
    want = interp.lens(tiny_model(), ids(), kind="tuned", lens=own, pins=["a"], k=3)
    np.testing.assert_allclose(results(run).frame["kl"], want.frame["kl"], atol=1e-6)


def test_a_tuned_lens_of_other_weights_is_not_offered_and_an_unknown_one_is_refused(runs, opened) -> None:
    texts = [[2, 3, 4, 5, 6, 7] * 4, [7, 6, 5, 4, 3, 2] * 4]
    lens = interp.TunedLens.fit(tiny_model(), texts, rank=4, steps=1, n_tokens=16)
    RunStore(os.environ["INTERP_STORE"]).save(lens, spec={}, model_hash="0" * 64)
    at = opened("lens", **ASKED, lens="20200101-000000-000-00000000")
    assert not at.exception and "The store holds no tuned lens 20200101" in html(at)
    assert "Lens" not in [one.label for one in at.selectbox]
