"""The Flow page and one explained edge of a head: what is drawn and measured, what addresses bring back."""

from __future__ import annotations

import re

import mounted
import numpy as np
import pytest
import torch
from serving import HOSTILE, tiny_model

import interp
from interp.results.attention_graph import AttentionGraph

PROMPT = "the cat sat on the mat"
ASKED = {"prompt": PROMPT, "bos": "0"}


def html(at) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def drawn(at) -> dict:
    (found,) = mounted.drawn(at)
    return found


def address(at) -> dict[str, str]:
    return {name: value if isinstance(value, str) else value[0] for name, value in at.query_params.items()}


def box(at, label: str):
    every = (*at.selectbox, *at.text_input, *at.number_input, *at.toggle)
    return next(one for one in every if one.label == label)


def press(at, label: str):
    return next(one for one in at.button if one.label == label).click().run()


def table(at, head: str) -> list[list[str]]:
    """The rows of the table that has a column of that name."""
    (found,) = [one.proto.body for one in at.get("html") if f"<th>{head}</th>" in one.proto.body]
    return [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(<td>.*?)</tr>", found)]


# ---- Flow ----


def test_the_heaviest_edges_are_drawn_heaviest_first(opened):
    at = opened("flow", **ASKED, edges="20")
    assert not at.exception and address(at) == {**ASKED, "edges": "20"}
    data = drawn(at)
    want = interp.attention_graph(tiny_model(), [tiny_model().tokenizer.encode(PROMPT)], top_k=20).to_frame()
    assert data["tokens"] == PROMPT.split() and data["layers"] == 3 and not data["apart"]
    assert list(zip(data["layer"], data["source"], data["target"], strict=True)) == list(
        zip(want["layer"], want["source"], want["target"], strict=True)
    )
    np.testing.assert_allclose(data["weight"], want["weight"], rtol=1e-4)
    assert set(data["head"]) == {-1}


def test_heads_are_kept_apart_and_only_paths_to_the_end_are_left(opened):
    at = opened("flow", **ASKED, edges="30", apart="1", to_last="1", weight="attention")
    data = drawn(at)
    assert data["apart"] and not data["may_keep"] and min(data["head"]) >= 0 and max(data["attention"]) <= 1
    reached = {(3, 5)} | {(layer, 5) for layer in range(3)}
    edges = sorted(zip(data["layer"], data["source"], data["target"], strict=True), reverse=True)
    for layer, source, target in edges:
        assert (layer + 1, target) in reached
        reached |= {(below, source) for below in range(layer + 1)}
    box(at, "Heads apart").set_value(False).run()
    assert "apart" not in address(at) and set(drawn(at)["head"]) == {-1}


def test_faithfulness_is_measured_on_demand_only_and_belongs_to_what_is_shown(opened, monkeypatch):
    calls, real = [], interp.graph_faithfulness

    def counted(*given, **options):
        calls.append(options)
        return real(*given, **options)

    monkeypatch.setattr(interp, "graph_faithfulness", counted)
    at = opened("flow", **ASKED, edges="12", answer_token="a", foil_token="cat")
    assert not calls and "Random graphs" not in html(at)
    press(at, "Measure faithfulness")
    assert not at.exception and len(calls) == 1 and {len(row) for row in calls[0]["reference"]} == {6}
    model = tiny_model()
    with torch.no_grad():
        logits = model(PROMPT, prepend_bos=False)[0, -1]
    full = float(logits[model.tokenizer.single_token("a")] - logits[model.tokenizer.single_token("cat")])
    assert "the beginnings of bundled texts: " in html(at) and "given" not in html(at)
    rows = {row[0]: row for row in table(at, "faithfulness")}
    assert rows["full"][2:4] == [f"{full:.3f}", "1.000"] and rows["empty"][3] == "0.000" and rows["shown"][1] == "12"
    box(at, "Edges kept").set_value(11).run()
    assert "Random graphs" not in html(at) and len(calls) == 1
    box(at, "Edges kept").set_value(12).run()
    assert "Random graphs" in html(at) and len(calls) == 1  # kept


def test_the_downloads_hold_the_graph(opened, monkeypatch):
    import streamlit as st

    saved = {}
    monkeypatch.setattr(st, "download_button", lambda label, data, file, *more, **options: saved.update({file: data}))
    at = opened("flow", **ASKED, edges="15")
    assert not at.exception and sorted(saved) == [
        "attention_graph.graphml",
        "attention_graph.json",
        "flow.html",
        "flow_edges.csv",
    ]
    graph = AttentionGraph.from_json(saved["attention_graph.json"]().decode())
    assert len(graph.edges) == 15 and list(graph.about["text"]) == PROMPT.split()
    assert saved["attention_graph.graphml"]().count(b"<edge ") == 15 + 3 * 6


def test_rollout_and_flow_come_with_their_warnings(opened):
    at = opened("flow", **ASKED, pos="3")
    assert "Not causal: rollout" in html(at)
    rows = table(at, "rollout")
    assert len(rows) == 6 and sum(float(row[1]) for row in rows) == pytest.approx(1, abs=1e-3)
    assert float(dict(rows)["4: &#x27;the&#x27;"]) == 0 and float(dict(rows)["0: &#x27;the&#x27;"]) > 0
    box(at, "As").set_value("flow").run()
    assert "Not causal" not in html(at) and address(at)["alone"] == "flow"
    press(at, "Compute flow")
    graph = interp.attention_graph(tiny_model(), [tiny_model().tokenizer.encode(PROMPT)])
    best = float(table(at, "maximum flow")[0][1])
    assert "Not causal: flow" in html(at) and best == pytest.approx(graph.flow(3).values.max(), abs=1e-3)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"edges": "0"}, "ask for 1 to 1000"),
        ({"edges": "999999"}, "ask for 1 to 1000"),
        ({"edges": "many"}, "is not a whole number"),
        ({"weight": "gold"}, "Edges have no weight gold"),
        ({"alone": "magic"}, "There is no way magic"),
        ({"apart": "yes"}, "neither 0 nor 1"),
        ({"pos": "77"}, "There is no position 77"),
        ({"weight": HOSTILE[0]}, "&lt;img/src=x"),
    ],
)
def test_what_an_address_gets_wrong_is_said_and_the_graph_is_shown(opened, query, message):
    at = opened("flow", **{**ASKED, **query})
    assert not at.exception and message in html(at) and drawn(at)["tokens"] == PROMPT.split()
    assert HOSTILE[0] not in html(at)


