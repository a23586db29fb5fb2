"""The contract of a label set. It is one file in this folder with a module-level `LABELS`; the registry finds it."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from interp.errors import InputError
from interp.model.kinds import KINDS_IN_WORDS, attention_kind
from interp.model.transformer import HookedTransformer
from interp.pairs.checks import is_index
from interp.tasks.base import SPLITS, Task
from probes.sources import Labelled

__all__ = ["EVERY_KIND", "LabelRequest", "LabelSet", "for_task", "label_set", "label_sets", "make_labels"]

EVERY_KIND = frozenset(KINDS_IN_WORDS)


@dataclass(frozen=True)
class LabelRequest:
    """What a maker is asked for: `n` of what it counts in each of `splits`."""

    n: int
    splits: tuple[str, ...]
    seed: int
    prepend_bos: bool | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelSet:
    """What is labelled. `targets` are all it may have, `n` is how many of `unit` are drawn in a split unless asked
    otherwise, `group` what is never split between fitting and testing. `make` draws; `options` are its own arguments.
    `task`: the task it belongs to, whose drawn prompts `from_task` can label. A decoder, an encoder or the encoder of
    two stacks can read it if `applies_to` says so."""

    name: str
    definition: str
    targets: tuple[str, ...]
    unit: str
    n: int
    group: str
    make: Callable[[HookedTransformer, LabelRequest], Labelled]
    options: tuple[str, ...] = ()
    applies_to: frozenset[str] = EVERY_KIND
    task: str = ""
    from_task: Callable[[HookedTransformer, Task], Labelled] | None = None


@cache
def label_sets() -> dict[str, LabelSet]:
    """All label sets, by name."""
    package = import_module("probes.labels")
    modules = (import_module(f"probes.labels.{info.name}") for info in pkgutil.iter_modules(package.__path__))
    found = [module.LABELS for module in modules if hasattr(module, "LABELS")]
    return {one.name: one for one in sorted(found, key=lambda one: one.name)}


def label_set(name: str) -> LabelSet:
    """A label set by its name or its task's; an unknown one raises `InputError` with the names there are."""
    known = label_sets()
    found = known.get(name) or for_task(name)
    if found is None:
        tasks = [one.task for one in known.values() if one.task]
        raise InputError(
            f"There are no labels called {name!r}. Known are {', '.join(known)}, and the tasks {', '.join(tasks)}. "
            "Of another task, draw it (interp.tasks.load) and give labels= and positions=."
        )
    return found


def for_task(name: str) -> LabelSet | None:
    """The label set of a task, or None."""
    return next((one for one in label_sets().values() if one.task == name), None)


def make_labels(
    model: HookedTransformer,
    name: str,
    *,
    n: int | None,
    split: str,
    seed: int,
    prepend_bos: bool | None,
    options: Mapping[str, Any],
) -> Labelled:
    """Draw a label set for a model."""
    one = label_set(name)
    _must_apply(one, model)
    if split != "all" and split not in SPLITS:
        raise InputError(f"There is no split {split!r}. Choose all, {' or '.join(SPLITS)}.")
    if n is not None and (not is_index(n) or n < 1):
        raise InputError(f"n is {n!r}. Give a whole number of {one.unit}, at least 1, or leave it out.")
    if not is_index(seed) or seed < 0:
        raise InputError(f"seed is {seed!r}. Give a whole number, 0 or more.")
    unknown = sorted(options.keys() - set(one.options))
    if unknown:
        takes = f"It takes {', '.join(one.options)}" if one.options else "It takes none of its own"
        raise InputError(f"The labels {one.name} have no option {unknown[0]!r}. {takes}.")
    splits = SPLITS if split == "all" else (split,)
    request = LabelRequest(one.n if n is None else int(n), splits, int(seed), prepend_bos, options)
    made = one.make(model, request)
    about = {
        "labels": one.name,
        "definition": one.definition,
        "group": one.group,
        "n": request.n,
        "unit": one.unit,
        "split": split,
        "seed": request.seed,
    }
    return Labelled(made.tokens, made.table, made.labels, {**about, **made.about})


def _must_apply(one: LabelSet, model: HookedTransformer) -> None:
    kind = attention_kind(model)
    if kind not in one.applies_to:
        known = [text for name, text in KINDS_IN_WORDS.items() if name in one.applies_to]
        raise InputError(
            f"The labels {one.name} are for {' or '.join(known)}; {model.cfg.model_name} is of the "
            f"{KINDS_IN_WORDS[kind]}. Give texts and labels of your own."
        )
    if model.tokenizer is None:
        raise InputError(
            f"The labels {one.name} are of words, and this model has no tokenizer. Load it with tokenizer=, or give "
            "rows of token ids with labels of your own."
        )
