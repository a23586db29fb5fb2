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
from interp.heads.patterns import TargetRule
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer

__all__ = ["DataMaker", "Finder", "Writing", "finder", "finders"]

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
    None reports the harm without asking for any. With `joint`, a head also passes as a member of its top set.
    """

    name: str
    definition: str
    rule: TargetRule
    make_data: DataMaker
    data: str
    score_cutoff: float
    cause: str
    effect_cutoff: float | None
    writing: Writing | None = None
    joint: bool = False
    masks: tuple[str, ...] = ("causal",)

    def must_apply_to(self, model: HookedTransformer) -> None:
        """Raise `InputError` for a model whose attention this kind is not defined on."""
        found = sorted({block.attn.mask for block in model.main.config.blocks})
        if any(mask not in self.masks for mask in found):
            raise InputError(
                f"{self.name} heads are defined for {' or '.join(self.masks)} attention; "
                f"{model.cfg.model_name} has {', '.join(found)} attention. Ask for another kind."
            )


@cache
def finders() -> dict[str, Finder]:
    """All kinds, by name."""
    package = import_module("interp.heads")
    modules = (import_module(f"interp.heads.{info.name}") for info in pkgutil.iter_modules(package.__path__))
    found = [module.FINDER for module in modules if hasattr(module, "FINDER")]
    return {finder.name: finder for finder in sorted(found, key=lambda finder: finder.name)}


def finder(name: str) -> Finder:
    """One kind by name; an unknown one raises `InputError` with the names there are."""
    if name not in finders():
        raise InputError(f"There is no kind of head called {name!r}. Known are {', '.join(finders())}.")
    return finders()[name]
