"""`interp.tasks.load`: a task by name, drawn for one model; `from_csv`: the same task from a table of the user's."""

from __future__ import annotations

import os
from typing import Any

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs.checks import is_index
from interp.tasks.base import SPLITS, Request, Task, definition, definitions

__all__ = ["from_csv", "load", "names"]


def names() -> tuple[str, ...]:
    """The tasks there are."""
    return tuple(definitions())


def load(
    name: str,
    model: Any,
    corruption: str | None = None,
    *,
    split: str = "all",
    n: int = 100,
    seed: int = 0,
    bos: bool = True,
    known: Any = None,
    **options: Any,
) -> Task:
    """Draw a task for a model.

    `n` items in each split: "select" to choose by, "report" to report on, "all" for both together (so 2·`n` items).
    The splits share no item, no template and none of the words that items are made of, whatever the seed. The same
    seed draws the same items. `corruption` is one of the task's (its first by default). With `bos` a beginning-of-text
    token stands in front where a decoder has one; `about["bos"]` says whether it does. `options` are the task's own:
    coreference takes `cue`, fact_recall `relations` and `keep_unknown`. A dict given as `known` to several calls on one
    unchanged model lets them share what has to be measured of it (of fact_recall: which facts it knows).

    Raises `InputError` for a model that the task is not for, and for more items than there are.
    """
    task = definition(name)
    chosen = task.corruptions[0] if corruption is None else corruption
    if chosen not in task.corruptions:
        raise InputError(f"{name} has no corruption {chosen!r}. Choose {', '.join(task.corruptions)}.")
    if split != "all" and split not in SPLITS:
        raise InputError(f"There is no split {split!r}. Choose all, {' or '.join(SPLITS)}.")
    if not is_index(n) or n < 1:
        raise InputError(f"n is {n!r}. Give a whole number of items, at least 1.")
    if not is_index(seed) or seed < 0:
        raise InputError(f"seed is {seed!r}. Give a whole number, 0 or more.")
    unknown = sorted(options.keys() - set(task.options))
    if unknown:
        takes = f"It takes {', '.join(task.options)}" if task.options else "It takes none of its own"
        raise InputError(f"{name} has no option {unknown[0]!r}. {takes}.")
    if known is not None and not isinstance(known, dict):
        raise InputError(f"known is {known!r}. Give a dict, empty at first, or leave it out.")
    _check_model(model)
    task.must_apply_to(model)
    splits = SPLITS if split == "all" else (split,)
    return task.make(
        model, Request(chosen, splits, int(n), int(seed), bool(bos), options, {} if known is None else known)
    )


def from_csv(name: str, path: str | os.PathLike[str], model: Any = None, *, bos: bool | None = None) -> Task:
    """A task from a table of the user's: the columns of `PromptPairs.from_csv` (clean, corrupt, answer, and here foil
    too; item, template, read), one `pos:NAME` for each place that the task names, and any `label:NAME`.

    A place is a part of the clean text that stands there once, a token index, or several indices ("4 5 6"). END may
    be left out where it is the last token, and so may what follows from other places. `repeated_tokens` takes the
    columns tokens (ids) and period. `bos` is what a column `bos` says, else True. Without a model, or where a column
    `ids` holds 1, prompts and answers are token ids. Raises `InputError` for a missing place, with its name.
    """
    from interp.tasks.table import read_task

    task = definition(name)
    if model is not None:
        _check_model(model)
        task.must_apply_to(model)
    return read_task(task, path, model, bos)


def _check_model(model: Any) -> None:
    if not isinstance(model, HookedTransformer):
        raise InputError(f"A task is drawn for a loaded model, not {model!r}. Load it first: interp.load(…).")
