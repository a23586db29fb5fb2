"""Coreference heads: from a mention they attend to its antecedent (Clark 2019, §4.3), in whatever order the two stand.

A head that attends to the nearest noun looks perfect on prompts whose antecedent is near. So the choice between
antecedent and distractor is balanced over both orders, where "nearest" and "first" are right half of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.causal.knockout import knockout
from interp.heads.ablation import HeadSet
from interp.heads.study import Study
from interp.heads.task_finder import Behaviour, TaskFinder, TaskWriting, Test
from interp.heads.ways import Harm, Report, distance, ways

__all__ = ["FINDER"]

PRONOUN, ANTECEDENT, DISTRACTOR = "pronoun", "antecedent", "distractor"
Grid = NDArray[np.floating]


def _choice(study: Study) -> Behaviour:
    """Whether the pronoun attends more to the antecedent than to the distractor; both orders count alike."""
    to_antecedent = study.attention(PRONOUN, ANTECEDENT)
    chosen = (to_antecedent > study.attention(PRONOUN, DISTRACTOR)).astype(float)
    chosen[np.isnan(to_antecedent)] = np.nan
    first = np.array([_start(study, ANTECEDENT, i) < _start(study, DISTRACTOR, i) for i in range(len(chosen))])
    weight, problem = _weights(study.items, first)
    beside = {
        "antecedent_first": np.where(first[:, None, None], chosen, np.nan),
        "antecedent_second": np.where(first[:, None, None], np.nan, chosen),
        "attention": to_antecedent,
    }
    return Behaviour(chosen * weight[:, None, None], beside, _rules(study, weight), problem)


def _weights(items: np.ndarray, first: np.ndarray) -> tuple[Grid, str]:
    """Weights of prompts under which means over items' means count both orders alike: within each item that holds
    both, and between the items that hold one; and why they cannot, if so."""
    weight, alone = np.ones(len(items)), {True: [], False: []}
    for item in dict.fromkeys(items.tolist()):
        mine = items == item
        orders = [mine & one for one in (first, ~first) if (mine & one).any()]
        if len(orders) == 1:
            alone[bool(first[mine][0])].append(item)
        for one in orders:
            weight[one] = mine.sum() / (len(orders) * one.sum())
    n_alone = {order: len(some) for order, some in alone.items()}
    if bool(n_alone[True]) != bool(n_alone[False]):
        return weight, "the antecedent of some items always stands on one side, so a nearest-noun head would pass"
    for order, some in alone.items():
        weight[np.isin(items, some)] *= sum(n_alone.values()) / (2 * max(n_alone[order], 1))
    return weight, ""


def _rules(study: Study, weight: Grid) -> dict[str, float]:
    """What rules without any head would score."""
    places = [(_start(study, ANTECEDENT, i), _start(study, DISTRACTOR, i)) for i in range(len(weight))]
    at = [_start(study, PRONOUN, i) for i in range(len(weight))]
    right = {
        "nearest": [abs(p - a) < abs(p - d) for (a, d), p in zip(places, at, strict=True)],
        "first": [a < d for a, d in places],
    }
    if "subject" in study.main.positions:
        right["subject"] = [_start(study, "subject", i) == a for i, (a, _) in enumerate(places)]
    scores = {name: study.by_item(np.array(one, dtype=float)[:, None] * weight[:, None]) for name, one in right.items()}
    return {name: float(one.mean()) for name, one in scores.items()}


def _start(study: Study, name: str, prompt: int) -> int:
    return study.span(name, prompt)[0]


def _exchange(study: Study, sets: Sequence[HeadSet], seed: int, report: Report | None = None) -> Harm:
    """Exchanges at the pronoun."""
    return ways(study, sets, seed, report, measures=("noise", "denoise"), at={"pos": PRONOUN})


def _ablate_and_cut(study: Study, sets: Sequence[HeadSet], seed: int, report: Report | None = None) -> Harm:
    """Ablations everywhere, and the edge from pronoun to antecedent cut."""
    found = ways(study, sets, seed, report, measures=("mean", "resample"))
    found["knockout"] = _cut(study, sets, study.metric)
    if isinstance(study.metric, str):
        gap = distance(study)  # in logits, not as a share
        found["carried"] = {one: harm * gap for one, harm in _cut(study, sets, _answer_alone(study)).items()}
    return found


def _answer_alone(study: Study) -> str:
    """The metric of the antecedent by itself: its logit, or its log-probability where it is several tokens."""
    return "logit" if study.metric == "logit_diff" else "log_prob"


def _cut(study: Study, sets: Sequence[HeadSet], metric: Any) -> dict[HeadSet, Grid]:
    """Harm of cutting the edge from pronoun to antecedent in each set of heads."""
    name = metric if isinstance(metric, str) else metric.name
    known: dict[HeadSet, Grid] = study.memo.setdefault(f"harm:knockout:{name}", {})
    new = [one for one in dict.fromkeys(sets) if one not in known]
    options = {"queries": f"{PRONOUN}:last", "keys": ANTECEDENT, "metric": metric, "progress": False}
    if singles := [one[0] for one in new if len(one) == 1]:
        heads = [str(head) for head in singles]
        effects = knockout(study.model, study.main, heads=heads, over=("layer", "head"), **options)
        for head in singles:
            known[(head,)] = _share(study, effects.values.sel(layer=head.layer, head=head.head).values)
    for one in (one for one in new if len(one) > 1):
        effects = knockout(study.model, study.main, heads=[str(head) for head in one], over=(), **options)
        known[one] = _share(study, effects.values.values)
    return {one: known[one] for one in sets}


def _share(study: Study, values: Grid) -> Grid:
    return -values / distance(study)


FINDER = TaskFinder(
    name="coreference",
    definition="share of prompts whose pronoun attends more to its antecedent than to the other mention, both orders "
    "counted alike",
    task="coreference",
    corruptions=("pronoun", "antecedent"),
    positions=(PRONOUN, ANTECEDENT, DISTRACTOR),
    queries=(PRONOUN,),
    behaviour=_choice,
    score_cutoff=0.7,
    margin=0.1,
    writing=TaskWriting("logit of the antecedent that is lost when the edge to it is cut", tested="carried"),
    test=Test(
        "score of the resolution, head exchanged at the pronoun",
        _exchange,
        ("noise", "denoise"),
        ("mean", "resample", "knockout"),
        beside=_ablate_and_cut,
        exchanged_at=PRONOUN,
    ),
    applies_to=frozenset({"decoder", "encoder"}),
)
