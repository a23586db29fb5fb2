"""What a recipe is: an architecture, data that are drawn on the fly, and how the weights are moved.

A recipe is one file in this folder with a module-level `RECIPES`; the registry finds it by itself.
"""

from __future__ import annotations

import dataclasses
import math
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import CheckpointError, InputError
from interp.model.checked import Checked, Count, Positive, Size
from interp.model.config import ModelConfig

__all__ = ["Data", "Examples", "Optimizer", "Recipe", "data_from", "drawn", "recipe", "recipes"]


@dataclass(frozen=True)
class Examples:
    """Rows of tokens to predict. `scored`: group -> which tokens of a row belong to it; a token is predicted from those
    before it, so the first is in no group. Groups are disjoint. `source`: what an encoder reads."""

    tokens: Int[Tensor, "batch pos"]
    scored: Mapping[str, Bool[Tensor, "batch pos"]]
    source: Int[Tensor, "batch source_pos"] | None = None

    @property
    def all_scored(self) -> Bool[Tensor, "batch pos"]:
        """Tokens of any group: those that the loss is the mean of."""
        return torch.stack(list(self.scored.values())).any(dim=0)


@runtime_checkable
class Data(Protocol):
    """Where examples come from: a frozen dataclass of plain fields, so that a folder can say what it was trained on.

    `held_out` draws examples that training never sees, where the data have such (pairs of names, say).
    """

    def draw(self, n: int, generator: torch.Generator, *, held_out: bool = False) -> Examples: ...


@dataclass(frozen=True)
class Optimizer(Checked):
    """AdamW. The rate rises linearly over `warm_up` steps; with `decay` it then falls on a cosine to 2% of `lr`."""

    lr: Positive = 3e-3
    weight_decay: float = 0.01
    betas: tuple[float, ...] = (0.9, 0.98)
    warm_up: Count = 100
    clip: Positive = 1.0  # of the norm of all gradients together
    batch: Size = 64
    decay: bool = False

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of the update that follows `step` updates, of `steps`."""
        rate = self.lr * (min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0)
        return rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))) if self.decay else rate


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, for how long, and what is known of the result before it is trained (`about`)."""

    name: str
    config: ModelConfig
    data: Data
    steps: int
    about: str
    optimizer: Optimizer = Optimizer()

    def to_dict(self) -> dict[str, Any]:
        """Nested plain data: all that the numbers depend on, besides the seed."""
        data: Any = self.data
        return {
            "name": self.name,
            "config": self.config.to_dict(),
            "data": {"kind": type(data).__name__, **dataclasses.asdict(data)},
            "optimizer": dataclasses.asdict(self.optimizer),
        }


@cache
def recipes() -> dict[str, Recipe]:
    """All recipes, by name."""
    package = import_module("interp.dynamics")
    modules = (import_module(f"interp.dynamics.{info.name}") for info in pkgutil.iter_modules(package.__path__))
    found: list[Recipe] = [one for module in modules for one in getattr(module, "RECIPES", ())]
    return {one.name: one for one in sorted(found, key=lambda one: one.name)}


def recipe(name: str) -> Recipe:
    """A recipe by name; an unknown one raises `InputError` with the names there are."""
    if name not in recipes():
        raise InputError(f"There is no recipe {name!r}. Known are {', '.join(recipes())}.")
    return recipes()[name]


def drawn(n_low: int, n_high: int, shape: tuple[int, ...], generator: torch.Generator) -> Int[Tensor, "*shape"]:
    """Whole numbers from `n_low` to `n_high`, the latter not included."""
    return torch.randint(n_low, n_high, shape, generator=generator)


def data_from(fields: Mapping[str, Any]) -> Data:
    """The data that `Recipe.to_dict` described; an unknown kind raises `CheckpointError`."""
    homes = [import_module(type(one.data).__module__) for one in recipes().values()]
    named_in = [item for module in homes for item in vars(module).items()]
    kinds = {name: kind for name, kind in named_in if isinstance(kind, type) and hasattr(kind, "draw")}
    named = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    kind = named.pop("kind", None)
    if kind not in kinds:
        raise CheckpointError(f"This version knows no data called {kind!r}, only {', '.join(sorted(kinds))}.")
    try:
        return kinds[kind](**named)
    except TypeError as error:
        raise CheckpointError(f"The fields of {kind} do not fit this version ({error}).") from error
