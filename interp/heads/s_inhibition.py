"""S-inhibition heads: from the end they attend to the second mention of the subject, and through the queries of the
name movers keep these from it (Wang 2022, §3.2)."""

from __future__ import annotations

from interp.heads.ioi import CORRUPTIONS, attends_to_s2, find_movers, path_to_movers
from interp.heads.study import END, Study
from interp.heads.task_finder import TaskFinder, Test

__all__ = ["FINDER"]


def _needs_movers(study: Study) -> str:
    return "" if study.memo.get("movers") else "no name mover was found to receive from"


FINDER = TaskFinder(
    name="s_inhibition",
    definition="mean attention from the end to the second mention of the subject",
    task="ioi",
    corruptions=CORRUPTIONS,
    positions=("IO", "S1", "S2"),
    queries=(END,),
    behaviour=attends_to_s2,
    score_cutoff=0.3,
    test=Test(
        "logit difference IO − S by the direct path into the queries of name movers, from the ABC prompt",
        path_to_movers,
        ("path",),
        (),
        needs=_needs_movers,
    ),
    prepare=find_movers,
)
