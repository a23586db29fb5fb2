"""What the kinds that serve indirect objects share (Wang 2022): how they attend from END, and who moves the name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from interp.causal.ablation import ablate
from interp.causal.attribution import attribute
from interp.causal.paths import path_patch
from interp.heads.ablation import HeadSet
from interp.heads.study import END, Study
from interp.heads.task_finder import Behaviour, Test
from interp.heads.ways import Harm, Report, exchanges, part, shares
from interp.sites import Head

__all__ = [
    "CORRUPTIONS",
    "EXCHANGE",
    "KNOCKOUTS",
    "MOVER_CUTOFF",
    "N_MOVERS",
    "attends_to_io",
    "attends_to_s2",
    "beyond_movers",
    "direct_difference",
    "find_movers",
    "moved_name",
    "path_to_movers",
]

Grid = NDArray[np.floating]
KNOCKOUTS = ("mean", "zero")
CORRUPTIONS = ("abc", "swap", "third_name")
MOVER_CUTOFF = 0.3
N_MOVERS = 4
EXCHANGE = Test(
    "logit difference IO − S, head exchanged with the ABC prompt's",
    exchanges,
    ("noise", "denoise"),
    ("mean", "resample"),
)


def attends_to_io(study: Study) -> Behaviour:
    """END→IO, with END→S1 and S2 together beside it: a mover looks at the name said once, not at any name."""
    to_subject = study.attention(END, "S1") + study.attention(END, "S2")
    return Behaviour(study.attention(END, "IO"), {"attention_to_S": to_subject})


def attends_to_s2(study: Study) -> Behaviour:
    """END→S2, with END→IO beside it."""
    return Behaviour(study.attention(END, "S2"), {"attention_to_IO": study.attention(END, "IO")})


def moved_name(study: Study) -> Grid:
    """What a head moves from IO to END adds to the logit of IO, less its mean over the task's names."""
    names = study.about.get("names") or {one for both in (study.answers, study.foils) for some in both for one in some}
    return study.writes(END, "IO", up=study.answers, down=[sorted(names)] * len(study.main))


def direct_difference(study: Study) -> Grid:
    """What a head adds to IO − S at END directly."""
    return study.writes(END, up=study.answers, down=study.foils)


def find_movers(study: Study) -> tuple[Head, ...]:
    """At most four heads that attend END→IO by .3, raise the name they attend to, and whose exchange harms the task
    (to first order): the strongest by that. Found on the selecting prompts."""
    if "movers" not in study.memo:
        effects = attribute(
            study.model, study.main, "z", over=("layer", "head"), direction="noise", metric=study.metric
        )
        harm = -effects.mean().values
        score = np.nanmean(study.attention(END, "IO"), axis=0)
        written = np.nanmean(moved_name(study), axis=0)
        fitting = np.argwhere((score >= MOVER_CUTOFF) & (written > 0) & (harm > 0)).tolist()
        fitting.sort(key=lambda at: -harm[tuple(at)])
        stack = study.model.main.name
        study.memo["movers"] = tuple(Head(layer, head, "attn", stack) for layer, head in fitting[:N_MOVERS])
    return study.memo["movers"]


def path_to_movers(study: Study, sets: Sequence[HeadSet], seed: int, report: Report | None = None) -> Harm:
    """Harm of each set by its direct path into the queries of the name movers."""
    movers = study.memo["movers"]
    known = study.memo.setdefault("harm:path", {})
    if new := [one for one in dict.fromkeys(sets) if one not in known]:
        last = max(head.layer for head in movers)
        before = [one for one in new if min(head.layer for head in one) < last]
        known.update({one: np.zeros(len(study.main)) for one in new if one not in before})  # no path leads there
        if before:
            effects = path_patch(
                study.model,
                study.main,
                [list(one) for one in before],
                [f"{head}.q" for head in movers],
                metric=study.metric,
                progress=False if report is None else report,
            )
            known.update(shares(study, effects, before))
    return {"path": {one: known[one] for one in sets}}


def beyond_movers(study: Study, sets: Sequence[HeadSet], seed: int, report: Report | None = None) -> Harm:
    """What ablating each set costs more once the name movers are ablated too than by itself."""
    movers, found = study.memo["movers"], {}
    joint = {one: tuple(dict.fromkeys((*movers, *one))) for one in sets}
    for number, how in enumerate(KNOCKOUTS):
        wanted = list(dict.fromkeys([movers, *sets, *joint.values()]))
        effects = ablate(
            study.model,
            study.main,
            [list(one) for one in wanted],
            how,
            metric=study.metric,
            progress=part(report, number, len(KNOCKOUTS)),
        )
        harm = shares(study, effects, wanted)
        found[f"backup_{how}"] = {
            one: harm[whole] - harm[movers] - (0.0 if set(one) <= set(movers) else harm[one])
            for one, whole in joint.items()
        }
    return found
