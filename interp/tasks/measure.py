"""What a model does on a task: a number per prompt, and how often it is right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.causal.questions import pose
from interp.errors import InputError
from interp.model.tokens import pad_rows
from interp.model.transformer import HookedTransformer
from interp.tasks.base import Task
from interp.tasks.prompts import metric_of

__all__ = ["best_of", "measure", "values_of"]

_ROWS = 32
_GROUPS = (
    "order",
    "cue",
    "relation",
    "antecedent_place",
    "subject_is_antecedent",
    "condition",
    "congruence",
    "opening",
)
_GROUPS += ("frame",)


def values_of(task: Task, model: HookedTransformer, which: str = "clean") -> Float[np.ndarray, " prompt"]:
    """The task's metric on each of its clean or corrupt prompts: the answer above the foil; of repeated tokens, the
    loss of fresh tokens above that of copied ones."""
    if which not in ("clean", "corrupt"):
        raise InputError(f"which is {which!r}. Choose clean or corrupt.")
    if task.tokens is not None:
        with torch.no_grad():
            loss = model(task.tokens.tokens, return_type="loss", loss_per_token=True)  # of tokens 1, 2, …
        fresh, copied = task.tokens.fresh[:, 1:].to(loss), task.tokens.predictable[:, 1:].to(loss)
        means = [(loss * one).sum(1) / one.sum(1) for one in (fresh, copied)]
        return (means[0] - means[1]).cpu().numpy()
    question = pose(model, task.pairs, task.about["metric"])
    texts, metric = question.texts("clean" if which == "clean" else "corrupt"), question.metric
    slot = np.cumsum([0, *(len(text.reads) for text in texts)])
    per_row = torch.zeros(len(texts))

    def keep(i: int, logits: Tensor) -> None:
        at = torch.arange(int(slot[i]), int(slot[i + 1]), device=logits.device)
        chosen = logits if metric.tokens is None else logits[:, metric.tokens]
        per_row[i] = metric.scores(chosen, at).sum().cpu()

    _read(model, [text.tokens for text in texts], [text.reads for text in texts], keep)
    return metric.combine(per_row).numpy()


def measure(task: Task, model: HookedTransformer) -> dict[str, Any]:
    """`accuracy` (share of prompts with the answer above the foil, whatever the metric; of rows whose copied tokens
    have the lower loss), `mean` of the metric on clean and corrupt prompts, and both by template and by each label
    that says of a prompt's order or cue."""
    model.need_unembed()
    clean, right = _judged(task, model, "clean")
    found: dict[str, Any] = {"metric": task.about["metric"], "n": len(task), "items": len(set(task.items))}
    found |= _summary(clean, right)
    if task.pairs is not None:
        found["corrupt"] = _summary(*_judged(task, model, "corrupt"))
    groups = {"template": task.templates} | {name: task.labels[name] for name in _GROUPS if name in task.labels}
    for name, values in groups.items():
        chosen = {value: np.array([one == value for one in values]) for value in dict.fromkeys(values)}
        found[name] = {str(value): _summary(clean[mask], right[mask]) for value, mask in chosen.items()}
    return found


def _judged(
    task: Task, model: HookedTransformer, which: str
) -> tuple[Float[np.ndarray, " prompt"], Bool[np.ndarray, " prompt"]]:
    """The metric of each prompt, and whether the answer is above the foil: a log-probability alone does not say."""
    values = compared = values_of(task, model, which)
    if task.pairs is not None and not task.about["metric"].endswith("_diff"):
        compared = values_of(replace(task, about={**task.about, "metric": metric_of(task.pairs)}), model, which)
    return values, compared > 0


def best_of(
    model: HookedTransformer,
    rows: Sequence[Sequence[int]],
    wanted: Sequence[tuple[int, ...]],
    candidates: Sequence[Sequence[tuple[int, ...]]],
) -> tuple[list[bool], list[bool]]:
    """Whether the wanted continuation of each row is what greedy decoding gives, first among that row's candidates
    (all begin alike up to each token that is compared), then among all texts. One pass per row."""
    right, top = [False] * len(rows), [False] * len(rows)

    def judge(i: int, logits: Tensor) -> None:
        chosen = torch.tensor(wanted[i], device=logits.device)
        top[i] = bool((logits.argmax(-1) == chosen).all())
        right[i] = all(
            bool((logits[k, wanted[i][k]] >= logits[k, list(_next_tokens(candidates[i], wanted[i][:k]))]).all())
            for k in range(len(wanted[i]))
        )

    texts = [(*row, *one[:-1]) for row, one in zip(rows, wanted, strict=True)]
    reads = [tuple(range(len(r) - 1, len(r) - 1 + len(one))) for r, one in zip(rows, wanted, strict=True)]
    _read(model, texts, reads, judge)
    return right, top


def _next_tokens(candidates: Sequence[tuple[int, ...]], begun: tuple[int, ...]) -> set[int]:
    """Tokens with which candidates go on that begin so."""
    k = len(begun)
    return {one[k] for one in candidates if len(one) > k and one[:k] == begun}


def _read(
    model: HookedTransformer,
    texts: Sequence[Sequence[int]],
    reads: Sequence[Sequence[int]],
    use: Callable[[int, Tensor], None],
) -> None:
    """Call `use(i, logits [read d_vocab])` for each text; those that are read at the same places from their end run
    together, shorter ones padded on the left."""
    model.need_unembed()
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, (text, places) in enumerate(zip(texts, reads, strict=True)):
        groups[tuple(place - len(text) for place in places)].append(i)
    with torch.no_grad():
        for places, members in groups.items():
            members.sort(key=lambda i: len(texts[i]))
            for start in range(0, len(members), _ROWS):
                chunk = members[start : start + _ROWS]
                batch = pad_rows([texts[i] for i in chunk], 0, "left", model.device)
                logits = model(batch.tokens, attention_mask=batch.mask, unembed_pos=list(places))
                for i, one in zip(chunk, logits, strict=True):
                    use(i, one)


def _summary(values: Float[np.ndarray, " some_prompts"], right: Bool[np.ndarray, " some_prompts"]) -> dict[str, Any]:
    return {"n": len(values), "accuracy": float(right.mean()), "mean": float(values.mean())}
