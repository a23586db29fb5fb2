"""Retrieval heads: while the model writes words out of its context, they look hardest at the very one that it writes
(Wu 2024, §2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from interp.causal.knockout import knockout
from interp.heads.ablation import HeadSet
from interp.heads.study import END, Study
from interp.heads.task_finder import Behaviour, TaskFinder, TaskWriting, Test
from interp.heads.ways import Harm, Report, distance, ways

__all__ = ["FINDER", "copied_places"]

NEEDLE, READ = "needle", "read"  # "read" is END, whether or not the pairs name it
Grid = NDArray[np.floating]


def _retrieves(study: Study) -> Behaviour:
    """Whether the token that END attends to most is the needle's that is written next; beside it the same among all
    tokens but the first, and the plain attention to it and to the whole needle."""
    places = copied_places(study)
    found = {}
    for name, first in (("score", True), ("without_first", False)):
        strongest = study.looks_at(END, first=first)
        hit = np.stack([np.isin(one, places[i]) for i, one in enumerate(strongest)]).astype(float)
        found[name] = np.where(strongest < 0, np.nan, hit)
    beside = {"without_first": found["without_first"], "attention_to_needle": study.attention(END, NEEDLE)}
    if "copied" in study.main.positions:
        beside["attention"] = study.attention(END, "copied")
    return Behaviour(found["score"], beside)


def copied_places(study: Study) -> list[list[int]]:
    """Where each prompt's needle holds a token that begins an answer."""
    rows = enumerate(zip(study.main.clean, study.answers, strict=True))
    return [[at for at in study.span(NEEDLE, i) if row[at] in answers] for i, (row, answers) in rows]


def _copied(study: Study) -> Grid:
    """What a head moves from the needle to END adds to the logit of the next word, less the mean over the prompt's
    tokens."""
    others = [sorted(set(row) - set(answers)) for row, answers in zip(study.main.clean, study.answers, strict=True)]
    return study.writes(END, NEEDLE, up=study.answers, down=others)


def _exchange(study: Study, sets: Sequence[HeadSet], seed: int, report: Report | None = None) -> Harm:
    """Exchanges at END."""
    return ways(study, sets, seed, report, measures=("noise", "denoise"), at={"pos": READ})


def _ablate_and_cut(study: Study, sets: Sequence[HeadSet], seed: int, report: Report | None = None) -> Harm:
    """Ablations at END too, and the edge from END to the needle cut."""
    found = ways(study, sets, seed, report, measures=("mean", "resample"), at={"pos": READ})
    found["knockout"] = _cut(study, sets)
    return found


def _cut(study: Study, sets: Sequence[HeadSet]) -> dict[HeadSet, Grid]:
    """Harm of cutting the edge from END to the needle in each single head; sets are not cut."""
    heads = list(dict.fromkeys(one[0] for one in sets if len(one) == 1))
    if not heads:
        return {}
    effects = knockout(
        study.model,
        study.main,
        queries=READ,
        keys=NEEDLE,
        heads=[str(head) for head in heads],
        over=("layer", "head"),
        metric=study.metric,
        progress=False,
    )
    harm = -effects.values / distance(study)
    return {(head,): harm.sel(layer=head.layer, head=head.head).values for head in heads}


FINDER = TaskFinder(
    name="retrieval",
    definition="share of written words at which END attends most to the needle's token that is written next",
    task="retrieval",
    corruptions=("value", "needle"),
    positions=(NEEDLE,),
    queries=(END,),
    behaviour=_retrieves,
    score_cutoff=0.1,  # Wu's
    writing=TaskWriting(
        "direct logit of the next word from the needle, less the mean over the prompt's tokens", _copied
    ),
    test=Test(
        "logit difference of the needle's word, head exchanged at END with that of a prompt whose needle says others",
        _exchange,
        ("noise", "denoise"),
        ("mean", "resample", "knockout"),
        beside=_ablate_and_cut,
        exchanged_at=READ,
    ),
)
