"""Planted models, made once, and the causal methods' answers about them as shares of clean − corrupt."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jaxtyping
import numpy as np
import pytest

import interp
from interp import planted

THRESHOLD = 0.05  # of clean − corrupt: what counts as an effect
N = 12  # prompts of each corruption: two templates in two orders, three times


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    pass


@pytest.fixture(scope="session")
def made() -> Callable[..., planted.Planted]:
    """`make`, with fewer prompts and a memory."""

    @cache
    def make(name: str, **options: Any) -> planted.Planted:
        return planted.make(name, **{"n": N, **options})

    return make


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As outside the tests: no beartype in front of the package, so its own checks meet the bad input."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def targets(model: interp.HookedTransformer) -> list[str]:
    """Every head and every MLP by itself."""
    layers = range(model.cfg.n_layers)
    heads = [f"{layer}.{head}" for layer in layers for head in range(model.cfg.n_heads)]
    return heads + ([] if model.cfg.attn_only else [f"mlp_out.{layer}" for layer in layers])


def whole(effects: interp.Effects, *, clean: str) -> float:
    """What shares are taken of: clean − corrupt; the clean metric where both runs answer alike."""
    assert effects.base is not None and effects.source is not None
    gap = float((effects.source - effects.base).mean())
    metric = float(np.abs(effects.base if clean == "base" else effects.source).mean())
    return gap if abs(gap) > metric / 4 else metric


def shares(one: planted.Planted, corruption: str, how: str) -> dict[str, float]:
    """Name of each head and MLP -> its effect."""
    model, pairs = one.model, one.pairs[corruption]
    if how not in ("denoise", "noise"):
        effects = interp.ablate(model, pairs, targets(model), how)
        means = effects.mean().values / whole(effects, clean="base")
        return dict(zip(targets(model), means, strict=True))
    clean = "source" if how == "denoise" else "base"
    effects = interp.patch(model, pairs, "z", over=("layer", "head"), direction=how)
    found = {
        f"{layer}.{head}": value / whole(effects, clean=clean)
        for (layer, head), value in np.ndenumerate(effects.mean().values)
    }
    if not model.cfg.attn_only:
        effects = interp.patch(model, pairs, "mlp_out", over=("layer",), direction=how)
        found |= {f"mlp_out.{i}": x / whole(effects, clean=clean) for i, x in enumerate(effects.mean().values)}
    return found


def found(effects: dict[str, float]) -> frozenset[str]:
    """The names whose effect counts as one."""
    return frozenset(name for name, value in effects.items() if abs(value) >= THRESHOLD)


def by_path(one: planted.Planted, corruption: str, direction: str, receiver: str) -> dict[str, float]:
    """Name of each sender -> the effect of its direct path to a receiver."""
    pairs = one.pairs[corruption]
    effects = interp.path_patch(one.model, pairs, targets(one.model), receiver, direction=direction)
    clean = "source" if direction == "denoise" else "base"
    return dict(zip(targets(one.model), effects.mean().values / whole(effects, clean=clean), strict=True))


@pytest.fixture(scope="session")
def ask() -> Any:
    """The questions above, for tests."""

    class Ask:
        pass

    for function in (targets, whole, shares, found, by_path):
        setattr(Ask, function.__name__, staticmethod(function))
    return Ask
