"""The search for heads that know who depends on whom: choose on one half of the sentences, report on the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.circuits.streaming import HeadGrid, head_grid
from interp.errors import InputError
from interp.heads.base import attention_kind
from interp.heads.syntax_attention import strongest
from interp.heads.syntax_corpus import Halves
from interp.heads.syntax_edges import cut_edges, edge_metric
from interp.heads.syntax_scores import LEAST_WORDS, Counts, Name, Rule, best_rules, count, links_of
from interp.heads.syntax_words import Link, role_of
from interp.model.transformer import HookedTransformer
from interp.results.heads import ITEM_COLUMNS
from interp.sites import Head
from interp.stats import bootstrap_interval, sign_flip

__all__ = [
    "BEST",
    "BY_RELATION",
    "CUT",
    "CUTTING",
    "IN_SENTENCES",
    "Found",
    "Measured",
    "SyntaxSettings",
    "measure",
    "search_syntax",
]

BY_RELATION, BEST, CUT = "syntax: by relation", "syntax: best head by relation", "edge to the partner cut"
CUTTING = "cutting edges of attention"
# What is counted of a head in each reported sentence: words with partners, and how many of them it finds, the best
# fixed offset finds, and the other words look at too.
IN_SENTENCES = ("words", "found", "by offset", "by other words")
Progress = Callable[[str, int, int], None]
Grid = NDArray[np.floating]


@dataclass(frozen=True)
class SyntaxSettings:
    """`n` sentences are put to interventions, for each of the best `top` heads (every head with `screen` "none")."""

    n: int
    top: int
    screen: str
    seed: int
    n_kinds: int


@dataclass(frozen=True)
class Measured:
    """Both halves: counts by relation and direction, the best fixed offsets of the report half, and that half without
    BOS."""

    select: Mapping[Name, Counts]
    report: Mapping[Name, Counts]
    bare: Mapping[Name, Counts]
    rules: Mapping[Name, Rule]

    @property
    def names(self) -> list[Name]:
        return list(self.rules)

    def excess(self) -> Grid:
        """How far each head lies above both rules on the selecting sentences, `[relation cell]`."""
        rows = []
        for name, rule in best_rules({name: self.select[name] for name in self.names}).items():
            one = self.select[name]
            rows.append(one.share(one.hits) - np.maximum(one.share(one.other_words), rule.share(one)))
        return np.stack(rows)


@dataclass(frozen=True)
class Found:
    """A row per head, the tables, what the effects are measured in, and the counts of each sentence."""

    frame: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    about: Mapping[str, Any]
    items: pd.DataFrame


def measure(model: HookedTransformer, halves: Halves, report: Progress, stage: str) -> Measured:
    """Where every word of both halves looks. Raises `InputError` where no relation stands often enough in both."""
    causal, parts = attention_kind(model) == "decoder", []
    for number, sentences in enumerate((halves.select, halves.report, halves.bare)):
        report(stage, number, 3)
        parts.append(count(sentences, strongest(model, sentences), causal=causal) if sentences else {})
    report(stage, 3, 3)
    select, reported, bare = parts
    kept = [
        name for name in select if name in reported and min(select[name].n_words, reported[name].n_words) >= LEAST_WORDS
    ]
    if not kept:
        often = max((one.n_words for one in select.values()), default=0)
        raise InputError(
            f"No relation stands {LEAST_WORDS} times in each half of these sentences ({len(halves.select)} and "
            f"{len(halves.report)}; the commonest {often} times in the first). Give more sentences, or a larger n."
        )
    return Measured(select, reported, bare, best_rules({name: reported[name] for name in kept}))


def search_syntax(
    model: HookedTransformer, halves: Halves, settings: SyntaxSettings, progress: Progress, stage: str
) -> Found:
    """Rows of heads with the relation and direction that each was chosen for, and tables of all relations."""
    grid, measured = head_grid(model), measure(model, halves, progress, stage)
    tested = _Tests(measured, grid, settings)
    frame = pd.DataFrame([_row(tested, grid, cell) for cell in tested.cells])
    top = sorted(tested.cells, key=lambda cell: -tested.excess[:, cell].max())
    top = top if settings.screen == "none" else top[: settings.top]
    metric, unit = edge_metric(model)
    links = links_of(halves.report, causal=attention_kind(model) == "decoder")
    for number, cell in enumerate(top):
        progress(CUTTING, number, len(top))
        cut = _effects(model, halves, _head(grid, cell), links, measured.names[tested.best[cell]], settings)
        for name, value in cut.items():
            frame.loc[tested.cells.index(cell), name] = value
    progress(CUTTING, len(top), len(top))
    tables = {BY_RELATION: tested.table()}
    tables[BEST] = _best(tables[BY_RELATION])
    about = {
        "causes": {CUT: {"metric": metric, "unit": unit}},
        "syntax": {
            "sentences": {"select": len(halves.select), "report": len(halves.report), **halves.about},
            "relations": [role_of(*name) for name in measured.names],
            "least words of a relation": LEAST_WORDS,
            "targets": "earlier words only" if attention_kind(model) == "decoder" else "all other words",
        },
    }
    return Found(frame, tables, about, tested.in_sentences())


class _Tests:
    """Shares and intervals on the reported sentences, of every head in every relation and direction. p of those that
    the selecting sentences chose: the best relation and direction of each head, and the best head of each."""

    def __init__(self, measured: Measured, grid: HeadGrid, settings: SyntaxSettings) -> None:
        self.measured, self.grid, self.seed = measured, grid, settings.seed
        self.cells = [layer * grid.n_heads + head for layer, width in enumerate(grid.widths) for head in range(width)]
        self.excess = np.full((len(measured.names), grid.n_layers * grid.n_heads), -np.inf)
        self.excess[:, self.cells] = measured.excess()[:, self.cells]
        self.best = self.excess.argmax(axis=0)  # relation and direction of each head
        self.chosen = self.excess.argmax(axis=1)  # head of each
        ends = [self._interval(name) for name in measured.names]
        self.low, self.high = np.stack([one[0] for one in ends]), np.stack([one[1] for one in ends])
        asked = {(int(self.best[cell]), cell) for cell in self.cells}
        asked |= {(place, int(cell)) for place, cell in enumerate(self.chosen)}
        self.p, self.corrected = self._flips(sorted(asked), settings.n_kinds)

    def _interval(self, name: Name) -> tuple[Grid, Grid]:
        one = self.measured.report[name]
        words = np.repeat(one.words[:, None], one.hits.shape[1], axis=1)
        return bootstrap_interval(one.hits, divisor=words, seed=self.seed)

    def _flips(self, asked: Sequence[tuple[int, int]], n_kinds: int) -> tuple[Grid, Grid]:
        """p of what is found beyond both rules, by flipping whole sentences, and corrected over all that is `asked`
        and over kinds; `[relation cell]`, NaN where nothing was asked. Both rules have to be beaten: the larger p."""
        both = []
        for rule in ("offset", "other words"):
            beyond = []
            for place, cell in asked:
                name = self.measured.names[place]
                one = self.measured.report[name]
                theirs = self.measured.rules[name].hits(one) if rule == "offset" else one.other_words[:, cell]
                beyond.append(one.hits[:, cell] - theirs)
            both.append(sign_flip(np.stack(beyond, axis=1), side="greater", seed=self.seed))
        found = np.full((2, *self.excess.shape), np.nan)
        places = tuple(np.array(asked).T)
        found[0][places] = np.maximum(both[0][0], both[1][0])
        found[1][places] = np.minimum(np.maximum(both[0][1], both[1][1]) * n_kinds, 1.0)
        return found[0], found[1]

    def line(self, place: int, cell: int) -> dict[str, Any]:
        """What is known of a head in one relation and direction."""
        name = self.measured.names[place]
        one, select, rule = self.measured.report[name], self.measured.select[name], self.measured.rules[name]
        return {
            "score": one.share(one.hits)[cell],
            "score_low": self.low[place, cell],
            "score_high": self.high[place, cell],
            "score_select": select.share(select.hits)[cell],
            "score_with_special": one.share(one.hits_with_special)[cell],
            "baseline": rule.share(one),
            "offset": rule.offset,
            "other_words": one.share(one.other_words)[cell],
            "n_words": one.n_words,
            "p": self.p[place, cell],
            "p_corrected": self.corrected[place, cell],
        }

    def table(self) -> pd.DataFrame:
        """Every head in every relation and direction; `chosen`: best of its relation on the selecting sentences."""
        rows = []
        for place, name in enumerate(self.measured.names):
            for cell in self.cells:
                address = {"relation": name[0], "direction": name[1], "role": role_of(*name)}
                head = {"head": str(_head(self.grid, cell)), "chosen": cell == self.chosen[place]}
                counted = {"n_sentences": self.measured.report[name].n_sentences}
                rows.append({**address, **head, **self.line(place, cell), **counted})
        return pd.DataFrame(rows)

    def in_sentences(self) -> pd.DataFrame:
        """Of every head, the counts of each sentence in the relation and direction that it was chosen for."""
        parts = []
        for cell in self.cells:
            name, head = self.measured.names[int(self.best[cell])], _head(self.grid, cell)
            one, rule = self.measured.report[name], self.measured.rules[name]
            mine = np.flatnonzero(one.words)
            counts = (one.words, one.hits[:, cell], rule.hits(one), one.other_words[:, cell])
            address = {
                "kind": "syntax",
                "stack": head.stack,
                "sublayer": "attn",
                "layer": head.layer,
                "head": head.head,
            }
            for measure, values in zip(IN_SENTENCES, counts, strict=True):
                items = [f"sentence {i}" for i in mine]
                parts.append(pd.DataFrame({**address, "measure": measure, "item": items, "value": values[mine]}))
        return pd.concat(parts, ignore_index=True).reindex(columns=list(ITEM_COLUMNS))


def _best(table: pd.DataFrame) -> pd.DataFrame:
    """The head of each relation and direction that was best on the selecting sentences."""
    return (
        table.loc[table["chosen"]].drop(columns="chosen").sort_values("relation", kind="stable").reset_index(drop=True)
    )


def _row(tested: _Tests, grid: HeadGrid, cell: int) -> dict[str, Any]:
    """The row of one head, by the relation and direction that it was chosen for."""
    place = int(tested.best[cell])
    name, head = tested.measured.names[place], _head(grid, cell)
    bare = tested.measured.bare.get(name)
    address = {"kind": "syntax", "stack": head.stack, "sublayer": "attn", "layer": head.layer, "head": head.head}
    absent = dict.fromkeys(("writing", "effect", "effect_low", "effect_high", "control"), np.nan)
    without = {"score_no_bos": np.nan if bare is None else bare.share(bare.hits)[cell], "role": role_of(*name)}
    return {**address, **tested.line(place, cell), **without, **absent}


def _effects(
    model: HookedTransformer,
    halves: Halves,
    head: Head,
    links: Sequence[Sequence[Link]],
    name: Name,
    settings: SyntaxSettings,
) -> dict[str, float]:
    """What cutting a head's edges does, one of a sentence, on at most `n` sentences."""
    generator, chosen = np.random.default_rng([settings.seed, *b"edges"]), []
    for some in links:
        mine = [one for one in some if (one.relation, one.direction) == name]
        chosen.append(mine[generator.integers(len(mine))] if mine else None)
    kept = [i for i, one in enumerate(chosen) if one is not None][: settings.n]
    cuts = cut_edges(model, [halves.report[i] for i in kept], head, [chosen[i] for i in kept], settings.seed)
    if not len(cuts.partner):
        return {}
    low, high = bootstrap_interval(cuts.partner[:, None], seed=settings.seed)
    ends = {"effect_low": float(low[0]), "effect_high": float(high[0])}
    return {"effect": float(cuts.partner.mean()), "control": float(cuts.other.mean()), **ends}


def _head(grid: HeadGrid, cell: int) -> Head:
    return Head(*divmod(cell, grid.n_heads), "attn", grid.stack)
