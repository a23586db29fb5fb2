"""Plan, then execute: many edits of the same texts as few waves as memory allows, one number per text and cell."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp.causal.bundles import Bundle, chunks
from interp.causal.texts import Recording, Text, record
from interp.causal.wave import Bank, Outputs, Wave, final_scale
from interp.errors import InputError
from interp.metrics import BoundMetric
from interp.model.config import BlockConfig
from interp.model.transformer import HookedTransformer
from interp.sites import Site

__all__ = ["Cost", "Sweep", "Values"]

DEFAULT_BYTES = 1 << 30
_MAX_TOKENS = 16_384  # of one wave: beyond this, matrices do not get faster
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Cost:
    """What a sweep takes: cells to compute and cells known to be 0, one token through one layer as the unit of work,
    and estimates of seconds on this machine and of memory above the model's weights."""

    cells: int
    skipped: int
    token_layers: int
    seconds: float
    peak_bytes: int


@dataclass
class Values:
    """The metric of each text: unedited, on the text copied from (where there is one), and `[text, cell]` edited;
    NaN where a cell does not exist or was not reached."""

    base: NDArray[np.floating]
    source: NDArray[np.floating] | None
    patched: NDArray[np.floating]
    complete: bool = False


@dataclass
class Sweep:
    """Texts, the edits of each, and the metric that reads them.

    `absent[text, cell]` marks cells that a text does not have. `reference` says which texts' logits a metric
    compares with: "base" or "source". `banks` holds tables of values by site, for ops that take means; `donors` other
    texts, one for each text, whose recordings are banks too. `run_wave` may make more of a wave than one run (then
    `also_resid` names layers that cells join beyond their bundles'); `freeze_final` keeps the final norm's scale.
    """

    model: HookedTransformer
    metric: BoundMetric
    base: Sequence[Text]
    source: Sequence[Text]
    bundles: Sequence[Bundle]
    absent: NDArray[np.bool_]
    reference: str = "base"
    banks: Mapping[str, Bank] = field(default_factory=dict)
    donors: Mapping[str, Sequence[Text]] = field(default_factory=dict)
    max_bytes: int | None = None
    run_wave: Callable[[Wave, Sequence[Bundle]], Outputs] = lambda wave, bundles: wave.run(bundles)[0]
    also_resid: frozenset[tuple[str, int]] = frozenset()
    freeze_final: bool = False
    values: Values | None = None
    _done: set[int] = field(default_factory=set)

    def cost(self) -> Cost:
        """What `run` will take."""
        lengths, stack_layers = self._lengths(), self.model.main.config.n_layers
        work = sum(
            bundle.tokens(lengths[bundle.text]) * (stack_layers - self._first(bundle)) for bundle in self.bundles
        )
        passes = sum(len(text.tokens) for text in (*self.base, *self.source)) * stack_layers
        block = self.model.main.config.blocks[0]
        seconds = (work + passes) * 2 * _weights_per_token(block, self.model.cfg.d_model) / _rate(self.model)
        cells = sum(len(bundle.cells) for bundle in self.bundles)
        groups = list(self._groups())
        peak = max((self._peak(texts) for texts in groups), default=0)
        return Cost(cells, int((~self.absent).sum()) - cells, work + passes, seconds, peak)

    @torch.no_grad()
    def run(self, report: Report | None = None) -> Values:
        """Compute what is not computed yet. `report(done, total)` counts cells; if it raises, or the user
        interrupts, what was finished stays in `values` and another call goes on from there."""
        if self.values is None:
            empty = np.full(len(self.base), np.nan)
            self.values = Values(empty, empty.copy() if self.source else None, np.full(self.absent.shape, np.nan))
        by_text: dict[int, list[int]] = {}
        for number, bundle in enumerate(self.bundles):
            by_text.setdefault(bundle.text, []).append(number)
        total = sum(len(bundle.cells) for bundle in self.bundles)
        finished = sum(len(self.bundles[number].cells) for number in self._done)
        if report is not None:
            report(finished, total)
        for texts in self._groups():
            numbers = [n for text in texts for n in by_text.get(text, ()) if n not in self._done]
            for done in self._group(texts, numbers):
                finished += done
                if report is not None:
                    report(finished, total)
        self.values.complete = True
        return self.values

    def _group(self, texts: Sequence[int], numbers: Sequence[int]) -> Iterator[int]:
        """Some texts and their bundles: the unedited passes, then wave after wave. Yields cells done."""
        assert self.values is not None
        local = {text: i for i, text in enumerate(texts)}
        mine = [_moved(self.bundles[number], local) for number in numbers]
        base, source = self._recordings(texts, mine)
        slots = self._slots(texts)
        metric = self.metric
        if metric.needs_reference:
            metric = metric.with_reference(self._reference(texts, base, source))
        scores = self._scores(metric, base.final, slots)
        for text, i in local.items():
            self.values.base[text] = float(sum(scores[i]))
            self.values.patched[text, self._untouched(text)] = self.values.base[text]
        if source is not None and self.values.source is not None:
            there = self._scores(metric, source.final, slots)
            for text, i in local.items():
                self.values.source[text] = float(sum(there[i]))
        banks: dict[str, Bank] = {"base": base, **self.banks, **({"source": source} if source is not None else {})}
        for name, donors in self.donors.items():
            banks[name] = record(self.model, [donors[text] for text in texts], sites=_sites(mine, name), logits=False)
        wave = Wave(self.model, base, banks, freeze_final=self.freeze_final)
        lengths = [self._length(text) for text in texts]
        number_of = {id(bundle): number for bundle, number in zip(mine, numbers, strict=True)}
        left = {number: len(self.bundles[number].cells) for number in numbers}
        for part in chunks(_ordered(mine), lengths, self._tokens_at_once()):
            outputs = self.run_wave(wave, [bundle for bundle, _ in part])
            self._keep(metric, [bundle for bundle, _ in part], outputs, texts, scores, slots)
            for bundle, whole in part:
                number = number_of[id(whole)]
                left[number] -= len(bundle.cells)
                if left[number] == 0:
                    self._done.add(number)
            yield sum(len(bundle.cells) for bundle, _ in part)

    def _keep(
        self,
        metric: BoundMetric,
        bundles: Sequence[Bundle],
        outputs: Outputs,
        texts: Sequence[int],
        unedited: Sequence[Sequence[float]],
        slots: Sequence[Sequence[int]],
    ) -> None:
        """The metric of all cells of a wave. Reads before a bundle's start cannot feel its edit: they keep their
        scores."""
        assert self.values is not None
        late = []
        for bundle, output in zip(bundles, outputs, strict=True):
            late.append(slots[bundle.text][-output.shape[1] :])
        slot = torch.tensor([s for some, x in zip(late, outputs, strict=True) for _ in range(len(x)) for s in some])
        flat = torch.cat([x.flatten(0, 1) for x in outputs])
        scores = self._in_parts(metric, flat, slot.to(flat.device)).double().cpu().numpy()
        start = 0
        for bundle, some, x in zip(bundles, late, outputs, strict=True):
            mine = scores[start : start + len(x) * len(some)].reshape(len(x), len(some))
            early = sum(unedited[bundle.text][: len(slots[bundle.text]) - len(some)])
            self.values.patched[texts[bundle.text], bundle.cells.numpy()] = early + mine.sum(axis=1)
            start += mine.size

    def _recordings(self, texts: Sequence[int], mine: Sequence[Bundle]) -> tuple[Recording, Recording | None]:
        main = self.model.main
        resid = {(bundle.stack, bundle.first_layer) for bundle in mine} | self.also_resid
        if any(stack != main.name for stack, _ in resid):
            resid.add((main.name, 0))
        base = record(
            self.model,
            [self.base[text] for text in texts],
            sites=_sites(mine, "base") | ({final_scale(self.model)} if self.freeze_final else set()),
            resid=resid,
            keys=any(bundle.start for bundle in mine),
        )
        if not self.source:
            return base, None
        return base, record(self.model, [self.source[text] for text in texts], sites=_sites(mine, "source"))

    def _scores(self, metric: BoundMetric, final: Tensor | None, slots: Sequence[Sequence[int]]) -> list[list[float]]:
        """Scores of every read of every text."""
        assert final is not None
        flat = torch.tensor([slot for some in slots for slot in some], device=final.device)
        scores = iter(self._in_parts(metric, final, flat).tolist())
        return [[next(scores) for _ in some] for some in slots]

    def _in_parts(self, metric: BoundMetric, final: Float[Tensor, "read d_model"], slot: Tensor) -> Tensor:
        """Unembed only the tokens that the metric needs, a part of the reads at a time."""
        n_tokens = self.model.cfg.d_vocab if metric.tokens is None else len(metric.tokens)
        step = max(1, (self.max_bytes or DEFAULT_BYTES) // 8 // (n_tokens * final.element_size()))
        parts = []
        for start in range(0, len(final), step):
            part = slice(start, start + step)
            logits = self.model.logits(final[None, part], tokens=metric.tokens)[0]
            parts.append(metric.scores(logits, slot[part]))
        return torch.cat(parts) if parts else final.new_zeros(0)

    def _reference(self, texts: Sequence[int], base: Recording, source: Recording | None) -> Tensor:
        """Logits of the clean run at all slots; those of other groups are left zero, since nothing asks for them."""
        clean = base if self.reference == "base" else source
        assert clean is not None and clean.final is not None
        n_slots = sum(len(text.reads) for text in self.base)
        logits = clean.final.new_zeros(n_slots, self.model.cfg.d_vocab)
        mine = torch.tensor([slot for some in self._slots(texts) for slot in some], device=logits.device)
        return logits.index_copy(0, mine, self.model.logits(clean.final[None])[0])

    def _slots(self, texts: Sequence[int]) -> list[list[int]]:
        """The numbers of each text's reads among all reads of the sweep."""
        starts = np.cumsum([0, *(len(text.reads) for text in self.base)])
        return [list(range(starts[text], starts[text + 1])) for text in texts]

    def _untouched(self, text: int) -> NDArray[np.bool_]:
        """Cells that a text has but that nothing edits: their effect is 0, bit for bit."""
        touched = np.zeros(self.absent.shape[1], dtype=bool)
        for bundle in self.bundles:
            if bundle.text == text:
                touched[bundle.cells.numpy()] = True
        return ~touched & ~self.absent[text]

    # ---- memory ----

    def _groups(self) -> Iterator[list[int]]:
        """Texts whose unedited recordings fit into half of the memory together."""
        limit = (self.max_bytes or DEFAULT_BYTES) // 2
        group: list[int] = []
        used = 0
        for text in range(len(self.base)):
            size = self._stored_bytes(text)
            if group and used + size > limit:
                yield group
                group, used = [], 0
            group.append(text)
            used += size
        if group:
            yield group

    def _stored_bytes(self, text: int) -> int:
        """What the recordings of one text hold: residuals, keys and values, and the sites copied from."""
        n_tokens = len(self.base[text].tokens) + len(self.base[text].encoder)
        return n_tokens * self._bytes_per_stored_token()

    def _bytes_per_stored_token(self) -> int:
        blocks = self.model.main.config.blocks
        numbers = len({bundle.first_layer for bundle in self.bundles}) * self.model.cfg.d_model
        numbers += sum(2 * block.attn.n_key_value_heads * block.attn.d_head for block in blocks)
        longest = max(len(text.tokens) + len(text.encoder) for text in self.base)
        taken = {(op.site, op.bank) for b in self.bundles for op in b.ops if op.bank not in ("zero", *self.banks)}
        for site, _ in taken:
            numbers += _width(site, self.model, longest)
        return numbers * self.model.dtype.itemsize

    def _tokens_at_once(self) -> int:
        """Tokens that one wave may carry in the other half."""
        tokens = (self.max_bytes or DEFAULT_BYTES) // 2 // self._bytes_per_live_token()
        longest = max(self._length(bundle.text) - bundle.start for bundle in self.bundles) if self.bundles else 1
        if self.max_bytes is not None and tokens < longest:
            least = 2 * longest * self._bytes_per_live_token()
            raise InputError(
                f"max_bytes={self.max_bytes:,} is too little for one cell of {longest} tokens. Give {least:,} or more."
            )
        return max(min(tokens, _MAX_TOKENS), longest)

    def _bytes_per_live_token(self) -> int:
        """The residual before, between and after the halves, q, k, v and z, and the MLP's inner tensors."""
        attn, mlp = self.model.main.config.blocks[0].attn, self.model.main.config.blocks[0].mlp
        numbers = 6 * self.model.cfg.d_model + 6 * attn.n_heads * attn.d_head
        numbers += 4 * mlp.d_mlp if mlp is not None else 0
        if any(op.in_attention for bundle in self.bundles for op in bundle.ops) or attn.softcap is not None:
            numbers += 4 * attn.n_heads * max(len(text.tokens) for text in self.base)
        return numbers * self.model.dtype.itemsize

    def _peak(self, texts: Sequence[int]) -> int:
        inside = set(texts)
        carried = sum(b.tokens(self._length(b.text)) for b in self.bundles if b.text in inside)
        live = min(carried, self._tokens_at_once()) if self.bundles else 0
        return sum(map(self._stored_bytes, texts)) + live * self._bytes_per_live_token()

    def _lengths(self) -> list[int]:
        return [self._length(text) for text in range(len(self.base))]

    def _length(self, text: int) -> int:
        """Tokens that a cell carries at most: of the stack that is edited, and of the other behind it."""
        edits_encoder = any(bundle.stack != self.model.main.name for bundle in self.bundles[:1])
        mine = len(self.base[text].tokens)
        return max(mine, len(self.base[text].encoder)) if edits_encoder else mine

    def _first(self, bundle: Bundle) -> int:
        return bundle.first_layer if bundle.stack == self.model.main.name else 0


def _moved(bundle: Bundle, local: Mapping[int, int]) -> Bundle:
    return replace(bundle, text=local[bundle.text])


def _sites(bundles: Sequence[Bundle], bank: str) -> set[str]:
    """The sites whose values are taken from a bank."""
    return {str(op.site) for bundle in bundles for op in bundle.ops if op.bank == bank}


def _ordered(bundles: Sequence[Bundle]) -> list[Bundle]:
    """Cells of one text and start side by side, so that a wave holds few strands."""
    return sorted(bundles, key=lambda bundle: (bundle.text, bundle.start))


def _width(site: Site, model: HookedTransformer, n_keys: int) -> int:
    """Numbers that a site holds for each token."""
    stack = model.cfg.stacks[site.stack]
    block = stack.blocks[site.layer or 0]
    attn = block.cross_attn if site.part == "cross_attn" else block.attn
    sizes = {
        "head": attn.n_heads if attn else 0,
        "kv_head": attn.n_key_value_heads if attn else 0,
        "d_head": attn.d_head if attn else 0,
        "d_mlp": block.mlp.d_mlp if block.mlp else 0,
        "d_model": model.cfg.d_model,
        "k_pos": n_keys,
        "one": 1,
    }
    return math.prod(sizes[axis] for axis in site.axes if axis in sizes)


def _weights_per_token(block: BlockConfig, d_model: int) -> int:
    """Multiplications of one token in one layer, attention scores left out."""
    attn, mlp = block.attn, block.mlp
    count = 2 * d_model * attn.d_head * (attn.n_heads + attn.n_key_value_heads)
    return count + ((3 if mlp.gated else 2) * d_model * mlp.d_mlp if mlp is not None else 0)


def _rate(model: HookedTransformer) -> float:
    """Operations per second of this machine on matrices of this model's width, measured once."""
    return _measured_rate(model.cfg.d_model, model.dtype, model.device, torch.get_num_threads())


@cache
def _measured_rate(width: int, dtype: torch.dtype, device: torch.device, n_threads: int) -> float:
    a, b = torch.ones(512, width, dtype=dtype, device=device), torch.ones(width, 4 * width, dtype=dtype, device=device)
    c = a @ b  # the first product pays for setting up
    began = time.perf_counter()
    for _ in range(3):
        c = a @ b
    float(c[0, 0])
    return 3 * 2 * 512 * 4 * width**2 / max(time.perf_counter() - began, 1e-9)
