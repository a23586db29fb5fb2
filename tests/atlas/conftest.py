"""Atlases of planted models, whose truth is known, and of one that was never trained."""

from __future__ import annotations

import pytest

import interp
import interp.planted as planted
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer

IOI = ["name_mover", "negative_mover", "s_inhibition"]


def pairs_of(made):
    return {"abc": made.pairs["abc"]}


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    pass


@pytest.fixture(scope="session")
def names():
    """A planted model of indirect objects: 0.1 finds the repeated name, 1.2 inhibits it, 2.1 moves the other."""
    return planted.make("ioi", n=24)


@pytest.fixture(scope="session")
def made(names):
    return interp.atlas(names.model, pairs=pairs_of(names), n=12)


@pytest.fixture(scope="session")
def untrained(names):
    size = names.model.cfg
    cfg = ModelConfig.decoder_only(
        n_layers=3, d_model=32, n_heads=4, n_key_value_heads=2, d_vocab=size.d_vocab, n_ctx=size.n_ctx, d_mlp=64
    )
    return HookedTransformer(cfg, seed=0)
