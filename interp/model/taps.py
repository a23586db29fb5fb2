"""What one call reads and edits. The call owns it; nothing is ever registered on the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from interp.errors import HookError
from interp.sites import AddressBook, Site, SiteFilter

__all__ = ["NO_TAPS", "HookFunction", "HookPoint", "HookSpec", "Tap", "Taps", "Write", "active_writes", "make_writes"]

HookFunction = Callable[..., Tensor | None]
HookSpec = Sequence[tuple[SiteFilter, HookFunction]]


@dataclass
class HookPoint:
    """What a hook function is told about where it is: `fn(tensor, hook)`."""

    name: str
    site: Site
    ctx: dict[str, Any] = field(default_factory=dict)

    def layer(self) -> int:
        """The layer that the site belongs to; raises `HookError` outside the blocks."""
        if self.site.layer is None:
            raise HookError(f"{self.name} belongs to no layer.")
        return self.site.layer


@dataclass
class Write:
    """One hook function and the sites it waits for."""

    names: tuple[str, ...]
    function: HookFunction
    points: dict[str, HookPoint]
    backward: bool = False
    fired: bool = False

    def must_have_fired(self) -> None:
        """Raise if the pass never reached any of its sites, so that no edit is silently lost."""
        if not self.fired:
            where = self.names[0] if len(self.names) == 1 else f"{self.names[0]} and {len(self.names) - 1} more"
            raise HookError(
                f"The hook on {where} never fired: this call does not compute it. "
                "Check start_at_layer and stop_at_layer, or hook a site inside them."
            )


def make_writes(book: AddressBook, hooks: HookSpec, *, backward: bool = False) -> list[Write]:
    """Resolve `[(name or filter, function), …]` against a model's sites before anything runs."""
    writes = []
    for wanted, function in hooks:
        if not callable(function):
            raise HookError(f"The hook for {wanted!r} is {function!r}, not a function. Give (name, function) pairs.")
        sites = book.select(wanted)
        points = {str(site): HookPoint(str(site), site) for site in sites}
        writes.append(Write(tuple(points), function, points, backward))
    return writes


class Tap:
    """What a layer calls with each tensor it makes. This one reads and edits nothing."""

    def __call__(self, name: str, x: Tensor) -> Tensor:
        return x

    def wants(self, *names: str) -> bool:
        """Whether any of these tensors must really be made."""
        return False

    def edits(self, name: str) -> bool:
        return False

    def within(self, owner: int | None) -> Tap:
        """The tap of one part of a packed row, whose attention is made by itself."""
        return self


NO_TAPS = Tap()


class Taps(Tap):
    """The reads and writes of one call. `values` holds what was read, as it was after the writes."""

    def __init__(
        self,
        read: Iterable[str] = (),
        writes: Sequence[Write] = (),
        keep: Callable[[str, Tensor], Tensor] | None = None,
    ):
        self.read = frozenset(read)
        self.writes = tuple(writes)
        self.values: dict[str, Tensor] = {}
        self._keep = keep
        self._forward: dict[str, list[Write]] = {}
        self._backward: dict[str, list[Write]] = {}
        for write in writes:
            table = self._backward if write.backward else self._forward
            for name in write.names:
                table.setdefault(name, []).append(write)

    def __call__(self, name: str, x: Tensor) -> Tensor:
        for write in self._forward.get(name, ()):
            x = _edited(x, write, name)
        if name in self._backward:
            x = _watched(x, self._backward[name], name)
        if name in self.read:
            self.values[name] = x if self._keep is None else self._keep(name, x)
        return x

    def wants(self, *names: str) -> bool:
        return any(name in self.read or name in self._forward or name in self._backward for name in names)

    def edits(self, name: str) -> bool:
        return name in self._forward or name in self._backward

    def must_have_fired(self) -> None:
        for write in self.writes:
            write.must_have_fired()


def _edited(x: Tensor, write: Write, name: str) -> Tensor:
    """The tensor after one hook. The hook gets a copy: editing it in place edits this site and no other."""
    write.fired = True
    own = x.clone()
    returned = write.function(own, hook=write.points[name])
    new = own if returned is None else returned
    _check(new, x, name)
    return new


def _check(new: object, old: Tensor, name: str) -> None:
    if not isinstance(new, Tensor):
        raise HookError(
            f"The hook on {name} returned {type(new).__name__}. Return a tensor, or None to keep its in-place edit."
        )
    if new.shape != old.shape:
        raise HookError(
            f"The hook on {name} returned shape {tuple(new.shape)}; the site has {tuple(old.shape)}. Keep the shape."
        )
    if new.dtype != old.dtype:
        raise HookError(
            f"The hook on {name} returned {new.dtype}; the site is {old.dtype}. Convert it with .to(tensor.dtype)."
        )
    if new.device != old.device:
        raise HookError(
            f"The hook on {name} returned a tensor on {new.device}; the site is on {old.device}. "
            "Move it with .to(tensor.device)."
        )


def _watched(x: Tensor, writes: list[Write], name: str) -> Tensor:
    """The tensor with its gradient passing through the backward hooks. They hang on this tensor, not on the model."""
    if not torch.is_grad_enabled():
        raise HookError(
            f"The backward hook on {name} can never fire: gradients are off. Leave torch.no_grad() for this call."
        )
    x = x.view_as(x) if x.requires_grad else x.detach().requires_grad_()
    for write in writes:
        write.fired = True

        def pass_on(grad: Tensor, write: Write = write) -> Tensor | None:
            new = write.function(grad, hook=write.points[name])
            if new is not None:
                _check(new[0] if isinstance(new, tuple) else new, grad, name)
            return new[0] if isinstance(new, tuple) else new

        x.register_hook(pass_on)
    return x


# Hooks of `with model.hooks(…)`: seen by the calls of this thread (or task) inside the block, by no other.
active_writes: ContextVar[tuple[tuple[int, Write], ...]] = ContextVar("active_writes", default=())
