"""Which heads of a trial are put to the test: candidates of each kind, controls of their layers, and joint sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.causal.attribution import attribute
from interp.causal.patching import patch
from interp.circuits.streaming import HeadGrid, head_grid
from interp.heads.ablation import HeadSet, matched_set
from interp.heads.plan import CONTROLS_PER_LAYER
from interp.heads.study import Study
from interp.heads.task_finder import Behaviour, TaskFinder
from interp.heads.trial_input import TrialSettings
from interp.heads.ways import Report
from interp.sites import Head

__all__ = ["Choice", "choose", "estimated_harm", "head_at"]

Grid = NDArray[np.floating]


def estimated_harm(study: Study, screen: str, report: Report) -> Grid | None:
    """Harm of exchanging each head, `[layer head]`: to first order, or exactly; None for a model without logits."""
    if not (isinstance(study.metric, str) or screen == "exact"):
        return None
    options: dict[str, Any] = {"over": ("layer", "head"), "direction": "noise", "metric": study.metric}
    if screen == "exact":
        effects = patch(study.model, study.main, "z", **options, progress=report)
    else:
        effects = attribute(study.model, study.main, "z", **options)
    return -effects.mean(normalize=None).values


@dataclass(frozen=True)
class Choice:
    """The candidates of each kind, which heads are tested alone, what they are compared with, and the sets tested
    together."""

    candidates: Mapping[str, tuple[Head, ...]]
    singles: tuple[Head, ...]
    controls: Mapping[int, tuple[Head, ...]]
    tops: Mapping[str, HeadSet]
    randoms: Mapping[str, tuple[HeadSet, ...]]

    @property
    def sets(self) -> list[HeadSet]:
        alone = [(head,) for head in self.singles]
        alone += [(head,) for heads in self.controls.values() for head in heads]
        random = [one for sets in self.randoms.values() for one in sets]
        return [one for one in dict.fromkeys([*alone, *self.tops.values(), *random]) if one]

    def others(self, head: Head) -> list[Head]:
        return [other for other in self.controls.get(head.layer, ()) if other != head]


def choose(
    kinds: Sequence[TaskFinder],
    study: Study,
    chosen: Mapping[str, Behaviour],
    estimate: Grid | None,
    grid: HeadGrid,
    settings: TrialSettings,
) -> Choice:
    generator = np.random.default_rng([settings.seed, *b"trial"])
    tops, candidates = {}, {}
    for one in kinds:
        score = study.by_item(chosen[one.name].score).mean(axis=0).reshape(grid.n_layers, grid.n_heads)
        candidates[one.name] = _candidates(score, None if estimate is None else one.sign * estimate, grid, settings.top)
        tops[one.name] = _joint(one, study, score, candidates[one.name], grid)
    if settings.screen == "none":
        blocks = study.model.main.config.blocks
        singles = tuple(
            Head(i, head, "attn", grid.stack) for i, one in enumerate(blocks) for head in range(one.attn.n_heads)
        )
        likely = {head for heads in candidates.values() for head in heads}  # no fair comparison for the others
        controls = {
            layer: tuple(head for head in singles if head.layer == layer and head not in likely)
            or _least(study, layer, estimate)
            for layer in range(grid.n_layers)
        }
    else:
        singles = tuple(sorted({head for heads in candidates.values() for head in heads}, key=_order))
        layers = sorted({head.layer for head in singles})
        controls = {layer: _controls(study, layer, set(singles), estimate, generator) for layer in layers}
    randoms = {
        kind: tuple(
            drawn
            for _ in range(settings.n_random_sets)
            if len(drawn := matched_set(heads, grid.widths, set(heads), generator)) == len(heads)
        )
        for kind, heads in tops.items()
    }
    return Choice({kind: tuple(heads) for kind, heads in candidates.items()}, singles, controls, tops, randoms)


def _controls(
    study: Study, layer: int, singles: set[Head], estimate: Grid | None, generator: np.random.Generator
) -> tuple[Head, ...]:
    """Random heads of a layer that are no candidates; where every head is one, the half that seemed to matter least on
    the selecting prompts."""
    wanted = [Head(layer, 0, "attn", study.model.main.name)] * CONTROLS_PER_LAYER
    drawn = matched_set(wanted, head_grid(study.model).widths, singles, generator)
    return drawn or _least(study, layer, estimate)


def _least(study: Study, layer: int, estimate: Grid | None) -> tuple[Head, ...]:
    """The half of a layer's heads that seemed to matter least on the selecting prompts."""
    stack, n_heads = study.model.main.name, head_grid(study.model).widths[layer]
    order = (
        range(n_heads) if estimate is None else np.argsort(np.abs(estimate[layer, :n_heads]), kind="stable").tolist()
    )
    return tuple(Head(layer, head, "attn", stack) for head in list(order)[: max(n_heads // 2, min(n_heads, 2))])


def _candidates(score: Grid, estimate: Grid | None, grid: HeadGrid, top: int) -> list[Head]:
    """Half of them the best by attention, the rest the best by their estimated effect."""
    by_score = [i for i in np.argsort(-score, axis=None, kind="stable").tolist() if not np.isnan(score.flat[i])]
    found = by_score[: top if estimate is None else (top + 1) // 2]
    if estimate is not None:
        by_effect = [i for i in np.argsort(-estimate, axis=None, kind="stable").tolist() if i not in found]
        found += [i for i in by_effect if not np.isnan(score.flat[i])][: top - len(found)]
    return [head_at(grid, i) for i in found]


def _joint(one: TaskFinder, study: Study, score: Grid, candidates: Sequence[Head], grid: HeadGrid) -> HeadSet:
    """The candidates whose attention and writing pass on the selecting prompts; the best by attention if none does."""
    writing = None
    if one.writing is not None and one.writing.measure is not None and study.model.cfg.has_unembed:
        writing = study.by_item(one.writing.measure(study)).mean(axis=0).reshape(grid.n_layers, grid.n_heads)
    passing = [
        head
        for head in candidates
        if (one.score_cutoff is None or score[head.layer, head.head] >= one.score_cutoff)
        and (writing is None or one.writing.passes(writing[head.layer, head.head], one.writing.cutoff))  # type: ignore[union-attr]
    ]
    best = sorted(candidates, key=lambda head: -score[head.layer, head.head])[:1]  # none where none has a score
    return tuple(sorted(passing or best, key=_order))


def head_at(grid: HeadGrid, flat: int) -> Head:
    return Head(*divmod(int(flat), grid.n_heads), "attn", grid.stack)


def _order(head: Head) -> tuple[int, int]:
    return head.layer, head.head
