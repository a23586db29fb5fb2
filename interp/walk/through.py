"""`interp.walkthrough`: from who looks at the subject to what writes the answer, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pandas as pd

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results.walkthrough import Walkthrough
from interp.walk import flow, movers, whole
from interp.walk.setting import Outcome, Setting, Step, make_setting

__all__ = ["walkthrough"]

_STEPS: tuple[tuple[str, Callable[[Setting], Step]], ...] = (
    ("The model says it, because of the subject", flow.behaviour),
    ("It first stands at the subject", flow.early),
    ("Early MLPs at the subject write it", flow.memory),
    ("It has moved to the last token", flow.late),
    ("Heads bring it to the last token", movers.heads),
    ("The head looks at the subject", movers.reads_subject),
    ("Why it looks there: the key", movers.key_match),
    ("Why it looks there: the query", movers.query_match),
    ("So the match makes the answer", movers.looking_decides),
    ("The head writes the answer", movers.writes),
    ("A head works against it", movers.objectors),
    ("Later MLPs at the last token read it", movers.later_mlps),
    ("The answer becomes readable there", whole.readable),
    ("The heads named are the whole way", whole.all_movers),
    ("The heaviest edges are the ones that count", whole.graph),
)


def walkthrough(
    model: HookedTransformer,
    text: str = "The capital of France is",
    answer: Any = " Paris",
    foil: Any = " London",
    corrupt: str = "The capital of England is",
    *,
    others: PromptPairs | Literal["capitals"] | None = None,
    n: int = 16,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Walkthrough:
    """From who looks at the subject to what writes the answer: at each step a claim, an intervention, a verdict.

    `corrupt` is the text with another subject, as long in tokens, whose answer is `foil`; where the two texts differ
    is the subject. `others` are prompts that test what was seen on this one: PromptPairs with single-token answers and
    foils and a position "subject", or "capitals": `n` countries of the task fact_recall, whose capital is one token and
    known to the model. Verdicts ask for at least the stated size, with an interval over the others above 0.

    For a decoder with a tokenizer. Cost: three exact sweeps (residual, heads, sets) and some passes per prompt.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 2:
        raise InputError(f"n is {n!r}. Give a number of other prompts, 2 or more.")
    at = make_setting(model, text, answer, foil, corrupt, others, n, seed)
    rows, details = [], []
    for number, (title, make) in enumerate(_STEPS, start=1):
        if progress is not None:
            progress(title, number - 1, len(_STEPS))
        try:
            step = make(at)
        except InputError as error:  # a step that this model or prompt does not allow
            step = Step(title, title, "none", Outcome(float("nan")), float("nan"), "share", f"Not measured: {error}")
        rows.append(step.row(number))
        details += [{"step": number, **one} for one in step.details]
    if progress is not None:
        progress("done", len(_STEPS), len(_STEPS))
    columns = ["step", "what", "place", "value", "mean"]
    return Walkthrough(
        pd.DataFrame(rows), pd.DataFrame(details, columns=columns), {**at.about, "movers": at.found.get("movers", [])}
    )
