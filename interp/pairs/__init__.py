"""Pairs of prompts, clean and corrupt, that align token by token; what they are asked, and where things stand."""

from interp.pairs.pairs import PromptPairs

__all__ = ["PromptPairs"]
