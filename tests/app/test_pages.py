"""What the pages show, say and remember."""

from __future__ import annotations

import base64
import shutil

import numpy as np
import pytest
from mounted import drawn
from serving import HOSTILE, ROOT
from streamlit.testing.v1 import AppTest

from app.components.head_map import map_data
from app.components.token_attention import attention_data


def component(at: AppTest) -> dict:
    """The data of the first component that a page mounts."""
    return drawn(at)[0]


def html(at: AppTest) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def address(at: AppTest) -> dict[str, str]:
    return {name: value if isinstance(value, str) else value[0] for name, value in at.query_params.items()}


def test_the_atlas_maps_the_newest_run_and_leaves_unmeasured_heads_empty(opened, runs):
    at = opened("atlas", value="effect")
    assert not at.exception and at.selectbox[0].value == runs[1]
    data = component(at)
    assert (data["layers"], data["heads"]) == (3, 4)
    assert [value for value in data["values"] if value is not None] == [1.5]
    assert data["values"][1 * 4 + 2] == 1.5 and data["marks"][1 * 4 + 2] == 2 and sum(data["marks"]) == 2
    assert "previous_token" in html(at) and "manifest.json cannot be read" in html(at)  # the damaged run is named


def test_the_kind_and_the_column_are_remembered_in_the_address(opened):
    at = opened("atlas")
    at.selectbox[1].set_value("induction").run()
    at.selectbox[2].set_value("control").run()
    assert address(at)["kind"] == "induction" and address(at)["value"] == "control"
    data = component(at)
    assert data["signed"] and data["low"] == -data["high"]


def test_a_value_below_zero_gets_the_diverging_scale(opened):
    assert component(opened("atlas", value="score"))["signed"] is False


def test_the_head_page_sends_the_patterns_of_the_model(opened):
    import interp

    at = opened("head", head="1.2", prompt="the cat sat", bos="0")
    assert not at.exception
    data = component(at)
    assert data["tokens"] == ["the", "cat", "sat"] and not data["has_bos"]
    weights = np.frombuffer(base64.b64decode(data["weights"]), "<u2").reshape(3, 3) / 65535
    _, cache = interp.load("tiny").run_with_cache("the cat sat", ["pattern.1"], prepend_bos=False)
    np.testing.assert_allclose(weights, cache["pattern", 1][0, 2].detach().numpy(), atol=1e-3)
    assert "1.50 (1.25 to 1.75)" in html(at) and "1 of 12" in html(at)


def test_bos_is_put_in_front_as_asked(opened):
    at = opened("head", prompt="the cat sat")
    assert component(at)["tokens"][0] == "<s>"
    at.toggle[0].set_value(False).run()
    assert component(at)["tokens"] == ["the", "cat", "sat"] and address(at)["bos"] == "0"


def test_without_an_address_the_best_head_is_shown(opened):
    assert address(opened("head"))["head"] == "2.3"


def test_a_long_prompt_is_cut_and_that_is_said(opened):
    at = opened("head", prompt="cat " * 1100, bos="0")
    assert not at.exception and len(component(at)["tokens"]) == 1024
    assert "The prompt has 1,100 tokens; the first 1024 are shown." in html(at)
    assert "prompt" not in address(at)  # too long for one


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"run": "../../etc/passwd"}, "There is no readable run ../../etc/passwd"),
        ({"run": "x" * 500}, "is not a name"),
        ({"head": "9.9"}, "There is no head 9.9: heads go from 0.0 to 2.3"),
        ({"head": "two"}, "Write layer.head"),
        ({"head": "9" * 300}, "Write layer.head"),
        ({"bos": "yes"}, "neither 0 nor 1"),
        ({"prompt": " "}, "Give 1 to 20,000"),
        ({"prompt": "x" * 20_001}, "20,001 characters"),
        ({"model": "/etc/passwd"}, "is not a model of this page; there are tiny"),
        ({"run": HOSTILE[0]}, "&lt;img/src=x"),
    ],
)
def test_what_an_address_gets_wrong_is_said_and_the_page_is_shown(opened, query, message):
    at = opened("head", **query)
    assert not at.exception and message in html(at)
    assert component(at)["tokens"]
    assert HOSTILE[0] not in html(at)


def test_unknown_kinds_and_columns_are_said_on_the_atlas(opened):
    at = opened("atlas", kind="copying", value="nonsense")
    assert "holds no kind copying" in html(at) and "nonsense" in html(at)
    assert component(at)["label"] == "previous_token: score of every head"


def test_a_complaint_goes_when_another_value_is_chosen(opened):
    at = opened("head", head="9.9")
    assert "There is no head 9.9" in html(at)
    head = next(box for box in at.selectbox if box.label.startswith("Head"))
    head.set_value("0.1").run()
    assert "There is no head 9.9" not in html(at) and address(at)["head"] == "0.1"


def test_a_run_of_a_model_that_is_not_here_still_shows_its_scores(opened, runs, monkeypatch):
    from interp.errors import UnknownModelError

    def refuse(name: str) -> None:
        raise UnknownModelError(f"{name!r} is no model that load knows.")

    monkeypatch.setattr("interp.load", refuse)
    at = opened("head", head="1.2")
    assert not at.exception and "is no model that load knows" in html(at)
    assert not at.get("bidi_component") and "1.50 (1.25 to 1.75)" in html(at)


def test_a_prompt_without_tokens_is_one_sentence(opened):
    at = opened("head", head="1.2", prompt="\u200b", bos="0")
    assert not at.exception


def test_an_empty_store_says_how_to_fill_it(opened, tmp_path):
    shutil.rmtree(tmp_path / "runs")
    at = opened("atlas")
    assert not at.exception and f"interp heads tiny --store {tmp_path / 'runs'}" in html(at)
    assert [button.label for button in at.button] == ["Find heads"]
    at = opened("head")  # attention can be looked at without a run
    assert not at.exception and component(at)["tokens"]


def test_a_store_that_is_a_file_is_one_sentence(runs, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTERP_STORE", str(tmp_path / "file"))
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=30).run()
    assert not at.exception and "no folder of runs" in html(at)


def test_the_entry_shows_the_atlas(runs):
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=30).run()
    assert not at.exception and component(at)["layers"] == 3


def test_notes_of_the_map_hold_intervals_and_verdicts():
    from serving import tiny_scores

    data = map_data(tiny_scores().of("induction"), "induction", "score")
    assert data["notes"][2 * 4 + 3] == "score 0.90 (0.89 to 0.91) · effect 1.50 (1.25 to 1.75) · induction"
    assert data["notes"][0].endswith("not tested") and data["cursor"] == {"layer": 2, "head": 3}


def test_weights_reach_the_browser_with_five_decimals():
    weights = np.random.default_rng(0).dirichlet(np.ones(9), 9)
    sent = np.frombuffer(base64.b64decode(attention_data(["x"] * 9, weights, has_bos=False)["weights"]), "<u2")
    assert np.abs(sent.reshape(9, 9) / 65535 - weights).max() < 1e-5
