"""A model made by hand learns under plain torch: the loss that `forward` returns is one to descend on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from tests.model.conftest import DECODERS, ids

VOCABULARY, BLOCK = 12, 6
CHANCE = math.log(VOCABULARY)


def made() -> HookedTransformer:
    """Two layers of attention alone: the least that can continue a repeated block."""
    config = ModelConfig.decoder_only(
        n_layers=2, d_model=48, n_heads=4, d_vocab=VOCABULARY, n_ctx=2 * BLOCK, d_mlp=0, rotary=None
    )
    return HookedTransformer(config)


def repeated(n_rows: int, generator: torch.Generator) -> Tensor:
    """A block of different tokens, twice: the second copy can be told from the first, the first from nothing."""
    block = torch.rand(n_rows, VOCABULARY, generator=generator).argsort(dim=1)[:, :BLOCK]
    return torch.cat([block, block], dim=1)


def unrelated(n_rows: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, VOCABULARY, (n_rows, 2 * BLOCK), generator=generator)


def second_copy_loss(model: HookedTransformer, tokens: Tensor) -> float:
    """Nats for each token of the second copy but its first."""
    with torch.no_grad():
        return float(model(tokens, return_type="loss", loss_per_token=True)[:, BLOCK:].mean())


def trained(draw: Callable[[int, torch.Generator], Tensor], steps: int) -> HookedTransformer:
    model, generator = made(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(draw(64, generator), return_type="loss").backward()
        optimizer.step()
    return model.eval()


def test_a_tiny_model_learns_to_continue_a_repeated_block() -> None:
    unseen = repeated(256, torch.Generator().manual_seed(99))
    assert second_copy_loss(made(), unseen) > 0.8 * CHANCE
    assert second_copy_loss(trained(repeated, 160), unseen) < 0.1  # 0.01 when this was written; chance is 2.5


def test_on_tokens_without_structure_there_is_nothing_to_learn() -> None:
    model = trained(unrelated, 60)
    for draw in (repeated, unrelated):
        assert second_copy_loss(model, draw(256, torch.Generator().manual_seed(99))) > 0.95 * CHANCE


@pytest.mark.parametrize("name", [*DECODERS, "two_stacks", "t5", "bart"])
def test_gradients_of_the_loss_are_its_derivatives(name: str, fresh: Any) -> None:
    """Along a random direction through every parameter, encoders' too; each has a share in it, but biases of keys,
    which softmax does not see unless positions turn them."""
    model = fresh(name, dtype=torch.float64)
    options = {"decoder_input": ids(3, 5, seed=5)} if len(model.cfg.stacks) > 1 else {}
    parameters = dict(model.named_parameters())

    def loss() -> Tensor:
        return model(ids(3, 9), return_type="loss", **options)

    gradients = dict(zip(parameters, torch.autograd.grad(loss(), list(parameters.values())), strict=True))
    unmoved = [key for key, x in gradients.items() if not (x.isfinite().all() and x.abs().max() > 1e-9)]
    assert all(key.endswith(".k.bias") for key in unmoved), unmoved
    generator = torch.Generator().manual_seed(3)
    direction = {key: torch.randn(x.shape, generator=generator).double() for key, x in parameters.items()}
    step, losses = 1e-6, []
    with torch.no_grad():
        for times in (1, -2):
            for key, x in parameters.items():
                x += times * step * direction[key]
            losses.append(float(loss()))
    expected = sum(float((gradients[key] * direction[key]).sum()) for key in parameters)
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(expected, rel=1e-5)
