"""What the loss on repeated tokens rises to when heads are replaced by their mean: alone, together, and at random.

A head's output is set to its mean over the prompts at the same position. Only the layers from the first ablated
head on are run again, from stored residuals; logits are made only where the loss is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp.model.passes import Pass
from interp.model.taps import Taps, make_writes
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer
from interp.sites import Head, Site
from interp.tasks.repeated_tokens import RepeatedTokens

__all__ = ["AblatedLosses", "ablate_sets", "matched_set"]

HeadSet = tuple[Head, ...]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class AblatedLosses:
    """Loss in nats per prompt: clean on copies, clean on fresh tokens, and `[set, prompt]` on copies when ablated."""

    clean: NDArray[np.floating]
    fresh: NDArray[np.floating]
    ablated: NDArray[np.floating]

    @property
    def effects(self) -> NDArray[np.floating]:
        """Rise of the loss on copies `[set, prompt]`."""
        return self.ablated - self.clean


@torch.no_grad()
def ablate_sets(
    model: HookedTransformer,
    data: RepeatedTokens,
    sets: Sequence[HeadSet],
    *,
    rows_at_once: int = 16,
    progress: Progress | None = None,
) -> AblatedLosses:
    """Mean-ablate each set of heads in turn. Cost: 2 passes, and for each set the layers from its first head on."""
    layers = sorted({head.layer for heads in sets for head in heads})
    means = _mean_outputs(model, data, layers, rows_at_once)
    clean, fresh, ablated = [], [], [[] for _ in sets]
    n_parts = -(-len(data.tokens) // rows_at_once)
    for part in range(n_parts):
        rows = slice(part * rows_at_once, (part + 1) * rows_at_once)
        piece = RepeatedTokens(data.tokens[rows], data.period[rows], data.predictable[rows], data.has_bos)
        residuals = _residuals(model, piece, layers)
        all_losses = _losses(model, piece, model.logits(model.main.finish(residuals.pop(-1), Taps())), None)
        clean.append(_mean_where(all_losses, piece.predictable[:, 1:]))
        fresh.append(_mean_where(all_losses, piece.fresh[:, 1:]))
        for i, heads in enumerate(sets):
            ablated[i].append(_ablated_loss(model, piece, heads, residuals, means))
            if progress is not None:
                progress(part * len(sets) + i + 1, n_parts * len(sets))
    numbers = [torch.cat(losses).cpu().double().numpy() for losses in (clean, fresh, *ablated)]
    n_prompts = len(data.tokens)
    return AblatedLosses(numbers[0], numbers[1], np.stack(numbers[2:]) if sets else np.zeros((0, n_prompts)))


def matched_set(heads: Sequence[Head], n_heads: int, avoid: set[Head], generator: np.random.Generator) -> HeadSet:
    """As many random heads from the same layers, none of them in `avoid`; fewer where a layer has too few others."""
    chosen: list[Head] = []
    for layer in sorted({head.layer for head in heads}):
        wanted = sum(head.layer == layer for head in heads)
        free = [Head(layer, i, heads[0].sublayer, heads[0].stack) for i in range(n_heads)]
        free = [head for head in free if head not in avoid]
        picked = generator.permutation(len(free))[:wanted]
        chosen += [free[i] for i in picked]
    return tuple(chosen)


def _z_name(model: HookedTransformer, layer: int) -> str:
    return str(Site("hook_z", "attn", layer, model.main.name))


def _mean_outputs(
    model: HookedTransformer, data: RepeatedTokens, layers: Sequence[int], rows_at_once: int
) -> dict[int, Float[Tensor, "pos head d_head"]]:
    """Mean of each layer's z over the prompts, position by position."""
    sums: dict[str, Tensor] = {}

    def add(name: str, z: Tensor) -> Tensor:
        sums[name] = sums.get(name, 0.0) + z.double().sum(0)
        return z[:0]

    names = [_z_name(model, layer) for layer in layers]
    for start in range(0, len(data.tokens), rows_at_once):
        job = Pass(batch=Batch(data.tokens[start : start + rows_at_once]), stop=max(layers) + 1 if layers else 0)
        model.run(job, Taps(names, keep=add))
    return {layer: (sums[_z_name(model, layer)] / len(data.tokens)).to(model.dtype) for layer in layers}


def _residuals(model: HookedTransformer, data: RepeatedTokens, layers: Sequence[int]) -> dict[int, Tensor]:
    """The residual entering each of the layers, and under −1 the last one."""
    names = {layer: str(Site("hook_resid_pre", "", layer, model.main.name)) for layer in layers}
    taps = Taps(names.values())
    last = model.run(Pass(batch=Batch(data.tokens), stop=model.main.config.n_layers), taps)
    return {layer: taps.values[name] for layer, name in names.items()} | {-1: last}


def _ablated_loss(
    model: HookedTransformer,
    data: RepeatedTokens,
    heads: HeadSet,
    residuals: dict[int, Tensor],
    means: dict[int, Tensor],
) -> Float[Tensor, " batch"]:
    start = min(head.layer for head in heads)
    hooks = []
    for layer in sorted({head.layer for head in heads}):
        index = torch.tensor([head.head for head in heads if head.layer == layer], device=model.device)
        hooks.append((_z_name(model, layer), _replace(index, means[layer])))
    read = data.predictable[:, 1:].any(dim=0).nonzero()[:, 0]  # positions whose next token is a copy in some row
    writes = make_writes(model.sites, hooks)
    logits = model.run(Pass(resid=residuals[start], start=start, unembed_pos=read), taps := Taps(writes=writes))
    taps.must_have_fired()
    return _mean_where(_losses(model, data, logits, read), data.predictable[:, 1:][:, read])


def _replace(heads: Tensor, mean: Tensor) -> Callable[..., None]:
    def set_to_mean(z: Tensor, hook: object) -> None:
        z[:, :, heads] = mean[:, heads]

    return set_to_mean


def _losses(
    model: HookedTransformer, data: RepeatedTokens, logits: Tensor, positions: Tensor | None
) -> Float[Tensor, "batch some_pos"]:
    """−log p of the next token at the given positions (all but the last, if none are given)."""
    if positions is None:
        logits, target = logits[:, :-1], data.tokens[:, 1:]
    else:
        target = data.tokens[:, positions + 1]
    return -logits.float().log_softmax(-1).gather(-1, target[..., None])[..., 0]


def _mean_where(losses: Tensor, where: Tensor) -> Float[Tensor, " batch"]:
    return (losses * where).sum(-1) / where.sum(-1)
