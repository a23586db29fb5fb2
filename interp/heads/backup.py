"""Backup name movers: their direct effect appears once the name movers are knocked out (Wang 2022, §3.4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from interp.heads.ioi import CORRUPTIONS, KNOCKOUTS, beyond_movers, direct_difference, find_movers
from interp.heads.study import END, Study
from interp.heads.task_finder import Behaviour, TaskFinder, Test
from interp.heads.ways import distance

__all__ = ["FINDER"]


def _rise(study: Study) -> Behaviour:
    """The rise of each head's direct effect as a share of clean − corrupt, the mean of that under both knockouts; each
    by itself, and attention to IO before and after, beside it."""
    movers = study.memo.get("movers", ())
    if not movers:
        nothing = np.full_like(study.attention(END, "IO"), np.nan)
        return Behaviour(nothing, problem="no name mover was found to knock out")
    beside: dict[str, NDArray[np.floating]] = {"attention_to_IO": study.attention(END, "IO")}
    for by in KNOCKOUTS:
        without = study.without(movers, by)
        rise = (direct_difference(without) - direct_difference(study)) / distance(study)
        for head in movers:
            rise[:, head.layer, head.head] = np.nan  # what is knocked out cannot back itself up
        beside |= {f"rise_{by}": rise, f"attention_to_IO_{by}": without.attention(END, "IO")}
    return Behaviour((beside["rise_zero"] + beside["rise_mean"]) / 2, beside)


def _needs_movers(study: Study) -> str:
    return "" if study.memo.get("movers") else "no name mover was found to knock out"


FINDER = TaskFinder(
    name="backup",
    definition="rise of the direct effect on IO − S, as a share of clean − corrupt, once the name movers are knocked "
    "out: by zero and by their mean over corrupt prompts, averaged",
    task="ioi",
    corruptions=CORRUPTIONS,
    positions=("IO", "S1", "S2"),
    queries=(END,),
    behaviour=_rise,
    score_cutoff=0.05,
    test=Test(
        "logit difference IO − S lost beyond the head's own when the name movers are ablated too",
        beyond_movers,
        ("backup_mean", "backup_zero"),
        (),
        needs=_needs_movers,
        word="movers set to zero",
    ),
    prepare=find_movers,
)
