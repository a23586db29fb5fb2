"""The tiny models of tests/model with ragged pairs for each, and the comparison with the oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch

import interp
from interp.model.config import MLPConfig, ModelConfig
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results import Effects
from tests.causal.oracle import Answer, oracle
from tests.model.conftest import (
    D_VOCAB,
    ENCODER,
    GROUPED,
    LAYER,
    LLAMA,
    ZOO,
    _model,
    _one_thread,
    _stack,
    randomize,
    traces,
    unchecked,
)

__all__ = ["_one_thread", "unchecked"]  # fixtures of tests/model that hold here too

_BOTH_GROUPED = replace(ENCODER, attn=replace(ENCODER.attn, n_key_value_heads=2))
_NARROW = replace(LLAMA, attn=replace(GROUPED, n_heads=2, n_key_value_heads=2), mlp=MLPConfig(24))
# Layouts that only patching tells apart: layers of different widths or parts, grouped keys where all tokens are seen.
MORE: dict[str, ModelConfig] = {
    "uneven": _model(_stack(LLAMA, _NARROW, replace(LLAMA, mlp=None))),
    "encoder_grouped": _model(encoder=_stack(*[_BOTH_GROUPED] * 2, norm=LAYER, learned_positions=64)),
    "two_grouped": replace(ZOO["two_stacks"], encoder=_stack(*[_BOTH_GROUPED] * 2, norm=LAYER, learned_positions=64)),
}
LAYOUTS = {**ZOO, **MORE}
_MADE: dict[str, HookedTransformer] = {}


def model_named(name: str) -> HookedTransformer:
    if name not in _MADE:
        # BART's layout adds its roundings up: it is held to float64's bound instead.
        dtype = torch.float64 if name in ("double", "bart") else torch.float32
        _MADE[name] = randomize(HookedTransformer(LAYOUTS[name], dtype=dtype))
    return _MADE[name]


def rows(lengths: list[int], seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, D_VOCAB, (n,), generator=generator).tolist() for n in lengths]


def changed(row: list[int], *places: int) -> list[int]:
    return [(token + 11) % D_VOCAB if i in places else token for i, token in enumerate(row)]


def pairs_for(model: HookedTransformer, **options: Any) -> PromptPairs:
    """Ragged pairs: 6, 4 and 7 tokens; the first differs from position 2 on, the second is identical, the third
    differs at 4 and 5 only. Encoders are read inside the text. Two stacks: decoders of 3, 5 and 4 tokens; the second's
    both texts are identical, the third's encoder text is, and its decoder's differs at 2."""
    clean = rows([6, 4, 7], 1)
    corrupt = [changed(clean[0], 2, 3, 5), clean[1], changed(clean[2], 4, 5)]
    given: dict[str, Any] = {"answer": [3, 17, 20], "foil": [4, 8, 21]}
    given["positions"] = {"subject": [[2, 3], [1], [4, 5]], "verb": [[4], [2, 3], [6]]}
    if len(model.cfg.stacks) == 2:
        corrupt[2] = clean[2]
        decoders = rows([3, 5, 4], 2)
        given |= {"clean_decoder": decoders, "corrupt_decoder": [decoders[0], decoders[1], changed(decoders[2], 2)]}
    elif model.cfg.decoder is None:
        given["read"] = [3, 1, 6]
    return PromptPairs.from_tokens(clean, corrupt, **{**given, **options})


def agree(got: Effects, expected: Answer, *, tolerance: float | None = None, double: bool = False) -> None:
    """The same axes, numbers and absent cells; differences in units of the metric's size."""
    assert got.grid == tuple(expected.axes)
    for axis, names in expected.axes.items():
        assert got.values[axis].values.tolist() == names
    assert got.base is not None and got.source is not None
    limit = tolerance if tolerance is not None else 1e-10 if double else 1e-5
    values, shape = got.values.values, (-1, *(1,) * len(expected.axes))
    assert values.shape == expected.patched.shape
    np.testing.assert_array_equal(np.isnan(values), np.isnan(expected.patched), "absent cells")
    for ours, theirs in ((got.base, expected.base), (got.source, expected.source)):
        assert (np.abs(ours - theirs) <= limit * np.maximum(1, np.abs(theirs))).all()
    size = np.fmax(1, np.fmax(np.abs(expected.patched), np.abs(expected.base).reshape(shape)))
    error = np.nan_to_num(np.abs(values - expected.effect) / size)
    assert error.max(initial=0) <= limit, f"off by {error.max()} at {np.argwhere(error > limit)[:5].tolist()}"


def compare(model: HookedTransformer, pairs: PromptPairs, *args: Any, **options: Any) -> Effects:
    """`interp.patch` and the oracle on the same question; what the engine said."""
    got = interp.patch(model, pairs, *args, **options)
    options.pop("max_bytes", None)
    agree(got, asked(model, pairs, *args, **options), double=model.dtype == torch.float64)
    return got


def asked(model: HookedTransformer, pairs: PromptPairs, *args: Any, **options: Any) -> Answer:
    """The oracle, without the checks of shapes in the model's many passes: twice as quick."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        return oracle(model, pairs, *args, **options)
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def model_of() -> Iterator[Callable[[str], HookedTransformer]]:
    """Models by name; the test must leave nothing on them."""
    used: dict[str, Any] = {}

    def get(name: str) -> HookedTransformer:
        used.setdefault(name, traces(model_named(name)))
        return model_named(name)

    yield get
    for name, before in used.items():
        assert traces(model_named(name)) == before, "the test left something on the model"
