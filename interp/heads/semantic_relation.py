"""Semantic relation heads: a word attends to the word that it is related to, more than to an unrelated one in the same
place, and what the head moves from there raises the related word (Ren 2024)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.heads.facts import other_answers
from interp.heads.study import END, Study
from interp.heads.task_finder import Behaviour, TaskFinder, TaskWriting, Test
from interp.heads.ways import exchanges

__all__ = ["FINDER", "attention_gained"]

CUE, RELATED = "cue", "related"
Grid = NDArray[np.floating]


def attention_gained(study: Study) -> tuple[Grid, Grid]:
    """Attention from the related word to the cue where the two are related, and where the cue is another one,
    `[prompt layer head]`."""
    if "mismatched" not in study.memo:
        other = replace(study, pairs={study.corruption: study.main.swapped()}, memo={})
        study.memo["mismatched"] = other.attention(RELATED, CUE)
    return study.attention(RELATED, CUE), study.memo["mismatched"]


def _attends(study: Study) -> Behaviour:
    """What the relation adds to the attention; beside it both parts, and attention from where the word is still to
    come."""
    related, mismatched = attention_gained(study)
    beside = {"attention": related, "attention_mismatched": mismatched, "attention_from_END": study.attention(END, CUE)}
    return Behaviour(related - mismatched, beside)


def _moved(study: Study) -> Grid:
    """What a head moves from the cue to END, where the related word is still to come, adds to its logit, less the mean
    over the relation's other words."""
    return study.writes(END, CUE, up=study.answers, down=other_answers(study))


def _by_relation(study: Study) -> pd.DataFrame:
    """Each head's score on each relation alone, the best over all relations first. Empty without named relations."""
    relations = np.array(study.labels.get("relation", ()))
    if not len(relations):
        return pd.DataFrame()
    related, mismatched = attention_gained(study)
    gained = related - mismatched
    whole = np.nanmean(gained, axis=0)
    layers, heads = np.nonzero(~np.isnan(whole))
    table = pd.DataFrame({"layer": layers, "head": heads, "all": whole[layers, heads]})
    for name in dict.fromkeys(relations.tolist()):
        mine = relations == name
        by_item = np.stack(
            [gained[mine & (study.items == item)].mean(axis=0) for item in dict.fromkeys(study.items[mine])]
        )
        table[name] = by_item.mean(axis=0)[layers, heads]
        table[f"{name}: items"] = len(by_item)
    return table.sort_values("all", ascending=False, kind="stable").reset_index(drop=True)


FINDER = TaskFinder(
    name="semantic_relation",
    definition="attention from a word to the word it is related to, less that to an unrelated word in its place",
    task="related_words",
    corruptions=("mismatched",),
    positions=(CUE, RELATED),
    queries=(RELATED, END),
    behaviour=_attends,
    score_cutoff=0.05,  # a twentieth of all attention, because of the relation alone
    writing=TaskWriting("direct logit of the related word from the cue, less the mean over its relation", _moved),
    test=Test(
        "logit difference of the related word, head exchanged with that of another cue's prompt",
        exchanges,
        ("noise", "denoise"),
        ("mean", "resample"),
    ),
    tables={"semantic_relation: attention gained by relation": _by_relation},
)
