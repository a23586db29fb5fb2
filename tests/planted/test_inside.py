"""What looks inside a head names what was planted there, and only that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import interp
from interp import planted
from interp.sites import Head

Make = Callable[..., planted.Planted]
# Laid in, though not among the declared paths, which are of one corruption: the way of the flag that `ioi` has too (1.0
# is 1.2's twin), and what wakes the backup: whom to inhibit, and whether the mover has written.
FLAG = {("0.1", "1.2"), ("0.1", "1.0")}
LAID = {("backup", "Q"): {("1.2", "3.1"), ("2.1", "3.1")}, ("backup", "K"): FLAG, ("negative", "K"): FLAG}
VARIANTS: list[dict[str, Any]] = [{}, {"norm": "rms", "rotate": True}, {"norm": "layer", "rotate": True}]
# Circuit, corruption, head, its query and key, and what was laid into either.
EDGES = [
    ("induction", "answer", "1.2", "END", "answer", {"embed"}, {"0.1"}),
    ("ioi", "swap", "1.2", "END", "S2", {"embed"}, {"0.1"}),
    ("ioi", "swap", "2.1", "END", "S2", {"embed", "1.2"}, {"embed"}),
    ("ioi", "swap", "2.1", "END", "IO", {"embed", "1.2"}, {"embed"}),
    ("fact_recall", "subject", "2.1", "END", "subject", {"0.1"}, {"embed"}),
    ("saturated", "mark", "1.1", "END", "answer", {"embed"}, {"0.1"}),
    ("copy_suppression", "absent", "1.1", "END", "said", {"0.1"}, {"embed"}),
    ("coreference", "pronoun", "0.1", "pronoun", "antecedent", {"embed"}, {"embed"}),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda one: one.get("norm", "none"))
@pytest.mark.parametrize(("name", "corruption", "head", "query", "key", "asks", "answers"), EDGES)
def test_an_edge_is_explained_by_the_planted_sources_and_only_those(
    name: str, corruption: str, head: str, query: str, key: str, asks: set, answers: set, variant: dict, made: Make
) -> None:
    one = made(name, dtype=torch.float64, **variant)
    pairs = one.pairs[corruption]
    for i in range(2):
        tokens, at = torch.tensor([pairs.clean[i]]), [pairs.span(place, i)[-1] for place in (query, key)]
        found = interp.explain_attention(one.model, tokens, head, *at, view="head")
        sums, total = found.marginals(), abs(found.total())
        for side, expected in (("query", asks), ("key", answers)):
            parts = sums.loc[sums["side"] == side].set_index("source")["part"].abs() / total
            assert set(parts.index[: len(expected)]) == expected, parts.head()
            assert parts[list(expected)].min() > 0.1 and parts.drop(list(expected)).max() < 0.01


def test_a_planted_source_that_is_replaced_takes_the_attention_with_it_and_a_decoy_does_not(made: Make) -> None:
    pairs = made("ioi").pairs["swap"]
    tokens, at = torch.tensor([pairs.clean[0]]), [pairs.span(place, 0)[0] for place in ("END", "S2")]
    found = interp.explain_attention(made("ioi").model, tokens, "1.2", *at, view="head", confirm=["0.1", "0.0"],
                                     answer=pairs.answer[0][0][0], foil=pairs.foil[0][0][0])  # fmt: skip
    assert found.confirmed is not None
    rows = found.confirmed.set_index(["side", "source"])
    assert rows.loc[("key", "0.1"), "attention_change"] < -0.9 and rows.loc[("key", "0.1"), "answer_change"] < -4
    for decoy in (("key", "0.0"), ("query", "0.0"), ("query", "0.1")):
        assert rows.loc[decoy, ["attention_change", "answer_change"]].abs().max() < 1e-5, decoy


def _declared(one: planted.Planted, kind: str) -> set[tuple[str, str]]:
    """(writer, reader) of every path into a query, a key or a value that a head is at the beginning of."""
    found = set()
    for receivers in one.truth.paths.values():
        for receiver, senders in receivers.items():
            *reader, part = receiver.split(".")
            if part == kind.lower():
                found |= {(sender, ".".join(reader)) for sender in senders if not sender.startswith("mlp")}
    return found


@pytest.mark.parametrize("kind", "QKV")
@pytest.mark.parametrize("variant", VARIANTS[:2], ids=lambda one: one.get("norm", "none"))
@pytest.mark.parametrize("name", [name for name in planted.names() if name not in ("and", "or", "induction_grouped")])
def test_composition_ranks_the_planted_pairs_first_among_all_pairs(
    name: str, kind: str, variant: dict, made: Make
) -> None:
    """Twins read with the same weights, so they stand beside the planted ones; all others have less than 1%."""
    one = made(name, dtype=torch.float64, **variant)
    table = interp.composition(one.model, kind, n_random=4, qk="whole", folded=True).to_frame()  # type: ignore[arg-type]
    names = [(f"{a}.{b}", f"{c}.{d}") for a, b, c, d in table.iloc[:, :4].itertuples(index=False)]
    score = dict(zip(names, table["score"], strict=True))
    decoys = {str(head) for heads in one.truth.decoys.values() for head in heads}
    live = {pair: value for pair, value in score.items() if not decoys & set(pair)}
    declared = _declared(one, kind) | LAID.get((name, kind), set())
    least = 0.01 * max(score.values()) if declared else 1e-2
    assert {pair for pair, value in live.items() if value > least} == declared
    if declared:
        assert max(score.values()) == pytest.approx(max(score[pair] for pair in declared)), "nothing is ahead of them"


def test_composition_of_grouped_heads_ranks_the_planted_pair_first(made: Make) -> None:
    found = interp.composition(made("induction_grouped").model, "K", n_random=4, qk="whole").to_frame()
    first = {tuple(row) for row in found.iloc[:2, :4].to_numpy().tolist()}
    assert first == {(0, 1, 1, 1), (0, 1, 1, 0)}, "the head and its twin, which shares its key"
    assert found["score"].iloc[2] < 0.01 * found["score"].iloc[0]


@pytest.mark.parametrize(
    ("name", "corruption", "writers"),
    [
        ("ioi", "swap", {"2.1": 1.0}),
        ("negative", "swap", {"2.1": 1.0, "2.3": -0.4}),
        ("fact_recall", "subject", {"2.1": 0.5, "2.2": 0.5}),
        ("copy_suppression", "absent", {"0.1": 1.0, "1.1": -0.6}),
        ("cancelling", "absent", {"0.2": 1.0, "1.1": 1.0, "1.2": -1.0}),
        ("additive_facts", "subject", {"0.1": 1.0, "1.1": 0.4}),
        ("additive_facts", "relation", {"0.2": 1.0, "1.1": 0.4}),
        ("or", "absent", {"0.mlp": 1.0}),
    ],
)
def test_logit_attribution_names_the_parts_that_write_and_their_sizes(
    name: str, corruption: str, writers: dict[str, float], made: Make
) -> None:
    """The circuits write 10 logits for a whole; half of the facts are of either relation."""
    one = made(name, dtype=torch.float64)
    found = interp.logit_attribution(one.model, one.pairs[corruption], by="head")
    parts = found.mean().set_index("part")["value"] / 10
    assert found.ok
    assert {part: pytest.approx(value, abs=0.01) for part, value in writers.items()} == parts[list(writers)].to_dict()
    assert parts.drop(list(writers)).abs().max() < 1e-9


def test_the_source_of_what_the_name_mover_writes_is_the_name(made: Make) -> None:
    one = made("ioi", dtype=torch.float64)
    pairs = one.pairs["swap"]
    table = interp.ov(one.model, "2.1").attribution(
        torch.tensor([pairs.clean[0]]), pairs.answer[0][0][0], pairs.foil[0][0][0], query=pairs.read[0]
    ).frame.set_index("pos")["logit"]  # fmt: skip
    io = pairs.span("IO", 0)[0]
    assert table[io] > 9.9 and table.drop(io).abs().max() < 0.01


@pytest.mark.parametrize(("name", "corruption"), [("ioi", "abc"), ("negative", "abc"), ("induction", "prefix"),
                                                   ("fact_recall", "nonce")])  # fmt: skip
def test_the_graph_of_the_planted_heads_keeps_the_whole_answer_and_that_of_the_decoys_none(
    name: str, corruption: str, made: Make
) -> None:
    one = made(name, dtype=torch.float64)
    pairs = one.pairs[corruption]
    kept = {}
    for which, groups in (("heads", one.truth.heads), ("decoys", one.truth.decoys)):
        heads = [str(head) for head in sorted({head for group in groups.values() for head in group}, key=_order)]
        graph = interp.attention_graph(one.model, pairs[0], heads=heads, combine=None, top_k=100_000)
        found = interp.graph_faithfulness(one.model, graph, pairs[0], reference=pairs, n_random=0)
        assert found.faithfulness is not None
        kept[which] = found.faithfulness.set_index("graph").loc["shown", "faithfulness"]
    assert kept == {"heads": pytest.approx(1.0, abs=1e-6), "decoys": pytest.approx(0.0, abs=1e-6)}


def test_the_heaviest_edge_into_the_end_is_the_planted_one_and_its_twin(made: Make) -> None:
    one = made("ioi", dtype=torch.float64)
    pairs = one.pairs["swap"]
    edges = interp.attention_graph(one.model, pairs[0], combine=None, top_k=100_000).to_frame()
    last = edges.loc[(edges["layer"] == 2) & (edges["target"] == pairs.read[0])]
    top = last.sort_values("weight", ascending=False).head(2)
    assert set(top["source"]) == {pairs.span("IO", 0)[0]} and {str(one) for one in top["head"]} <= {
        "0",
        "1",
        "2.0",
        "2.1",
    }
    assert last["weight"].nlargest(3).iloc[2] < 0.01 * last["weight"].max()


def _order(head: Head) -> tuple[int, int]:
    return head.layer, head.head
