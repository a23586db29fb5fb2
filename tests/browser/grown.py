"""Three models of different sizes of weights, as if they were checkpoints, whose tokens are hostile: measured and
played, for tests of the page Training."""

from __future__ import annotations

from functools import cache

import torch
from serving import tiny_model

import interp
from interp.dynamics import Emergence, Playback, playback
from interp.model.transformer import HookedTransformer

__all__ = ["ROW", "STEPS", "grown", "models", "played"]

STEPS = [0, 10, 300]
ROW = [2, 3, 8, 9, 10, 4, 2, 3, 8, 11, 5]  # some stand twice


@cache
def models() -> dict[int, HookedTransformer]:
    """Step -> model."""
    found = {step: tiny_model("grown") for step in STEPS}
    with torch.no_grad():
        for step, model in found.items():
            for weight in model.parameters():
                weight.mul_(0.5 + step / 300)
    return found


def _rows() -> torch.Tensor:
    return torch.randint(2, 12, (6, 4), generator=torch.Generator().manual_seed(0)).repeat(1, 3)


@cache
def played() -> Playback:
    """One row of tokens at each of them, scored on other rows."""
    return playback(models(), ROW, tokens=_rows())


@cache
def grown() -> Emergence:
    """The same models measured."""
    return interp.emergence(models(), tokens=_rows(), ablate_at=[300], kinds=["previous_token", "induction"])
