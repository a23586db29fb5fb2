"""A layout that no family has yet: sublayers whose outputs go through a LayerNorm with a bias. Sums hold there too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import interp
from interp.circuits.ov import written
from interp.heads.study import Study
from interp.model.config import NormConfig
from interp.model.transformer import HookedTransformer
from tests.circuits.layouts import double, pairs_for
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


@torch.no_grad()
def test_what_heads_write_is_centred_by_the_norm_behind_them(model: HookedTransformer) -> None:
    _, cache = model.run_with_cache(torch.tensor([[1, 2, 3, 4, 5]]), return_type=None)
    block, scale = model.main.block(1), cache["blocks.1.ln1_post.hook_scale"]
    made: Any = cache["blocks.1.attn.hook_result"].sum(2) + block.attn.b_O
    total = written(model.main, 1, made, scale=scale) + block.ln1_post.b
    torch.testing.assert_close(total, cache["blocks.1.hook_attn_out"], atol=1e-10, rtol=1e-10)


def must_read_as_attribution(model: HookedTransformer) -> None:
    """A study's direct logits of heads at the read position are those of the exact sum."""
    pairs = pairs_for(model)
    study = Study(model, {"abc": pairs}, ("END",))
    found = study.writes("END", up=study.answers, down=study.foils)
    parts = interp.logit_attribution(model, pairs, by="head").frame
    parts = parts.loc[parts["kind"] == "head"]
    assert len(parts) == found.size
    for row in parts.itertuples():
        assert found[row.prompt, row.layer, row.head] == pytest.approx(row.value, abs=1e-4, rel=1e-4)


def test_a_study_reads_heads_through_a_layer_norm_behind_them(model: HookedTransformer) -> None:
    must_read_as_attribution(model)


@pytest.mark.parametrize("name", ["gemma2", "olmo2", "granite"])
def test_a_study_reads_heads_through_what_stands_behind_them(name: str) -> None:
    must_read_as_attribution(double(name))