def test_an_unknown_answer_is_one_sentence_and_the_graph_stays(opened):
    at = opened("flow", **ASKED, answer_token="nonsense")
    assert not at.exception and "is not in this vocabulary" in html(at) and drawn(at)["tokens"]


def test_hostile_tokens_are_text_and_a_long_prompt_is_cut(opened):
    at = opened("flow", prompt=" ".join(HOSTILE), bos="0")
    assert not at.exception and drawn(at)["tokens"] == HOSTILE and HOSTILE[0] not in html(at)
    assert "<img" not in "".join(one.proto.spec for one in at.get("plotly_chart"))
    at = opened("flow", prompt="cat " * 200, bos="0")
    assert len(drawn(at)["tokens"]) == 96 and "the first 96 are shown" in html(at)


def test_a_prompt_of_one_token_has_a_graph(opened):
    at = opened("flow", prompt="cat", bos="0")
    assert not at.exception and drawn(at)["tokens"] == ["cat"] and len(drawn(at)["layer"]) == 3


# ---- one edge of a head ----


def test_the_edge_that_is_explained_is_at_first_what_the_last_token_reads_most(opened):
    at = opened("head", head="1.2", **ASKED)
    assert not at.exception and "edge" not in address(at)
    _, cache = tiny_model().run_with_cache(PROMPT, ["pattern.1"], prepend_bos=False)
    row = cache["pattern", 1][0, 2, 5].detach().numpy()
    key = 1 + int(row[1:].argmax())
    assert box(at, "Destination token").value == 5 and box(at, "Source token").value == key
    assert f"Attention {np.float16(row[key]):.3f}" in html(at)


def test_the_score_is_the_librarys_and_what_was_written_sums_up(opened):
    at = opened("head", head="1.2", edge="4,2", **ASKED)
    model = tiny_model()
    ids = torch.tensor([model.tokenizer.encode(PROMPT)])
    want = interp.explain_attention(model, ids, "1.2", 4, 2)
    assert f"is {want.total():.2f}. It is the sum" in html(at) and address(at)["edge"] == "4,2"
    assert "each column for itself" in html(at) and "before the final norm divides" in html(at)
    with torch.no_grad():
        best = int(model(ids)[0, 4].argmax())
    rows = table(at, "moved")
    head = interp.ov(model, "1.2").attribution(ids, best, query=4)
    assert rows[-1][0] == "all 6" and float(rows[-1][3]) == pytest.approx(head.about["total"], abs=1e-3)
    for column, total in ((1, 1.0), (2, 1.0), (3, head.about["total"])):
        assert sum(float(row[column]) for row in rows[:-1]) == pytest.approx(total, abs=0.004)
    _, cache = model.run_with_cache(ids, ["blocks.1.attn.hook_pattern", "blocks.1.attn.hook_v"])
    sizes = (cache["blocks.1.attn.hook_v"][0, :, 2] @ model.main.block(1).attn.W_O[2]).norm(dim=-1)
    moved = (cache["blocks.1.attn.hook_pattern"][0, 2, 4] * sizes).detach()
    shown = {int(row[0].split(":")[0]): float(row[2]) for row in rows[:-1]}
    np.testing.assert_allclose([shown[i] for i in range(6)], moved / moved.sum(), atol=1e-3)


