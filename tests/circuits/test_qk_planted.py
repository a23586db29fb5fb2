"""Planted sources are named, and only those; replacing them does what the planting says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError

TOKENS = torch.tensor([[7, 3, 5, 9, 2, 3]])  # the last token's class matches the previous token of position 2


def test_the_split_names_the_planted_sources_and_only_those(matching: Any) -> None:
    found = interp.explain_attention(matching, TOKENS, "1.0", 5, 2, view="head")
    table = found.to_frame("score")
    largest = table.iloc[0]
    assert (largest["query_source"], largest["key_source"]) == ("0_mlp_out", "0.1")
    assert largest["part"] == pytest.approx(3.0, abs=1e-4) and found.total("score") == pytest.approx(3.0, abs=1e-4)
    assert table["part"].iloc[1:].abs().max() < 1e-4
    assert found.by_query().idxmax() == "0_mlp_out" and found.by_key().idxmax() == "0.1"
    assert found.keys.set_index("pos")["score"].idxmax() == 2


def test_the_coarse_view_sums_the_fine_one(matching: Any) -> None:
    fine = interp.explain_attention(matching, TOKENS, "1.0", 5, 2, view="head")
    coarse = interp.explain_attention(matching, TOKENS, "1.0", 5, 2)
    heads = fine.values.groupby("key_layer").sum().sel(measure="score")
    assert float(coarse.values.sel(measure="score", key_source="0_attn_out").sum()) == pytest.approx(3.0, abs=1e-4)
    assert float(heads.sum()) == pytest.approx(coarse.total("score"), abs=1e-5)


@pytest.mark.parametrize("replace_with", ["mean", "zero"])
def test_replacing_a_planted_source_takes_the_score_and_a_decoy_changes_nothing(
    matching: Any, replace_with: str
) -> None:
    found = interp.explain_attention(
        matching, TOKENS, "1.0", 5, 2, view="head", confirm=["0_mlp_out", "0.1", "0.0"], replace_with=replace_with,
        answer=5,
    )  # fmt: skip
    assert found.confirmed is not None
    rows = found.confirmed.set_index(["side", "source"])
    assert len(rows) == 6
    for pair in (("query", "0_mlp_out"), ("key", "0.1")):
        assert rows.loc[pair, "score_after"] < 1.0 and rows.loc[pair, "attention_change"] < -0.2
        assert rows.loc[pair, "answer_change"] < -0.2, "the head copies the token of the key into its logit"
    for pair in (("key", "0_mlp_out"), ("query", "0.1"), ("query", "0.0"), ("key", "0.0")):
        assert rows.loc[pair, ["attention_change", "answer_change"]].abs().max() < 1e-5, pair


def test_what_confirm_reports_is_what_an_edit_of_the_query_gives(named: Any) -> None:
    """The query alone, in a model whose heads do not share it: the same as setting hook_q to the recomputed query."""
    case = named("gpt2")
    model, tokens = case.model, case.tokens[:1]
    found = interp.explain_attention(model, tokens, "1.2", 6, 3, confirm="0_mlp_out", replace_with="zero", answer=4)
    row = found.confirmed.set_index("side").loc["query"]  # type: ignore[union-attr]
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
        block = model.blocks[1]
        resid = cache["blocks.1.hook_resid_pre"][0, 6] - cache["blocks.0.hook_mlp_out"][0, 6]
        query = torch.nn.functional.layer_norm(resid, resid.shape, block.ln1.w, block.ln1.b, 1e-5)
        query = query @ block.attn.W_Q[2] + block.attn.b_Q[2]

        def put(q: torch.Tensor, hook: Any) -> torch.Tensor:
            q[0, 6, 2] = query
            return q

        kept: dict[str, torch.Tensor] = {}
        hooks = [("blocks.1.attn.hook_q", put)]
        hooks += [("blocks.1.attn.hook_pattern", lambda x, hook: kept.__setitem__("pattern", x.clone()))]
        logits = model.run_with_hooks(tokens, fwd_hooks=hooks)
    assert row["attention_after"] == pytest.approx(float(kept["pattern"][0, 2, 6, 3]), abs=1e-5)
    assert row["answer_after"] == pytest.approx(float(logits[0, -1, 4]), abs=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma2", "olmo2", "bart", "granite", "bert", "mpnet", "bloom"])
def test_a_source_replaced_by_itself_changes_nothing(named: Any, name: str, monkeypatch: Any) -> None:
    """The recomputed stream is the model's own: with nothing replaced, scores and answer stay."""
    from interp.circuits import confirm

    case = named(name)
    options = {"decoder_input": case.options["decoder_input"][:1]} if case.options else {}
    head = "decoder.attn.1.2" if case.options else "1.2"

    def same(edge: Any, stream: Any, side: str, label: str, view: Any, pos: int, how: str) -> torch.Tensor:
        return stream.whole({label: stream.raw(label, view)}, view)

    monkeypatch.setattr(confirm, "_replaced", same)
    found = interp.explain_attention(case.model, case.tokens[:1], head, 4, 3, confirm=True, view="head", **options)
    assert found.confirmed is not None and len(found.confirmed) == 6
    np.testing.assert_allclose(found.confirmed["attention_after"], found.about["attention"], atol=2e-5)
    assert found.confirmed["answer_change"].abs().max() < 1e-3


