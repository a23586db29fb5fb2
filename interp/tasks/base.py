"""The contract of a task: what it asks of a model, in which corruptions, with which places named.

A task is one file in this folder with a module-level `TASK`; the registry finds it by itself.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from interp.errors import InputError
from interp.model.kinds import KINDS_IN_WORDS
from interp.model.kinds import AttentionKind as ModelKind
from interp.model.kinds import attention_kind as model_kind
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.tasks.repeated_tokens import RepeatedTokens

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SPLITS", "ModelKind", "Request", "Task", "TaskDefinition", "definition", "definitions", "model_kind"]

SPLITS = ("select", "report")


@dataclass(frozen=True)
class Task:
    """Prompts whose answer is known. Either `pairs` or `tokens` is there.

    `labels` hold one value per prompt each, `corruptions` what the task offers, and `corruption` what this one has.
    The unit of evidence is the item, of which several prompts may be made. `about` says what the task is, by which
    metric it is judged, what was measured when it was made, and what was left out and why.
    """

    name: str
    pairs: PromptPairs | None
    tokens: RepeatedTokens | None
    labels: Mapping[str, tuple] = field(default_factory=dict)
    corruption: str = ""
    corruptions: tuple[str, ...] = ()
    split: str = "all"
    seed: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.pairs is None) == (self.tokens is None):
            raise InputError(f"The task {self.name} needs either pairs or tokens. Give one of them.")
        for name, values in self.labels.items():
            if len(values) != len(self):
                raise InputError(f"Label {name!r} has {len(values)} values for {len(self)} prompts. Give one each.")

    def __len__(self) -> int:
        if self.pairs is not None:
            return len(self.pairs)
        assert self.tokens is not None
        return len(self.tokens.tokens)

    @property
    def items(self) -> tuple[str, ...]:
        """The item that each prompt is about."""
        return self.pairs.items if self.pairs is not None else tuple(self.labels["item"])

    @property
    def templates(self) -> tuple[str, ...]:
        """The template that each prompt is made of."""
        return self.pairs.templates if self.pairs is not None else tuple(self.labels["template"])

    def select(self, indices: Any) -> Task:
        """Some of the prompts, in the order asked."""
        blank = ((0,),) * len(self)  # whose selection checks the indices, for tokens too
        every = PromptPairs(blank, blank, answer=(((0,),),) * len(self))
        chosen = [int(item) for item in every.select(indices).items]
        tokens = None
        if self.tokens is not None:
            at = torch.tensor(chosen, device=self.tokens.tokens.device)
            parts = {name: getattr(self.tokens, name)[at] for name in ("tokens", "period", "predictable")}
            tokens = replace(self.tokens, **parts)
        pairs = None if self.pairs is None else self.pairs.select(chosen)
        labels = {name: tuple(values[i] for i in chosen) for name, values in self.labels.items()}
        return replace(self, pairs=pairs, tokens=tokens, labels=labels)

    def to_frame(self) -> pd.DataFrame:
        """One row per prompt: the columns that `interp.tasks.from_csv` reads."""
        from interp.tasks.table import task_frame

        return task_frame(self)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the prompts as a table that `interp.tasks.from_csv` makes the same task of."""
        from interp.tasks.table import write_task

        write_task(self, path)

    def show(self, i: int = 0) -> str:
        """One prompt to print: clean over corrupt token by token, where they differ, and the named places."""
        one = self.select(i)
        shown = one.labels.items()
        lines = [f"{name}: {values[0]}" for name, values in shown if name not in ("clean_text", "corrupt_text")]
        if self.pairs is not None:
            return "\n".join([self.pairs.show(i), *lines])
        assert one.tokens is not None
        return "\n".join([" ".join(map(str, one.tokens.tokens[0].tolist())), *lines])


@dataclass(frozen=True)
class Request:
    """What a maker is asked for: `n` items in each of `splits`; `options` are those that only some tasks have. `known`
    keeps what was measured of the model, for further calls on the same one."""

    corruption: str
    splits: tuple[str, ...]
    n: int
    seed: int
    bos: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    known: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskDefinition:
    """One task. `corruptions` begin with the default; `positions` are the places that every prompt names, also those
    of a user's table, where `derive` may fill in some. `make` draws the prompts; `options` are its own arguments."""

    name: str
    definition: str
    corruptions: tuple[str, ...]
    applies_to: frozenset[ModelKind]
    positions: tuple[str, ...]
    make: Callable[[HookedTransformer, Request], Task]
    options: tuple[str, ...] = ()
    needs_text: bool = True
    derive: Callable[[PromptPairs], PromptPairs] | None = None
    metric: str = ""  # what it is judged by; "": what suits its answers

    def must_apply_to(self, model: HookedTransformer) -> None:
        """Raise `InputError` for a model that this task cannot be asked of."""
        kind = model_kind(model)
        if kind not in self.applies_to:
            known = [text for name, text in KINDS_IN_WORDS.items() if name in self.applies_to]
            raise InputError(
                f"{self.name} is for {' or '.join(known)}; {model.cfg.model_name} is of the {KINDS_IN_WORDS[kind]}. "
                "Give pairs= of your own where an analysis takes them."
            )
        if self.needs_text and model.tokenizer is None:
            raise InputError(
                f"{self.name} is made of words, and this model has no tokenizer. Load it with tokenizer=, or give "
                "pairs= (PromptPairs.from_tokens) to the analysis instead of the task."
            )


@cache
def definitions() -> dict[str, TaskDefinition]:
    """All tasks, by name."""
    package = import_module("interp.tasks")
    modules = (import_module(f"interp.tasks.{info.name}") for info in pkgutil.iter_modules(package.__path__))
    found = [module.TASK for module in modules if hasattr(module, "TASK")]
    return {one.name: one for one in sorted(found, key=lambda one: one.name)}


def definition(name: str) -> TaskDefinition:
    """One task by name; an unknown one raises `InputError` with the names there are."""
    if name not in definitions():
        raise InputError(f"There is no task called {name!r}. Known are {', '.join(definitions())}.")
    return definitions()[name]
