"""The Lens and attribution page: what the table holds, whether the sum is shown, what its address brings back."""

from __future__ import annotations

import json
import re
import threading
import time
from html import escape
from types import SimpleNamespace

import numpy as np
import pytest
import streamlit as st
import torch
from mounted import bar, drawn, run_code
from serving import HOSTILE, tiny_model

import interp
from app import computing
from app.components.lens_table import lens_data
from app.jobs import shared_jobs

PROMPT = "the cat sat on the mat"
ASKED = {"prompt": PROMPT, "bos": "0", "answer_token": "a", "foil_token": "cat", "pins": "a on"}


def logits(pos: int = -1):
    """The tiny model's own, behind a token of the prompt."""
    with torch.no_grad():
        return tiny_model()(PROMPT, prepend_bos=False)[0, pos]


def difference(pos: int = -1) -> float:
    answer, foil = (tiny_model().tokenizer.single_token(ASKED[name]) for name in ("answer_token", "foil_token"))
    return float(logits(pos)[answer] - logits(pos)[foil])


def html(at) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def computed_by_the_model(at) -> float:
    (said,) = re.findall(r"the model computed (-?[0-9.]+) ", html(at))
    return float(said)


def cells(at) -> dict:
    (found,) = drawn(at)
    return found


def charts(at) -> list[dict]:
    return [json.loads(one.proto.spec) for one in at.get("plotly_chart")]


def address(at) -> dict[str, str]:
    return {name: value if isinstance(value, str) else value[0] for name, value in at.query_params.items()}


def box(at, label: str):
    return next(one for one in (*at.selectbox, *at.text_input, *at.text_area) if one.label == label)


def test_the_table_holds_the_likeliest_token_of_every_layer_and_position(opened):
    at = opened("lens", **ASKED)
    assert not at.exception and address(at) == ASKED
    data, model = cells(at), tiny_model()
    assert data["tokens"] == PROMPT.split() and data["layers"] == 4 and data["pos"] == 5
    own = [logits(pos) for pos in range(6)]
    assert [one[0] for one in data["top"][18:]] == [model.to_single_str_token(int(one.argmax())) for one in own]
    np.testing.assert_allclose([one[0] for one in data["prob"][18:]], [one.softmax(0).max() for one in own], atol=1e-4)
    assert data["kl"][18:] == [0.0] * 6 and max(data["kl"][:18]) > 0.1
    assert data["pins"] == ["a", "on"] and len(data["ranks"][1]) == 24


def test_the_parts_sum_to_the_models_own_difference_and_that_is_shown(opened):
    at = opened("lens", **ASKED, by="head")
    assert "Exact sum" in html(at) and computed_by_the_model(at) == pytest.approx(difference(), abs=1e-5)
    assert "<th>entropy, nats</th>" in html(at) and "<th>KL, nats</th>" in html(at)
    curves, bars = charts(at)
    assert "1: the likeliest" in curves["layout"]["yaxis"]["title"]["text"]
    assert [one["name"] for one in curves["data"]] == ["&#x27;a&#x27;", "&#x27;on&#x27;"]
    assert bars["data"][0]["type"] == "bar"


@pytest.mark.parametrize("query", [{}, {"by": "head", "pos": "2"}, {"pins": "", "answer_token": "", "foil_token": ""}])
def test_the_code_of_the_page_gives_its_numbers(opened, query):
    at = opened("lens", **{name: value for name, value in {**ASKED, **query}.items() if value})
    names = run_code(at)
    data = cells(at)
    assert lens_data(names["lens"], data["tokens"], pos=data["pos"]) == data
    assert float(names["parts"].check["logit"].iloc[0]) == pytest.approx(computed_by_the_model(at), abs=1e-6)
    for line in names["parts"].summary(15).to_dict("records"):
        assert "".join(f"<td>{escape(str(cell))}</td>" for cell in line.values()) in html(at)


def test_code_of_hostile_and_long_prompts_holds_them_as_literals(opened):
    text = " ".join([*HOSTILE, "'\"); raise SystemExit #"]) + " cat" * 200
    at = opened("lens", prompt=text, bos="0")
    assert not at.exception and run_code(at)["tokens"].shape == (1, 128) and len(cells(at)["tokens"]) == 128
    assert "<" not in bar(at)["name"]


def test_parts_that_do_not_sum_are_called_out(opened, monkeypatch):
    real = interp.logit_attribution

    def off(*given, **options):
        found = real(*given, **options)
        return type(found)(found.frame, found.check.assign(ok=False), found.about)

    monkeypatch.setattr(interp, "logit_attribution", off)
    text = html(opened("lens", **ASKED))
    assert "The sum is off" in text and "Exact sum" not in text


@pytest.mark.parametrize("by", ["component", "head", "source"])
def test_the_table_of_parts_adds_up_with_the_others(opened, by):
    at = opened("lens", **ASKED, by=by)
    (table,) = [one.proto.body for one in at.get("html") if "<th>logits</th>" in one.proto.body]
    numbers = [float(one) for one in re.findall(r"<td>([+-][0-9.]+)</td></tr>", table)]
    (said,) = [one.proto.body for one in at.get("html") if "Exact sum" in one.proto.body]
    total = float(said.split(" parts sum to ")[1].split(" ")[0])
    assert len(numbers) > 7 and sum(numbers) == pytest.approx(total, abs=0.0005 * len(numbers))


def test_a_position_is_chosen_and_the_sum_is_read_there(opened):
    at = opened("lens", **ASKED)
    box(at, "Behind the token").set_value(2).run()
    assert address(at)["pos"] == "2" and cells(at)["pos"] == 2
    assert abs(difference(2) - difference()) > 0.01
    assert computed_by_the_model(at) == pytest.approx(difference(2), abs=1e-5)


