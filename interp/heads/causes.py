"""The behaviours that ablations are judged by: prompts, a number per prompt, and what a missing head does to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer
from interp.tasks.ioi import indirect_objects
from interp.tasks.repeated_tokens import single_repeats

__all__ = ["CAUSES", "Behaviour", "Cause"]


@dataclass(frozen=True)
class Behaviour:
    """Prompts and their metric.

    `read` are the positions whose logits the metric needs. `measure(logits, rows)` gives one value per prompt of
    those rows. A head's mean is taken over `reference`, position by position, within each group of prompts that
    share a shape. `higher_is_better` says which way harm goes; `in_shares` reports it as a share of the metric's
    distance between prompts and reference.
    """

    batch: Batch
    reference: Batch
    groups: Int[Tensor, " prompt"]
    read: Int[Tensor, " some_pos"]
    measure: Callable[[Tensor, slice], Float[Tensor, " some_prompts"]]
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
    copied = data.predictable[:, 1:]
    read = copied.any(dim=0).nonzero()[:, 0]  # positions whose next token is a copy in some row

    def loss_on_copies(logits: Tensor, rows: slice) -> Tensor:
        target, counted = data.tokens[rows][:, read + 1], copied[rows][:, read]
        losses = -logits.float().log_softmax(-1).gather(-1, target[..., None])[..., 0]
        return (losses * counted).sum(-1) / counted.sum(-1)

    batch = Batch(data.tokens)
    return Behaviour(batch, batch, torch.zeros(n, dtype=torch.long), read, loss_on_copies)


def _indirect_objects(model: HookedTransformer, n: int, seed: int) -> Behaviour:
    data = indirect_objects(model, n, seed=seed)
    last = torch.tensor([data.batch.tokens.shape[1] - 1], device=model.device)

    def logit_difference(logits: Tensor, rows: slice) -> Tensor:
        answer, foil = (logits[:, 0].gather(-1, one[rows, None])[:, 0] for one in (data.answer, data.foil))
        return (answer - foil).float()

    return Behaviour(data.batch, data.reference, data.template, last, logit_difference, True, True)


CAUSES = {
    one.name: one
    for one in (
        Cause("repeated_tokens", "loss on the second copy of a random block", "nats", _repeated),
        Cause(
            "ioi", "logit difference of the indirect object over the subject", "share of clean − ABC", _indirect_objects
        ),
    )
}
