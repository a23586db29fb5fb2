"""What a trial of kinds that share a task is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from interp.heads.study import Study

__all__ = ["Splits", "TrialSettings"]


@dataclass(frozen=True)
class TrialSettings:
    """`screen`: candidates by attention and a first-order estimate of their effect ("attention"), by attention and
    the exact effect ("exact"), or every head ("none"). `per_item`: prompts of each item put to interventions."""

    top: int
    n_random_sets: int
    screen: str
    seed: int
    n_kinds: int
    per_item: int = 2


@dataclass(frozen=True)
class Splits:
    """The prompts that choose, those that test, and the latter without BOS, where the task has both. `others` are
    tested prompts against the corruptions that do not decide, by name; `left_out` says why some are not there. At most
    `n_items` items are put to interventions; None: all."""

    select: Study
    report: Study
    bare: Study | None = None
    others: Mapping[str, Study] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    n_items: int | None = None

    def thinned(self, study: Study, per_item: int) -> Study:
        """What of a study is put to interventions."""
        return study.thinned(per_item, self.n_items)
