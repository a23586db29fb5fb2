"""Copies that natural text suggests: a token came before, and what followed it then is what a copying model predicts
now. The corrupt text has another word there, so that nothing suggests it.

What heads of copy suppression hold down (McDougall 2023); whether the copy is right plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.tasks.base import Request, Task, TaskDefinition
from interp.tasks.natural_text import natural_text
from interp.tasks.prompts import made_task
from interp.tasks.repeated_tokens import common_vocabulary

__all__ = ["TASK"]

_WINDOW = 64
_LEAST = 16  # tokens of context before a copy is asked for
_ROWS = 16


@dataclass(frozen=True)
class _Copy:
    """Where a window suggests a copy: it ends at `end`, `token` is suggested by the places `after`."""

    end: int
    token: int
    after: tuple[int, ...]
    log_prob: float


def _make(model: HookedTransformer, request: Request) -> Task:
    bos = request.bos and getattr(model.tokenizer, "bos_id", None) is not None
    rows, passages = _windows(model, request, bos)
    found = _likeliest(model, rows)
    pool = common_vocabulary(model)
    generator = torch.Generator().manual_seed(request.seed)
    parts: dict[str, list] = {name: [] for name in ("clean", "corrupt", "answer", "foil", "after", "item", "split")}
    taken = dict.fromkeys(request.splits, 0)
    for row, (passage, item), copy in zip(rows, passages, found, strict=True):
        split = "select" if passage % 2 == 0 else "report"
        if copy is None or taken.get(split, request.n) == request.n:
            continue
        taken[split] += 1
        clean = row[: copy.end + 1].tolist()
        free = pool[~torch.isin(pool, row.cpu())]
        other = int(free[torch.randint(len(free), (1,), generator=generator)])
        corrupt = [other if place in copy.after else token for place, token in enumerate(clean)]
        for name, value in zip(parts, (clean, corrupt, copy.token, other, list(copy.after), item, split), strict=True):
            parts[name].append(value)
    short = [split for split, count in taken.items() if count < request.n]
    if short:
        raise InputError(
            f"The text suggests copies in {taken[short[0]]} windows of the split {short[0]}; {request.n} are asked "
            "for. Ask for fewer."
        )
    pairs = PromptPairs.from_tokens(
        parts["clean"],
        parts["corrupt"],
        parts["answer"],
        parts["foil"],
        positions={"copies": parts["after"], "END": [[len(row) - 1] for row in parts["clean"]]},
        items=parts["item"],
        templates=[f"{split} text" for split in parts["split"]],
        model=model,
    )
    about = {
        "bos": bos,
        "corruption": "the suggested token is replaced by a word that the window does not hold, wherever it stands "
        "behind an earlier copy of the last token",
        "chosen": "of each window the place whose suggested copy the model holds most likely",
    }
    return made_task(TASK, request, pairs, {"split": tuple(parts["split"])}, about)


def _windows(
    model: HookedTransformer, request: Request, bos: bool
) -> tuple[Int[Tensor, "row pos"], list[tuple[int, str]]]:
    """Windows of the bundled text, more than are asked for, with their passages and names."""
    for times in (3, 2.5, 2):  # some hold no copy, and the splits may fall unevenly
        try:
            text = natural_text(model, int(times * request.n), n_tokens=_WINDOW, bos=bos, seed=request.seed)
        except InputError:
            continue
        names = zip(text.passage_index.tolist(), text.start.tolist(), strict=True)
        return text.batch.tokens, [(passage, f"passage {passage} at {start}") for passage, start in names]
    raise InputError(f"The bundled text is too short for {request.n} windows in each split. Ask for fewer.")


def _likeliest(model: HookedTransformer, rows: Int[Tensor, "row pos"]) -> list[_Copy | None]:
    """Of each window the copy with the highest log-probability; None where no token comes twice."""
    found: list[_Copy | None] = []
    with torch.no_grad():
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            found += [_best(row, logits) for row, logits in zip(part, model(part).log_softmax(-1), strict=True)]
    return found


def _best(row: Int[Tensor, " pos"], log_probs: Tensor) -> _Copy | None:
    tokens, best = row.tolist(), None
    for end in range(_LEAST, len(tokens)):
        followers = [i + 1 for i in range(1, end) if tokens[i] == tokens[end] and tokens[i + 1] != tokens[end]]
        for token in {tokens[i] for i in followers}:
            value = float(log_probs[end, token])
            if best is None or value > best.log_prob:
                best = _Copy(end, token, tuple(i for i in followers if tokens[i] == token), value)
    return best


TASK = TaskDefinition(
    name="natural_copies",
    definition="what followed an earlier copy of the last token, in windows of natural text",
    corruptions=("replaced",),
    applies_to=frozenset({"decoder"}),
    positions=("copies", "END"),
    make=_make,
    metric="log_prob",
)
