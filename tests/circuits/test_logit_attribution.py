"""Parts sum to the logit to the last digit, for every layout, and each part is what a naive computation gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.circuits import logit_attribution as module
from interp.errors import InputError, StorageError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results.logit_attribution import LogitAttribution
from tests.circuits.layouts import LINEAR, POST, double, pairs_for
from tests.model.conftest import ZOO, _one_thread, randomize, talker, unchecked, words

__all__ = ["_one_thread", "talker", "unchecked", "words"]


def naive(model: HookedTransformer, pairs: PromptPairs, pair: int) -> float:
    """The logit difference from a plain pass; the softcap taken back."""
    tokens = torch.tensor([pairs.clean[pair]])
    options = {"decoder_input": torch.tensor([pairs.clean_decoder[pair]])} if pairs.clean_decoder else {}
    logits = model(tokens, **options)[0, pairs.read[pair]]
    if model.cfg.logit_softcap is not None:
        logits = model.cfg.logit_softcap * torch.atanh(logits / model.cfg.logit_softcap)
    answer = logits[[one[0] for one in pairs.answer[pair]]].mean()
    return float(answer - logits[[one[0] for one in pairs.foil[pair]]].mean())


@pytest.mark.parametrize("by", ["component", "head", "neuron", "source"])
@pytest.mark.parametrize("name", LINEAR)
def test_parts_sum_to_the_logit_difference_of_a_plain_pass(name: str, by: Any) -> None:
    model = double(name)
    pairs = pairs_for(model)
    found = interp.logit_attribution(model, pairs, by=by, top=7)
    assert found.ok and len(found.check) == len(pairs)
    for pair in range(len(pairs)):
        rows = found.frame.loc[found.frame["prompt"] == pair]
        assert rows["part"].is_unique
        assert abs(rows["value"].sum() - naive(model, pairs, pair)) < 1e-10


@pytest.mark.parametrize("name", LINEAR)
def test_finer_splits_sum_to_coarser_ones(name: str) -> None:
    model = double(name)
    pairs = pairs_for(model)
    tables = {
        by: interp.logit_attribution(model, pairs, by=by, top="all").frame
        for by in ("component", "head", "neuron", "source")
    }

    def sums(by: str, kind: str, over: list[str]) -> Any:
        table = tables[by]
        return table.loc[table["kind"] == kind].groupby(["prompt", "sublayer", *over])["value"].sum()

    np.testing.assert_allclose(
        sums("source", "source", ["layer", "head"]), sums("head", "head", ["layer", "head"]), atol=1e-10
    )
    np.testing.assert_allclose(sums("head", "head", ["layer"]), sums("component", "attn", ["layer"]), atol=1e-10)
    np.testing.assert_allclose(sums("neuron", "neuron", ["layer"]), sums("component", "mlp", ["layer"]), atol=1e-10)
    for by in tables:
        np.testing.assert_allclose(sums(by, "bias", []), sums("component", "bias", []), atol=1e-10)


def test_heads_are_what_the_cache_says_one_by_one() -> None:
    model = double("gemma2")
    tokens = torch.tensor([[3, 7, 1, 9, 30]])
    _, cache = model.run_with_cache(tokens)
    stack, labels = cache.stack_head_results(pos_slice=-1, return_labels=True)
    expected = cache.logit_attrs(stack, 5, 11, pos_slice=-1)[:, 0]
    found = interp.logit_attribution(model, tokens, by="head", answer=5, foil=11).frame
    heads = found.loc[found["kind"] == "head"]
    assert [f"L{row.layer}H{row.head}" for row in heads.itertuples()] == labels
    np.testing.assert_allclose(heads["value"], expected, atol=1e-10)


def test_a_source_gets_attention_times_what_its_value_writes() -> None:
    model = double("llama")
    tokens = torch.tensor([[3, 7, 1, 9]])
    _, cache = model.run_with_cache(tokens)
    found = interp.logit_attribution(model, tokens, by="source", answer=5).frame
    scale = cache["ln_final.hook_scale"][0, -1]
    direction = model.main.ln_final.gain * model.W_U[:, 5] / scale
    for layer, head, source in [(0, 0, 0), (1, 3, 2), (2, 1, 3)]:
        weight = cache["pattern", layer][0, head, -1, source]
        value = cache["v", layer][0, source, head // 2]
        expected = weight * (value @ model.blocks[layer].attn.W_O[head] @ direction)
        row = found.loc[found["part"] == f"{layer}.{head} ← {source}"]
        assert row["value"].item() == pytest.approx(expected.item(), abs=1e-10)


def test_cross_attention_heads_are_parts_too_and_their_sources_are_the_encoders() -> None:
    model = double("two_stacks")
    pairs = pairs_for(model)
    found = interp.logit_attribution(model, pairs, by="source").frame
    cross = found.loc[(found["sublayer"] == "cross_attn") & (found["prompt"] == 0) & (found["kind"] == "source")]
    assert cross["source"].max() == len(pairs.clean[0]) - 1
    own = found.loc[(found["sublayer"] == "attn") & (found["prompt"] == 0) & (found["kind"] == "source")]
    assert own["source"].max() == len(pairs.clean_decoder[0]) - 1
    assert list(cross["token"][:3]) == [str(token) for token in pairs.clean[0][:3]]


def test_the_largest_neurons_are_kept_and_the_others_are_one_part_of_their_layer() -> None:
    model = double("llama")
    pairs = pairs_for(model)
    every = interp.logit_attribution(model, pairs, by="neuron", top="all").frame
    few = interp.logit_attribution(model, pairs, by="neuron", top=5)
    neurons = every.loc[every["kind"] == "neuron"]
    sizes = neurons.assign(size=neurons["value"].abs()).groupby("part")["size"].mean()
    kept = few.frame.loc[few.frame["kind"] == "neuron", "part"].unique()
    assert set(kept) == set(sizes.nlargest(5).index)
    assert set(few.frame["part"]) >= {f"{layer}.mlp others" for layer in range(3)}


def test_biases_are_parts_of_their_own() -> None:
    model = double("gpt2")
    found = interp.logit_attribution(model, pairs_for(model)).frame
    labels = list(dict.fromkeys(found.loc[found["kind"] == "bias", "part"]))
    assert labels == ["0.attn bias", "0.mlp bias", "1.attn bias", "1.mlp bias", "unembed bias"]
    assert list(found["part"][:2]) == ["embed", "pos_embed"]
    assert (found.loc[found["kind"] == "bias", "value"] != 0).all()


def test_an_answer_without_foil_is_its_logit_and_none_at_all_is_the_models_own() -> None:
    model = double("granite")
    tokens = [[3, 7, 1], [2, 2, 9]]
    logits = model(torch.tensor(tokens))[:, -1]
    found = interp.logit_attribution(model, tokens)
    np.testing.assert_allclose(found.check["sum"], logits.max(-1).values, atol=1e-10)
    found = interp.logit_attribution(model, tokens, answer=[4, 5])
    np.testing.assert_allclose(found.check["sum"], logits[[0, 1], [4, 5]], atol=1e-10)


def test_a_softcap_is_said_and_the_sum_is_that_before_it() -> None:
    found = interp.logit_attribution(double("gemma2"), [[3, 7, 1]], answer=4)
    assert "before the softcap of 5" in found.describe()
    assert "softcap" not in interp.logit_attribution(double("llama"), [[3, 7, 1]], answer=4).describe()


def test_text_is_read_as_pairs_read_it(talker: HookedTransformer) -> None:
    found = interp.logit_attribution(talker, "w1 w2 w3", by="source", answer="w4", foil="w5")
    assert found.about["answer"] == "'w4'" and found.ok
    pairs = PromptPairs.from_text(talker, "w1 w2 w3", "w1 w2 w3", "w4", "w5")
    again = interp.logit_attribution(talker, pairs, by="source")
    np.testing.assert_array_equal(found.frame["value"], again.frame["value"])
    assert set(found.frame["token"].dropna()) == {"w1", "w2", "w3"}


@pytest.mark.parametrize("name", [name for name in POST if name != "electra" and name != "mpnet"])
def test_a_stream_that_is_normed_itself_is_refused(name: str) -> None:
    model = double(name)
    with pytest.raises(InputError, match="norms the residual stream itself"):
        interp.logit_attribution(model, pairs_for(model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "layer"}, "by is 'layer'"),
        ({"by": "neuron", "top": 0}, "top is 0"),
        ({"foil": 3}, "There is a foil but no answer"),
        ({"answer": [(1, 2)]}, "is 2 tokens"),
    ],
)
def test_a_mistake_is_said(unchecked: None, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        interp.logit_attribution(double("llama"), [[3, 7, 1]], **options)


def test_sets_by_logsumexp_and_double_questions_are_refused() -> None:
    model = double("llama")
    with pytest.raises(InputError, match="logsumexp, which is no sum"):
        interp.logit_attribution(model, pairs_for(model, combine="logsumexp"))
    with pytest.raises(InputError, match="These pairs have their answers"):
        interp.logit_attribution(model, pairs_for(model), answer=3)


def test_a_model_without_logits_is_refused() -> None:
    model = HookedTransformer(ZOO["encoder"].headless(), dtype=torch.float64)
    with pytest.raises(InputError, match="no head that predicts tokens"):
        interp.logit_attribution(model, [[1, 2, 3]], answer=4, read=1)


def test_a_sum_that_is_off_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    model = double("llama")
    real = module._Readout.constant
    monkeypatch.setattr(module._Readout, "constant", property(lambda self: real.fget(self) + 1e-3))
    found = interp.logit_attribution(model, pairs_for(model))
    assert not found.ok and "DO NOT SUM TO" in found.describe() and "SUM IS OFF" in repr(found)


def test_half_precision_sums_within_its_own_tolerance() -> None:
    model = randomize(HookedTransformer(ZOO["llama"], dtype=torch.bfloat16))
    found = interp.logit_attribution(model, [[3, 7, 1, 9]], by="head", answer=4, foil=9)
    assert found.ok and found.check["difference"].item() > 0


def test_means_are_over_items_and_ragged_sources_are_absent() -> None:
    model = double("llama")
    pairs = pairs_for(model, items=["a", "b", "a"])
    found = interp.logit_attribution(model, pairs, by="source")
    assert found.values.dims == ("prompt", "part")
    assert np.isnan(found.values.sel(prompt=1, part="0.0 ← 5"))
    table = found.mean().set_index("part")
    per = found.values.sel(part="0.1 ← 2").values
    assert table.loc["0.1 ← 2", "value"] == pytest.approx(((per[0] + per[2]) / 2 + per[1]) / 2)
    assert (
        np.isnan(table.loc["0.1 ← 5", "value_low"])
        and table.loc["0.1 ← 2", "value_low"] < table.loc["0.1 ← 2", "value"]
    )


def test_results_go_to_a_folder_and_the_store_and_back(tmp_path) -> None:
    model = double("gpt2")
    found = interp.logit_attribution(model, pairs_for(model), by="source")
    again = LogitAttribution.load(found.save(tmp_path / "one"))
    assert again.frame.equals(found.frame) and again.check.equals(found.check) and again.about == found.about
    run = interp.RunStore(tmp_path / "runs").save(found, spec={"by": "source"})
    assert interp.RunStore(tmp_path / "runs").open(run.id).results().frame.equals(found.frame)
    (tmp_path / "one" / "about.json").write_text("{}")
    with pytest.raises(StorageError, match="holds no logit attribution"):
        LogitAttribution.load(tmp_path / "one")


def test_pages_escape_what_tokens_say(tmp_path) -> None:
    from tests.browser.serving import HOSTILE, tiny_model

    found = interp.logit_attribution(tiny_model(), " ".join(HOSTILE), by="source", answer=HOSTILE[0])
    page = found.to_html(tmp_path / "page.html").read_text().split("</script>", 1)[1]
    for text in (found._repr_html_(), page):
        assert "<img/src" not in text and "<script>alert" not in text
    assert "&lt;img/src" in found._repr_html_()


@pytest.mark.slow
def test_smollm2_says_which_head_writes_paris(smollm2: Any) -> None:
    found = interp.logit_attribution(smollm2, "The capital of France is", by="source", answer="Paris", foil="London")
    assert found.ok and found.top(1)["part"].item() == "23.4 ← 3" and found.top(1)["token"].item() == " France"
