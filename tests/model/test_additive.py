"""Additive scoring is what its paper says, and analyses that take scores for products refuse it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

import interp
from interp.errors import InputError
from interp.model.config import AttentionConfig, ModelConfig, RotaryConfig
from interp.model.transformer import HookedTransformer
from tests.model.conftest import ZOO, case_named, ids


def model() -> HookedTransformer:
    return case_named("additive").model


def test_a_head_scores_by_a_vector_times_the_tanh_of_query_and_key_together() -> None:
    attn, x = model().blocks[1].attn, torch.randn(32, generator=torch.Generator().manual_seed(0))
    a, b = x, x.flip(0)
    _, cache = model().run_with_cache(ids(1, 4), ["blocks.1.ln1.hook_normalized", "attn_scores.1"])
    read = cache["blocks.1.ln1.hook_normalized"][0] * model().blocks[1].ln1.gain + model().blocks[1].ln1.b
    a, b = read[3], read[1]
    score = (attn.v_a[2] * torch.tanh(a @ attn.W_Q[2] + b @ attn.W_K[1])).sum()  # heads 2 and 3 share keys 1
    torch.testing.assert_close(cache["attn_scores", 1][0, 2, 3, 1], score, rtol=1e-4, atol=1e-5)


def test_what_takes_scores_for_products_is_refused_in_plain_words() -> None:
    for call in (
        lambda: interp.qk(model(), "1.0"),
        lambda: interp.explain_attention(model(), ids(1, 5)[0], "1.0", 4, 2),
    ):
        with pytest.raises(InputError, match=r"scores additively, by v·tanh\(q \+ k\), which is no product"):
            call()
    with pytest.raises(InputError, match=r"Q-composition with W_Q W_Kᵀ: additive .* Choose qk=.alone."):
        interp.composition(model(), "Q", qk="whole")
    assert interp.composition(model(), "Q", n_random=5).about["reads"] == "W_Q"
    assert interp.composition(model(), "V", n_random=5).about["reads"] == "W_V W_O"
    mixed = case_named("additive_cross").model
    interp.qk(mixed, "decoder.attn.0.0")  # the self-attention of this decoder is of products
    with pytest.raises(InputError, match="additively"):
        interp.qk(mixed, "decoder.cross_attn.0.0")


def test_rotary_positions_are_refused_with_it() -> None:
    with pytest.raises(InputError, match="Additive scores know no rotary"):
        AttentionConfig(2, 4, 2, 1.0, rotary=RotaryConfig(4), scoring="additive")
    with pytest.raises(InputError, match="scoring='cosine'"):
        AttentionConfig(2, 4, 2, 1.0, scoring="cosine")  # type: ignore[arg-type]


def test_folding_norms_leaves_the_function_as_it_is() -> None:
    tokens = ids(2, 7)
    torch.testing.assert_close(interp.fold_norms(model())(tokens), model()(tokens), rtol=1e-4, atol=1e-4)


def test_plain_data_name_the_scoring_only_where_it_is_not_products() -> None:
    def scorings(config: ModelConfig) -> set[Any]:
        blocks = config.to_dict()["decoder"]["blocks"]
        return {block["attn"].get("scoring") for block in blocks}

    assert scorings(ZOO["additive"]) == {"additive"} and scorings(ZOO["gpt2"]) == {None}
    for name in ("additive", "additive_cross", "gpt2"):
        assert ModelConfig.from_dict(ZOO[name].to_dict()) == ZOO[name]


def test_padding_is_not_attended_to_and_gradients_reach_the_vector() -> None:
    tokens, mask = ids(2, 6), torch.ones(2, 6, dtype=torch.bool)
    mask[0, :2] = False
    padded = model()(tokens, attention_mask=mask)[0, 2:]
    torch.testing.assert_close(padded, model()(tokens[:1, 2:])[0], rtol=1e-4, atol=1e-5)
    fresh = HookedTransformer(ZOO["additive"], seed=1)
    fresh(tokens).square().mean().backward()
    assert fresh.blocks[0].attn.v_a.grad is not None and bool(fresh.blocks[0].attn.v_a.grad.any())


def test_a_dot_product_model_has_no_such_vector_and_its_hash_is_what_it_was() -> None:
    assert not any("v_a" in name for name, _ in case_named("gpt2").model.named_parameters())
    config = dataclasses.replace(ZOO["gpt2"])
    assert "scoring" not in str(config.to_dict())
