"""Previous-token heads: each token attends to the one before it, and hands its content on (Olsson 2022)."""

from __future__ import annotations

from interp.heads.base import Finder
from interp.heads.induction import tiled_batch
from interp.heads.patterns import previous_token

__all__ = ["FINDER"]

FINDER = Finder(
    name="previous_token",
    definition="mean attention from each token to the one before it",
    rule=previous_token,
    make_data=tiled_batch,
    data="blocks of 25 random tokens, four times over",
    score_at_least=0.4,
    effect_at_least=0.1,  # on the loss on copies: these heads feed induction
)
