"""Name movers: from the end they attend to the name said once, and raise it (Wang 2022, §3.1)."""

from __future__ import annotations

from interp.heads.ioi import CORRUPTIONS, EXCHANGE, MOVER_CUTOFF, attends_to_io, moved_name
from interp.heads.study import END
from interp.heads.task_finder import TaskFinder, TaskWriting

__all__ = ["FINDER"]

FINDER = TaskFinder(
    name="name_mover",
    definition="mean attention from the end to the indirect object, the name said once",
    task="ioi",
    corruptions=CORRUPTIONS,
    positions=("IO", "S1", "S2"),
    queries=(END,),
    behaviour=attends_to_io,
    score_cutoff=MOVER_CUTOFF,
    writing=TaskWriting("direct logit of IO from IO, less the mean over names", moved_name),
    test=EXCHANGE,
)