def test_cross_attention_splits_the_query_by_decoder_and_the_key_by_encoder(named: Any) -> None:
    case = named("t5")
    decoder_input = case.options["decoder_input"][:1]
    found = interp.explain_attention(
        case.model, case.tokens[:1], "decoder.cross_attn.1.2", 3, 7, view="head", decoder_input=decoder_input
    )
    queries, keys = (found.values[f"{side}_source"].values.tolist() for side in ("query", "key"))
    assert "decoder.attn.0.1" in queries and "decoder.cross_attn.0.3" in queries and "decoder.attn.1.0" in queries
    assert not any(name.startswith("decoder") for name in keys) and "encoder.attn.1.3" in keys
    assert "encoder.1_mlp_out" in keys and "decoder.1_mlp_out" not in queries


def test_grouped_query_heads_share_their_keys_side(named: Any) -> None:
    case = named("llama")
    found = [interp.explain_attention(case.model, case.tokens[:1], f"1.{head}", 6, 3) for head in (0, 1, 2)]
    assert [one.about["kv_head"] for one in found] == [0, 0, 1]


def test_the_contrast_compares_with_the_keys_that_were_asked_for(named: Any) -> None:
    case = named("llama")
    model, tokens = case.model, case.tokens[:1]
    plain = interp.explain_attention(model, tokens, "1.1", 5, 3, against=None)
    assert plain.measure == "score" and not plain.keys["compared"].any()
    scores = plain.keys.set_index("pos")["score"]
    for against, others in (("others", [1, 2, 4, 5]), ("all", [0, 1, 2, 4, 5]), ([1, 2], [1, 2])):
        found = interp.explain_attention(model, tokens, "1.1", 5, 3, against=against)
        assert found.total() == pytest.approx(scores[3] - scores[others].mean(), abs=1e-5)
    interaction = found.interaction()
    assert float(abs(interaction.sum("key_source")).max()) < 1e-5 > float(abs(interaction.sum("query_source")).max())


def test_a_position_bias_is_a_part_of_its_own(named: Any) -> None:
    found = interp.explain_attention(named("bloom").model, named("bloom").tokens[:1], "1.2", 6, 3)
    assert found.position_bias["score"] == pytest.approx(-3 * 2 ** (-8 / 4 * 3))
    assert "position bias" in found.to_frame()["query_source"].tolist()
    bare = interp.explain_attention(named("llama").model, named("llama").tokens[:1], "1.2", 6, 3)
    assert bare.position_bias["score"] == 0.0 and "position bias" not in bare.marginals()["source"].tolist()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("9.0", 5, 2), {}, "the layers are 0 to 1"),
        (("1.7", 5, 2), {}, "has heads 0 to 1"),
        (("encoder.attn.1.0", 5, 2), {}, "has one stack"),
        (("cross_attn.1.0", 5, 2), {}, "has no cross_attn"),
        (("1.0", 5, 12), {}, "the text has 6 tokens"),
        (("1.0", 2, 5), {}, r"cannot see the one at 5 .* it sees \[0, 1, 2\]"),
        (("1.0", 5, "cat"), {}, "stands in the text 0 times"),
        (("1.0", 1, 1), {}, 'Pass against="all"'),
        (("1.0", 5, 2), {"against": "most"}, "against is 'most'"),
        (("1.0", 4, 2), {"against": [5]}, "cannot see"),
        (("1.0", 5, 2), {"view": "neuron"}, "view is 'neuron'"),
        (("1.0", 5, 2), {"confirm": "0.9"}, "no source that can be replaced"),
        (("1.0", 5, 2), {"confirm": True, "replace_with": "noise"}, "replace_with is 'noise'"),
        (("1.0", 5, 2), {"confirm": True, "foil": 3}, "foil but no answer"),
        (("1.0", 5, 2), {"confirm": True, "answer": 99}, "this vocabulary has ids 0 to 11"),
        (("1.0", 5, 2), {"confirm": True, "answer": "Paris"}, "no tokenizer"),
        (("1.0", 5, 2), {"decoder_input": TOKENS}, "takes no decoder_input"),
    ],
)
def test_what_cannot_be_meant_is_refused(matching: Any, arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        interp.explain_attention(matching, TOKENS, *arguments, **options)


def test_tokens_are_found_by_word_and_by_piece(smollm2: Any) -> None:
    text = "The capital of France is"
    by_word = interp.explain_attention(smollm2, text, "0.0", "is", "France")
    assert (by_word.about["query"], by_word.about["key"]) == (4, 3)
    with pytest.raises(InputError, match="stands in the text 2 times"):
        interp.explain_attention(smollm2, "the cat and the dog", "0.0", 4, "the")
    last = interp.explain_attention(smollm2, "unbelievably far", "0.0", -1, "unbelievably")
    assert last.about["key"] == len(last.about["tokens"]) - 2, "the last token of a piece is meant"


def test_france_is_the_key_that_head_23_4_finds(smollm2: Any) -> None:
    found = interp.explain_attention(smollm2, "The capital of France is", "23.4", "is", "France", view="head")
    scores = found.keys.set_index("token")["score"]
    assert scores.idxmax() == " France" and scores[" France"] > 1.5 * scores.drop(" France").max()
    assert found.by_key().idxmax() == "0_mlp_out" and found.about["sum_apart"] < 1e-5
