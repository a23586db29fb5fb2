"""Texts of different lengths, and cells that go on after parts of them, side by side in one row without padding.

Everything that treats tokens alike (norms, projections, MLPs) sees one long row `[1, token, …]`; attention is made
segment by segment. A segment holds equal-shaped cells of one text: copies of its tokens from `past` on, which see the
text's stored keys before that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor

from interp.model.positions import Rows
from interp.model.taps import Tap

__all__ = ["PackedRows", "Segment", "pack"]

PartRows = dict[tuple[int, int, tuple[int, ...] | None], Rows]


@dataclass(frozen=True)
class Segment:
    """`n` cells of one text: its tokens from `past` up to `length`, of which only `queries` ask (None: all).

    `text_start` is where the text's stored keys begin. `owner` is what a tap is told (`tap.within(owner)`).
    """

    text: int
    n: int
    past: int
    length: int
    text_start: int = 0
    queries: tuple[int, ...] | None = None
    owner: int | None = None

    @property
    def n_new(self) -> int:
        """Tokens of one cell."""
        return self.length - self.past

    @property
    def n_asking(self) -> int:
        """Tokens of one cell that ask."""
        return self.n_new if self.queries is None else len(self.queries)


@dataclass(frozen=True)
class PackedRows(Rows):
    """`Rows` of packed segments. Keys that were stored are packed too, one cell for each text."""

    segments: tuple[Segment, ...] = ()
    source: PackedRows | None = None  # the other text's, in cross-attention
    part_rows: PartRows | None = None  # made once, kept by the caller over layers
    by_place: bool = False  # as another text's source: segment by segment, instead of one segment for each text

    def at(self, pos: Tensor) -> PackedRows:
        """Only the tokens that ask, over all keys; `pos` is what `pack` put into `kept`."""
        return replace(self, positions=self.positions[:, pos], kept=None, _memo={})

    def across(self, memory: Rows) -> PackedRows:
        assert isinstance(memory, PackedRows)
        return replace(self, source=memory, _memo={})

    def attend(
        self,
        function: Callable[..., Tensor],
        q: Float[Tensor, "one pos head d_head"],
        k: Float[Tensor, "one k_pos kv_head d_head"],
        v: Float[Tensor, "one k_pos kv_head d_head"],
        tap: Callable[..., Tensor],
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Float[Tensor, "one pos head d_head"], tuple[Tensor, Tensor]]:
        """Segment by segment: its cells as the batch, its stored keys in front."""
        assert isinstance(tap, Tap)
        made, start = [], 0
        for place, segment in enumerate(self.segments):
            queries = _cells(q, start, segment.n, segment.n_asking)
            keys, values = self._keys(place, k, v, past)
            z = function(queries, keys, values, self._part(place), tap.within(segment.owner))
            made.append(z.flatten(0, 1))
            start += segment.n * segment.n_asking
        return torch.cat(made)[None], (k, v)

    def _keys(self, place: int, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        segment = self.segments[place]
        if self.source is not None:
            of = self.source.segment_for(place, segment.text)
            start = self.source.starts[of]
            there = self.source.segments[of]
            return tuple(_widened(_cells(x, start, there.n, there.n_new), segment.n) for x in (k, v))  # type: ignore[return-value]
        start = self.starts[place]
        new = [_cells(x, start, segment.n, segment.n_new) for x in (k, v)]
        if segment.past == 0:
            return new[0], new[1]
        assert past is not None
        stored = [_cells(x, segment.text_start, 1, segment.past) for x in past]
        both = [torch.cat([_widened(old, segment.n), fresh], dim=1) for old, fresh in zip(stored, new, strict=True)]
        return both[0], both[1]

    @cached_property
    def starts(self) -> list[int]:
        """Where each segment's tokens begin."""
        return [0, *accumulate(segment.n * segment.n_new for segment in self.segments)]

    @cached_property
    def asking_starts(self) -> list[int]:
        """Where each segment's asking tokens begin among all that ask."""
        return [0, *accumulate(segment.n * segment.n_asking for segment in self.segments)]

    def segment_for(self, place: int, text: int) -> int:
        """Which of these segments is read by another text's segment."""
        if self.by_place:
            return place
        return next(i for i, one in enumerate(self.segments) if one.text == text)

    def _part(self, place: int) -> Rows:
        """One segment's rows, with the masks that all its layers share."""
        segment = self.segments[place]
        known = self.part_rows if self.part_rows is not None else {}
        key = (segment.past, segment.length, segment.queries)
        if key not in known:
            device = self.positions.device
            places = torch.arange(segment.past, segment.length, device=device)
            rows = Rows(
                places[None], None, segment.past, segment.length, relative=self.relative, max_distance=self.max_distance
            )
            if segment.queries is not None:
                rows = rows.at(torch.tensor(segment.queries, device=device) - segment.past)
            known[key] = rows
        if self.source is None:
            return known[key]
        there = self.source.segments[self.source.segment_for(place, segment.text)]
        return replace(known[key], past=0, n_keys=there.length, queries=None, relative=None, _memo={})


def pack(
    segments: Sequence[Segment],
    device: torch.device,
    part_rows: PartRows | None = None,
    relative: Float[Tensor, "bucket head"] | None = None,
    max_distance: int = 128,
) -> PackedRows:
    """The rows of some segments. Where a segment's `queries` leave tokens out, only these ask and go on."""
    positions, kept, start = [], [], 0
    narrowed = any(segment.queries is not None for segment in segments)
    for segment in segments:
        places = torch.arange(segment.past, segment.length)
        positions.append(places.repeat(segment.n))
        if narrowed:
            asking = places if segment.queries is None else torch.tensor(segment.queries)
            cells = torch.arange(segment.n)[:, None] * segment.n_new
            kept.append((start + cells + (asking - segment.past)).flatten())
        start += segment.n * segment.n_new
    return PackedRows(
        torch.cat(positions)[None].to(device),
        n_keys=start,
        kept=torch.cat(kept).to(device) if narrowed else None,
        relative=relative,
        max_distance=max_distance,
        segments=tuple(segments),
        part_rows=part_rows,
    )


def _cells(x: Float[Tensor, "one token *rest"], start: int, n: int, length: int) -> Float[Tensor, "cell pos *rest"]:
    return x[0, start : start + n * length].unflatten(0, (n, length))


def _widened(x: Float[Tensor, "some_cells *rest"], n: int) -> Float[Tensor, "cell *rest"]:
    return x if len(x) == n else x.expand(n, *x.shape[1:])
