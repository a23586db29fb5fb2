"""The task of repeated random tokens; the rows themselves are made in `repeated_tokens`."""

from __future__ import annotations

from typing import Any

import torch

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.tasks.base import Request, Task, TaskDefinition
from interp.tasks.repeated_tokens import RepeatedTokens, single_repeats, tiled

__all__ = ["TASK", "task_of_rows"]

_LAYOUTS = {
    "single": "random filler, a block and one copy of it, 10 to 25 tokens long, at the end of 64",
    "tiled": "a block of 25 random tokens, four times over",
}


def _make(model: HookedTransformer, request: Request) -> Task:
    """Rows of the splits come from seeds of their own; a layout is what pairs call a template."""
    layout = request.options.get("layout", "single")
    if layout not in _LAYOUTS:
        raise InputError(f"There is no layout {layout!r}. Choose {' or '.join(_LAYOUTS)}.")
    draw = single_repeats if layout == "single" else tiled
    made = {}
    for split in request.splits:
        seed = 2 * request.seed + (split == "report")
        made[split] = draw(model, request.n, bos=request.bos, seed=seed)
    rows = list(made.values())
    stacked = {name: _stacked(rows, name) for name in ("tokens", "period", "predictable")}
    tokens = RepeatedTokens(**stacked, has_bos=rows[0].has_bos)
    splits = [split for split, one in made.items() for _ in range(len(one.tokens))]
    return task_of_rows(request, tokens, splits, layout)


def task_of_rows(request: Request, tokens: RepeatedTokens, splits: list[str], layout: str) -> Task:
    """Rows as a task: every row is an item of its own."""
    labels = {
        "item": tuple(f"{split} {splits[:i].count(split)}" for i, split in enumerate(splits)),
        "template": tuple(f"{split} {layout}" for split in splits),
        "period": tuple(tokens.period.tolist()),
        "split": tuple(splits),
    }
    about = {
        "definition": TASK.definition,
        "metric": "loss of the predictable tokens",
        "n": request.n,
        "items": {split: splits.count(split) for split in request.splits},
        "bos": tokens.has_bos,
        "layout": _LAYOUTS.get(layout, layout),
        "corruption": "none: a copy is judged by its loss, against that of fresh tokens",
    }
    split = request.splits[0] if len(request.splits) == 1 else "all"
    return Task(TASK.name, None, tokens, labels, request.corruption, TASK.corruptions, split, request.seed, about)


def _stacked(rows: list[RepeatedTokens], name: str) -> Any:
    return torch.cat([getattr(one, name) for one in rows])


TASK = TaskDefinition(
    name="repeated_tokens",
    definition="repeated random tokens: nothing but the context tells what comes next in the copy",
    corruptions=("none",),
    applies_to=frozenset({"decoder", "encoder"}),
    positions=(),
    make=_make,
    options=("layout",),
    needs_text=False,
)
