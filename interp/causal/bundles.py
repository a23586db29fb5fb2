"""What is to be changed: operations on sites, in bundles of equal-shaped cells of one text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Int
from torch import Tensor

from interp.sites import Site

__all__ = ["Bundle", "Op", "chunks", "in_order"]


@dataclass(frozen=True)
class Op:
    """One change of one site in every cell of a bundle: at positions `pos` of the text, for the heads or neurons
    `units [cell unit]` (None: the whole vector), values are set to those of a bank.

    `bank` names it: a recording of the same texts ("source", "base"), of which the same places are taken unless
    `index [pos]` says which, or "zero". Patterns and scores are set
    for the queries `pos` over all keys, or at `keys` alone; `kind="block"` sets scores there to −∞. `kind="add"` adds
    the bank's values times `factor`.
    """

    site: Site
    pos: tuple[int, ...]
    units: Int[Tensor, "cell unit"] | None = None
    bank: str = "zero"
    index: Int[Tensor, " pos"] | None = None
    kind: Literal["set", "add", "block"] = "set"
    keys: tuple[int, ...] = ()
    factor: float = 1.0

    @property
    def in_attention(self) -> bool:
        """Whether it changes scores or patterns, which exist only text by text."""
        return self.site.name in ("hook_attn_scores", "hook_pattern")

    @property
    def in_memory(self) -> bool:
        """Whether it changes cross-attention's keys or values: `pos` then counts in the encoder's text."""
        return self.site.part == "cross_attn" and self.site.name in ("hook_k", "hook_v", "hook_rot_k")

    @property
    def layer(self) -> int:
        assert self.site.layer is not None
        return self.site.layer


@dataclass(frozen=True)
class Bundle:
    """Cells of one text that are edited at the same places: `cells` numbers them in the grid, `start` is the first
    position that can feel them (0 wherever later tokens are seen). Ops of an encoder stand before those of a decoder
    over it."""

    text: int
    cells: Int[Tensor, " cell"]
    ops: tuple[Op, ...]
    start: int

    @property
    def stack(self) -> str:
        """The stack that is edited first."""
        return self.ops[0].site.stack

    @property
    def first_layer(self) -> int:
        return min(op.layer for op in self.ops)

    def tokens(self, length: int) -> int:
        """Tokens that all its cells together carry through the layers."""
        return len(self.cells) * (length - self.start)

    def part(self, cells: slice) -> Bundle:
        """Some of its cells."""
        ops = tuple(op if op.units is None else replace(op, units=op.units[cells]) for op in self.ops)
        return replace(self, cells=self.cells[cells], ops=ops)


def in_order(ops: Iterable[Op]) -> tuple[Op, ...]:
    """Ops as a bundle takes them: an encoder's first."""
    return tuple(sorted(ops, key=lambda op: op.site.stack != "encoder"))


def chunks(
    bundles: Sequence[Bundle], per_cell: Callable[[Bundle], int], max_tokens: int
) -> Iterator[list[tuple[Bundle, Bundle]]]:
    """Groups of (part of a bundle, the bundle) that carry at most `max_tokens` tokens, one cell at least."""
    group: list[tuple[Bundle, Bundle]] = []
    used = 0
    for bundle in bundles:
        done = 0
        while done < len(bundle.cells):
            room = (max_tokens - used) // per_cell(bundle)
            if room < 1 and group:
                yield group
                group, used = [], 0
                continue
            part = bundle.part(slice(done, done + max(room, 1)))
            group.append((part, bundle))
            used += len(part.cells) * per_cell(bundle)
            done += len(part.cells)
    if group:
        yield group
