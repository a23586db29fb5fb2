"""Reports on planted models, whose truth is known, and on one that was never trained."""

from __future__ import annotations

import pytest
import torch

import interp
import interp.planted as planted
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer

IOI = ["name_mover", "negative_mover", "s_inhibition"]


def ioi_pairs(made):
    return {"abc": made.pairs["abc"]}


@pytest.fixture(scope="session")
def names():
    """A planted model of indirect objects."""
    return planted.make("ioi", n=24)


@pytest.fixture(scope="session")
def untrained(names):
    """A model with random weights that takes the planted model's tokens."""
    torch.manual_seed(0)
    size = names.model.cfg
    cfg = ModelConfig.decoder_only(
        n_layers=3, d_model=32, n_heads=4, n_key_value_heads=2, d_vocab=size.d_vocab, n_ctx=size.n_ctx, d_mlp=64
    )
    return HookedTransformer(cfg)


@pytest.fixture(scope="session")
def ioi_report(names):
    return interp.report(names.model, IOI, n=12, pairs=ioi_pairs(names))
