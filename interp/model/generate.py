"""Sampling text, one token at a time, on stored keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import InputError

if TYPE_CHECKING:
    from interp.model.block import Memory
    from interp.model.core import Transformer
    from interp.model.tokens import Batch

__all__ = ["Sampling", "generate_tokens"]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. `do_sample=False` or `temperature=0` takes the likeliest."""

    do_sample: bool = True
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature}. Give 0 (the likeliest token) or more.")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}. Give 1 or more, or None for all tokens.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}. Give a share above 0, at most 1.")

    def choose(self, logits: Float[Tensor, "batch d_vocab"], generator: torch.Generator) -> Int[Tensor, " batch"]:
        if not self.do_sample or self.temperature == 0:
            return logits.argmax(-1)
        logits = logits.float() / self.temperature
        if self.top_k is not None:
            least = logits.topk(min(self.top_k, logits.shape[-1])).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.top_p is not None:
            ordered, index = logits.sort(descending=True)
            before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
            logits = logits.masked_fill((before >= self.top_p).scatter(-1, index, before >= self.top_p), -torch.inf)
        probabilities = logits.softmax(-1).cpu()
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(logits.device)


@torch.no_grad()
def generate_tokens(
    model: Transformer,
    batch: Batch,
    sampling: Sampling,
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    pad_id: int,
    generator: torch.Generator,
    memory: Memory | None = None,
) -> Int[Tensor, "batch new_pos"]:
    """New tokens after each row of a left-padded batch, over an encoding where there is one. A row that
    met a stop id goes on with padding.

    Cost: one pass over the prompt, then one token a pass.
    """
    tokens, mask, past = batch.tokens, batch.mask, None
    done = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    new: list[Tensor] = []
    for _ in range(max_new_tokens):
        logits, past = model.extend(tokens, past=past, attention_mask=mask, memory=memory, unembed_pos=[-1])
        chosen = sampling.choose(logits[:, -1], generator)
        chosen = torch.where(done, torch.full_like(chosen, pad_id), chosen)
        new.append(chosen)
        for stop in stop_ids:
            done = done | (chosen == stop)
        if bool(done.all()):
            break
        tokens, mask = chosen[:, None], None
    return torch.stack(new, dim=1)
