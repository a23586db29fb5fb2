"""One wave: edited cells travel through the layers together, each joining at the layer where it is first edited.

A cell carries only its tokens from `start` on; what stands before comes as stored keys of the unedited text. In the
last layer only the tokens whose logits are read ask and go on. Edits are applied through the same taps as a hook's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp.causal.bundles import Bundle, Op
from interp.causal.changes import Change, LayerEdits, PatternChange
from interp.causal.reach import made_for_all
from interp.causal.texts import Recording
from interp.model.block import Memory
from interp.model.packing import PackedRows, PartRows, Segment, pack
from interp.model.stack import Stack
from interp.model.taps import NO_TAPS, Tap
from interp.model.transformer import HookedTransformer
from interp.sites import Site

__all__ = ["Bank", "Outputs", "Wave", "final_scale"]

Bank = Recording | Mapping[str, Tensor]
Outputs = list[Float[Tensor, "_cell _some_pos d_model"]]  # of each bundle its own
_SLAB = 1_024  # tokens


@dataclass
class _Strand:
    """Cells of one text that start at the same place: they share stored keys and one call of attention."""

    owner: int
    text: int
    start: int
    pieces: list[Tensor] = field(default_factory=list)  # [cell pos d_model]
    n: int = 0


@dataclass(frozen=True)
class _Place:
    """Where a bundle's cells are: in which strand, and from which of its cells on."""

    strand: _Strand
    first: int
    n: int

    def of(self, packed: Mapping[int, Tensor]) -> Float[Tensor, "cell some_pos *rest"]:
        return packed[self.strand.owner][self.first : self.first + self.n]


