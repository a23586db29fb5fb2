"""Which positions an edit can reach, and from which one on it is felt."""

from __future__ import annotations

from collections.abc import Sequence

from interp.causal.bundles import Op
from interp.causal.texts import Text
from interp.model.transformer import HookedTransformer
from interp.sites import Site

__all__ = ["felt", "in_memory", "is_causal", "made_for_all", "start_of"]

# Tensors of a layer that later positions read as keys; all others matter in the last layer only where logits are read.
_READ_AS_KEYS = ("hook_resid_pre", "hook_k", "hook_v", "hook_rot_k")


def is_causal(model: HookedTransformer, stack: str) -> bool:
    """Whether no token of a stack's text can feel later ones, to the end of the model."""
    return stack == model.main.name and all(block.attn.mask == "causal" for block in model.cfg.stacks[stack].blocks)


def in_memory(site: Site) -> bool:
    """Whether a tensor is made of the other text: cross-attention's keys and values."""
    return site.part == "cross_attn" and site.name in ("hook_k", "hook_v", "hook_rot_k")


def made_for_all(model: HookedTransformer, site: Site) -> bool:
    """Whether a layer makes a tensor for all tokens of its text, also where only some of them ask."""
    if site.part == "ln1":  # in front of attention, or behind it
        return model.cfg.stacks[site.stack].blocks[site.layer or 0].norms in ("pre", "both")
    return site.name in _READ_AS_KEYS and site.part in ("", "attn")


def felt(model: HookedTransformer, text: Text, site: Site, positions: Sequence[int]) -> tuple[int, ...]:
    """The positions whose edit can reach a read: in the last layer only the reads, unless the tensor serves as keys."""
    last = site.stack == model.main.name and site.layer == model.main.config.n_layers - 1
    if not last or made_for_all(model, site) or in_memory(site):
        return tuple(positions)
    reads = set(text.reads)
    return tuple(pos for pos in positions if pos in reads)


def start_of(model: HookedTransformer, ops: Sequence[Op]) -> int:
    """The first position that can feel some edits: the first edited one where no token sees later ones, else 0."""
    if not ops or any(op.in_memory for op in ops) or not is_causal(model, ops[0].site.stack):
        return 0
    return min(min(op.pos) for op in ops)
