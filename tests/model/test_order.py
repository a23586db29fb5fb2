"""An encoder without positions does not know the order of its tokens; one with positions, or a causal mask, does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interp.model.config import ModelConfig, RelativeConfig, RotaryConfig, StackConfig
from interp.model.transformer import HookedTransformer
from tests.model.conftest import randomize

N_POS = 7
TOLERANCE = 1e-9  # in float64


def config(**changes: object) -> ModelConfig:
    """An encoder without positions; changes are those of its stack or, where that has no such field, its attention."""
    bare = ModelConfig.encoder_only(n_layers=2, d_model=24, n_heads=3, d_vocab=30, n_ctx=16, learned_positions=False)
    stack = bare.encoder
    assert stack is not None
    own = {name: value for name, value in changes.items() if name in StackConfig.__dataclass_fields__}
    attention = {name: value for name, value in changes.items() if name not in own}
    blocks = tuple(replace(block, attn=replace(block.attn, **attention)) for block in stack.blocks)
    return replace(bare, encoder=replace(stack, blocks=blocks, **own))


def made(which: ModelConfig) -> HookedTransformer:
    return randomize(HookedTransformer(which, dtype=torch.float64))


@torch.no_grad()
def moved_apart(model: HookedTransformer, tokens: Tensor, order: Tensor, mask: Tensor | None = None) -> float:
    """The largest difference between residuals and patterns of permuted tokens and the permuted ones of the tokens."""
    moved_mask = None if mask is None else mask[:, order]
    _, before = model.run_with_cache(tokens, attention_mask=mask)
    _, after = model.run_with_cache(tokens[:, order], attention_mask=moved_mask)
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    apart = []
    for layer in range(model.cfg.n_layers):
        resid, pattern = before["resid_post", layer], before["pattern", layer]
        apart.append((after["resid_post", layer] - resid[:, order])[real[:, order]].abs().max())
        wanted = pattern[:, :, order][:, :, :, order]
        keep = real[:, None, order, None].expand_as(wanted)
        apart.append((after["pattern", layer] - wanted)[keep].abs().max())
    return float(torch.stack(apart).max())


ORDERS = st.permutations(range(N_POS)).map(torch.tensor)
TOKENS = st.lists(st.integers(0, 29), min_size=N_POS, max_size=N_POS).map(lambda ids: torch.tensor([ids]))
BLIND = made(config())


@settings(max_examples=40, deadline=None)
@given(TOKENS, ORDERS, st.integers(1, N_POS))
def test_without_positions_permuted_tokens_give_permuted_residuals_and_patterns(
    tokens: Tensor, order: Tensor, n_real: int
) -> None:
    assert moved_apart(BLIND, tokens, order) < TOLERANCE
    assert moved_apart(BLIND, tokens, order, torch.arange(N_POS)[None] < n_real) < TOLERANCE


@pytest.mark.parametrize(
    "changes",
    [
        {"learned_positions": 16},
        {"rotary": RotaryConfig(8)},
        {"relative": RelativeConfig(8, 6)},
        {"alibi": 1.0},
        {"window": 3},
        {"mask": "causal"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_positions_of_any_kind_a_window_or_a_causal_mask_tell_the_order(changes: dict[str, object]) -> None:
    model, tokens = made(config(**changes)), torch.arange(3, 3 + N_POS)[None]
    assert moved_apart(model, tokens, torch.arange(N_POS)) == 0.0
    for order in (torch.arange(N_POS).roll(2), torch.tensor([0, 1, 2, 3, 4, 6, 5])):  # reversed, a window is the same
        assert moved_apart(model, tokens, order) > 1e-3
        assert moved_apart(BLIND, tokens, order) < TOLERANCE
