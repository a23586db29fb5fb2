"""Copies that natural text suggests: a token came before, and what followed it then is what a copying model predicts
now. The corrupt text has another token there, so that nothing suggests it.

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
    rows, places = _windows(model, request, bos)
    pool = common_vocabulary(model)
    parts: dict[str, list] = {name: [] for name in ("clean", "corrupt", "answer", "foil", "after", "item", "split")}
    for split in request.splits:
        mine = [i for i, (passage, _) in enumerate(places) if (passage % 2 == 0) == (split == "select")]
        found = _copies(model, rows, mine, request.n)
        if len(found) < request.n:
            raise InputError(
                f"The text suggests copies in {len(found)} windows of the split {split}; {request.n} are asked for. "
                "Ask for fewer."
            )
        for i, copy in found:
            clean = rows[i, : copy.end + 1].tolist()
            free = pool[~torch.isin(pool, rows[i].cpu())]
            generator = torch.Generator().manual_seed(hash((request.seed, *places[i])) % 2**63)
            other = int(free[torch.randint(len(free), (1,), generator=generator)])
            corrupt = [other if place in copy.after else token for place, token in enumerate(clean)]
            item = "passage {} at {}".format(*places[i])
            values = (clean, corrupt, copy.token, other, list(copy.after), item, split)
            for name, value in zip(parts, values, strict=True):
                parts[name].append(value)
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
        "corruption": "the suggested token is replaced by one that the window does not hold, wherever it stands "
        "behind an earlier copy of the last token",
        "chosen": "of each window the place whose suggested copy the model holds most likely",
    }
    return made_task(TASK, request, pairs, {"split": tuple(parts["split"])}, about)


def _windows(
    model: HookedTransformer, request: Request, bos: bool
) -> tuple[Int[Tensor, "row pos"], list[tuple[int, int]]]:
    """Windows of the bundled text, more than are asked for, with their passages and where they begin."""
    for times in (3, 2.5, 2):  # some hold no copy, and the splits may fall unevenly
        try:
            text = natural_text(model, int(times * request.n), n_tokens=_WINDOW, bos=bos, seed=request.seed)
        except InputError:
            continue
        return text.batch.tokens, list(zip(text.passage_index.tolist(), text.start.tolist(), strict=True))
    raise InputError(f"The bundled text is too short for {request.n} windows in each split. Ask for fewer.")


def _copies(
    model: HookedTransformer, rows: Int[Tensor, "row pos"], windows: list[int], n: int
) -> list[tuple[int, _Copy]]:
    """The first `n` windows in which some token comes twice, with their likeliest copy; no more are run than needed."""
    found: list[tuple[int, _Copy]] = []
    with torch.no_grad():
        for start in range(0, len(windows), _ROWS):
            some = windows[start : start + _ROWS]
            if len(found) >= n:
                break
            log_probs = model(rows[some]).log_softmax(-1)
            best = [_best(rows[i], one) for i, one in zip(some, log_probs, strict=True)]
            found += [(i, copy) for i, copy in zip(some, best, strict=True) if copy is not None]
    return found[:n]


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