def test_a_confirmation_is_made_on_demand(opened):
    at = opened("head", head="2.1", edge="5,3", **ASKED)
    assert "Only this edge is touched" not in html(at)
    press(at, "Confirm by intervention")
    assert not at.exception and "Only this edge is touched" in html(at)
    ids = torch.tensor([tiny_model().tokenizer.encode(PROMPT)])
    want = interp.explain_attention(tiny_model(), ids, "2.1", 5, 3, confirm=True).confirmed
    assert want is not None
    rows = table(at, "replaced")
    sides = {"query": "destination part", "key": "source part"}
    assert [row[0] for row in rows] == [f"{sides[s]}: {n}" for s, n in zip(want["side"], want["source"], strict=True)]
    assert "query s" not in html(at) and "key s" not in html(at)
    assert [row[1] for row in rows] == [
        f"{a:.3f} → {b:.3f}" for a, b in zip(want["attention"], want["attention_after"], strict=True)
    ]
    box(at, "Source token").set_value(2).run()
    assert "Only this edge is touched" not in html(at) and address(at)["edge"] == "5,2"


def test_another_query_keeps_a_key_that_it_sees_and_another_prompt_forgets_the_edge(opened):
    at = opened("head", head="2.1", edge="5,2", **ASKED)
    box(at, "Destination token").set_value(3).run()
    assert address(at)["edge"] == "3,2"
    box(at, "Destination token").set_value(1).run()
    assert address(at)["edge"] == "1,1" and box(at, "Source token").options == ["0: 'the'", "1: 'cat'"]
    at.text_area[0].set_value("a cat sat")
    press(at, "Show attention")
    assert not at.exception and "edge" not in address(at) and box(at, "Destination token").value == 2


def test_earlier_heads_are_named_where_that_is_asked(opened):
    at = opened("head", head="2.1", view="head", **ASKED)
    assert not at.exception and re.search(r"<td>[01]\.[0-3] [+-]", html(at)) and address(at)["view"] == "head"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"edge": "2,4"}, "There is no edge 2,4"),
        ({"edge": "77,4"}, "There is no edge 77,4: tokens are 0 to 5"),
        ({"edge": "one"}, "Write destination,source"),
        ({"view": "neuron"}, "Sources cannot be shown by neuron"),
    ],
)
def test_an_edge_that_cannot_be_is_said(opened, query, message):
    at = opened("head", head="2.1", **ASKED, **query)
    assert not at.exception and message in html(at) and "It is the sum of these parts" in html(at)


@pytest.mark.parametrize("prompt", ["cat", "the cat", " ".join(HOSTILE)])
def test_short_and_hostile_prompts_are_explained(opened, prompt):
    at = opened("head", head="1.1", prompt=prompt, bos="0")
    assert not at.exception and "What did it write?" in "".join(one.value for one in at.markdown)
    assert "It is the sum of these parts" in html(at) and 'role="alert"' not in html(at)
    assert HOSTILE[0] not in html(at)
    if prompt != "cat":
        press(at, "Confirm by intervention")
        assert not at.exception and "Only this edge is touched" in html(at)


def test_a_node_budget_reaches_the_drawing_and_leaves_the_graph_whole(opened):
    at = opened("flow", **ASKED, edges="30", nodes="5")
    assert not at.exception and drawn(at)["budget"] == 5 and len(drawn(at)["layer"]) == 30
    assert address(at)["nodes"] == "5"
    at = opened("flow", **ASKED, nodes="1")
    assert "ask for 2 to 2000" in html(at) and drawn(at)["budget"] == 200


@pytest.mark.parametrize("query", [{}, {"apart": "1", "to_last": "1", "weight": "attention"}])
def test_the_code_of_the_graph_gives_its_edges(opened, query):
    at = opened("flow", **ASKED, edges="20", **query)
    edges, data = mounted.run_code(at)["graph"].edges, drawn(at)
    want = edges.sort_values("weight", ascending=False, kind="stable")
    assert list(want["source"]) == data["source"] and list(want["target"]) == data["target"]
    np.testing.assert_allclose(data["weight"], want["weight"], rtol=1e-4)


def test_the_code_of_a_measured_graph_gives_its_faithfulness(opened):
    at = opened("flow", **ASKED, edges="12", answer_token="a", foil_token="cat")
    press(at, "Measure faithfulness")
    found = mounted.run_code(at)["graph"].faithfulness.set_index("graph")
    rows = {row[0]: row for row in table(at, "faithfulness")}
    assert float(rows["shown"][3].split()[0]) == pytest.approx(float(found.loc["shown", "faithfulness"]), abs=1e-3)
