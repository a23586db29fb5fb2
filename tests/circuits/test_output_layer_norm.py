"""A layout that no family has yet: sublayers whose outputs go through a LayerNorm with a bias. Sums hold there too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import interp
from interp.model.config import NormConfig
from interp.model.transformer import HookedTransformer
from tests.model.conftest import ZOO, _one_thread, ids, randomize

__all__ = ["_one_thread"]


@pytest.fixture(scope="module", params=["output", "both"])
def model(request: pytest.FixtureRequest) -> HookedTransformer:
    cfg = ZOO["gpt2"]
    assert cfg.decoder is not None
    norm = NormConfig("layer", bias=True)
    blocks = tuple(replace(block, norms=request.param, norm=norm) for block in cfg.decoder.blocks)
    cfg = replace(cfg, decoder=replace(cfg.decoder, blocks=blocks))
    return randomize(HookedTransformer(cfg, dtype=torch.float64)).requires_grad_(False)


@pytest.mark.parametrize("by", ["component", "head", "source", "neuron"])
def test_logits_are_sums_with_the_norms_bias(by: Any, model: HookedTransformer) -> None:
    found = interp.logit_attribution(model, [[1, 2, 3, 4, 5]], by=by, answer=3, foil=4)
    logits = model(torch.tensor([[1, 2, 3, 4, 5]]))[0, -1]
    assert found.ok and found.frame["value"].sum() == pytest.approx(float(logits[3] - logits[4]), abs=1e-9)


@pytest.mark.parametrize("view", ["layer", "head"])
def test_scores_are_sums_with_the_norms_bias(view: str, model: HookedTransformer) -> None:
    found = interp.explain_attention(model, ids(1, 9), "1.1", 5, 4, view=view)
    assert found.about["sum_apart"] <= 1e-10
