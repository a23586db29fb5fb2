"""Agreement heads: where a verb is to come they attend to its subject rather than to another noun, and write the form
that agrees with the subject's number (Finlayson 2021; Linzen 2016)."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.heads.shares import share_above_zero
from interp.heads.study import END, Study
from interp.heads.task_finder import Behaviour, TaskFinder, TaskWriting, Test
from interp.heads.ways import baseline, exchanges
from interp.tasks.load import load as load_task
from interp.tasks.measure import values_of

__all__ = ["ACCURACY", "CHANCE", "FINDER"]

Grid = NDArray[np.floating]
SUBJECT, ATTRACTOR = "subject", "attractor"
ACCURACY = "agreement: accuracy by condition"
CHANCE = 0.5


def _attends(study: Study) -> Behaviour:
    """END→subject less END→attractor, with both beside it."""
    to_subject, to_attractor = (study.attention(END, name) for name in (SUBJECT, ATTRACTOR))
    beside = {"attention_to_subject": to_subject, "attention_to_attractor": to_attractor}
    return Behaviour(to_subject - to_attractor, beside)


def _number(study: Study) -> Grid:
    """What a head moves from the subject to END adds to the right form over the wrong one."""
    return study.writes(END, SUBJECT, up=study.answers, down=study.foils)


def _accuracy(study: Study) -> pd.DataFrame:
    """How often the right form is the likelier of the two, on all prompts of the split: by condition and whether the
    attractor has the subject's number, and within each by opening, number and verb. "cannot tell" where the interval
    holds what a coin would give."""
    values, labels, items = _all_prompts(study)
    if "condition" not in labels:
        return pd.DataFrame([{"condition": "the pairs given", "of": "all", **_row(values, items)}])
    groups = list(zip(labels["condition"], labels["congruence"], strict=True))
    rows: list[dict[str, Any]] = []
    for condition, congruence in dict.fromkeys(groups):
        mine = np.array([group == (condition, congruence) for group in groups])
        for of, chosen in ({"all": mine} | _parts(labels, mine)).items():
            rows.append(
                {
                    "condition": condition,
                    "congruence": congruence,
                    "of": of,
                    **_row(values[chosen], items[chosen]),
                }
            )
    return pd.DataFrame(rows)


def _parts(labels: Any, mine: NDArray) -> dict[str, NDArray]:
    """The prompts of each opening, number and verb among some, and of each number behind each opening."""
    columns = {name: np.array(labels[name]) for name in ("opening", "number", "verb")}
    found = {str(value): mine & (column == value) for column in columns.values() for value in dict.fromkeys(column)}
    both = product(dict.fromkeys(columns["opening"]), dict.fromkeys(columns["number"]))
    found |= {f"{a}, {b}": mine & (columns["opening"] == a) & (columns["number"] == b) for a, b in both}
    return {of: chosen for of, chosen in found.items() if chosen.any()}


def _row(values: Grid, items: NDArray) -> dict[str, Any]:
    found = share_above_zero(values, items, "accuracy")
    low, high = found["accuracy_low"], found["accuracy_high"]
    return {**found, "verdict": "above chance" if low > CHANCE else "below chance" if high < CHANCE else "cannot tell"}


def _all_prompts(study: Study) -> tuple[Grid, Any, NDArray]:
    """The metric, the labels and the items of every prompt of the split, of which a study has the tested ones."""
    about = study.about
    if "condition" not in study.labels or "seed" not in about:
        return baseline(study)[0], study.labels, study.items
    split = str(study.labels["split"][0])
    options = {"split": split, "n": about["n"], "seed": about["seed"], "bos": about["bos"]}
    task = load_task("agreement", study.model, study.corruption, **options)
    return values_of(task, study.model), task.labels, np.array(task.items)


FINDER = TaskFinder(
    name="agreement",
    definition="mean attention from the end, where the verb is to come, to its subject, less that to the attractor",
    task="agreement",
    corruptions=("subject", "attractor"),
    positions=(SUBJECT, ATTRACTOR),
    queries=(END,),
    behaviour=_attends,
    score_cutoff=0.05,
    writing=TaskWriting("direct logit of the right form over the wrong one, moved from the subject", _number),
    test=Test(
        "logit difference right form − wrong form, head exchanged with that of the other number's prompt",
        exchanges,
        ("noise", "denoise"),
        ("mean", "resample"),
    ),
    tables={ACCURACY: _accuracy},
    changes=SUBJECT,
)
