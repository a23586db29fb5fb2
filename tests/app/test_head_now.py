"""The Head page on the current prompt: weighted attention, all heads of a layer, ablation, the same as Python."""

from __future__ import annotations

import base64
import re
import threading
import time

import numpy as np
import pytest
import torch
from mounted import bar, drawn, run_code
from serving import HOSTILE, tiny_model

import interp
from app import ablating, computing
from app.components.layer_grid import grid_data
from app.jobs import shared_jobs
from app.layer import LayerAttention, habits, pooled
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.sites import Head

ASKED = {"prompt": "the cat sat on the mat", "bos": "0"}


def html(at) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def press(at, label: str):
    return next(one for one in at.button if one.label == label).click().run()


def table(at, head: str) -> list[list[str]]:
    (found,) = [one.proto.body for one in at.get("html") if f"<th>{head}</th>" in one.proto.body]
    return [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(<td>.*?)</tr>", found)]


def decoded(data: dict) -> np.ndarray:
    n = len(data["tokens"])
    return np.frombuffer(base64.b64decode(data["weights"]), "<u2").reshape(n, n) / 65535 * data["scale"]


def test_attention_is_weighted_by_what_each_value_carries(opened):
    data = drawn(opened("head", head="1.2", weighted="1", **ASKED))[0]
    model = tiny_model()
    sites = ["blocks.1.attn.hook_pattern", "blocks.1.attn.hook_v"]
    _, cache = model.run_with_cache(ASKED["prompt"], sites, prepend_bos=False)
    norms = (cache[sites[1]][0, :, 2] @ model.main.block(1).attn.W_O[2]).norm(dim=-1)
    want = (cache[sites[0]][0, 2] * norms).detach().numpy()
    assert data["weighted"] and data["scale"] == pytest.approx(want.max(), rel=1e-3)
    np.testing.assert_allclose(decoded(data), want, atol=2e-3 * want.max())


def test_the_grid_holds_every_head_and_marks_the_one_that_is_open(opened):
    at = opened("head", head="1.2", **ASKED)
    one, grid = drawn(at)
    assert grid["heads"] == ["1.0", "1.1", "1.2", "1.3"] and grid["chosen"] == "1.2" and grid["by"] == 1
    cells = np.frombuffer(base64.b64decode(grid["cells"]), np.uint8).reshape(4, 6, 6) / 255.0
    np.testing.assert_allclose(cells[2] ** 2, decoded(one), atol=0.01)
    assert all(abs((cells[i] - cells[2]).max()) > 0.01 for i in (0, 1, 3))


def test_a_long_prompt_is_pooled_by_its_largest_and_no_edge_is_lost():
    weights = np.zeros((2, 300, 300), dtype=np.float16)
    weights[0, 299, 7], weights[1, 150, 149] = 0.75, 0.5
    found = LayerAttention(tuple(range(300)), ["x"] * 300, False, 0, weights, np.ones((2, 300), np.float32))
    data = grid_data(found, Head(0, 1), weighted=False)
    assert (data["size"], data["by"]) == (100, 3)
    cells = np.frombuffer(base64.b64decode(data["cells"]), np.uint8).reshape(2, 100, 100)
    assert cells[0, 99, 2] == round(255 * 0.75**0.5) and (cells > 0).sum() == 2
    assert pooled(weights[1].astype(np.float32))[0].max() == 0.5


def test_habits_of_heads_add_up_to_all_attention(opened):
    weights = np.random.default_rng(0).dirichlet(np.ones(5), (2, 5)) * np.tri(5)
    weights = (weights / weights.sum(-1, keepdims=True)).astype(np.float16)
    found = LayerAttention(tuple(range(5)), list("abcde"), False, 0, weights, np.ones((2, 5), np.float32))
    rows = habits(found, 3)
    assert list(rows["head"]) == ["3.0", "3.1"]
    for row in rows.to_dict("records"):
        total = sum(float(row[name]) for name in ("first token", "token before", "itself", "elsewhere"))
        assert total == pytest.approx(1, abs=0.03)


def test_an_ablation_is_the_librarys_and_leaves_the_model_as_it_was(opened):
    at = opened("head", head="1.2", answer_token="a", foil_token="cat", **ASKED)
    assert "set to zero" not in html(at)  # nothing runs before it is asked for
    model = interp.load("tiny")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    press(at, "Ablate it now")
    assert not at.exception
    rows = table(at, "head 1.2")
    ids = model.tokenizer.encode(ASKED["prompt"])
    pairs = interp.PromptPairs.from_tokens([ids], [ids], [model.tokenizer.single_token("a")],
                                           foil=[model.tokenizer.single_token("cat")])  # fmt: skip
    texts = ablating.passages()[: ablating._MEAN_TEXTS]
    reference = [model.tokenizer.encode(text[: ablating._CHARACTERS])[: ablating._MEAN_TOKENS] for text in texts]
    zero = interp.ablate(model, pairs, "1.2", "zero")
    mean = interp.ablate(model, pairs, "1.2", "mean", reference=reference, mean_axes=("prompt", "pos"))
    assert float(rows[0][1]) == pytest.approx(float(zero.base[0]), abs=1e-3)
    changes = [float(zero.values[0, 0]), float(mean.values[0, 0])]
    assert [float(row[2]) for row in rows[1:]] == pytest.approx(changes, abs=1e-3) and min(map(abs, changes)) > 0.01
    assert float(rows[1][1]) == pytest.approx(float(rows[0][1]) + changes[0], abs=2e-3)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_another_answer_is_read_off_the_same_ablation(opened, monkeypatch):
    calls, real = [], interp.run_with_edits
    monkeypatch.setattr(interp, "run_with_edits", lambda *given, **more: calls.append(given) or real(*given, **more))
    at = opened("head", head="0.1", **ASKED)
    press(at, "Ablate it now")
    assert len(calls) == 2
    next(one for one in at.text_input if one.label == "Foil").set_value("mat").run()
    assert len(calls) == 2 and "− &#x27;mat&#x27;" in html(at) and at.query_params["foil_token"] in ("mat", ["mat"])


def test_the_button_gives_way_to_the_job_which_can_be_cancelled(opened, monkeypatch):
    go, real = threading.Event(), ablating.ablated
    monkeypatch.setattr(ablating, "ablated", lambda *given, **more: (go.wait(10), real(*given, **more))[1])
    at = opened("head", head="0.1", **ASKED)
    monkeypatch.setattr(computing, "PATIENCE", 0.1)
    press(at, "Ablate it now")
    try:
        labels = [one.label for one in at.button]
        assert not at.exception and "Cancel" in labels and "Ablate it now" not in labels
        assert "head=0.1" in "&".join(f"{name}={''.join(value)}" for name, value in at.query_params.items())
        (job,) = [one for one in shared_jobs().every_running() if one.name.startswith("Ablation")]
        press(at, "Cancel")
    finally:
        go.set()
    until = time.monotonic() + 10
    while job.state == "running" and time.monotonic() < until:
        time.sleep(0.01)
    assert job.state == "cancelled"


def test_an_answer_that_is_no_token_is_said_and_nothing_is_run(opened):
    at = opened("head", head="0.1", answer_token="nonsense", **ASKED)
    assert not at.exception and "is not in this vocabulary" in html(at)
    assert "Ablate it now" not in [one.label for one in at.button] and len(drawn(at)) == 2


def test_hostile_tokens_stay_text_in_what_is_predicted(opened):
    at = opened("head", head="2.1", prompt=" ".join(HOSTILE), bos="0", answer_token=HOSTILE[0])
    press(at, "Ablate it now")
    assert not at.exception and "&lt;img/src=x" in html(at) and HOSTILE[0] not in html(at)


def test_a_model_without_predictions_still_shows_attention(opened, monkeypatch):
    config = ModelConfig.encoder_only(n_layers=3, d_model=32, n_heads=4, d_vocab=12, n_ctx=64, d_mlp=64)
    encoder = HookedTransformer(config.headless(), tiny_model().tokenizer, seed=0)
    assert encoder.unembed is None
    monkeypatch.setattr(interp, "load", lambda name, **ignored: encoder)
    at = opened("head", head="1.2", **ASKED)
    assert not at.exception and len(drawn(at)) == 2 and "predicts no tokens" in html(at)


@pytest.mark.parametrize("query", [{}, {"weighted": "1", "edge": "4,2"}, {"bos": "1"}])
def test_the_code_of_the_page_gives_its_numbers(opened, query):
    at = opened("head", head="1.2", **{**ASKED, **query})
    names = run_code(at)
    shown = names["weighted" if "weighted" in query else "attention"].numpy()
    np.testing.assert_allclose(decoded(drawn(at)[0]), shown, atol=2e-3 * shown.max())
    assert bar(at)["name"] == "head 1.2"
    if "edge" in query:
        assert names["edge"] == pytest.approx(float(names["attention"][4, 2]))
