"""The contract of a finder: what its kind of head attends to, what it writes, and what ablating it must cost.

A kind is one file in this folder with a module-level `FINDER`; the registry finds it by itself.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.heads.patterns import TargetRule
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer

__all__ = ["Finder", "Writing", "finder", "finders"]


@dataclass(frozen=True)
class Writing:
    """What a head writes, as one number `[layer head]`, and from where on it counts as the kind's."""

    label: str
    measure: Callable[[HookedTransformer, Batch], Float[Tensor, "layer head"]]
    at_least: float


@dataclass(frozen=True)
class Finder:
    """One kind of head.

    `make_data(model, n, seed, bos)` gives the prompts whose attention is scored by `rule`. `score_at_least`,
    `writing.at_least` and `effect_at_least` (nats of loss on repeated tokens) are the default cutoffs of a verdict;
    with `joint`, a head also passes the last one as a member of its top set.
    """

    name: str
    definition: str
    rule: TargetRule
    make_data: Callable[[HookedTransformer, int, int, bool], Batch]
    data: str
    score_at_least: float
    effect_at_least: float
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
