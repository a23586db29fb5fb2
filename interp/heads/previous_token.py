"""Previous-token heads: each token attends to the one before it, and hands its content on (Olsson 2022)."""

from __future__ import annotations

from interp.heads.base import Finder
from interp.heads.data import TEXT, text_windows
from interp.heads.patterns import previous_token

__all__ = ["FINDER"]

FINDER = Finder(
    name="previous_token",
    definition="mean attention from each token to the one before it",
    rule=previous_token,
    make_data=text_windows,
    data=TEXT,
    score_cutoff=0.4,
    cause="repeated_tokens",  # these heads feed induction
    effect_cutoff=0.1,
    applies_to=frozenset({"decoder"}),  # encoders attend so too, but have no loss on next tokens
)
