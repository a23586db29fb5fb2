"""The contract of a finder that works on a task: where its kind of head looks from named positions, what it writes
there, and what the task loses or regains when the head is exchanged or ablated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from interp.errors import InputError
from interp.heads.ablation import HeadSet
from interp.heads.study import Study
from interp.heads.ways import Harm, Report, four_ways
from interp.model.kinds import KINDS_IN_WORDS, AttentionKind, attention_kind
from interp.model.transformer import HookedTransformer

__all__ = ["NOTHING", "Behaviour", "TaskFinder", "TaskWriting", "Test"]

Grid = NDArray[np.floating]
Measure = Callable[[Study, Sequence[HeadSet], int, Report], Harm]
NOTHING = 1e-6  # logits


@dataclass(frozen=True)
class Behaviour:
    """A kind's attention score `[prompt layer head]`, and more numbers of the same shape to be shown beside it, by the
    column's name. `baselines` are scores that need no head, by name; the best of them is to be beaten."""

    score: Grid
    beside: Mapping[str, Grid] = field(default_factory=dict)
    baselines: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""  # why the score cannot be trusted on these prompts, if so


@dataclass(frozen=True)
class TaskWriting:
    """What a head writes, as one number `[prompt layer head]`, and on which side of the cutoff it is the kind's.
    `tested` names a measure of the kind's test that says it, where only an intervention can; heads that were not tested
    then have none."""

    label: str
    measure: Callable[[Study], Grid] | None = None
    side: Literal["≥", "<"] = "≥"
    cutoff: float = 0.0
    tested: str = ""

    def passes(self, value: float, cutoff: float) -> bool:
        """Whether a measured value is on the right side; what is nothing but rounding never is, nor what is absent."""
        return bool((value >= cutoff if self.side == "≥" else value < cutoff) and abs(value) > NOTHING)


@dataclass(frozen=True)
class Test:
    """How the cause of some sets of heads is measured, as shares of the metric's distance between the clean and the
    corrupt prompts. `measure` gives the decisive ones by name. One of them has to pass by size, excess over controls
    and p (corrected for their number): the first shows what is necessary, and then one of `supporting` must reach the
    cutoff too; a second one what is sufficient, which ablation cannot show where others back a head up. `beside` gives
    the supporting ones, and whatever else is to be shown, of the candidates only: no control is needed there."""

    label: str
    measure: Measure
    decisive: tuple[str, ...]
    supporting: tuple[str, ...]
    beside: Measure = four_ways
    needs: Callable[[Study], str] | None = None  # why it cannot be measured, or ""
    word: str = "sufficient"  # behind the kind's name, where only the second of the decisive measures passes
    exchanged_at: str = ""  # the named position where heads are exchanged; "": everywhere


@dataclass(frozen=True)
class TaskFinder:
    """One kind of head that serves a task, with the default cutoffs of its verdict.

    `positions` are the named positions that pairs must have, `queries` those whose attention is read. `corruptions`
    are the task's, the deciding one first. `score_cutoff` None asks for no score: what such heads write and cause
    decides. `sign` is +1 where ablating such a head harms the task, −1 where it helps.
    `margin` is how far the score must lie above the best baseline. With `either_way` the corruption may raise the
    metric as well as lower it: shares are of the distance, whatever its sign.
    """

    name: str
    definition: str
    task: str
    corruptions: tuple[str, ...]
    positions: tuple[str, ...]
    queries: tuple[str, ...]
    behaviour: Callable[[Study], Behaviour]
    score_cutoff: float | None
    test: Test
    effect_cutoff: float = 0.05
    margin: float | None = None
    sign: int = 1
    either_way: bool = False
    needs_foil: bool = True
    writing: TaskWriting | None = None
    applies_to: frozenset[AttentionKind] = frozenset({"decoder"})
    prepare: Callable[[Study], object] | None = None  # what is found out on the selecting prompts first, in their memo
    role: Callable[[Study], np.ndarray] | None = None  # a word behind the name, `[layer head]`
    tables: Mapping[str, Callable[[Study], object]] = field(default_factory=dict)  # what else is measured, by name
    changes: str = ""  # the position that the deciding corruption must change, where not the first one given decides
    heading: str = ""  # under which it is told what the model does; the task's name, if none is given

    def __post_init__(self) -> None:
        object.__setattr__(self, "heading", self.heading or self.task)

    def must_apply_to(self, model: HookedTransformer) -> None:
        """Raise `InputError` for a model that this kind is not for."""
        kind = attention_kind(model)
        if kind not in self.applies_to:
            known = [text for name, text in KINDS_IN_WORDS.items() if name in self.applies_to]
            raise InputError(
                f"{self.name} heads can be found in {' or '.join(known)}; {model.cfg.model_name} is of the "
                f"{KINDS_IN_WORDS[kind]}."
            )
        if kind == "decoder":
            model.need_unembed()
