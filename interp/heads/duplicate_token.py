"""Duplicate-token heads: a token attends to earlier copies of itself (Wang 2022, §3.2)."""

from __future__ import annotations

from interp.heads.base import Finder
from interp.heads.data import TILED, tiled_blocks
from interp.heads.patterns import duplicate_token

__all__ = ["FINDER"]

FINDER = Finder(
    name="duplicate_token",
    definition="mean attention from each token to earlier copies of it",
    rule=duplicate_token,
    make_data=tiled_blocks,
    data=TILED,
    score_cutoff=0.4,
    cause="ioi",
    effect_cutoff=0.05,
    applies_to=frozenset({"decoder"}),  # encoders attend so too, but have no logits of a next token
)
