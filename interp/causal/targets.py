"""What an ablation or a path starts from: heads, whole sublayers, and sets of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.sites import Head, Site

__all__ = ["Part", "Target", "all_heads", "is_address", "targets_of"]


@dataclass(frozen=True, order=True)
class Part:
    """One tensor, or one head's share of it."""

    site: Site
    unit: int | None
    name: str


@dataclass(frozen=True)
class Target:
    """Parts that are edited together, and what to call them."""

    parts: tuple[Part, ...]
    name: str

    def by_site(self) -> dict[Site, list[int] | None]:
        """Site -> its heads, or None where all of it is meant."""
        found: dict[Site, list[int] | None] = {}
        for part in self.parts:
            before = found.setdefault(part.site, [])
            if part.unit is None or before is None:
                found[part.site] = None
            elif part.unit not in before:
                before.append(part.unit)
        return found


def targets_of(model: HookedTransformer, asked: Any) -> list[Target]:
    """Targets from "heads" (every head by itself), a head ("23.4"), a tensor of a layer ("mlp_out.3", ("attn_out",
    5)), or a list of these; a set of several, edited together, is a list or set inside the list."""
    if isinstance(asked, str) and asked == "heads":
        return [Target((part,), part.name) for part in all_heads(model)]
    if isinstance(asked, (str, Head, Site)) or is_address(asked):
        asked = [asked]
    if not isinstance(asked, Iterable):
        raise InputError(f'targets is {asked!r}. Give heads such as "23.4", tensors such as "mlp_out.3", or "heads".')
    found = []
    for one in asked:
        several = not isinstance(one, (str, Head, Site)) and not is_address(one)
        if several and not isinstance(one, Iterable):
            raise InputError(f'{one!r} is no target. Give a head such as "23.4", or a tensor such as "mlp_out.3".')
        members: Any = (sorted(one, key=str) if isinstance(one, (set, frozenset)) else one) if several else [one]
        parts = tuple(dict.fromkeys(_part(model, each) for each in members))
        if not parts:
            raise InputError("A set of targets is empty. Name at least one head or tensor in it.")
        found.append(Target(parts, " + ".join(part.name for part in parts)))
    if not found:
        raise InputError('There are no targets. Give heads such as "23.4", tensors such as "mlp_out.3", or "heads".')
    return found


def all_heads(model: HookedTransformer) -> list[Part]:
    """Every self-attention head of the stack whose text is predicted."""
    stack = model.main
    return [
        Part(Site("hook_z", "attn", layer, stack.name), head, str(Head(layer, head, "attn", stack.name)))
        for layer, block in enumerate(stack.config.blocks)
        for head in range(block.attn.n_heads)
    ]


def _part(model: HookedTransformer, one: Any) -> Part:
    if isinstance(one, str) and _looks_like_head(one):
        one = Head.parse(one)
    if isinstance(one, Head):
        return _head_part(model, one)
    site = model.sites.resolve(one)
    if site.layer is None or site.name in ("hook_scale", "hook_normalized"):
        raise InputError(f"{site} cannot be a target. Give a head, or a tensor of a layer such as mlp_out or attn_out.")
    if site.name == "hook_result":
        site = Site("hook_z", site.part, site.layer, site.stack)
    return Part(site, None, f"{site.stack + '.' if site.stack else ''}{_short(site)}.{site.layer}")


def _head_part(model: HookedTransformer, head: Head) -> Part:
    stacks = model.cfg.stacks
    if head.stack not in stacks:
        names = ", ".join(f"{name}.attn.{head.layer}.{head.head}" for name in stacks if name)
        raise InputError(f"Head {head} names no stack of this model. " + (f"Write {names}." if names else "Drop it."))
    blocks = stacks[head.stack].blocks
    attn = None
    if head.layer < len(blocks):
        attn = blocks[head.layer].cross_attn if head.sublayer == "cross_attn" else blocks[head.layer].attn
    if attn is None or head.head >= attn.n_heads:
        width = max(block.attn.n_heads for block in blocks)
        raise InputError(
            f"There is no head {head}: this model has layers 0 to {len(blocks) - 1} with heads 0 to {width - 1}."
        )
    return Part(Site("hook_z", head.sublayer, head.layer, head.stack), head.head, str(head))


def _short(site: Site) -> str:
    return f"{site.part}.{site.row.short[0]}" if site.part == "cross_attn" else site.row.short[0]


def _looks_like_head(text: str) -> bool:
    try:
        Head.parse(text)
    except InputError:
        return False
    return True


def is_address(one: Any) -> bool:
    """Whether a tuple is one address such as ("mlp_out", 3), not a set of targets."""
    return isinstance(one, tuple) and 1 < len(one) < 4 and isinstance(one[0], str) and isinstance(one[1], int)
