"""What all heads that are named for one task carry when they are exchanged at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp.causal.shelf import shared_recordings
from interp.circuits.streaming import head_grid
from interp.heads.ablation import matched_set
from interp.heads.splits import of_pairs, study_of
from interp.heads.task_finder import TaskFinder
from interp.heads.ways import MEASURES, distance, ways
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results import HeadScores
from interp.results.heads import is_kind
from interp.sites import Head
from interp.stats import bootstrap_interval

__all__ = ["COLUMNS", "STAGE", "carried_together"]

COLUMNS = ("task", "heads", "direction", "effect", "effect_low", "effect_high", "random_mean", "random_max", "n_items")
Progress = Callable[[str, int, int], None]
STAGE = "heads named for a task together"


def carried_together(
    model: HookedTransformer,
    groups: Sequence[Sequence[TaskFinder]],
    found: HeadScores,
    pairs: Mapping[str, PromptPairs] | None,
    settings: Mapping[str, Any],
    report: Progress,
) -> pd.DataFrame:
    """A row per task and direction: exchanging all heads that its kinds name with those of the corrupt prompts
    ("noise"), or bringing them into the corrupt prompts ("denoise"), on the reported items, where the kinds' own tests
    exchange them (everywhere, if these differ); and the same of random sets of the same layers. Tasks without a named
    head, or that the model does not do, have none."""
    rows: list[dict[str, Any]] = []
    known: dict[Any, Any] = {}
    report(STAGE, 0, len(groups))
    for number, group in enumerate(groups):
        task = group[0].heading
        named = _named(found, group)
        if named and found.about.get("tasks", {}).get(task, {}).get("is done", True):
            rows += _of_group(model, group, named, pairs, settings, known)
        report(STAGE, number + 1, len(groups))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _named(found: HeadScores, group: Sequence[TaskFinder]) -> tuple[Head, ...]:
    """The heads that some kind of the group names."""
    rows = [row for one in group if one.name in found.kinds for row in found.of(one.name).to_dict("records")]
    heads = [Head(row["layer"], row["head"], row["sublayer"], row["stack"]) for row in rows if is_kind(row)]
    return tuple(sorted(set(heads), key=lambda head: (head.layer, head.head)))


def _of_group(
    model: HookedTransformer,
    group: Sequence[TaskFinder],
    named: tuple[Head, ...],
    pairs: Mapping[str, PromptPairs] | None,
    settings: Mapping[str, Any],
    known: dict[Any, Any],
) -> list[dict[str, Any]]:
    seed = int(settings["seed"])
    if pairs is not None:
        study = of_pairs(model, group, pairs, seed).report.thinned(settings["per_item"])
    else:
        decides, n = group[0].corruptions[0], settings["n"]
        study = study_of(model, group, decides, split="report", n=n, seed=seed, known=known)
        study = study.thinned(settings["per_item"], n)
    if not distance(study) > 0:
        return []
    generator, widths = np.random.default_rng([seed, *b"together"]), head_grid(model).widths
    randoms = [matched_set(named, widths, set(named), generator) for _ in range(settings["n_random_sets"])]
    randoms = [one for one in randoms if len(one) == len(named)]
    places = {one.test.exchanged_at for one in group}
    at = {"pos": places.pop()} if len(places) == 1 and "" not in places else None
    with shared_recordings():
        harm = ways(study, [named, *randoms], seed, measures=MEASURES[:2], at=at)
    rows = []
    for direction, by_set in harm.items():
        values = study.by_item(by_set[named][:, None])
        low, high = bootstrap_interval(values, seed=seed)
        others = [float(study.by_item(by_set[one][:, None]).mean()) for one in randoms]
        rows.append(
            {
                **{"task": group[0].heading, "heads": " ".join(map(str, named)), "direction": direction},
                **{"effect": float(values.mean()), "effect_low": float(low[0]), "effect_high": float(high[0])},
                "random_mean": float(np.mean(others)) if others else float("nan"),
                "random_max": max(others, default=float("nan")),
                "n_items": study.n_items,
            }
        )
    return rows
