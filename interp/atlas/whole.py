"""How far a whole atlas or report is: its stages in order, each with a rough share of the cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from interp.heads.base import Finder
from interp.heads.causes import CAUSES
from interp.heads.syntax import SyntaxFinder
from interp.heads.task_finder import TaskFinder
from interp.heads.trial import BY_CORRUPTION

__all__ = ["WHOLE", "Whole"]

Progress = Callable[[str, int, int], None]
WHOLE = "all of it"
_ATTENTION, _TEST, _TABLE = 2.0, 3.0, 1.0
# Longer prompts, or more of them to an item.
_LONGER = {"conflict": 2.5, "fact_recall": 2.0, "few_shot": 2.5, "natural_copies": 2.0, "retrieval": 4.0}


class Whole:
    """Passes progress on, and adds how much of the whole was done since the start, in thousandths: what was kept from
    before costs nothing and counts as nothing. Costs of stages are rough, so the time left by them is too. `after` are
    stages behind the search, by name and cost."""

    def __init__(self, say: Progress | None, after: Sequence[tuple[str, float]] = ()):
        self.say, self.after = say, after
        self.start(())

    def start(self, found: Sequence[Finder | TaskFinder | SyntaxFinder]) -> None:
        """What is ahead: the search for these kinds, then what is behind it."""
        self.stages = [*_stages(found), *self.after]
        self.at, self.done = 0, [0.0] * len(self.stages)

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self.say is None:
            return
        names = [name for name, _ in self.stages]
        if stage in names[self.at :]:
            self.at = names.index(stage, self.at)
            self.done[self.at] = max(self.done[self.at], done / max(total, 1))
            costs = [cost for _, cost in self.stages]
            worked = sum(cost * share for cost, share in zip(costs, self.done, strict=True))
            left = sum(costs[self.at + 1 :]) + costs[self.at] * (1 - self.done[self.at])
            self.say(WHOLE, round(1000 * worked), round(1000 * (worked + left)))
        self.say(stage, done, total)


def _stages(found: Sequence[Finder | TaskFinder | SyntaxFinder]) -> list[tuple[str, float]]:
    """The stages that `find_heads` goes through for some kinds, in its order, as it names them."""
    groups: dict[Any, list[Any]] = {}
    for one in found:
        key = (one.heading, one.corruptions) if isinstance(one, TaskFinder) else type(one).__name__
        groups.setdefault(key, []).append(one)
    stages: list[tuple[str, float]] = []
    for key, group in groups.items():
        if isinstance(group[0], SyntaxFinder):
            stages += zip(group[0].stages, (_ATTENTION, _TEST), strict=True)
            continue
        if isinstance(group[0], Finder):
            stages += [(f"attention: {data}", _ATTENTION) for data in dict.fromkeys(one.data for one in group)]
            causes = dict.fromkeys(one.cause for one in group)
            stages += [(f"ablating heads: {CAUSES[cause].metric}", _TEST) for cause in causes]
            continue
        task, longer = key[0], _LONGER.get(group[0].task, 1.0)
        stages.append((f"{task}: attention", _ATTENTION * longer))
        for test in dict.fromkeys(one.test for one in group):
            stages.append((f"{task}: {test.label}", _TEST * longer))
            named = [name for one in group if one.test is test for name in one.tables]
            stages += [(f"{task}: {name}", _TABLE * longer) for name in named]
        stages.append((f"{task}: {BY_CORRUPTION}", _TABLE * longer * len(group[0].corruptions)))
    return stages
