"""What heads cause, over a training: activation patching at each checkpoint, joint ablations at chosen ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray
from torch import Tensor

from interp.causal.ablation import ablate
from interp.causal.patching import patch
from interp.dynamics.base import Examples
from interp.dynamics.measures import Found
from interp.heads.ablation import matched_set
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.sites import Head
from interp.stats import bootstrap_interval

__all__ = ["ABLATED", "Patched", "ablations"]

ABLATED = ["step", "set", "heads", "loss", "change", "low", "high", "random_mean", "random_max", "n_random", "n"]
_RANDOM_SETS = 5
LEAST_GAP = 0.5  # logits


@dataclass
class Patched:
    """What clean layers and heads restore of the logit difference in the corrupt run (denoising), at all positions.

    In shares of the difference that the *last* checkpoint makes: before there is one, shares of a checkpoint's own are
    noise over noise. `gap` is each checkpoint's own difference, in logits. `difference` says what differs.
    """

    pairs: PromptPairs
    difference: str = ""

    def see(self, model: HookedTransformer) -> dict[str, ndarray]:
        seen: dict[str, ndarray] = {}
        for site, axes in _sites(model).items():
            effects = patch(model, self.pairs, site, over=axes)
            seen[site] = effects.values.values
            assert effects.source is not None and effects.base is not None
            seen["gap"] = effects.source - effects.base
        return seen

    def found(self, seen: Sequence[Mapping[str, ndarray]]) -> Found:
        chooses = np.arange(len(self.pairs)) % 2 == 0
        gap = np.stack([one["gap"] for one in seen], axis=-1)[~chooses]
        made = Found(about={"patch": {"n": int((~chooses).sum()), "difference": self.difference}})
        made.series["patch gap", "clean − corrupt"] = gap
        low, high = bootstrap_interval(gap[:, -1:])
        if low[0] < LEAST_GAP:
            shown = f"{gap[:, -1].mean():.2f} logits ({low[0]:.2f} to {high[0]:.2f})"
            why = f"the last checkpoint tells clean from corrupt by {shown}: too little for shares"
            made.about["left_out"] = {"patch": why}
            return made
        best: dict[str, str] = {}
        for site in (name for name in seen[0] if name != "gap"):
            cells = np.stack([one[site] for one in seen], axis=-1) / gap[:, -1].mean()
            if cells.ndim == 3:  # [pair layer checkpoint]
                for layer in range(cells.shape[1]):
                    made.series["patch", f"{site}.{layer}"] = cells[~chooses][:, layer]
                continue
            for layer in range(cells.shape[1]):
                head = int(np.nan_to_num(cells[chooses][:, layer, :, -1].mean(axis=0), nan=-np.inf).argmax())
                name = f"{site.removesuffix('z')}best head of layer {layer}"
                made.series["patch", name] = cells[~chooses][:, layer, head]
                best[name] = f"{layer}.{head}"
        made.about["best"] = {f"patch {name}": head for name, head in best.items()}
        return made


def _sites(model: HookedTransformer) -> dict[str, tuple[str, ...]]:
    if model.encoder is not None and model.decoder is not None:
        heads = ["encoder.z", "decoder.z", "decoder.cross_attn.z"]
        layers = ["encoder.attn_out", "decoder.attn_out", "decoder.cross_attn_out"]
    else:
        heads, layers = ["z"], ["attn_out"]
        if all(block.mlp is not None for block in model.main.config.blocks):
            layers.append("mlp_out")
    return {**{name: ("layer",) for name in layers}, **{name: ("layer", "head") for name in heads}}


def ablations(
    model: HookedTransformer,
    step: int,
    examples: Examples,
    counted: Tensor,
    sets: Mapping[str, Sequence[tuple[int, int]]],
    seed: int,
) -> list[dict[str, Any]]:
    """What the mean loss of the counted tokens gains, in nats, when sets of heads are set to their mean over the rows
    (position by position), and when random sets of as many other heads of the same layers are; none where
    a layer has too few others."""
    named = {name: tuple(Head(*one) for one in heads) for name, heads in sets.items()}
    widths = [block.attn.n_heads for block in model.main.config.blocks]
    generator = np.random.default_rng([seed, *b"ablations"])
    random: dict[str, list[tuple[Head, ...]]] = {}
    for name, heads in named.items():
        tries = (matched_set(heads, widths, set(heads), generator) for _ in range(4 * _RANDOM_SETS))
        drawn = [tuple(sorted(one, key=str)) for one in tries]
        random[name] = [one for one in dict.fromkeys(drawn) if len(one) == len(heads)][:_RANDOM_SETS]
    all_sets = list(dict.fromkeys([*named.values(), *(one for some in random.values() for one in some)]))
    rows = examples.tokens[:, :-1]  # as long as the model has positions
    effects = ablate(model, rows, [list(one) for one in all_sets], "mean", counted=counted[:, :-1])
    assert effects.base is not None
    change = dict(zip(all_sets, effects.values.values.T, strict=True))
    low, high = bootstrap_interval(np.stack([change[heads] for heads in named.values()], axis=1), seed=seed)
    table = []
    for i, (name, heads) in enumerate(named.items()):
        others = [float(change[one].mean()) for one in random[name]]
        table.append({
            "step": step, "set": name, "heads": " ".join(f"{one.layer}.{one.head}" for one in heads),
            "loss": float(effects.base.mean()), "change": float(change[heads].mean()),
            "low": float(low[i]), "high": float(high[i]),
            "random_mean": float(np.mean(others)) if others else float("nan"),
            "random_max": max(others, default=float("nan")), "n_random": len(others), "n": len(rows),
        })  # fmt: skip
    return table
