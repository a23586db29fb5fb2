"""Training small models and watching heads form: recipes, checkpoints on a log schedule, scores of each checkpoint."""

from __future__ import annotations

from interp.dynamics.base import Examples, Optimizer, Recipe, recipe, recipes
from interp.dynamics.conflict import ConflictResult, conflict
from interp.dynamics.emerge import emergence
from interp.dynamics.folder import Checkpoint, Checkpoints, checkpoints
from interp.dynamics.formation import compare_formation
from interp.dynamics.interventions import Intervention
from interp.dynamics.ordering import Order, order
from interp.dynamics.play import playable, playback
from interp.dynamics.played import Playback
from interp.dynamics.results import Emergence
from interp.dynamics.training import train

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "ConflictResult",
    "Emergence",
    "Examples",
    "Intervention",
    "Optimizer",
    "Order",
    "Playback",
    "Recipe",
    "checkpoints",
    "compare_formation",
    "conflict",
    "emergence",
    "order",
    "playable",
    "playback",
    "recipe",
    "recipes",
    "train",
]
