"""What an ablation or a path starts from: heads, whole sublayers, and sets of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.sites import Head, Site

__all__ = ["Part", "Target", "all_heads", "check_prefix", "is_address", "targets_of"]


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
    5)), or a list of these; a set of several, edited together, is a list or set inside the list. With two stacks
    "heads" are those of both, self-attention's and cross-attention's; "encoder.heads", "decoder.heads" (its
    self-attention's) and "decoder.cross_attn.heads" are some of them."""
    if isinstance(asked, (str, Head, Site)) or is_address(asked):
        asked = [asked]
    if not isinstance(asked, Iterable):
        raise InputError(f'targets is {asked!r}. Give heads such as "23.4", tensors such as "mlp_out.3", or "heads".')
    found = []
    for one in asked:
        if isinstance(one, str) and one.rpartition(".")[2] == "heads":
            found += [Target((part,), part.name) for part in all_heads(model, one)]
            continue
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


def all_heads(model: HookedTransformer, which: str = "heads") -> list[Part]:
    """Every head of a model, the encoder's first; or those of one kind, such as "decoder.cross_attn.heads"."""
    kinds = {"heads" if stack == "" else f"{stack}.heads": (stack, "attn") for stack in model.cfg.stacks}
    kinds |= {
        f"{stack}.cross_attn.heads": (stack, "cross_attn")
        for stack, config in model.cfg.stacks.items()
        if stack and any(block.cross_attn is not None for block in config.blocks)
    }
    kinds = dict(sorted(kinds.items(), key=lambda kind: not kind[0].startswith("encoder")))
    chosen = list(kinds) if which == "heads" else [which]
    if which not in ("heads", *kinds):
        ways = ", ".join(dict.fromkeys(("heads", *kinds)))
        raise InputError(f"This model has no heads called {which!r}. Choose from {ways}.")
    found = []
    for stack, sublayer in (kinds[one] for one in chosen):
        for layer, block in enumerate(model.cfg.stacks[stack].blocks):
            attn = block.cross_attn if sublayer == "cross_attn" else block.attn
            for head in range(attn.n_heads if attn else 0):
                site = Site("hook_z", sublayer, layer, stack)
                found.append(Part(site, head, str(Head(layer, head, sublayer, stack))))
    return found


def _part(model: HookedTransformer, one: Any) -> Part:
    if isinstance(one, str) and _looks_like_head(one):
        one = Head.parse(one)
    if isinstance(one, Head):
        return _head_part(model, one)
    check_prefix(model, one)
    site = model.sites.resolve(one)
    if site.layer is None or site.name in ("hook_scale", "hook_normalized"):
        raise InputError(f"{site} cannot be a target. Give a head, or a tensor of a layer such as mlp_out or attn_out.")
    if site.name == "hook_result":
        site = Site("hook_z", site.part, site.layer, site.stack)
    return Part(site, None, f"{site.stack + '.' if site.stack else ''}{_short(site)}.{site.layer}")


def _head_part(model: HookedTransformer, head: Head) -> Part:
    stacks = model.cfg.stacks
    if head.stack not in stacks:
        names = [f"{name}.attn" for name in stacks if name]
        names += [f"{name}.cross_attn" for name in stacks if stacks[name].blocks[0].cross_attn is not None]
        ways = "Drop the prefix: this model has one stack."
        if head.sublayer == "cross_attn":
            names = [name for name in names if name.endswith("cross_attn")]
            ways = "This model has no cross-attention."
        if names:
            ways = f"Write {' or '.join(f'{name}.{head.layer}.{head.head}' for name in names)}."
        raise InputError(f"Head {head} names no stack of this model. {ways}")
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


def check_prefix(model: HookedTransformer, name: Any) -> None:
    """Refuse the name of a stack in a model that has but one."""
    first = str(name[0] if isinstance(name, tuple) and name else name)
    stack, dot, rest = first.partition(".")
    if dot and stack in ("encoder", "decoder") and len(model.cfg.stacks) == 1:
        raise InputError(f"This model has one stack, so {first!r} names none of its. Drop the prefix: {rest!r}.")


def _looks_like_head(text: str) -> bool:
    try:
        Head.parse(text)
    except InputError:
        return False
    return True


def is_address(one: Any) -> bool:
    """Whether a tuple is one address such as ("mlp_out", 3), not a set of targets."""
    return isinstance(one, tuple) and 1 < len(one) < 4 and isinstance(one[0], str) and isinstance(one[1], int)
