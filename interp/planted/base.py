"""What a planted model is, and what it declares to be true of itself.

A circuit is one file in this folder with a module-level `CIRCUITS`; the registry finds it by itself.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.planted.lay import NormKind, build_model
from interp.planted.wiring import Wiring
from interp.sites import Head

__all__ = ["Circuit", "Diagram", "Planted", "Truth", "circuits", "heads", "make", "names"]

Question = tuple[str, str]  # corruption, and "denoise", "noise", "zero", "mean" or "resample"
Heads = frozenset[Head]


def heads(text: str) -> Heads:
    """`"0.1 1.2"` as a set of heads."""
    return frozenset(Head.parse(one) for one in text.split())


@dataclass(frozen=True)
class Truth:
    """What is planted. What a declared question does not name has no effect; the tests hold the causal methods to that.

    `heads`: kind -> its heads. `decoys`: kind -> heads that attend like that kind and do nothing; those under the name
    of a kind in `heads` have the same attention as its heads.

    `effects`: (corruption, how) -> names of the heads ("1.2") and MLPs ("mlp_out.1") that change the logit difference
    by themselves, where `how` is a direction of patching ("denoise", "noise") or an ablation ("zero", "mean",
    "resample", with the corrupt prompts as reference). `joint`: sets of heads without an effect of their own in some
    question that have one together -> those questions. `paths`: (corruption, direction) -> receiver -> the senders
    whose direct path to it has an effect. `raises`: heads that lower the logit difference of the clean prompts, so
    that zero ablation raises it. `flat`: heads that patching finds and attribution patching, its gradient, does not.
    """

    heads: Mapping[str, Heads] = field(default_factory=dict)
    decoys: Mapping[str, Heads] = field(default_factory=dict)
    effects: Mapping[Question, frozenset[str]] = field(default_factory=dict)
    joint: Mapping[Heads, frozenset[Question]] = field(default_factory=dict)
    paths: Mapping[Question, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    raises: Heads = frozenset()
    flat: Heads = frozenset()


@dataclass(frozen=True)
class Planted:
    """A model whose circuit is known. `pairs`: corruption -> prompts, with items, templates and named positions;
    `tokens`: rows of repeated tokens for circuits that need no pairs; `about` tells what each part does."""

    name: str
    model: HookedTransformer
    pairs: Mapping[str, PromptPairs]
    tokens: Int[Tensor, "batch pos"] | None
    truth: Truth
    about: str


@dataclass(frozen=True)
class Diagram:
    """All of a planted model but its weights."""

    wiring: Wiring
    pairs: Mapping[str, PromptPairs]
    truth: Truth
    about: str
    tokens: Int[Tensor, "batch pos"] | None = None


@dataclass(frozen=True)
class Circuit:
    """A circuit by name. `draw(n, generator)` makes its diagram and `n` prompts of each corruption; `epsilon` is the
    weight noise up to which the declared truth holds (see `lay`)."""

    name: str
    draw: Callable[[int, torch.Generator], Diagram]
    epsilon: float


@cache
def circuits() -> dict[str, Circuit]:
    """All circuits, by name."""
    package = import_module("interp.planted")
    modules = (import_module(f"interp.planted.{info.name}") for info in pkgutil.iter_modules(package.__path__))
    found: list[Circuit] = [one for module in modules for one in getattr(module, "CIRCUITS", ())]
    return {one.name: one for one in sorted(found, key=lambda one: one.name)}


def names() -> tuple[str, ...]:
    """The circuits that `make` knows."""
    return tuple(circuits())


def make(
    name: str,
    *,
    norm: NormKind = "none",
    rotate: bool = False,
    noise: float = 0.0,
    n: int = 40,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Planted:
    """A model with a planted circuit, `n` prompts of each corruption, and the truth about it.

    `norm` puts an RMSNorm or a LayerNorm in front of every sublayer and the logits; `rotate` turns the residual space
    at random; `noise` adds that share of the weights' size to each (up to `EPSILON[name]` the truth holds). The seed
    draws prompts, rotation and noise. The model has no tokenizer.
    """
    if name not in circuits():
        raise InputError(f"There is no planted circuit {name!r}. Known are {', '.join(circuits())}.")
    if isinstance(n, bool) or not isinstance(n, int) or n < 4:
        raise InputError(f"n is {n!r}. Ask for at least 4 prompts: fewer have no others to take a mean of.")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed is {seed!r}. Give a whole number, 0 or more.")
    diagram = circuits()[name].draw(n, torch.Generator().manual_seed(seed))
    model = build_model(diagram.wiring, name, norm=norm, rotate=rotate, noise=noise, seed=seed, dtype=dtype)
    return Planted(name, model, diagram.pairs, diagram.tokens, diagram.truth, diagram.about)
