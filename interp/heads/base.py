"""The contract of a finder: what its kind of head attends to, what it writes, and what ablating it must cost.

A kind is one file in this folder with a module-level `FINDER`; the registry finds it by itself.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.heads.causes import CAUSES
from interp.heads.patterns import TargetRule
from interp.model.kinds import KINDS_IN_WORDS, AttentionKind, attention_kind
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer

__all__ = ["AttentionKind", "DataMaker", "Finder", "Writing", "attention_kind", "finder", "finders"]

DataMaker = Callable[[HookedTransformer, int, int, bool, Any], Batch]  # model, n, seed, bos, corpus


@dataclass(frozen=True)
class Writing:
    """What a head writes, as one number `[layer head]`, and on which side of the cutoff it is the kind's."""

    label: str
    measure: Callable[[HookedTransformer, Batch], Float[Tensor, "layer head"]]
    side: Literal["≥", "<"]
    cutoff: float

    def passes(self, value: float, cutoff: float) -> bool:
        """Whether a measured value is on the right side; one that could not be measured (NaN) is not."""
        return value >= cutoff if self.side == "≥" else value < cutoff


@dataclass(frozen=True)
class Finder:
    """One kind of head, with the default cutoffs of its verdict.

    `make_data` gives the prompts whose attention is scored by `rule` and whose writing is measured; `cause` names the
    behaviour that ablation is judged by (see `causes`). `effect_cutoff` is the least harm, in that behaviour's unit;
    None reports the harm without asking for any. `applies_to` are the models that all this can be measured on: a
    pattern that encoders have too is not enough where the behaviour is a loss of next tokens. With `joint`, a head
    also passes as a member of its top set.
    """

    name: str
    definition: str
    rule: TargetRule
    make_data: DataMaker
    data: str
    score_cutoff: float
    cause: str
    effect_cutoff: float | None
    applies_to: frozenset[AttentionKind]
    writing: Writing | None = None
    joint: bool = False

    def must_apply_to(self, model: HookedTransformer) -> None:
        """Raise `InputError` for a model that this kind is not for, or whose behaviour cannot be measured."""
        kind = attention_kind(model)
        if kind not in self.applies_to:
            known = [text for name, text in KINDS_IN_WORDS.items() if name in self.applies_to]
            raise InputError(
                f"{self.name} heads can be found in {' or '.join(known)}; {model.cfg.model_name} is of the "
                f"{KINDS_IN_WORDS[kind]}. Their ablation is judged by the {CAUSES[self.cause].metric}. "
                "Patterns of any model can be read in its cache: model.run_with_cache(…, return_type=None)."
            )
        model.need_unembed()


@cache
def finders() -> dict[str, Any]:
    """All kinds, by name: `Finder`s, known by a pattern, and `TaskFinder`s."""
    package = import_module("interp.heads")
    modules = (import_module(f"interp.heads.{info.name}") for info in pkgutil.iter_modules(package.__path__))
    found = [module.FINDER for module in modules if hasattr(module, "FINDER")]
    return {finder.name: finder for finder in sorted(found, key=lambda finder: finder.name)}


def finder(name: str) -> Any:
    """One kind by name; an unknown one raises `InputError` with the names there are."""
    if name not in finders():
        raise InputError(f"There is no kind of head called {name!r}. Known are {', '.join(finders())}.")
    return finders()[name]