@dataclass(frozen=True)
class Wave:
    """What waves over the same texts share: the model, the unedited recording, and the banks of values.

    `watch` names sites of self-attention whose values in the cells are kept: a run returns them by (bundle, site).
    """

    model: HookedTransformer
    base: Recording
    banks: Mapping[str, Bank]
    watch: frozenset[str] = frozenset()
    freeze_final: str | None = None  # the stack whose final norm divides by the unedited run's scale
    parts: dict[str, PartRows] = field(default_factory=dict)  # by stack

    def run(
        self, bundles: Sequence[Bundle], *, stop: int | None = None
    ) -> tuple[Outputs, dict[tuple[int, str], Tensor]]:
        """The finished residuals of each bundle's cells at its text's reads from `start` on, and what was watched.
        With `stop` the cells go only that far, and what they leave there is not finished."""
        main, encoder = self.model.main, self.model.encoder
        first = bundles[0].stack
        assert all(bundle.stack == first for bundle in bundles), "a wave starts in one stack"
        stacks = self.model.cfg.stacks
        ops = [op for bundle in bundles for op in bundle.ops]
        assert all(op.layer < stacks[op.site.stack].n_layers for op in ops), "an edit of a layer beyond the last"
        if encoder is None or encoder is main or first == main.name:
            assert all(op.site.stack == main.name for op in ops), "an edit of the encoder would be lost"
            return self._through(main, bundles, None, stop)
        memory, watched = self._through(encoder, bundles, None, stop)
        if stop is not None:
            return [], watched
        return self._through(main, [replace(bundle, start=0) for bundle in bundles], memory)

    def encoded(self, bundles: Sequence[Bundle]) -> Outputs:
        """What the encoders of each bundle's cells put out, `[cell pos d_model]`."""
        assert self.model.encoder is not None
        return self._through(self.model.encoder, bundles, None)[0]

    def _through(
        self, stack: Stack, bundles: Sequence[Bundle], memory: Outputs | None, stop: int | None = None
    ) -> tuple[Outputs, dict[tuple[int, str], Tensor]]:
        """Carry the cells of all bundles to the end of a stack. `memory`: what their cells' encoders put out."""
        ops = _by_layer(bundles, stack.name)
        alone = memory is not None or any(op.in_attention or op.in_memory for _, op in _flat(ops))
        joining: dict[int, list[int]] = {}
        for number, bundle in enumerate(bundles):
            joining.setdefault(0 if memory is not None else bundle.first_layer, []).append(number)
        strands: list[_Strand] = []
        open_strands: dict[object, _Strand] = {}
        places: dict[int, _Place] = {}
        watched: dict[tuple[int, str], Tensor] = {}
        for layer in range(min(joining), stack.config.n_layers if stop is None else stop):
            for number in joining.get(layer, ()):
                bundle = bundles[number]
                key = number if alone else (bundle.text, bundle.start)
                strand = open_strands.get(key)
                if strand is None or strand.n * (self._length(stack, bundle.text) - strand.start) >= _SLAB:
                    strand = open_strands[key] = _Strand(len(strands), bundle.text, bundle.start)
                    strands.append(strand)
                places[number] = _Place(strand, strand.n, len(bundle.cells))
                strand.pieces.append(self._joining(stack, layer, bundle))
                strand.n += len(bundle.cells)
            here: dict[int, list[tuple[int, Op]]] = {}
            for number, op in ops.get(layer, ()):
                here.setdefault(places[number].strand.owner, []).append((number, op))
            kept: dict[str, dict[int, Tensor]] = {}
            for slab in self._slabs(stack, strands):
                mine = [one for strand in slab for one in here.get(strand.owner, ())]
                for name, packed in self._layer(stack, layer, slab, places, mine, memory).items():
                    kept.setdefault(name, {}).update(packed)
            for number, place in places.items():
                watched |= {(number, name): place.of(packed) for name, packed in kept.items()}
        if stop is not None:
            return [], watched
        finished = {one.owner: self._finished(stack, one) for one in strands}
        return [places[number].of(finished) for number in range(len(bundles))], watched

    def _slabs(self, stack: Stack, strands: Sequence[_Strand]) -> Iterator[list[_Strand]]:
        """Strands that go through a layer together: few enough tokens that what the layer makes stays in the cache."""
        slab: list[_Strand] = []
        used = 0
        for strand in strands:
            size = strand.n * (self._length(stack, strand.text) - strand.start)
            if slab and used + size > _SLAB:
                yield slab
                slab, used = [], 0
            slab.append(strand)
            used += size
        yield slab

    def _layer(
        self,
        stack: Stack,
        layer: int,
        strands: Sequence[_Strand],
        places: Mapping[int, _Place],
        ops: Sequence[tuple[int, Op]],
        memory: Outputs | None,
    ) -> dict[str, dict[int, Tensor]]:
        """One layer for some strands, whose pieces it replaces; returns watched tensors by site and strand."""
        reads_only = layer == stack.config.n_layers - 1 and stack is self.model.main
        segments = [self._segment(stack, i, strand, reads_only) for i, strand in enumerate(strands)]
        number_of = {strand.owner: i for i, strand in enumerate(strands)}
        rows = pack(segments, self.model.device, self.parts.setdefault(stack.name, {}), **stack.distances)
        edits = LayerEdits(self.watch)
        for number, op in ops:
            assert number in places, "edited before its bundle joined"
            place = places[number]
            self._add(edits, op, place, number_of[place.strand.owner], segments, rows)
        resid = torch.cat([piece.flatten(0, 1) for strand in strands for piece in strand.pieces])[None]
        past = self.base.keys.get(layer) if stack is self.model.main else None
        own = memory is not None or any(op.in_memory for _, op in ops)
        across = self._own_memory(strands, memory) if own else self.base.memory
        resid, _ = stack.block(layer)(resid, rows, edits, past=past, memory=across)
        edits.must_have_fired()
        for strand, piece in zip(strands, _unpacked(resid[0], segments, asking=True), strict=True):
            strand.pieces = [piece]
        found = {}
        for name, packed in edits.watched.items():
            pieces = _unpacked(packed, segments, asking=not made_for_all(self.model, Site.parse(name)))
            found[name] = {strand.owner: piece for strand, piece in zip(strands, pieces, strict=True)}
        return found

    def _finished(self, stack: Stack, strand: _Strand) -> Float[Tensor, "cell some_pos d_model"]:
        resid = torch.cat(strand.pieces)
        norm, name = stack.config.final_norm, final_scale(stack.name)
        if self.freeze_final != stack.name or norm is None or norm.kind == "none":
            return stack.finish(resid, NO_TAPS)
        if stack is not self.model.main:  # every position is finished, not only what is read
            place = self.base.place(stack.name, strand.text)
            scale = self.base.values[name][place : place + self._length(stack, strand.text)]
            return stack.finish(resid, _FixedScale(name, scale))
        reads = self.base.texts[strand.text].reads
        before = sum(len(text.reads) for text in self.base.texts[: strand.text])
        late = [before + i for i, read in enumerate(reads) if read >= strand.start]
        return stack.finish(resid, _FixedScale(name, self.base.values[name][late]))

    def _joining(self, stack: Stack, layer: int, bundle: Bundle) -> Float[Tensor, "cell pos d_model"]:
        """The unedited residual that enters a layer, from the bundle's start on, once for each cell."""
        place, length = self.base.place(stack.name, bundle.text), self._length(stack, bundle.text)
        resid = self.base.resid[stack.name, layer][place + bundle.start : place + length]
        return resid.expand(len(bundle.cells), *resid.shape)

    def _length(self, stack: Stack, text: int) -> int:
        return len(self.base.texts[text].in_stack(stack is not self.model.main))

    def _segment(self, stack: Stack, number: int, strand: _Strand, reads_only: bool) -> Segment:
        reads = tuple(read for read in self.base.texts[strand.text].reads if read >= strand.start)
        length, place = self._length(stack, strand.text), self.base.place(stack.name, strand.text)
        queries = reads if reads_only else None
        return Segment(strand.text, strand.n, strand.start, length, place, queries, number)

    def _own_memory(self, strands: Sequence[_Strand], memory: Outputs | None) -> Memory:
        """The encoder's output for each cell apart, as its edits need it (each strand is then one bundle)."""
        shared = self.base.memory
        assert shared is not None
        segments, outputs = [], []
        for strand in strands:
            length = len(self.base.texts[strand.text].encoder)
            if memory is None:
                place = self.base.place("encoder", strand.text)
                outputs.append(shared.resid[0, place : place + length].repeat(strand.n, 1))
            else:
                outputs.append(memory[strand.owner].flatten(0, 1))
            segments.append(Segment(strand.text, strand.n, 0, length))
        return Memory(torch.cat(outputs)[None], replace(pack(segments, self.model.device), by_place=True))

    def _add(
        self,
        edits: LayerEdits,
        op: Op,
        place: _Place,
        number: int,
        segments: Sequence[Segment],
        rows: PackedRows,
    ) -> None:
        """Put an op where the packed row has it."""
        segment = segments[number]
        asked = segment.queries if segment.queries is not None else tuple(range(segment.past, segment.length))
        if op.in_attention:
            at = torch.tensor([asked.index(pos) for pos in op.pos])
            change = PatternChange(op, place.first, place.n, at, self._pattern(op, segment.text))
            edits.parts.setdefault(number, []).append(change)
            return
        if op.in_memory:
            width = len(self.base.texts[segment.text].encoder)
            begin = sum(one.n * len(self.base.texts[one.text].encoder) for one in segments[:number])
            at = torch.tensor(op.pos)
        elif not made_for_all(self.model, op.site):
            width, begin = segment.n_asking, rows.asking_starts[number]
            at = torch.tensor([asked.index(pos) for pos in op.pos])
        else:
            width, begin, at = segment.n_new, rows.starts[number], torch.tensor(op.pos) - segment.past
        assert int(at.min()) >= 0 and int(at.max()) < width, "an edit of another cell's tokens"
        cells = torch.arange(place.first, place.first + place.n)[:, None]
        where = (begin + cells * width + at).to(self.model.device)
        edits.whole.setdefault(str(op.site), []).append(Change(op, where, *self._values(op, segment.text)))

    def _values(self, op: Op, text: int) -> tuple[Tensor | None, Tensor | None]:
        """The bank's tensor, and which of its places are taken."""
        if op.bank == "zero":
            return None, None
        bank = self.banks[op.bank]
        if isinstance(bank, Recording):
            stack = "encoder" if op.in_memory else op.site.stack
            index = torch.tensor(op.pos) if op.index is None else op.index
            return bank.values[str(op.site)], (index + bank.place(stack, text)).to(self.model.device)
        assert op.index is not None
        return bank[str(op.site)], op.index.to(self.model.device)

    def _pattern(self, op: Op, text: int) -> Tensor | None:
        if op.kind == "block" or op.bank == "zero":
            return None
        bank = self.banks[op.bank]
        assert isinstance(bank, Recording)
        return bank.patterns[str(op.site)][text][:, torch.tensor(op.pos)]


