"""Probe accuracy of checkpoints: what is written into the residual is read, what is not is not."""

from __future__ import annotations

import dataclasses
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import interp
from interp.dynamics import Examples, recipe
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from probes.emergence import probe_accuracy

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def rows() -> Examples:
    tokens = torch.randint(0, 12, (40, 20), generator=torch.Generator().manual_seed(0))
    return Examples(tokens, {"all": (torch.arange(20) > 0).expand(40, -1)})


def test_the_token_that_a_planted_head_brings_is_read_behind_its_layer(rows) -> None:
    planted = interp.planted.make("induction", n=8)
    tokens = planted.tokens
    examples = Examples(tokens, {"all": (torch.arange(tokens.shape[1]) > 0).expand(len(tokens), -1)})
    found, start = (
        probe_accuracy(model, examples) for model in (planted.model, HookedTransformer(planted.model.cfg, seed=1))
    )
    assert found.keys() == start.keys()
    assert found["previous, layer 0"].mean() > start["previous, layer 0"].mean() + 0.2
    assert all(len(one) == len(tokens) // 2 and 0 <= one.min() <= one.max() <= 1 for one in found.values())


def test_random_tokens_and_exchanged_labels_are_not_read(rows) -> None:
    config = dataclasses.replace(recipe("induction").config, d_vocab=12)
    found = probe_accuracy(HookedTransformer(config, seed=0), rows)
    for name in ("next", "control"):
        assert np.mean([found[f"{name}, layer {layer}"].mean() for layer in range(2)]) < 2 / 12


def test_the_package_gives_it_by_name() -> None:
    given = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    module, _, name = given["project"]["entry-points"]["interp.measures"]["probe_accuracy"].partition(":")
    assert getattr(import_module(module), name) is probe_accuracy


def test_what_cannot_be_probed_is_refused(rows) -> None:
    model = HookedTransformer(dataclasses.replace(recipe("induction").config, d_vocab=12), seed=0)
    with pytest.raises(InputError, match="encoder-decoder"):
        probe_accuracy(model, dataclasses.replace(rows, source=rows.tokens))
    nothing = {"all": torch.zeros_like(rows.tokens, dtype=torch.bool)}
    with pytest.raises(InputError, match="larger n"):
        probe_accuracy(model, dataclasses.replace(rows, scored=nothing))
