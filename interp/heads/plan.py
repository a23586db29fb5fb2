"""Which heads are ablated to test some kinds: alone, together, and as controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp.circuits.streaming import HeadGrid
from interp.heads.ablation import HeadSet, matched_set
from interp.sites import Head

__all__ = ["CONTROLS_PER_LAYER", "AblationPlan", "make_plan", "stability"]

Scores = NDArray[np.floating]
CONTROLS_PER_LAYER = 2


@dataclass(frozen=True)
class AblationPlan:
    """`tops` of each kind, `singles` to be tested, `controls` of each layer, `random_sets` for each kind's top set."""

    tops: dict[str, tuple[Head, ...]]
    singles: tuple[Head, ...]
    controls: dict[int, tuple[Head, ...]]
    random_sets: dict[str, tuple[HeadSet, ...]]

    @property
    def sets(self) -> list[HeadSet]:
        """Everything that has to be ablated, each set once."""
        alone = [(head,) for head in self.singles]
        alone += [(head,) for heads in self.controls.values() for head in heads]
        random = [one for sets in self.random_sets.values() for one in sets]
        return [one for one in dict.fromkeys([*alone, *self.tops.values(), *random]) if one]

    def others(self, head: Head) -> list[Head]:
        """The controls of a head: heads of its layer, itself left out."""
        return [other for other in self.controls.get(head.layer, ()) if other != head]


def make_plan(
    grid: HeadGrid, scores: Mapping[str, Scores], *, top: int, test_all: bool, n_random_sets: int, seed: int
) -> AblationPlan:
    """Choose the `top` heads of each kind by mean score `[prompt layer head]` over the prompts that have one, and
    controls from the same layers.

    With `test_all` every head is tested, and all other heads of a layer are its controls.
    """
    generator = np.random.default_rng([seed, *b"controls"])
    tops = {kind: _best(_mean(one), top, grid) for kind, one in scores.items()}
    if test_all:
        scored = ~np.isnan(next(iter(scores.values()))).all(axis=0)
        singles = tuple(_head(grid, layer, i) for layer, i in np.argwhere(scored).tolist())
        controls = {layer: tuple(head for head in singles if head.layer == layer) for layer in range(grid.n_layers)}
    else:
        singles = tuple(dict.fromkeys(head for heads in tops.values() for head in heads))
        controls = {
            layer: matched_set([_head(grid, layer, 0)] * CONTROLS_PER_LAYER, grid.widths, set(singles), generator)
            for layer in sorted({head.layer for head in singles})
        }
    random_sets = {
        kind: tuple(s for _ in range(n_random_sets) if (s := matched_set(heads, grid.widths, set(heads), generator)))
        for kind, heads in tops.items()
    }
    return AblationPlan(tops, singles, controls, random_sets)


def stability(scores: Scores, top: int, *, n_resamples: int = 200, seed: int = 0) -> float:
    """Mean Jaccard overlap of the top set with those of bootstrap resamples of the prompts: 1 is always the same."""
    flat = np.nan_to_num(scores.reshape(len(scores), -1), nan=-1.0)
    weights = np.random.default_rng([seed, *b"stability"]).multinomial(
        len(flat), np.full(len(flat), 1 / len(flat)), size=n_resamples
    )
    chosen = set(np.argsort(-flat.mean(axis=0), kind="stable")[:top])
    overlaps = []
    for mean in weights @ flat:
        again = set(np.argsort(-mean, kind="stable")[:top])
        overlaps.append(len(chosen & again) / len(chosen | again))
    return float(np.mean(overlaps))


def _mean(scores: Scores) -> Scores:
    """Over prompts; NaN where none has a score."""
    n = (~np.isnan(scores)).sum(axis=0)
    return np.divide(np.nansum(scores, axis=0), n, out=np.full(n.shape, np.nan), where=n > 0)


def _best(mean: Scores, top: int, grid: HeadGrid) -> tuple[Head, ...]:
    order = np.argsort(-np.nan_to_num(mean, nan=-np.inf), axis=None, kind="stable")
    n_scored = int((~np.isnan(mean)).sum())
    return tuple(_head(grid, *divmod(int(i), grid.n_heads)) for i in order[: min(top, n_scored)])


def _head(grid: HeadGrid, layer: int, head: int) -> Head:
    return Head(layer, head, "attn", grid.stack)
