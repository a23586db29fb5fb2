"""Short spellings for what the circuits declare."""

from __future__ import annotations

from collections.abc import Mapping

import torch

__all__ = ["choose", "questions", "sets"]


def questions(corruption: str, **found: str) -> dict[tuple[str, str], frozenset[str]]:
    """How -> a blank-separated list of what has an effect, for one corruption."""
    return {(corruption, how): frozenset(text.split()) for how, text in found.items()}


def sets(found: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Blank-separated texts as sets."""
    return {name: frozenset(text.split()) for name, text in found.items()}


def choose(tokens: range, n: int, generator: torch.Generator) -> list[int]:
    """`n` different ones of some tokens, in random order."""
    return [tokens[i] for i in torch.randperm(len(tokens), generator=generator)[:n].tolist()]
