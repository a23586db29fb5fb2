"""What happens to a behaviour when heads are replaced by their mean: alone, together, and at random.

Only the layers from the first ablated head on are run again, from stored residuals; logits are made only where the
metric reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp.heads.causes import Behaviour
from interp.model.passes import Pass
from interp.model.taps import Taps, make_writes
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer
from interp.sites import Head, Site

__all__ = ["Ablations", "ablate_sets", "matched_set"]

HeadSet = tuple[Head, ...]
Progress = Callable[[int, int], None]
Means = dict[int, Float[Tensor, "group pos head d_head"]]


@dataclass(frozen=True)
class Ablations:
    """The metric per prompt: on the prompts as they are, on their reference, and `[set, prompt]` when ablated."""

    clean: NDArray[np.floating]
    reference: NDArray[np.floating]
    ablated: NDArray[np.floating]
    sets: tuple[HeadSet, ...]
    sign: float  # +1 where a rise is harm
    share: float  # what harm is divided by

    @property
    def harm(self) -> dict[HeadSet, NDArray[np.floating]]:
        """Set -> harm per prompt: positive where the behaviour got worse."""
        return {
            one: self.sign * (row - self.clean) / self.share for one, row in zip(self.sets, self.ablated, strict=True)
        }


@torch.no_grad()
def ablate_sets(
    model: HookedTransformer,
    behaviour: Behaviour,
    sets: Sequence[HeadSet],
    *,
    rows_at_once: int = 16,
    progress: Progress | None = None,
) -> Ablations:
    """Mean-ablate each set of heads in turn. Cost: 3 passes, and for each set the layers from its first head on."""
    layers = sorted({head.layer for heads in sets for head in heads})
    means = _mean_outputs(model, behaviour, layers, rows_at_once)
    clean, reference, ablated = [], [], [[] for _ in sets]
    n_prompts = len(behaviour.batch.tokens)
    parts = [slice(i, min(i + rows_at_once, n_prompts)) for i in range(0, n_prompts, rows_at_once)]
    for done, rows in enumerate(parts):
        residuals, last = _residuals(model, _cut(behaviour.batch, rows), layers)
        clean.append(behaviour.measure(_logits(model, last, behaviour), rows))
        _, last = _residuals(model, _cut(behaviour.reference, rows), [])
        reference.append(behaviour.measure(_logits(model, last, behaviour), rows))
        for i, heads in enumerate(sets):
            ablated[i].append(_ablated(model, behaviour, rows, heads, residuals, means))
            if progress is not None:
                progress(done * len(sets) + i + 1, len(parts) * len(sets))
    numbers = [torch.cat(values).cpu().double().numpy() for values in (clean, reference, *ablated)]
    stacked = np.stack(numbers[2:]) if sets else np.zeros((0, n_prompts))
    share = float(abs(numbers[0].mean() - numbers[1].mean())) if behaviour.in_shares else 1.0
    return Ablations(numbers[0], numbers[1], stacked, tuple(sets), -1.0 if behaviour.higher_is_better else 1.0, share)


def matched_set(heads: Sequence[Head], n_heads: int, avoid: set[Head], generator: np.random.Generator) -> HeadSet:
    """As many random heads from the same layers, none of them in `avoid`; fewer where a layer has too few others."""
    chosen: list[Head] = []
    for layer in sorted({head.layer for head in heads}):
        wanted = sum(head.layer == layer for head in heads)
        free = [Head(layer, i, heads[0].sublayer, heads[0].stack) for i in range(n_heads)]
        free = [head for head in free if head not in avoid]
        chosen += [free[i] for i in generator.permutation(len(free))[:wanted]]
    return tuple(chosen)


def _z_name(model: HookedTransformer, layer: int) -> str:
    return str(Site("hook_z", "attn", layer, model.main.name))


def _mean_outputs(model: HookedTransformer, behaviour: Behaviour, layers: Sequence[int], rows_at_once: int) -> Means:
    """Mean of each layer's z over the reference prompts of each group, position by position."""
    if not layers:
        return {}
    groups = behaviour.groups.to(model.device)
    counts = torch.bincount(groups).double()
    names = {_z_name(model, layer): layer for layer in layers}
    sums: Means = {}
    for start in range(0, len(groups), rows_at_once):
        rows = slice(start, start + rows_at_once)

        def add(name: str, z: Tensor, rows: slice = rows) -> Tensor:
            total = sums.setdefault(
                names[name], torch.zeros(len(counts), *z.shape[1:], dtype=torch.float64, device=z.device)
            )
            total.index_add_(0, groups[rows], z.double())
            return z[:0]

        model.run(Pass(batch=_cut(behaviour.reference, rows), stop=max(layers) + 1), Taps(names, keep=add))
    return {layer: (total / counts[:, None, None, None]).to(model.dtype) for layer, total in sums.items()}


def _residuals(model: HookedTransformer, batch: Batch, layers: Sequence[int]) -> tuple[dict[int, Tensor], Tensor]:
    """The residual entering each of the layers, and the one leaving the last."""
    names = {layer: str(Site("hook_resid_pre", "", layer, model.main.name)) for layer in layers}
    taps = Taps(names.values())
    last = model.run(Pass(batch=batch, stop=model.main.config.n_layers), taps)
    return {layer: taps.values[name] for layer, name in names.items()}, last


def _logits(model: HookedTransformer, last: Tensor, behaviour: Behaviour) -> Tensor:
    return model.logits(model.main.finish(last, Taps()), pos=behaviour.read)


def _ablated(
    model: HookedTransformer,
    behaviour: Behaviour,
    rows: slice,
    heads: HeadSet,
    residuals: dict[int, Tensor],
    means: Means,
) -> Float[Tensor, " some_prompts"]:
    """The metric with a set of heads at their means."""
    start = min(head.layer for head in heads)
    hooks = []
    for layer in sorted({head.layer for head in heads}):
        index = torch.tensor([head.head for head in heads if head.layer == layer], device=model.device)
        hooks.append((_z_name(model, layer), _replace(index, means[layer][behaviour.groups[rows]])))
    taps = Taps(writes=make_writes(model.sites, hooks))
    mask = _cut(behaviour.batch, rows).mask
    job = Pass(resid=residuals[start], mask=mask, start=start, unembed_pos=behaviour.read)
    logits = model.run(job, taps)
    taps.must_have_fired()
    return behaviour.measure(logits, rows)


def _replace(heads: Tensor, mean: Float[Tensor, "some_prompts pos head d_head"]) -> Callable[..., None]:
    def set_to_mean(z: Tensor, hook: object) -> None:
        z[:, :, heads] = mean[:, :, heads]

    return set_to_mean


def _cut(batch: Batch, rows: slice) -> Batch:
    return Batch(batch.tokens[rows], None if batch.mask is None else batch.mask[rows])
