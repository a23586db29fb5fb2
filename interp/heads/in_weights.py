"""In-weights heads: where context and memory disagree they raise what is remembered (Yu 2023; Jin 2024). They are
judged against prompts about a subject that nothing is remembered of; without them the context wins by more."""

from __future__ import annotations

from interp.heads.conflict import OBJECT, POSITIONS, context_over_memory, exchanged, pushes
from interp.heads.study import END, Study
from interp.heads.task_finder import Behaviour, TaskFinder, TaskWriting

__all__ = ["FINDER"]

_HEADING = "conflict by subject"


def _attends(study: Study) -> Behaviour:
    """END→subject, with END→context object beside it."""
    return Behaviour(study.attention(END, "subject"), {"attention_to_context": study.attention(END, OBJECT)})


FINDER = TaskFinder(
    name="in_weights",
    definition="mean attention from the end to the subject that is asked about; no least one is asked for",
    task="conflict",
    corruptions=("unknown", "consistent", "irrelevant"),
    positions=("subject", *(name for name in POSITIONS if name != "subject")),  # what it reads first
    queries=(END,),
    behaviour=_attends,
    score_cutoff=None,
    writing=TaskWriting("direct logit of the context's answer over the memory's", context_over_memory, "<"),
    test=exchanged("unknown"),
    sign=-1,  # without such a head the context's answer gains
    either_way=True,  # where nothing is remembered the context's answer gains too
    tables={f"{_HEADING}: which answer heads push": pushes},
    changes="subject",
    heading=_HEADING,
)
