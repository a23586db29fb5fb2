"""Edits of one layer of a wave, as a tap: of whole packed tensors, and of single segments' scores and patterns."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.causal.bundles import Op
from interp.errors import HookError
from interp.model.taps import NO_TAPS, Tap

__all__ = ["Change", "LayerEdits", "PatternChange"]


@dataclass(eq=False)
class Change:
    """An op at its places in the packed row, and the bank's places that its values come from (None: zeros)."""

    op: Op
    where: Int[Tensor, "cell pos"]
    bank: Float[Tensor, "place *rest"] | None
    index: Int[Tensor, " pos"] | Int[Tensor, "cell pos"] | None
    fired: bool = False

    def apply_(self, x: Float[Tensor, "token *rest"]) -> None:
        """Make the change in place, in a tensor that belongs to nobody else."""
        self.fired = True
        places: tuple[Tensor, ...] = (self.where,)
        if self.op.units is not None:
            units = self.op.units.to(x.device)
            places = (self.where[:, :, None], units[:, None, :])
        new = self._values(x)
        if self.op.kind == "add":
            new = x[places] + self.op.factor * new
        x.index_put_(places, new)

    def _values(self, x: Tensor) -> Tensor:
        if self.bank is None or self.index is None:
            return x.new_zeros(())
        index = self.index.expand(self.where.shape)
        if self.op.units is None:
            return self.bank[index].to(x)
        return self.bank[index[:, :, None], self.op.units.to(x.device)[:, None, :]].to(x)


@dataclass(eq=False)
class PatternChange:
    """An op on scores or patterns of one segment, for `n` of its cells from `first` on; `at` numbers its queries."""

    op: Op
    first: int
    n: int
    at: Int[Tensor, " query"]
    source: Float[Tensor, "head query k_pos"] | None = None  # None: zeros
    fired: bool = False

    def apply_(self, x: Float[Tensor, "cell head q_pos k_pos"]) -> None:
        self.fired = True
        cells = torch.arange(self.first, self.first + self.n, device=x.device)[:, None, None]
        heads = torch.arange(x.shape[1])[None] if self.op.units is None else self.op.units
        heads = heads.expand(self.n, -1).to(x.device)[:, :, None]
        at = self.at.to(x.device)[None, None]
        if self.op.keys:
            keys = torch.tensor(self.op.keys, device=x.device)[None, None, None]
            x.index_put_((cells[..., None], heads[..., None], at[..., None], keys), self._at_keys(x, heads, keys))
        elif self.source is None:
            x.index_put_((cells, heads, at), x.new_zeros(()))
        else:
            query = torch.arange(len(self.at), device=x.device)[None, None]
            x.index_put_((cells, heads, at), self.source.to(x)[heads, query])

    def _at_keys(self, x: Tensor, heads: Tensor, keys: Tensor) -> Tensor:
        """What is put at `op.keys`, `[cell head query key]`."""
        if self.op.kind == "block":
            return x.new_tensor(-torch.inf)
        if self.source is None:
            return x.new_zeros(())
        query = torch.arange(len(self.at), device=x.device)[None, None, :, None]
        return self.source.to(x)[heads[..., None], query, keys]


@dataclass
class LayerEdits(Tap):
    """`whole` changes by site; `parts` changes by the number of their segment. `watched` keeps `watch` sites."""

    watch: frozenset[str] = frozenset()
    whole: dict[str, list[Change]] = field(default_factory=dict)
    parts: dict[int, list[PatternChange]] = field(default_factory=dict)
    watched: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, name: str, x: Tensor) -> Tensor:
        if name in self.whole:
            x = _changed(x[0], self.whole[name])[None]
        if name in self.watch:
            self.watched[name] = x[0]
        return x

    def wants(self, *names: str) -> bool:
        return any(name in self.whole or name in self.watch for name in names)

    def edits(self, name: str) -> bool:
        return name in self.whole

    def within(self, owner: int | None) -> Tap:
        assert owner is not None
        return _PartEdits(self.parts[owner]) if owner in self.parts else NO_TAPS

    def must_have_fired(self) -> None:
        """An edit that was never applied is a fault: its cell would look as if nothing had happened."""
        for change in chain(*self.whole.values(), *self.parts.values()):
            if not change.fired:
                raise HookError(f"The edit of {change.op.site} never applied: this pass does not compute it.")


@dataclass
class _PartEdits(Tap):
    changes: list[PatternChange]

    def __call__(self, name: str, x: Tensor) -> Tensor:
        mine = [change for change in self.changes if str(change.op.site) == name]
        return _changed(x, mine) if mine else x

    def wants(self, *names: str) -> bool:
        return any(str(change.op.site) in names for change in self.changes)


def _changed(x: Tensor, changes: list[Change] | list[PatternChange]) -> Tensor:
    x = x.clone()
    for change in changes:
        change.apply_(x)
    return x