def final_scale(stack: str) -> str:
    """The name of the scale of a stack's final norm."""
    return f"{stack}{'.' if stack else ''}ln_final.hook_scale"


class _FixedScale(Tap):
    """Gives the final norm a scale that was stored, `[pos one]`, for every cell."""

    def __init__(self, name: str, scale: Tensor):
        self._name, self._scale = name, scale

    def __call__(self, name: str, x: Tensor) -> Tensor:
        return self._scale.expand_as(x) if name == self._name else x

    def wants(self, *names: str) -> bool:
        return self._name in names


def _by_layer(bundles: Sequence[Bundle], stack: str) -> dict[int, list[tuple[int, Op]]]:
    """Layer -> the ops there, each with the number of its bundle."""
    found: dict[int, list[tuple[int, Op]]] = {}
    for number, bundle in enumerate(bundles):
        for op in bundle.ops:
            if op.site.stack == stack:
                found.setdefault(op.layer, []).append((number, op))
    return found


def _flat(ops: Mapping[int, list[tuple[int, Op]]]) -> list[tuple[int, Op]]:
    return [one for some in ops.values() for one in some]


def _unpacked(packed: Tensor, segments: Sequence[Segment], *, asking: bool) -> list[Tensor]:
    """A packed tensor as one `[cell pos *rest]` for each segment."""
    widths = [one.n_asking if asking else one.n_new for one in segments]
    pieces = packed.split([one.n * width for one, width in zip(segments, widths, strict=True)])
    return [piece.unflatten(0, (one.n, width)) for piece, one, width in zip(pieces, segments, widths, strict=True)]
