"""How firmly heads are named: the same cutoffs on bootstrap resamples of the items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.heads.base import Finder, finders
from interp.heads.syntax import SyntaxFinder
from interp.heads.syntax_search import IN_SENTENCES
from interp.heads.task_finder import TaskFinder
from interp.results import HeadScores
from interp.results.heads import head_of, is_kind
from interp.sites import Head

__all__ = ["Resampled", "resample"]

Grid = NDArray[np.floating]
_N_RESAMPLES = 500


@dataclass(frozen=True)
class Resampled:
    """One kind under resampling of its items. `named` are the heads that pass all cutoffs of size on all items;
    `again` says of each head with items in which share of resamples it does, `overlaps` are the Jaccard indices of the
    resamples' sets with `named` (none where nothing is named or no items were kept)."""

    named: frozenset[str] = frozenset()
    again: Mapping[str, float] = field(default_factory=dict)
    overlaps: Grid = field(default_factory=lambda: np.array([]))

    @property
    def jaccard(self) -> float:
        """Mean overlap; NaN without any."""
        return float(self.overlaps.mean()) if len(self.overlaps) else float("nan")

    @property
    def least(self) -> float:
        """The overlap that 97.5% of resamples reach."""
        return float(np.quantile(self.overlaps, 0.025)) if len(self.overlaps) else float("nan")


def resample(found: HeadScores, kind: str, *, n_resamples: int = _N_RESAMPLES, seed: int = 0) -> Resampled:
    """Name a kind's heads again, by its cutoffs of size alone, on resamples of the items. Whether a head goes beyond
    its controls, p, and whether the task is done are taken as they were found: a head that failed by these is never
    named. What was kept as one number only (the writing of kinds known by a pattern, a joint effect) does not vary."""
    items = found.items.loc[found.items["kind"] == kind] if len(found.items) else found.items
    one, limits = finders().get(kind), found.about.get("cutoffs", {}).get(kind, {})
    if not len(items) or one is None:
        return Resampled()
    rows = {head_of(row): row for row in found.of(kind).to_dict("records")}
    heads = [head for head in dict.fromkeys(_addresses(items)) if head in rows]
    means = _means(items, heads, n_resamples, seed)
    by_head = [{name: mean[:, i] for name, mean in means.items()} for i in range(len(heads))]
    alpha = float(found.about.get("alpha", 0.05))
    passes = np.stack([_passes(one, rows[head], m, limits, alpha) for head, m in zip(heads, by_head, strict=True)])
    passes &= np.array([not good or is_kind(rows[head]) for head, good in zip(heads, passes[:, 0], strict=True)])[
        :, None
    ]
    first, again = passes[:, 0], passes[:, 1:]
    named = frozenset(head for head, good in zip(heads, first, strict=True) if good)
    overlaps = (again & first[:, None]).sum(axis=0) / np.maximum((again | first[:, None]).sum(axis=0), 1)
    return Resampled(
        named,
        {head: float(share) for head, share in zip(heads, again.mean(axis=1), strict=True)},
        overlaps if named else np.array([]),
    )


def _addresses(items: pd.DataFrame) -> list[str]:
    """The head of each row."""
    columns = (items[name] for name in ("layer", "head", "sublayer", "stack"))
    return [_address(int(layer), int(head), *of) for layer, head, *of in zip(*columns, strict=True)]


@cache
def _address(layer: int, head: int, sublayer: str, stack: str) -> str:
    return str(Head(layer, head, sublayer, stack))


def _means(items: pd.DataFrame, heads: list[str], n_resamples: int, seed: int) -> dict[str, Grid]:
    """Means of each measure `[1 + resample, head]`, the first over all items. Measures on the same items share their
    resamples."""
    found: dict[str, Grid] = {}
    for measure, mine in items.assign(address=_addresses(items)).groupby("measure"):
        table = mine.pivot_table(index="item", columns="address", values="value", dropna=False).reindex(columns=heads)
        values = table.to_numpy(dtype=float)
        n = len(values)
        drawn = np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1 / n), size=n_resamples)
        weights = np.concatenate([np.ones((1, n)), drawn])
        there = ~np.isnan(values)
        total, count = weights @ np.where(there, values, 0.0), weights @ there
        found[str(measure)] = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return found


def _passes(
    one: Finder | TaskFinder | SyntaxFinder,
    row: Mapping[Any, Any],
    means: Mapping[str, Grid],
    limits: Mapping[str, float],
    alpha: float,
) -> NDArray[np.bool_]:
    """Whether a head passes by size, in each resample."""
    if isinstance(one, SyntaxFinder):
        return _stands_out(row, means, limits["margin"], alpha)
    n = len(next(iter(means.values())))
    always = np.ones(n, dtype=bool)
    score = means.get("score", np.full(n, row["score"]))
    good = always & (score >= limits["score"] if "score" in limits else True)
    if "margin" in limits:
        good &= score >= row.get("baseline", np.nan) + limits["margin"]
    writing = getattr(one, "writing", None)
    if writing is not None and "writing" in limits and not _waived(row):
        written = means.get(getattr(writing, "tested", "") or "writing", np.full(n, row["writing"]))
        good &= np.array([writing.passes(float(x), limits["writing"]) for x in written])
    if "effect" not in limits or "(jointly)" in str(row["verdict"]):
        return good
    if not isinstance(one, TaskFinder):
        return good & _harms(means.get("ablation"), row, "", limits["effect"], 1, alpha)
    first, *others = one.test.decisive
    caused = always & _harms(means.get(first), row, "", limits["effect"], one.sign, alpha)
    if one.test.supporting:
        supports = [means[name] for name in one.test.supporting if name in means]
        caused &= np.any([one.sign * x >= limits["effect"] for x in supports], axis=0) if supports else False
    for name in others:
        caused |= _harms(means.get(name), row, f"{name}_", limits["effect"], one.sign, alpha)
    return good & caused


def _stands_out(row: Mapping[Any, Any], means: Mapping[str, Grid], margin: float, alpha: float) -> NDArray[np.bool_]:
    """Whether a head finds more partners than both rules, in each resample; never where a resample has no word."""
    words, found, *rules = (means[name] for name in IN_SENTENCES)
    with np.errstate(invalid="ignore"):
        beyond = [found / words >= rule / words + margin for rule in rules]
    return np.all(beyond, axis=0) & (row["p_corrected"] <= alpha)


def _waived(row: Mapping[Any, Any]) -> bool:
    return "writing not asked for" in str(row.get("reason", ""))


def _harms(
    mean: Grid | None, row: Mapping[Any, Any], before: str, cutoff: float, sign: int, alpha: float
) -> NDArray[np.bool_]:
    """Whether one measure reaches the cutoff, of a head that goes beyond its controls surely enough."""
    effect, control, p = (row.get(f"{before}{name}", np.nan) for name in ("effect", "control", "p_corrected"))
    if mean is None or not (sign * effect > sign * control and p <= alpha):
        return np.array([False])
    return sign * mean >= cutoff
