"""What an analysis returns: tables that know how they were made, can be saved, and draw themselves."""

from __future__ import annotations

from interp.results.effects import Effects
from interp.results.heads import HeadScores

__all__ = ["Effects", "HeadScores"]
