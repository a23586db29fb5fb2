"""Plan, then execute: many edits of the same texts as few waves as memory allows, one number per text and cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from interp.causal.budget import Budget, carried, weights_per_token, working_rate
from interp.causal.bundles import Bundle, chunks
from interp.causal.scoring import Scorer
from interp.causal.shelf import record
from interp.causal.texts import Recording, Text
from interp.causal.wave import Bank, Outputs, Wave, final_scale
from interp.errors import InputError
from interp.metrics import BoundMetric
from interp.model.taps import active_writes
from interp.model.transformer import HookedTransformer

__all__ = ["Cost", "Sweep", "Values"]

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
    `also_resid` names layers that cells join beyond their bundles'); `freeze_final` names a
    stack whose final norm keeps its scale.
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
    max_bytes: Any = None
    run_wave: Callable[[Wave, Sequence[Bundle]], Outputs] = lambda wave, bundles: wave.run(bundles)[0]
    also_resid: frozenset[tuple[str, int]] = frozenset()
    freeze_final: str | None = None
    values: Values | None = None
    _done: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._budget = Budget.of(self.model, self.base, self.bundles, self.max_bytes)
        self._of_text: dict[int, list[int]] = {}
        for number, bundle in enumerate(self.bundles):
            self._of_text.setdefault(bundle.text, []).append(number)

    def cost(self) -> Cost:
        """What `run` will take."""
        n_layers, main = self.model.main.config.n_layers, self.model.main.name
        live = [len(one.cells) * carried(self.model, self.base[one.text], one) for one in self.bundles]
        layers = [n_layers - (one.first_layer if one.stack == main else 0) for one in self.bundles]
        work = sum(tokens * n for tokens, n in zip(live, layers, strict=True))
        work += sum(len(text.tokens) for text in (*self.base, *self.source)) * n_layers
        per_token = weights_per_token(self.model.main.config.blocks[0], self.model.cfg.d_model)
        cells = sum(len(bundle.cells) for bundle in self.bundles)
        peaks = [
            self._budget.peak(
                [self.base[text] for text in texts], sum(live[n] for text in texts for n in self._of_text.get(text, ()))
            )
            for texts in self._budget.groups(self.base)
        ]
        seconds = work * 2 * per_token / working_rate(self.model)
        return Cost(cells, int((~self.absent).sum()) - cells, work, seconds, max(peaks, default=0))

    @torch.no_grad()
    def run(self, report: Report | None = None) -> Values:
        """Compute what is not computed yet. `report(done, total)` counts cells; if it raises, or the user
        interrupts, what was finished stays in `values` and another call goes on from there."""
        if any(owner == id(self.model) for owner, _ in active_writes.get()):
            raise InputError("This would run without the hooks of `with model.hooks(…)` around it. Call it outside.")
        if self.values is None:
            empty = np.full(len(self.base), np.nan)
            self.values = Values(empty, empty.copy() if self.source else None, np.full(self.absent.shape, np.nan))
        total = sum(len(bundle.cells) for bundle in self.bundles)
        finished = sum(len(self.bundles[number].cells) for number in self._done)
        if report is not None:
            report(finished, total)
        for texts in self._budget.groups(self.base):
            numbers = [n for text in texts for n in self._of_text.get(text, ()) if n not in self._done]
            if not numbers and not np.isnan(self.values.base[texts]).any():
                continue  # a run before this one was interrupted behind them
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
            clean = base if self.reference == "base" else source
            assert clean is not None and clean.final is not None
            here = torch.tensor([slot for some in slots for slot in some], device=clean.final.device)
            metric = metric.with_reference(self.model.logits(clean.final[None])[0], here)
        scorer = Scorer(self.model, metric, texts, slots, self._budget.limit // 8)
        scores = scorer.of_runs(base.final)
        for text, i in local.items():
            self.values.base[text] = float(sum(scores[i]))
            self.values.patched[text, self._untouched(text)] = self.values.base[text]
        if source is not None and self.values.source is not None:
            there = scorer.of_runs(source.final)
            for text, i in local.items():
                self.values.source[text] = float(sum(there[i]))
        banks: dict[str, Bank] = {"base": base, **self.banks, **({"source": source} if source is not None else {})}
        for name, donors in self.donors.items():
            banks[name] = record(self.model, [donors[text] for text in texts], sites=_sites(mine, name), logits=False)
        wave = Wave(self.model, base, banks, freeze_final=self.freeze_final)

        def size(bundle: Bundle) -> int:
            return carried(self.model, self.base[texts[bundle.text]], bundle)

        number_of = {id(bundle): number for bundle, number in zip(mine, numbers, strict=True)}
        left = {number: len(self.bundles[number].cells) for number in numbers}
        for stack in sorted({bundle.stack for bundle in mine}):
            ordered = _ordered([bundle for bundle in mine if bundle.stack == stack])
            for part in chunks(ordered, size, self._budget.wave_tokens):
                some = [bundle for bundle, _ in part]
                outputs = self.run_wave(wave, some)
                for bundle, values in zip(some, scorer.of_cells(some, outputs, scores, base.final), strict=True):
                    self.values.patched[texts[bundle.text], bundle.cells.numpy()] = values
                for bundle, whole in part:
                    number = number_of[id(whole)]
                    left[number] -= len(bundle.cells)
                    if left[number] == 0:
                        self._done.add(number)
                yield sum(len(bundle.cells) for bundle in some)

    def _recordings(self, texts: Sequence[int], mine: Sequence[Bundle]) -> tuple[Recording, Recording | None]:
        main = self.model.main
        resid = {(bundle.stack, bundle.first_layer) for bundle in mine} | self.also_resid
        if any(stack != main.name for stack, _ in resid):
            resid.add((main.name, 0))
        base = record(
            self.model,
            [self.base[text] for text in texts],
            sites=_sites(mine, "base") | self._final_scales(),
            resid=resid,
            keys=any(bundle.start for bundle in mine),
        )
        if not self.source:
            return base, None
        return base, record(self.model, [self.source[text] for text in texts], sites=_sites(mine, "source"))

    def _final_scales(self) -> set[str]:
        scale = None if self.freeze_final is None else final_scale(self.freeze_final)
        return {scale} if scale is not None and scale in self.model.sites else set()

    def _slots(self, texts: Sequence[int]) -> list[list[int]]:
        """The numbers of each text's reads among all reads of the sweep."""
        starts = np.cumsum([0, *(len(text.reads) for text in self.base)])
        return [list(range(starts[text], starts[text + 1])) for text in texts]

    def _untouched(self, text: int) -> NDArray[np.bool_]:
        """Cells that a text has but that nothing edits: their effect is 0, bit for bit."""
        touched = np.zeros(self.absent.shape[1], dtype=bool)
        for number in self._of_text.get(text, ()):
            touched[self.bundles[number].cells.numpy()] = True
        return ~touched & ~self.absent[text]


def _moved(bundle: Bundle, local: Mapping[int, int]) -> Bundle:
    return replace(bundle, text=local[bundle.text])


def _sites(bundles: Sequence[Bundle], bank: str) -> set[str]:
    """The sites whose values are taken from a bank."""
    return {str(op.site) for bundle in bundles for op in bundle.ops if op.bank == bank}


def _ordered(bundles: Sequence[Bundle]) -> list[Bundle]:
    """Cells of one text and start side by side, so that a wave holds few strands."""
    return sorted(bundles, key=lambda bundle: (bundle.text, bundle.start))
