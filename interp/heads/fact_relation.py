"""Relation heads of facts: from the end they attend to the relation and raise its answers as a class, whoever is asked
about (Chughtai 2024, §4.2). They are judged by prompts with another relation; a subject exchanged leaves them be."""

from __future__ import annotations

import numpy as np

from interp.heads.facts import MARGIN, attribute_logit, class_logit, even_share, mixed
from interp.heads.study import END, Study
from interp.heads.task_finder import Behaviour, TaskFinder, TaskWriting, Test
from interp.heads.ways import exchanges

__all__ = ["FINDER"]

_LEAST = 0.5  # logits: a head that only brings the relation to others writes next to nothing of it, but not 0


def _attends(study: Study) -> Behaviour:
    """END→relation, with END→subject beside it."""
    beside = {"attention_to_subject": study.attention(END, "subject")}
    return Behaviour(study.attention(END, "relation"), beside, {"even": even_share(study, "relation")})


def _roles(study: Study) -> np.ndarray:
    """Whether the head moves the subject's attribute too."""
    return mixed(study, class_logit(study, "relation"), attribute_logit(study, "subject"), "relation")


def _class(study: Study) -> np.ndarray:
    return class_logit(study, "relation")


FINDER = TaskFinder(
    name="fact_relation",
    definition="mean attention from the end to the relation",
    task="fact_recall",
    corruptions=("relation", "subject", "nonce"),
    positions=("subject", "relation"),
    queries=(END,),
    behaviour=_attends,
    score_cutoff=0.2,
    margin=MARGIN,
    writing=TaskWriting(
        "direct logit of the relation's answers, less that of other relations', moved from it", _class, cutoff=_LEAST
    ),
    test=Test(
        "score of the fact, head exchanged with another relation's",
        exchanges,
        ("noise", "denoise"),
        ("mean", "resample"),
    ),
    role=_roles,
    changes="relation",
    heading="fact_recall by relation",
)
