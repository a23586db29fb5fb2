"""Heads that are held while a model learns: ablated, or with a pattern of attention that is given, not learned."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.model.checked import Checked, Count, Size
from interp.model.config import AttentionConfig, ModelConfig
from interp.model.taps import HookSpec

__all__ = ["Intervention", "held_hooks", "in_force", "plain", "read_interventions"]

_HEADS = re.compile(r"(?:(encoder|decoder)\.)?(?:(attn|cross_attn)\.)?(\d+)\.(\d+|\*)\Z")
Scores = Float[Tensor, "batch head q_pos k_pos"]


@dataclass(frozen=True)
class Intervention(Checked):
    """What is done to a head ("0.2"), or to all heads of a layer ("0.*"), in a training's forward passes.

    `zero`: its output z is 0. `mean`: z is its mean over the batch and positions, so it says the same everywhere.
    `uniform`: it attends alike to every token it may see. `previous_token`: it attends to the token before its query,
    or to the query where there is none. Gradients flow through what is left: an ablated head learns nothing, one with a
    given pattern learns what to write and not where to look. (AdamW's weight decay goes on in all weights.)

    In force in the updates that have at least `start` and fewer than `stop` updates before them.
    """

    head: str
    action: Literal["zero", "mean", "uniform", "previous_token"] = "zero"
    start: Count = 0
    stop: Size | None = None

    def __post_init__(self) -> None:
        if _HEADS.match(self.head) is None:
            raise InputError(
                f'{self.head!r} names no head. Write layer.head, as in "0.2", "0.*" for all heads of a layer, or '
                '"decoder.cross_attn.0.1" in a model with two stacks.'
            )
        if self.stop is not None and self.stop <= self.start:
            raise InputError(f"Intervention has start={self.start} and stop={self.stop}. It must stop after it starts.")

    def at(self, config: ModelConfig) -> tuple[str, AttentionConfig, list[int]]:
        """The site's address, its attention and the heads' numbers; `InputError` for a head the model lacks."""
        match = _HEADS.match(self.head)
        assert match is not None
        name, sublayer, layer, head = match[1] or "", match[2] or "attn", int(match[3]), match[4]
        stacks = config.stacks
        if name not in stacks and (name or len(stacks) > 1):
            known = " or ".join(f"{one}.{self.head}" for one in stacks if one) or f"{layer}.{head}"
            raise InputError(f"{self.head} names no stack of this model. Write {known}.")
        blocks = stacks[name].blocks
        if layer >= len(blocks):
            raise InputError(f"There is no head {self.head}: the layers are 0 to {len(blocks) - 1}.")
        attn = blocks[layer].cross_attn if sublayer == "cross_attn" else blocks[layer].attn
        if attn is None:
            raise InputError(f"There is no head {self.head}: layer {layer} has no cross-attention.")
        if head != "*" and int(head) >= attn.n_heads:
            raise InputError(f"There is no head {self.head}: layer {layer} has heads 0 to {attn.n_heads - 1}.")
        if self.action == "previous_token" and sublayer == "cross_attn":
            raise InputError(
                f"{self.head} looks into another text, where no token is the previous one. Choose another action."
            )
        heads = list(range(attn.n_heads)) if head == "*" else [int(head)]
        return f"{name + '.' if name else ''}blocks.{layer}.{sublayer}.", attn, heads


def read_interventions(given: Any, config: ModelConfig) -> tuple[Intervention, ...]:
    """Interventions (or the plain data of some), checked against a model: each head exists, and at no step are there
    two for one head."""
    if isinstance(given, (Intervention, Mapping)) or not isinstance(given, Iterable) or isinstance(given, str):
        raise InputError(f"interventions is {given!r:.80}. Give a list of interp.dynamics.Intervention.")
    found: list[Intervention] = []
    for one in given:
        if not isinstance(one, (Intervention, Mapping)):
            raise InputError(f"interventions holds {one!r:.80}. Give interp.dynamics.Intervention(head, action).")
        found.append(one if isinstance(one, Intervention) else Intervention(**one))
    taken: dict[tuple[str, int], list[Intervention]] = defaultdict(list)
    for one in found:
        address, _, heads = one.at(config)
        for head in heads:
            for other in taken[address, head]:
                if one.start < (other.stop or float("inf")) and other.start < (one.stop or float("inf")):
                    raise InputError(
                        f"{other.head} ({other.action}) and {one.head} ({one.action}) hold the same head at the same "
                        "steps. Give one of them, or steps apart."
                    )
            taken[address, head].append(one)
    return tuple(found)


def in_force(interventions: Iterable[Intervention], step: int) -> tuple[Intervention, ...]:
    """Those that hold in the update that has `step` updates before it."""
    return tuple(one for one in interventions if one.start <= step and (one.stop is None or step < one.stop))


def held_hooks(interventions: Sequence[Intervention], config: ModelConfig) -> HookSpec:
    """Hooks `[(site, function), …]` that do this to a model of this config, for `model.hooks` and `run_with_hooks`."""
    found = []
    for one in interventions:
        address, _, heads = one.at(config)
        site, edit = _EDITS[one.action]
        found.append((address + site, partial(edit, heads=heads)))
    return found


def plain(interventions: Iterable[Intervention]) -> list[dict[str, Any]]:
    """As they stand in training.json."""
    return [dataclasses.asdict(one) for one in interventions]


def _zero(z: Float[Tensor, "batch pos head d_head"], hook: Any, heads: list[int]) -> Tensor:
    z[:, :, heads] = 0.0
    return z


def _mean(z: Float[Tensor, "batch pos head d_head"], hook: Any, heads: list[int]) -> Tensor:
    z[:, :, heads] = z[:, :, heads].mean(dim=(0, 1)).expand(*z.shape[:2], -1, -1)
    return z


def _uniform(scores: Scores, hook: Any, heads: list[int]) -> Tensor:
    some = scores[:, heads]
    scores[:, heads] = torch.zeros_like(some).masked_fill(some == -torch.inf, -torch.inf)
    return scores


def _previous(scores: Scores, hook: Any, heads: list[int]) -> Tensor:
    """The key before the query's own, where the mask leaves it; else the query's own."""
    some, n = scores[:, heads], scores.shape[-1]
    own = torch.eye(n, dtype=torch.bool, device=some.device)[n - scores.shape[-2] :]
    before = own.roll(-1, dims=1)
    before[:, -1] = False
    seen = before & (some > -torch.inf)
    wanted = seen | (own & ~seen.any(dim=-1, keepdim=True))
    blind = (some == -torch.inf).all(dim=-1, keepdim=True)  # padding attends to nothing, as it did
    scores[:, heads] = torch.zeros_like(some).masked_fill(~wanted | blind, -torch.inf)
    return scores


_EDITS: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "zero": ("hook_z", _zero),
    "mean": ("hook_z", _mean),
    "uniform": ("hook_attn_scores", _uniform),
    "previous_token": ("hook_attn_scores", _previous),
}
