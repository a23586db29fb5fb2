"""Stand-ins for what a sweep finds: rows of activations with a label, and the difference of their class means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from probes.data import Place, ProbeDataset

GOOD = {"score": 0.97, "score_low": 0.93, "score_high": 1.0, "majority": 0.5, "control": 0.52, "metric": "accuracy"}


@dataclass(frozen=True)
class Found:
    """A probe, as a sweep gives it."""

    place: Place
    target: str
    classes: tuple[str, ...]
    direction: np.ndarray
    threshold: float
    means: np.ndarray
    spread: float
    row: Mapping[str, Any] = field(default_factory=lambda: GOOD)
    dataset: ProbeDataset | None = None
    directions: np.ndarray | None = None


def rows_of(
    model: HookedTransformer, prompts: Sequence[Sequence[int]], at: Sequence[int], labels: Sequence[str], site: str
) -> ProbeDataset:
    """Activations of a site at one position of each prompt, one prompt a time."""
    name = str(model.sites.resolve(site))
    parts = []
    for prompt, pos in zip(prompts, at, strict=True):
        _, cache = model.run_with_cache(torch.tensor([list(prompt)]), names_filter=[name])
        parts.append(cache[name][0, pos])
    n = len(parts)
    table = pd.DataFrame({"text": range(n), "pos": at, "token": "x", "group": range(n), "type": range(n)})
    return ProbeDataset({name: torch.stack(parts).detach().numpy()}, table, pd.DataFrame({"number": labels}))


def found_in(dataset: ProbeDataset, place: Place, **changes: Any) -> Found:
    """The difference of class means in a dataset with the label "number"."""
    x, y = dataset.rows(place).astype(float), dataset.labels["number"].to_numpy()
    classes = tuple(sorted(set(y)))
    means = np.stack([x[y == one].mean(0) for one in classes])
    direction = means[1] - means[0]
    spread = float(np.linalg.norm(direction))
    direction = direction / spread
    directions = means - means.mean(0) if len(classes) > 2 else None
    threshold = float((means[:2] @ direction).mean())
    made = Found(place, "number", classes, direction, threshold, means, spread, dataset=dataset, directions=directions)
    return replace(made, **changes)


def both_runs(pairs: PromptPairs, position: str) -> tuple[list, list]:
    """All prompts of pairs, clean then corrupt, and where a position's last token stands."""
    at = [pairs.span(position, i)[-1] for i in range(len(pairs))]
    return [*pairs.clean, *pairs.corrupt], [*at, *at]
