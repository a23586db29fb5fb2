"""Every intervention of a test of use, with its controls, as cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.sites import Site
from probes.data import Place
from probes.flips import Flips, random_directions
from probes.steering import Cell, at_layer, site_of

__all__ = ["Setting", "cells_of", "layers_of"]

_RESIDUALS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_resid_mid_cross")


@dataclass(frozen=True)
class Setting:
    """Where a test of use looks, and by how much it steers."""

    place: Place
    position: str
    wrong: str | None
    doses: tuple[float, ...]
    decisive: float
    n_random: int
    layers: tuple[int, ...]
    seed: int


def layers_of(model: HookedTransformer, place: Place, asked: Sequence[int] | None) -> list[int]:
    """Other layers that have such a place."""
    n_layers = model.cfg.stacks[Site.parse(str(site_of(model, place))).stack].n_layers
    if asked is None:
        asked = sorted({round(share * (n_layers - 1)) for share in (0.0, 1 / 3, 2 / 3, 1.0)})
    wrong = [one for one in asked if not 0 <= one < n_layers]
    if wrong:
        raise InputError(f"There is no layer {wrong[0]}: this model has layers 0 to {n_layers - 1}.")
    return [one for one in asked if one != place.layer and at_layer(model, place, one) is not None]


def cells_of(s: Setting, flips: Flips, erased: Mapping[str, Any], model: HookedTransformer) -> Iterator[Cell]:
    """Every intervention with its controls."""
    width = flips.means.shape[1]
    random = [one[0] for one in random_directions(s.n_random, width, s.seed)]
    steer, swap = np.linalg.norm(flips.shift, axis=1), np.linalg.norm(flips.between, axis=1)
    edits: list[tuple[str, float, Any, list[Any]]] = []
    for dose in s.doses:
        # A random direction has no sign: what it does at a negative dose is what another one does at a positive.
        others = [flips.along(one, dose * steer) for one in random] if dose > 0 else []
        edits.append(("steer", dose, flips.steer(dose), others))
    nan = float("nan")
    edits.append(("swap", nan, flips.swap(), [flips.along(one, swap) for one in random]))
    edits.append(("ablate", nan, flips.ablate(), [flips.ablate(one[None]) for one in random]))
    for name, eraser in erased.items():
        if not eraser.rank:
            continue  # there was nothing to erase
        bases = random_directions(s.n_random, width, s.seed + 1, eraser.rank)
        edits.append((name, nan, lambda x, pair, e=eraser: e(x), [flips.ablate(one) for one in bases]))
    for name, dose, change, others in edits:
        yield Cell(name, s.place, s.position, change, dose)
        for draw, other in enumerate(others):
            yield Cell(name, s.place, s.position, other, dose, "random directions", draw)
        if s.wrong:
            yield Cell(name, s.place, s.wrong, change, dose, "wrong position")
        if name == "swap" or (name == "steer" and dose == s.decisive):
            for layer in s.layers:
                there = at_layer(model, s.place, layer)
                assert there is not None
                yield Cell(name, there, s.position, change, dose, f"layer {layer}")
    site = site_of(model, s.place)
    whole = [s.place]
    if site.name not in _RESIDUALS:
        stack = f"{site.stack}." if site.stack else ""
        whole.append(Place(f"{stack}blocks.{site.layer}.hook_resid_post"))
    for place in whole:
        yield Cell("interchange", place, s.position, None)
        if s.wrong:
            yield Cell("interchange", place, s.wrong, None, control="wrong position")
