"""Copy suppression: attending to a token that the text suggests as a copy, and lowering it (McDougall 2023)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from interp.heads.study import END, Study
from interp.heads.task_finder import Behaviour, TaskFinder, TaskWriting, Test
from interp.heads.ways import exchanges

__all__ = ["FINDER"]


def _attends(study: Study) -> Behaviour:
    return Behaviour(study.attention(END, "copies"))


def _copied(study: Study) -> NDArray[np.floating]:
    """What a head moves from the copies to END adds to their logit, less the mean over the prompt's tokens."""
    others = [sorted(set(row)) for row in study.main.clean]
    return study.writes(END, "copies", up=study.answers, down=others)


FINDER = TaskFinder(
    name="copy_suppression",
    definition="mean attention to the tokens that followed earlier copies of the last one and are suggested by them",
    task="natural_copies",
    corruptions=("replaced",),
    positions=("copies",),
    queries=(END,),
    behaviour=_attends,
    score_cutoff=0.2,
    writing=TaskWriting("direct logit of the copy, less the mean over the prompt's tokens", _copied, "<"),
    test=Test(
        "log-probability of the copy, head exchanged with that of a text that does not suggest it",
        exchanges,
        ("noise", "denoise"),
        ("mean", "resample"),
    ),
    needs_foil=False,
    either_way=True,  # a suppressed copy may be less likely than the word in its place
    sign=-1,  # without such a head the copy is likelier
)
