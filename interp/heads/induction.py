"""Induction heads: a token attends to what followed its earlier copies, and the head raises that token (Olsson 2022).

Matching the prefix is not enough: heads that match but do not copy are told apart by their copying ratio.
"""

from __future__ import annotations

from interp.circuits.ov import copying_ratio
from interp.heads.base import Finder, Writing
from interp.heads.data import TILED, tiled_blocks
from interp.heads.patterns import prefix_match

__all__ = ["FINDER"]

FINDER = Finder(
    name="induction",
    definition="mean attention from each token to the tokens that followed its earlier copies",
    rule=prefix_match,
    make_data=tiled_blocks,
    data=TILED,
    score_cutoff=0.4,
    writing=Writing("copying, times chance", copying_ratio, "≥", 2.0),
    cause="repeated_tokens",
    effect_cutoff=0.1,
    applies_to=frozenset({"decoder"}),
    joint=True,
)
