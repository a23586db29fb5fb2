"""Keys, values and effects of an MLP are what plain hooked runs and plain products give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results.mlp_memory import MLPMemory
from tests.circuits.layouts import double, pairs_for
from tests.model.conftest import _one_thread, unchecked

__all__ = ["_one_thread", "unchecked"]

LAYOUTS = ["llama", "gpt2", "gptj", "gemma2", "encoder", "bert", "two_stacks", "t5", "bart"]


def removed(model: HookedTransformer, pairs: PromptPairs, layer: int, pos: int, neurons: list[int]) -> float:
    """The logit difference with some neurons at zero at one position, by a plain hooked run."""

    def edit(post: torch.Tensor, hook: Any) -> None:
        post[:, pos, neurons] = 0

    options = {"decoder_input": torch.tensor([pairs.clean_decoder[0]])} if pairs.clean_decoder else {}
    name = f"{model.main.address}blocks.{layer}.mlp.hook_post"
    logits = model.run_with_hooks(torch.tensor([pairs.clean[0]]), fwd_hooks=[(name, edit)], **options)[0, pairs.read[0]]
    return float(logits[[3, 9]].mean() - logits[4])


@pytest.mark.parametrize("name", LAYOUTS)
def test_effects_are_those_of_plain_hooked_runs(name: str) -> None:
    model = double(name)
    pairs = pairs_for(model)[0]
    found = interp.mlp_memory(model, [0, 1], pairs, k=3, n_random=4)
    base = removed(model, pairs, 0, 0, [])
    assert found.about["base"] == pytest.approx(base, abs=1e-10)
    for row in found.fired.itertuples():
        assert row.effect == pytest.approx(removed(model, pairs, row.layer, row.pos, [row.neuron]) - base, abs=1e-10)
    for row in found.sets.itertuples():
        neurons = found.at(row.pos, row.layer)["neuron"].tolist()
        assert row.effect == pytest.approx(removed(model, pairs, row.layer, row.pos, neurons) - base, abs=1e-10)


@pytest.mark.parametrize("name", ["llama", "gpt2", "two_stacks"])
def test_the_strongest_keys_are_found_and_gates_multiply_to_the_activation(name: str) -> None:
    model = double(name)
    pairs = pairs_for(model)[0]
    found = interp.mlp_memory(model, 1, pairs, k=4, n_random=0)
    options = {"decoder_input": torch.tensor([pairs.clean_decoder[0]])} if pairs.clean_decoder else {}
    _, cache = model.run_with_cache(torch.tensor([pairs.clean[0]]), **options)
    post = cache[f"{model.main.address}blocks.1.mlp.hook_post"][0]
    strength = post.abs() * model.main.block(1).mlp.W_out.norm(dim=1)
    top = strength.topk(4, dim=1)
    np.testing.assert_array_equal(found.values["neuron"].values[0], top.indices)
    np.testing.assert_allclose(found.values["strength"].values[0], top.values, rtol=1e-5)
    np.testing.assert_allclose(found.values["activation"].values[0], post.gather(1, top.indices), atol=1e-10)
    gated = found.fired["gate"].notna()
    assert gated.all() if name == "llama" else not gated.any()
    if name == "llama":
        np.testing.assert_allclose(found.fired["gate"] * found.fired["up"], found.fired["activation"], atol=1e-10)


def test_a_value_written_with_a_negative_activation_promotes_what_it_would_suppress() -> None:
    model = double("llama")
    found = interp.mlp_memory(model, 1, [[3, 7, 1, 9]], answer=4, k=8, tokens=3, n_random=0)
    assert (found.fired["activation"] < 0).any() and (found.fired["activation"] > 0).any()
    directions = (model.main.block(1).mlp.W_out * model.main.ln_final.gain) @ model.W_U
    for row in found.fired.itertuples():
        logits = directions[row.neuron] * np.sign(row.activation)
        assert row.promotes == [str(one) for one in logits.topk(3).indices.tolist()]
        assert row.suppresses == [str(one) for one in (-logits).topk(3).indices.tolist()]


def test_random_sets_are_others_that_fired_and_as_strong() -> None:
    from interp.circuits.mlp_memory import _matched

    strength = torch.tensor([5.0, 4.0, 0.0, 1.0, 2.0, 3.0, 2.0, 1.0])
    top = torch.tensor([0, 1])
    for seed in range(20):
        drawn = _matched(strength, top, np.random.default_rng(seed))
        assert set(drawn.tolist()) <= {3, 4, 5, 6, 7} and len(set(drawn.tolist())) == len(drawn)
        assert strength[drawn].sum() >= 9 or len(drawn) == 5
        assert strength[drawn[:-1]].sum() < 9
    found = interp.mlp_memory(double("llama"), 0, [[3, 7, 1, 9]], answer=4, k=2, n_random=6).sets
    assert (found["random_strength"] >= found["strength"]).all() and found["p"].between(1 / 7, 1).all()
    assert (found["random_low"] <= found["random_effect"]).all() and (found["share"] < 1).all()


def test_several_metrics_positions_and_the_models_own_answer() -> None:
    model = double("gpt2")
    tokens = torch.tensor([[3, 7, 1, 9]])
    found = interp.mlp_memory(model, -1, tokens, positions=[-1], n_random=0)
    log_p = model(tokens)[0, -1].log_softmax(-1)
    assert found.about["base"] == pytest.approx(float(log_p.max()), abs=1e-10)
    assert found.about["answer"] == str(int(log_p.argmax())) and set(found.fired["pos"]) == {3}
    assert found.about["layers"] == [1]
    kl = interp.mlp_memory(model, -1, tokens, positions=[-1], n_random=0, metric="kl")
    assert kl.about["base"] == pytest.approx(0, abs=1e-12) and (kl.fired["effect"] >= 0).all()


def test_results_go_to_the_store_and_pages_escape(tmp_path) -> None:
    from tests.browser.serving import HOSTILE, tiny_model

    found = interp.mlp_memory(tiny_model(), 1, " ".join(HOSTILE), n_random=2)
    run = interp.RunStore(tmp_path / "runs").save(found, spec={})
    again = interp.RunStore(tmp_path / "runs").open(run.id).results()
    assert isinstance(again, MLPMemory) and again.fired.equals(found.fired) and again.about == found.about
    page = found.to_html(tmp_path / "page.html").read_text().split("</script>", 1)[1]
    for text in (found._repr_html_(), page):
        assert "<img/src" not in text and "<script>alert" not in text
    assert "redundancy" in found.describe() and "share of strength" in found.together()


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        (9, {}, "There is no layer 9"),
        ([], {}, "There are no layers"),
        (0, {"k": 0}, "k is 0"),
        (0, {"positions": [7]}, "There is no position 7"),
        (0, {"seed": -1}, "seed is -1"),
    ],
)
def test_a_mistake_is_said(unchecked: None, layer: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        interp.mlp_memory(double("llama"), layer, [[1, 2, 3]], answer=4, **options)


def test_layers_without_mlp_and_several_texts_are_refused() -> None:
    with pytest.raises(InputError, match="has no MLP"):
        interp.mlp_memory(double("attention_only"), 0, [[1, 2, 3]], answer=4)
    with pytest.raises(InputError, match="these are 2"):
        interp.mlp_memory(double("llama"), 0, [[1, 2, 3], [1, 2, 4]], answer=4)
