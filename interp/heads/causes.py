"""The behaviours that ablations are judged by: prompts, a number per prompt, and what a missing head does to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.tasks.ioi import indirect_objects
from interp.tasks.repeated_tokens import single_repeats

__all__ = ["CAUSES", "Behaviour", "Cause"]


@dataclass(frozen=True)
class Behaviour:
    """What `interp.ablate` is asked: pairs judged by their logit difference, or token rows by the loss of the
    `counted` tokens. A head's mean is taken over the corrupt prompts, or the rows themselves, position by position
    within each template. `higher_is_better` says which way harm goes; `in_shares` reports it as a share of the
    metric's distance between the clean and the corrupt prompts.
    """

    data: Any  # PromptPairs or a Batch
    counted: Bool[Tensor, "prompt pos"] | None = None
    higher_is_better: bool = False
    in_shares: bool = False


@dataclass(frozen=True)
class Cause:
    """A behaviour by name. `make(model, n, seed)` draws `n` independent items of it."""

    name: str
    metric: str
    unit: str
    make: Callable[[HookedTransformer, int, int], Behaviour]


def _repeated(model: HookedTransformer, n: int, seed: int) -> Behaviour:
    data = single_repeats(model, n, seed=seed)
    return Behaviour(Batch(data.tokens), counted=data.predictable)


def _indirect_objects(model: HookedTransformer, n: int, seed: int) -> Behaviour:
    data = indirect_objects(model, n, seed=seed)
    pairs = PromptPairs.from_tokens(
        _unpadded(data.batch),
        _unpadded(data.reference),
        answer=data.answer.tolist(),
        foil=data.foil.tolist(),
        templates=[str(one) for one in data.template.tolist()],
        model=model,
    )
    return Behaviour(pairs, higher_is_better=True, in_shares=True)


def _unpadded(batch: Batch) -> list[list[int]]:
    if batch.mask is None:
        return batch.tokens.tolist()
    return [row[real].tolist() for row, real in zip(batch.tokens, batch.mask, strict=True)]


CAUSES = {
    one.name: one
    for one in (
        Cause("repeated_tokens", "loss on the second copy of a random block", "nats", _repeated),
        Cause(
            "ioi", "logit difference of the indirect object over the subject", "share of clean − ABC", _indirect_objects
        ),
    )
}
