"""What happens to a behaviour when heads are replaced by their mean: alone, together, and at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp.causal.ablation import ablate
from interp.heads.causes import Behaviour
from interp.model.transformer import HookedTransformer
from interp.sites import Head

__all__ = ["Ablations", "ablate_sets", "matched_set"]

HeadSet = tuple[Head, ...]
Progress = Callable[[int, int], None]


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


def ablate_sets(
    model: HookedTransformer,
    behaviour: Behaviour,
    sets: Sequence[HeadSet],
    *,
    max_bytes: int | None = None,
    progress: Progress | None = None,
) -> Ablations:
    """Mean-ablate each set of heads in turn, exactly (see `interp.ablate`)."""
    plan = ablate.plan(
        model, behaviour.data, [list(one) for one in sets], "mean", counted=behaviour.counted, max_bytes=max_bytes
    )
    effects = plan.run(progress or False)
    assert effects.base is not None
    reference = effects.base if effects.source is None else effects.source
    share = float(abs(effects.base.mean() - reference.mean())) if behaviour.in_shares else 1.0
    sign = -1.0 if behaviour.higher_is_better else 1.0
    return Ablations(effects.base, reference, effects.patched.values.T, tuple(sets), sign, share)


def matched_set(
    heads: Sequence[Head], widths: Sequence[int], avoid: set[Head], generator: np.random.Generator
) -> HeadSet:
    """As many random heads from the same layers, none of them in `avoid`; fewer where a layer has too few others."""
    chosen: list[Head] = []
    for layer in sorted({head.layer for head in heads}):
        wanted = sum(head.layer == layer for head in heads)
        free = [Head(layer, i, heads[0].sublayer, heads[0].stack) for i in range(widths[layer])]
        free = [head for head in free if head not in avoid]
        chosen += [free[i] for i in generator.permutation(len(free))[:wanted]]
    return tuple(chosen)
