"""Edges weigh what a naive loop says they move, exports come back, and faithfulness is what plain edited runs give."""

from __future__ import annotations

import json
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError, StorageError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results.attention_graph import AttentionGraph
from tests.circuits.layouts import double, rows
from tests.model.conftest import ZOO, _one_thread, talker, unchecked, words

__all__ = ["_one_thread", "talker", "unchecked", "words"]

TOKENS = [3, 17, 8, 30, 5]
ONE_STACK = [name for name, config in ZOO.items() if len(config.stacks) == 1]
REFERENCE = rows([5, 7, 9], 4)


def moved(model: HookedTransformer, layer: int, head: int, target: int, source: int) -> float:
    """‖A · v W_O‖ behind the output norm, where there is one, by hand."""
    _, cache = model.run_with_cache(torch.tensor([TOKENS]), return_type=None)
    block, config = model.main.block(layer), model.main.config.blocks[layer]
    group = config.attn.n_heads // config.attn.n_key_value_heads
    value = cache["v", layer][0, source, head // group] * cache["pattern", layer][0, head, target, source]
    vector = value @ block.attn.W_O[head]
    if config.norms in ("output", "both"):
        vector = vector * block.ln1_post.gain / cache["scale", layer, "ln1_post"][0, target]
    return float((vector * config.residual_scale).norm())


@pytest.mark.parametrize("name", ONE_STACK)
def test_an_edge_weighs_what_it_moves(name: str) -> None:
    model = double(name)
    graph = interp.attention_graph(model, [TOKENS], combine=None, top_k=10_000)
    weights = graph.values
    causal = model.decoder is not None
    for layer, head, target, source in [(0, 0, 4, 0), (1, 3, 2, 1), (0, 2, 3, 3), (1, 1, 1, 0)]:
        if np.isnan(weights.sel(layer=layer, head=head, target=target, source=source)):
            assert moved(model, layer, head, target, source) == 0  # out of a window's sight
            continue
        expected = moved(model, layer, head, target, source)
        assert float(weights.sel(layer=layer, head=head, target=target, source=source)) == pytest.approx(
            expected, abs=1e-10
        )
    if causal:
        assert (graph.edges["source"] <= graph.edges["target"]).all()
        assert graph.about["candidates"] <= model.main.config.n_layers * 4 * 15


def test_heads_are_put_together_by_sum_or_max_or_kept_apart() -> None:
    model = double("llama")
    apart = interp.attention_graph(model, [TOKENS], combine=None, top_k=10_000).values
    for combine, expected in (("sum", apart.sum("head", skipna=False)), ("max", apart.max("head", skipna=False))):
        together = interp.attention_graph(model, [TOKENS], combine=combine, top_k=10_000).values.isel(head=0)
        np.testing.assert_allclose(together, expected, atol=1e-12)
    some = interp.attention_graph(model, [TOKENS], heads=["1.2", "1.3"], top_k=10_000).values
    np.testing.assert_allclose(
        some.sel(layer=1).isel(head=0), apart.sel(layer=1, head=[2, 3]).sum("head", skipna=False)
    )
    assert np.isnan(some.sel(layer=0)).all()


def test_threshold_top_k_and_to_cut_as_they_say() -> None:
    model = double("llama")
    every = interp.attention_graph(model, [TOKENS], top_k=10_000)
    weights = np.sort(every.edges["weight"])[::-1]
    few = interp.attention_graph(model, [TOKENS], top_k=7)
    np.testing.assert_allclose(np.sort(few.edges["weight"])[::-1], weights[:7])
    heavy = interp.attention_graph(model, [TOKENS], threshold=float(weights[9]))
    assert len(heavy.edges) == 10
    pruned = interp.attention_graph(model, [TOKENS], top_k=12, to=-1)
    reached = {4}
    for layer in (2, 1, 0):
        here = pruned.edges.loc[pruned.edges["layer"] == layer]
        assert set(here["target"]) <= reached
        reached |= set(here["source"])
    assert pruned.about["cut_off_from_to"] == 12 - len(pruned.edges) > 0
    assert len(interp.attention_graph(model, [TOKENS]).edges) == every.about["candidates"] == 45


def test_share_and_attention_weigh_by_their_definitions() -> None:
    model = double("gpt2")
    _, cache = model.run_with_cache(torch.tensor([TOKENS]))
    options: dict[str, Any] = {"combine": None, "top_k": 10_000}
    by = {
        edge: interp.attention_graph(model, [TOKENS], edge=edge, **options).values
        for edge in ("moved", "share", "attention")
    }
    norm = float(cache["resid_post", 1][0, 4].norm())
    assert float(by["share"][1, 2, 4, 1]) == pytest.approx(float(by["moved"][1, 2, 4, 1]) / norm)
    assert float(by["attention"][1, 2, 4, 1]) == pytest.approx(float(cache["pattern", 1][0, 2, 4, 1]))


def test_rollout_and_flow_are_what_the_paper_says_and_warn() -> None:
    model = double("llama")
    graph = interp.attention_graph(model, [TOKENS])
    _, cache = model.run_with_cache(torch.tensor([TOKENS]))
    expected = torch.eye(5, dtype=torch.float64)
    for layer in range(3):
        expected = 0.5 * (cache["pattern", layer][0].mean(0) + torch.eye(5)) @ expected
    found = graph.rollout()
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(found.sum("k_pos"), 1)
    assert "Not causal" in found.attrs["warning"] and "MLPs" in graph.flow().attrs["warning"]
    flow = graph.flow()
    assert flow.sizes == {"k_pos": 5} and (flow >= found.sel(q_pos=4).values - 1e-9).all()
    assert (flow <= 1 + 1e-9).all() and float(graph.flow(0)[0]) == pytest.approx(1)
    assert graph.flow(0)[1:].sum() == 0, "later tokens cannot flow to earlier ones"
    with pytest.raises(InputError, match="query is 9"):
        graph.flow(9)


def test_exports_come_back(tmp_path, talker: HookedTransformer) -> None:
    for combine in ("sum", None):
        graph = interp.attention_graph(talker, "w1 w2 w3 w4", combine=combine, top_k=15)
        again = AttentionGraph.from_json(graph.to_json(tmp_path / "graph.json"))
        from_file = AttentionGraph.from_json(tmp_path / "graph.json")
        for one in (again, from_file, AttentionGraph.load(graph.save(tmp_path / "graph"))):
            assert one.edges.equals(graph.edges) and one.about == graph.about
            np.testing.assert_array_equal(one.patterns, graph.patterns)
        read = nx.read_graphml(graph.to_graphml(tmp_path / "graph.graphml"), force_multigraph=True)
        own = graph.to_networkx()
        assert read.number_of_edges() == own.number_of_edges() == 15 + 3 * 4
        assert dict(read.nodes(data=True)) == dict(own.nodes(data=True))
        ends = lambda g: sorted((a, b, tuple(sorted(d.items()))) for a, b, d in g.edges(data=True))  # noqa: E731
        assert ends(read) == ends(own)
        run = interp.RunStore(tmp_path / "runs").save(graph, spec={})
        assert interp.RunStore(tmp_path / "runs").open(run.id).results().edges.equals(graph.edges)
    with pytest.raises(StorageError, match="no attention graph"):
        AttentionGraph.from_json('{"kind": "cake"}')
    assert json.loads(graph.to_json())["edges"][0]["layer"] == 0


def test_pages_and_graphml_hold_no_foreign_markup(tmp_path) -> None:
    from tests.browser.serving import HOSTILE, tiny_model

    graph = interp.attention_graph(tiny_model(), " ".join(HOSTILE), top_k=20)
    page = graph.to_html(tmp_path / "page.html").read_text().split("</script>", 1)[1]
    for text in (graph._repr_html_(), page):
        assert "<img/src" not in text and "<script>alert" not in text
    read = nx.read_graphml(graph.to_graphml(tmp_path / "graph.graphml"))
    assert HOSTILE[0] in {data["token"] for _, data in read.nodes(data=True)}
    assert "not effects" in graph.describe()


# ---- faithfulness ----


def by_hand(model: HookedTransformer, graph: AttentionGraph, read: int, mlps: str = "keep") -> torch.Tensor:
    """Logits with every edge outside the graph at its mean, in plain loops over edges."""
    heads = graph.edges["head"].fillna(-1)
    places = zip(graph.edges["layer"], heads, graph.edges["target"], graph.edges["source"], strict=True)
    shown = {tuple(int(one) for one in place) for place in places}
    together = graph.about["combine"] is not None
    _, there = model.run_with_cache(torch.tensor([row[:5] for row in REFERENCE]), return_type=None)
    now: dict[str, torch.Tensor] = {}

    def keep(x: torch.Tensor, hook: Any) -> None:
        now[hook.name] = x

    def edit(z: torch.Tensor, hook: Any) -> torch.Tensor:
        layer = int(hook.name.split(".")[1])
        config = model.main.config.blocks[layer].attn
        group, new = config.n_heads // config.n_key_value_heads, torch.zeros_like(z)
        v, pattern = now[f"blocks.{layer}.attn.hook_v"], now[f"blocks.{layer}.attn.hook_pattern"]
        for head in range(config.n_heads):
            for target in range(5):
                for source in range(5):
                    if (layer, -1 if together else head, target, source) in shown:
                        new[0, target, head] += pattern[0, head, target, source] * v[0, source, head // group]
                    else:
                        A, V = (
                            there["pattern", layer][:, head, target, source],
                            there["v", layer][:, source, head // group],
                        )
                        new[0, target, head] += (A[:, None] * V).mean(0)
        return new

    hooks: list[Any] = []
    for layer in range(model.main.config.n_layers):
        hooks += [(f"v.{layer}", keep), (f"pattern.{layer}", keep), (f"z.{layer}", edit)]
        if mlps == "mean" and model.main.config.blocks[layer].mlp is not None:
            mean = there["mlp_out", layer].mean(0, keepdim=True)
            hooks.append((f"mlp_out.{layer}", lambda x, hook, mean=mean: mean.clone()))
    return model.run_with_hooks(torch.tensor([TOKENS]), fwd_hooks=hooks)[0, read]


@pytest.mark.parametrize("mlps", ["keep", "mean"])
@pytest.mark.parametrize(
    ("name", "combine"),
    [("llama", "sum"), ("llama", None), ("gemma2", "max"), ("gptj", None), ("encoder", "sum"), ("bert", None)],
)
def test_what_survives_is_what_a_plain_edited_run_gives(name: str, combine: Any, mlps: Any, monkeypatch) -> None:
    model, read = double(name), 4
    if model.decoder is None:  # a reference of the same length only
        monkeypatch.setitem(globals(), "REFERENCE", rows([5, 5, 5], 4))
    graph = interp.attention_graph(model, [TOKENS], top_k=9, combine=combine)
    found = interp.graph_faithfulness(
        model, graph, answer=7, foil=9, read=read, reference=REFERENCE, mlps=mlps, n_random=3
    )
    table = found.faithfulness.set_index("graph")
    logits = by_hand(model, graph, read, mlps)
    assert table.loc["shown", "value"] == pytest.approx(float(logits[7] - logits[9]), abs=1e-10)
    plain = model(torch.tensor([TOKENS]))[0, read]
    assert table.loc["full", "value"] == pytest.approx(float(plain[7] - plain[9]), abs=1e-10)
    assert table.loc["full", "faithfulness"] == 1 and table.loc["empty", "faithfulness"] == 0
    share = (table["value"]["shown"] - table["value"]["empty"]) / (table["value"]["full"] - table["value"]["empty"])
    assert table.loc["shown", "faithfulness"] == pytest.approx(share) and 0.25 <= table.loc["shown", "p"] <= 1


def test_a_graph_of_every_edge_is_the_model_and_one_of_none_is_the_empty_one() -> None:
    model = double("llama")
    whole = interp.attention_graph(model, [TOKENS], top_k=10_000)
    found = interp.graph_faithfulness(model, whole, answer=7, foil=9, reference=REFERENCE).faithfulness
    assert found.set_index("graph").loc[["full", "shown", "random"], "faithfulness"].tolist() == [1.0, 1.0, 1.0]
    none = interp.attention_graph(model, [TOKENS], top_k=0)
    found = interp.graph_faithfulness(model, none, answer=7, foil=9, reference=REFERENCE).faithfulness
    assert found.set_index("graph").loc[["shown", "random"], "faithfulness"].tolist() == [0.0, 0.0]


def test_random_graphs_have_as_many_edges_in_each_layer_and_only_edges_that_may_be() -> None:
    from interp.circuits.faithfulness import _masks, _Means

    model = double("window")
    graph = interp.attention_graph(model, [TOKENS], top_k=11, combine=None)
    means = _Means.of(model, torch.tensor([row[:5] for row in REFERENCE]))
    own, *random = _masks(model, graph, means.seen, 20, 0)
    assert int(own.sum()) == 11
    for mask in random:
        assert mask.sum((1, 2, 3)).tolist() == own.sum((1, 2, 3)).tolist()
        assert not (mask & ~torch.stack(means.seen)[:, None]).any()
    assert any(not torch.equal(random[0], mask) for mask in random[1:])
    assert all(torch.equal(a, b) for a, b in zip(random, _masks(model, graph, means.seen, 20, 0)[1:], strict=True))


def test_random_graphs_beside_one_that_reaches_a_token_end_there_too() -> None:
    from interp.circuits.faithfulness import _masks, _Means

    model = double("llama")
    graph = interp.attention_graph(model, [TOKENS], top_k=10_000, to=2)
    means = _Means.of(model, torch.tensor([row[:5] for row in REFERENCE]))
    _, *random = _masks(model, graph, means.seen, 5, 0)
    for mask in random:
        last = mask[-1].any(0)  # [q_pos k_pos]
        assert last[2].tolist() == [True, True, True, False, False] and last.sum() == 3
        assert mask[0].any(0).any(1).sum() > 1, "earlier layers may end anywhere"


def test_the_corrupt_prompt_is_the_reference_of_pairs() -> None:
    model = double("llama")
    pairs = PromptPairs.from_tokens([TOKENS], [REFERENCE[0]], 7, 9)
    graph = interp.attention_graph(model, pairs, top_k=9)
    found = interp.graph_faithfulness(model, graph, pairs)
    again = interp.graph_faithfulness(model, graph, answer=7, foil=9, reference=[REFERENCE[0]])
    assert found.faithfulness.equals(again.faithfulness)
    assert "corrupt prompt" in found.about["faithfulness"]["reference"]
    assert "Faithfulness" in found.describe() and "Faithfulness" not in graph.describe()


def test_what_cannot_be_asked_is_said(unchecked: None) -> None:
    model, graph = double("llama"), interp.attention_graph(double("llama"), [TOKENS])
    for options, message in [
        ({}, "needs other texts"),
        ({"reference": "one text"}, "Give a list of texts"),
        ({"reference": [[1, 2]]}, "at least the 5 tokens"),
        ({"reference": REFERENCE, "mlps": "zero"}, "mlps is 'zero'"),
        ({"reference": REFERENCE, "n_random": -1}, "n_random is -1"),
        (
            {"reference": REFERENCE, "pairs": PromptPairs.from_tokens([[1, 2]], [[1, 3]], 4), "answer": None},
            "another text",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            interp.graph_faithfulness(model, graph, **{"answer": 7, **options})
    for options, message in [
        ({"edge": "weight"}, "edge is 'weight'"),
        ({"combine": "mean"}, "combine is 'mean'"),
        ({"top_k": -1}, "top_k is -1"),
        ({"to": 5}, "to is 5"),
        ({"heads": ["9.0"]}, "has no head 9.0"),
        ({"heads": []}, "There are no heads"),
    ]:
        with pytest.raises(InputError, match=message):
            interp.attention_graph(model, [TOKENS], **options)
    with pytest.raises(InputError, match="these are 2"):
        interp.attention_graph(model, [TOKENS, TOKENS])
    with pytest.raises(InputError, match="an encoder and a decoder"):
        interp.attention_graph(double("t5"), [TOKENS])
    headless = HookedTransformer(ZOO["bert"].headless(), dtype=torch.float64)
    shown = interp.attention_graph(headless, [TOKENS])
    with pytest.raises(InputError, match="no head that predicts tokens"):
        interp.graph_faithfulness(headless, shown, answer=3, read=1, reference=[[1, 2, 3, 4, 5]])


def test_tokens_that_xml_cannot_hold_come_back_by_their_json(tmp_path) -> None:
    from dataclasses import replace

    strange = ["\x00bell\x07", "a\r\n", "�", "\\u0000", " \n", "]]>&amp;", "\ufffe\x1b", "fine"]
    model = double("llama")
    graph = interp.attention_graph(model, rows([8], 1), top_k=10)
    graph = replace(graph, about={**graph.about, "text": strange})
    read = nx.read_graphml(graph.to_graphml(tmp_path / "graph.graphml"), force_multigraph=True)
    for pos, token in enumerate(strange):
        node = read.nodes[f"0:{pos}"]
        assert json.loads(node["token_json"]) == token if "token_json" in node else node["token"] == token
    with_json = {data["pos"] for _, data in read.nodes(data=True) if "token_json" in data}
    assert with_json == {0, 1, 6} and read.nodes["0:0"]["token"] == "�bell�"
    again = AttentionGraph.from_json(graph.to_json())
    assert list(again.about["text"]) == strange


def test_p_is_the_share_of_random_graphs_that_do_as_well_whichever_way_the_metric_points() -> None:
    from interp.circuits.faithfulness import _bound, _question, _table

    model = double("llama")
    graph = interp.attention_graph(model, [TOKENS])
    bound = _bound(model, _question(model, graph, None, 7, 9, None), None)
    for sign in (1, -1):
        values = sign * np.array([10.0, 0.0, 8.0, 1.0, 2.0, 9.0, -3.0])
        table = _table(values, [], 5, bound).set_index("graph")
        assert table.loc["shown", "p"] == pytest.approx(2 / 5) and table.loc["shown", "faithfulness"] == 0.8
        assert table.loc["random", ["lowest", "highest"]].tolist() == [-0.3, 0.9]
        assert not np.signbit(table.loc["empty", "faithfulness"]), "0, whichever way the metric points"
