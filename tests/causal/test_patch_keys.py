"""The axis of keys: a cell copies a pattern's (or scores') weights at one key, for all queries or for some; and sites
that say their layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from tests.causal.conftest import agree, asked, compare, model_named, pairs_for

ModelOf = Callable[[str], HookedTransformer]
pytestmark = pytest.mark.usefixtures("unchecked")

ONE = [(name, site) for name in ("llama", "softcap", "window", "encoder") for site in ("pattern", "attn_scores")]
TWO = [
    (name, f"{part}{site}")
    for name in ("two_stacks", "t5")
    for part in ("decoder.cross_attn.", "decoder.attn.", "encoder.attn.")
    for site in ("pattern", "attn_scores")
]


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize(("name", "site"), ONE + TWO)
def test_keys_are_copied_as_a_hook_does(model_of: ModelOf, name: str, site: str, direction: str) -> None:
    model = model_of(name)
    got = compare(model, pairs_for(model), site, ("layer", "head", "key_pos"), direction=direction)
    assert np.nanmax(np.abs(got.values.values)) > 1e-7


@pytest.mark.parametrize(
    ("over", "at"),
    [
        (("layer", "pos", "key_pos"), {"head": [1]}),
        (("key_pos", "layer"), {"pos": -1}),
        (("layer", "head"), {"key_pos": "subject"}),
        (("layer",), {"key_pos": [0, -1], "pos": "verb"}),
        (("key_pos",), {"key_pos": [1, 3], "layer": [1]}),
    ],
)
@pytest.mark.parametrize("name", ["llama", "encoder"])
def test_keys_go_with_every_other_axis(model_of: ModelOf, name: str, over: tuple[str, ...], at: dict[str, Any]) -> None:
    model = model_of(name)
    compare(model, pairs_for(model), "pattern", over, at=at)


def test_edges_of_cross_attention_have_both_texts_positions(model_of: ModelOf) -> None:
    model = model_of("two_stacks")
    got = compare(model, pairs_for(model), "decoder.cross_attn.pattern", ("layer", "pos", "key_pos"))
    assert got.values.shape[2:] == (5, 7), "decoders of up to 5 tokens look at up to 7"
    named = interp.patch(
        model, pairs_for(model), "decoder.cross_attn.pattern", ("layer",), at={"key_pos": "subject", "pos": "read"}
    )
    pairs = pairs_for(model)
    for pair in range(len(pairs)):
        one = interp.patch(
            model,
            pairs[pair],
            "decoder.cross_attn.pattern",
            ("layer",),
            at={"key_pos": list(pairs.span("subject", pair)), "pos": pairs.read[pair]},
        )
        np.testing.assert_allclose(named.values[pair], one.values[0], atol=2e-5)
    with pytest.raises(InputError, match="'read' is a position in the decoder's text"):
        interp.patch(model, pairs, "decoder.cross_attn.pattern", ("layer",), at={"key_pos": "read"})


def test_a_row_with_one_copied_key_is_not_renormalised(model_of: ModelOf) -> None:
    """What one key adds is its new weight less its old, times its value: the others keep theirs."""
    model = model_named("attention_only")
    pairs = pairs_for(model)[[0]]
    by_key = interp.patch(model, pairs, "pattern", ("head", "key_pos"), at={"layer": [1]}, metric=_answer)
    whole = interp.patch(model, pairs, "pattern", ("head",), at={"layer": [1]}, metric=_answer)
    assert float(np.abs(by_key.values.sum("key_pos") - whole.values).max()) < 1.0  # the final norm alone bends it
    agree(by_key, asked(model, pairs, "pattern", ("head", "key_pos"), at={"layer": [1]}, metric=_answer))


def _answer(logits: torch.Tensor, pair: torch.Tensor) -> torch.Tensor:
    return logits[:, 3]


def test_attribution_has_no_axis_of_keys(model_of: ModelOf) -> None:
    model = model_of("llama")
    with pytest.raises(InputError, match=r"no axis 'key_pos'. Use interp\.patch"):
        interp.attribute(model, pairs_for(model), "pattern", ("key_pos",))


@pytest.mark.parametrize("site", ["blocks.1.attn.hook_z", "z.1", "blocks.1.attn.hook_result", "result.1"])
def test_a_site_may_say_its_layer(model_of: ModelOf, site: str) -> None:
    model = model_of("llama")
    pairs = pairs_for(model)
    got = interp.patch(model, pairs, site, over=("head",))
    same = interp.patch(model, pairs, "z", over=("head",), at={"layer": [1]})
    np.testing.assert_array_equal(got.values.values, same.values.values)
    assert got.about["site"] == site
    two = model_of("two_stacks")
    got = interp.patch(two, pairs_for(two), "decoder.blocks.1.cross_attn.hook_z", over="head")
    same = interp.patch(two, pairs_for(two), "decoder.cross_attn.z", over="head", at={"layer": 1})
    np.testing.assert_array_equal(got.values.values, same.values.values)


def test_an_encoder_without_a_chosen_read_is_refused_however_its_pairs_were_made(model_of: ModelOf) -> None:
    model = model_of("encoder")
    pairs = pairs_for(model, read=None)
    assert pairs.reads_last
    for run in (interp.patch, interp.ablate, interp.path_patch, interp.causal_trace):
        arguments = (model, pairs, "z") if run is interp.patch else (model, pairs)
        with pytest.raises(InputError, match=r'This model is an encoder.*Give read=.*read="mask"'):
            run(*arguments)
    interp.patch.plan(model, pairs_for(model, read=-1), "z")


def test_the_read_is_a_place_to_patch(model_of: ModelOf) -> None:
    model = model_of("encoder")
    pairs = pairs_for(model)
    named = interp.patch(model, pairs, "z", ("layer", "position"), at={"position": ["read", "subject"]})
    every = interp.patch(model, pairs, "z", ("layer", "pos"))
    for pair, read in enumerate(pairs.read):
        np.testing.assert_allclose(named.values[pair, :, 0], every.values[pair, :, read], atol=1e-6)
    two = model_of("two_stacks")
    interp.patch.plan(two, pairs_for(two), "decoder.z", ("layer", "position"), at={"position": ["read"]})
    with pytest.raises(InputError, match="'read' is a position in the decoder's text"):
        interp.patch.plan(two, pairs_for(two), "encoder.z", ("layer",), at={"pos": "read"})


def test_signatures_say_what_comes_back() -> None:
    import inspect

    from interp.causal.plan import Plan

    for method in (interp.patch, interp.ablate, interp.knockout, interp.causal_trace, interp.path_patch):
        assert inspect.signature(method).return_annotation is interp.Effects
        assert inspect.signature(method.plan).return_annotation in (Plan, "Plan")
        assert list(inspect.signature(method).parameters) == list(inspect.signature(method.plan).parameters)