def test_another_prompt_forgets_the_position(opened):
    at = opened("lens", **ASKED, pos="4")
    box(at, "Prompt").set_value("a cat")
    at.button[0].click().run()
    assert not at.exception and address(at)["prompt"] == "a cat" and "pos" not in address(at)
    assert cells(at)["pos"] == 1


def test_without_answer_and_pins_the_models_own_choice_is_followed(opened):
    at = opened("lens", prompt=PROMPT, bos="0")
    best = [tiny_model().to_single_str_token(int(one)) for one in logits().topk(2).indices]
    assert cells(at)["pins"] == best and "No token is pinned" in html(at)
    assert address(at) == {"prompt": PROMPT, "bos": "0"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"pos": "99"}, "There is no position 99; this prompt has 0 to 5."),
        ({"pos": "-1"}, "is not a whole number"),
        ({"pos": "٣"}, "is not a whole number"),
        ({"by": "neuron"}, "cannot be split by neuron here"),
        ({"by": HOSTILE[0]}, "&lt;img/src=x"),
        ({"pins": "x" * 300}, "Give at most 200"),
        ({"answer_token": "nonsense"}, "is not in this vocabulary"),
        ({"foil_token": "a on"}, "The foil &#x27;a on&#x27; is 2 tokens"),
        ({"pins": "a nonsense"}, "is not in this vocabulary. It is left out."),
        ({"answer_token": " "}, "is 0 tokens"),
        ({"model": "/etc/passwd"}, "is not a model of this page"),
    ],
)
def test_what_an_address_gets_wrong_is_said_and_the_page_is_shown(opened, query, message):
    at = opened("lens", **{**ASKED, **query})
    assert not at.exception and message in html(at) and cells(at)["tokens"]
    assert HOSTILE[0] not in html(at)


def test_hostile_tokens_are_escaped_in_tables_and_charts(opened):
    at = opened("lens", prompt=" ".join(HOSTILE), bos="0", answer_token=HOSTILE[0], pins=" ".join(HOSTILE), by="source")
    assert not at.exception and cells(at)["tokens"] == HOSTILE
    assert HOSTILE[0] not in html(at) and "&lt;img/src=x" in html(at)
    for chart in charts(at):
        assert "<img" not in json.dumps(chart) and "<script" not in json.dumps(chart)


def test_a_long_prompt_is_cut_and_that_is_said(opened):
    at = opened("lens", prompt="cat " * 200, bos="0")
    assert len(cells(at)["tokens"]) == 128 and "the first 128 are shown" in html(at)


def test_a_model_that_reads_no_single_text_is_one_sentence(opened, monkeypatch):
    two = SimpleNamespace(encoder=object(), decoder=object(), tokenizer=None)
    monkeypatch.setattr("interp.load", lambda name: two)
    at = opened("lens", **ASKED)
    assert not at.exception and "reads two texts" in html(at) and not at.get("bidi_component")


# ---- results that take long ----


@pytest.fixture
def slow(monkeypatch):
    """A lens that waits for an event, which the page's patience does not."""
    go, real, calls = threading.Event(), interp.lens, []

    def wait(*given, **options):
        calls.append(1)
        while not go.is_set():
            time.sleep(0.01)
            torch.zeros(1).sum()  # asks whether to go on
        return real(*given, **options)

    monkeypatch.setattr(interp, "lens", wait)
    monkeypatch.setattr(computing, "PATIENCE", 0.05)
    yield SimpleNamespace(go=go, calls=calls)
    go.set()


def ended(slow) -> None:
    until = time.monotonic() + 5
    while any(job.state == "running" for job in shared_jobs()._jobs) and time.monotonic() < until:
        time.sleep(0.01)


def test_a_slow_lens_shows_its_job_and_is_there_when_it_ends(opened, slow):
    at = opened("lens", **ASKED)
    assert not drawn(at) and "Cancel" in [one.label for one in at.button]
    assert "Lens of 6 tokens in tiny" in html(at)
    slow.go.set()
    ended(slow)
    at.run()
    assert not at.exception and cells(at)["tokens"] == PROMPT.split() and len(slow.calls) == 1


def test_a_cancelled_lens_does_not_begin_again_by_itself(opened, slow):
    at = opened("lens", **ASKED)
    next(one for one in at.button if one.label == "Cancel").click().run()
    ended(slow)
    at.run()
    assert "cancelled" in html(at) and len(slow.calls) == 1
    slow.go.set()
    next(one for one in at.button if one.label == "Try again").click().run()
    ended(slow)
    at.run()
    assert cells(at)["tokens"] == PROMPT.split() and len(slow.calls) == 2


def test_two_sessions_share_one_result(opened, monkeypatch):
    calls, real = [], interp.lens
    monkeypatch.setattr(interp, "lens", lambda *given, **options: (calls.append(1), real(*given, **options))[1])
    first, second = opened("lens", **ASKED), opened("lens", **ASKED)
    assert len(calls) == 1 and cells(first) == cells(second)


def test_the_memory_of_results_is_bounded():
    st.cache_resource.clear()
    memo = computing._memo()
    for i in range(100):
        memo.put(i, i)
    assert computing.known(99) == 99 and computing.known(0) is None and len(memo._found) == 32
    st.cache_resource.clear()


def test_ranks_of_each_pin_stand_in_the_order_of_the_cells():
    model = tiny_model()
    found = interp.lens(model, PROMPT, pins=["cat", "a"], k=2)
    data = lens_data(found, PROMPT.split(), pos=0)
    for pin, ranks in zip(data["pins"], data["ranks"], strict=True):
        for layer in range(4):
            for pos in range(6):
                row = found.curve(pin, pos=pos).set_index("layer").loc[layer]
                assert ranks[layer * 6 + pos] == row["rank"]
