"""A hand-set model of two layers: one head moves the previous token, one matches it, and decoys do neither."""

from __future__ import annotations

from collections.abc import Callable

import jaxtyping
import pytest
import torch

from interp.model.config import AttentionConfig, BlockConfig, MLPConfig, ModelConfig, NormConfig, StackConfig
from interp.model.transformer import HookedTransformer
from tests.heads.conftest import planted as planted
from tests.model.conftest import Case, case_named

VOCAB, D_HEAD = 12, 16
SPANS = {name: slice(VOCAB * i, VOCAB * (i + 1)) for i, name in enumerate(("tok", "pos", "prev", "class", "out"))}


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    pass


@pytest.fixture(scope="session")
def matching() -> HookedTransformer:
    """Layer 0: head 1 moves the previous token into `prev`, and the MLP writes each token's class (itself, in other
    coordinates) into `class`. Layer 1, head 0: its query reads `class`, its key reads `prev`; nothing else is read."""
    attention = AttentionConfig(2, D_HEAD, 2, 1.0)
    block = BlockConfig(attention, MLPConfig(VOCAB, "relu", gated=False), NormConfig("none"))
    d_model = len(SPANS) * VOCAB
    cfg = ModelConfig(d_model, VOCAB, VOCAB, decoder=StackConfig((block, block), None, learned_positions=VOCAB))
    model = HookedTransformer(cfg)
    one, shift = torch.eye(VOCAB), torch.zeros(VOCAB, VOCAB)
    shift[torch.arange(VOCAB - 1), torch.arange(1, VOCAB)] = 1.0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.W_E[:, SPANS["tok"]] = one
        model.W_pos[:, SPANS["pos"]] = one
        first, second = model.blocks[0].attn, model.blocks[1].attn
        first.W_Q[1, SPANS["pos"], :VOCAB] = 50.0 * one
        first.W_K[1, SPANS["pos"], :VOCAB] = shift
        first.W_V[1, SPANS["tok"], :VOCAB] = one
        first.W_O[1, :VOCAB, SPANS["prev"]] = one
        first.W_V[0, SPANS["tok"], :VOCAB] = one  # a decoy: writes where nobody reads
        first.W_O[0, :VOCAB, SPANS["out"]] = one
        model.blocks[0].mlp.W_in[SPANS["tok"], :] = one
        model.blocks[0].mlp.W_out[:, SPANS["class"]] = one
        second.W_Q[0, SPANS["class"], :VOCAB] = 3.0 * one
        second.W_K[0, SPANS["prev"], :VOCAB] = one
        second.W_V[0, SPANS["tok"], :VOCAB] = one
        second.W_O[0, :VOCAB, SPANS["out"]] = one
        second.W_Q[1, SPANS["pos"], :VOCAB] = one  # a decoy: reads other coordinates
        second.W_K[1, SPANS["pos"], :VOCAB] = one
        second.W_V[1, SPANS["pos"], :VOCAB] = one
        second.W_O[1, :VOCAB, SPANS["out"]] = one
        model.W_U[SPANS["out"], :] = one
    return model


@pytest.fixture
def named() -> Callable[[str], Case]:
    """Any layout of the zoo, by its name; nothing may be changed on it."""
    return case_named


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As outside the tests: no beartype in front of the package, so its own checks meet the bad input."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
