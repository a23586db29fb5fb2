"""Tiny models for probes: layouts of tests/model, and one that reads SmolLM2's tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from interp.model.transformer import HookedTransformer
from tests.heads.conftest import planted
from tests.model.conftest import GROUPED, LLAMA, RMS, ROTARY, ZOO, _stack, randomize

__all__ = ["planted"]  # a fixture that holds here too


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    pass


@pytest.fixture(scope="session")
def reader(smollm2: Any) -> HookedTransformer:
    """Three random layers over SmolLM2's vocabulary, with grouped keys and room for long texts."""
    block = replace(LLAMA, attn=replace(GROUPED, rotary=ROTARY))
    cfg = replace(ZOO["llama"], decoder=_stack(*[block] * 3, norm=RMS), d_vocab=smollm2.cfg.d_vocab, n_ctx=512)
    return randomize(HookedTransformer(cfg, tokenizer=smollm2.tokenizer))


@pytest.fixture(scope="session")
def readers(smollm2: Any) -> Callable[[str], HookedTransformer]:
    """Any layout of tests/model over SmolLM2's vocabulary."""

    def make(layout: str) -> HookedTransformer:
        cfg = replace(ZOO[layout], d_vocab=smollm2.cfg.d_vocab)
        return randomize(HookedTransformer(cfg, tokenizer=smollm2.tokenizer))

    return make
