"""How causal methods are offered: call one for its effects, or make its plan first."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from inspect import signature
from typing import Generic, ParamSpec

from interp.causal.plan import Plan
from interp.results import Effects

__all__ = ["Analysis"]

P = ParamSpec("P")


class Analysis(Generic[P]):
    """A causal method. `method(…)` runs it; `method.plan(…)` takes the same arguments, checks them and returns a
    `Plan`, which prints what it will cost and runs when told."""

    def __init__(self, make: Callable[P, Plan]):
        self._make = make
        update_wrapper(self, make)
        self.__signature__ = signature(make).replace(return_annotation=Effects)
        self.__annotations__ = {**make.__annotations__, "return": Effects}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Effects:
        return self._make(*args, **kwargs).run()

    @property
    def plan(self) -> Callable[P, Plan]:
        """The function that checks the same arguments and returns their plan, not yet run."""
        return self._make
