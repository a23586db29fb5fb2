"""In-context heads: where context and memory disagree they raise the context's answer (Yu 2023; Jin 2024). They are
judged against prompts whose context says what is remembered."""

from __future__ import annotations

from interp.heads.conflict import OBJECT, POSITIONS, SHARES, context_over_memory, exchanged, pushes, shares
from interp.heads.study import END, Study
from interp.heads.task_finder import Behaviour, TaskFinder, TaskWriting

__all__ = ["FINDER"]


def _attends(study: Study) -> Behaviour:
    """END→context object, with END→subject beside it."""
    return Behaviour(study.attention(END, OBJECT), {"attention_to_subject": study.attention(END, "subject")})


FINDER = TaskFinder(
    name="in_context",
    definition="mean attention from the end to what the context says; no least one is asked for",
    task="conflict",
    corruptions=("consistent", "irrelevant", "unknown"),
    positions=POSITIONS,
    queries=(END,),
    behaviour=_attends,
    score_cutoff=None,
    writing=TaskWriting("direct logit of the context's answer over the memory's", context_over_memory),
    test=exchanged("consistent"),
    tables={SHARES: shares, "conflict: which answer heads push": pushes},
    changes=OBJECT,
)
