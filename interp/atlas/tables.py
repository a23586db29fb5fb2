"""What the scores of many kinds say together: which head does what, how kinds overlap, what stays unexplained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from interp.atlas.stability import Resampled
from interp.heads.base import finders
from interp.heads.task_finder import TaskFinder
from interp.results import HeadScores
from interp.results.heads import head_of, is_kind

__all__ = ["ATTENDS", "MATTERS", "NAMED", "counts", "heads_table", "outcome", "overlap_table", "unexplained_table"]

NAMED, ATTENDS, MATTERS = "is", "attends like", "matters for"
Row = Mapping[Any, Any]


def outcome(row: Row) -> str:
    """What the verdict of a row amounts to: "is", "attends like", "matters for", or "" for none of these."""
    verdict = str(row["verdict"] or "")
    if is_kind(row):
        return NAMED
    return next((one for one in (ATTENDS, MATTERS) if verdict.startswith(one)), "")


def heads_table(found: HeadScores, resampled: Mapping[str, Resampled]) -> pd.DataFrame:
    """A row for each head that any verdict speaks of: what it `is` (with a role, and how often it is named again when
    items are resampled), what it only attends like, what it only matters for, and its largest effect."""
    rows = []
    by_head: dict[str, list[Row]] = {}
    for row in found.frame.to_dict("records"):
        if outcome(row):
            by_head.setdefault(head_of(row), []).append(row)
    for address, records in by_head.items():
        named = [row for row in records if outcome(row) == NAMED]
        served = {_served(row["kind"]) for row in named}
        best = _largest(records)
        rows.append(
            {
                **{name: records[0][name] for name in ("stack", "sublayer", "layer", "head")},
                "address": address,
                "is": ", ".join(str(row["verdict"]) for row in named),
                "attends like": ", ".join(row["kind"] for row in records if outcome(row) == ATTENDS),
                "matters for": ", ".join(  # besides what the kinds that name it serve
                    dict.fromkeys(
                        str(row["verdict"]).removeprefix("matters for ")
                        for row in records
                        if outcome(row) == MATTERS and _served(row["kind"]) not in served
                    )
                ),
                "largest effect": float(best.get("effect", math.nan)) if best else math.nan,
                "of": f"{best['kind']} ({found.unit(best['kind'])})" if best else "",
                "named again": min(
                    (resampled[row["kind"]].again.get(head_of(row), math.nan) for row in named), default=math.nan
                ),
                "n_kinds": len(named),
            }
        )
    columns = ["stack", "sublayer", "layer", "head", "address", "is", "attends like", "matters for"]
    table = pd.DataFrame(rows, columns=[*columns, "largest effect", "of", "named again", "n_kinds"])
    order = table.assign(size=table["largest effect"].abs()).sort_values(
        ["n_kinds", "size"], ascending=False, kind="stable", na_position="last"
    )
    return table.loc[order.index].reset_index(drop=True)


def _served(kind: str) -> str:
    """The task that a kind serves, or by what its ablation is judged."""
    one = finders().get(kind)
    return getattr(one, "task", "") or getattr(one, "cause", kind)


def _largest(records: Sequence[Row]) -> Row | None:
    """The row with the largest effect that was measured; of kinds that name the head, if any does."""
    measured = [row for row in records if not math.isnan(row.get("effect", math.nan))]
    named = [row for row in measured if outcome(row) == NAMED]
    return max(named or measured, key=lambda row: abs(row["effect"]), default=None)


def overlap_table(found: HeadScores) -> pd.DataFrame:
    """How kinds overlap, a row for each pair: heads named both, the Jaccard index of the two sets, how many both would
    be expected to name if they named theirs at random, the p of as many or more (hypergeometric), and the rank
    correlation of the two scores over heads that have both."""
    by_kind = {kind: _by_head(found, kind) for kind in found.kinds}
    named = {kind: {head for head, row in rows.items() if is_kind(row)} for kind, rows in by_kind.items()}
    n_heads = len(set().union(*by_kind.values())) if by_kind else 0
    rows = []
    for a, b in combinations(found.kinds, 2):
        both, either = named[a] & named[b], named[a] | named[b]
        sizes = len(named[a]), len(named[b])
        common = [head for head in by_kind[a] if head in by_kind[b]]
        scores = [np.array([by_kind[kind][head]["score"] for head in common]) for kind in (a, b)]
        rows.append(
            {
                **{"kind": a, "other": b, "n": sizes[0], "n_other": sizes[1], "both": len(both)},
                "heads": " ".join(sorted(both)),
                "jaccard": len(both) / len(either) if either else math.nan,
                "expected": sizes[0] * sizes[1] / n_heads if n_heads else math.nan,
                "p": _at_least(len(both), *sizes, n_heads) if all(sizes) else math.nan,
                "rank_correlation": _rank_correlation(*scores),
            }
        )
    columns = ["kind", "other", "n", "n_other", "both", "heads", "jaccard", "expected", "p", "rank_correlation"]
    return pd.DataFrame(rows, columns=columns)


def _by_head(found: HeadScores, kind: str) -> dict[str, Row]:
    return {head_of(row): row for row in found.of(kind).to_dict("records")}


def _at_least(both: int, n: int, other: int, of: int) -> float:
    """Probability that two random sets of these sizes share so many heads or more."""
    ways = sum(math.comb(n, k) * math.comb(of - n, other - k) for k in range(both, min(n, other) + 1))
    return ways / math.comb(of, other)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's; NaN where one does not vary."""
    there = ~(np.isnan(a) | np.isnan(b))
    ranks = [pd.Series(one[there]).rank().to_numpy() for one in (a, b)]
    if there.sum() < 3 or any(one.std() == 0 for one in ranks):
        return math.nan
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def unexplained_table(found: HeadScores, together: pd.DataFrame) -> pd.DataFrame:
    """What remains, a row per task or behaviour: the share that all heads named for it carry together (where that was
    measured, see `Atlas.together`), and the heads that matter for it although no kind names them, largest first."""
    groups: dict[str, list[str]] = {}
    for kind in found.kinds:
        groups.setdefault(_behaviour(found, kind), []).append(kind)
    rows = []
    for behaviour, kinds in groups.items():
        records = [row for kind in kinds for row in found.of(kind).to_dict("records")]
        named = {head_of(row) for row in records if outcome(row) == NAMED}
        matter: dict[str, float] = {}
        for row in records:
            if outcome(row) == MATTERS and (head := head_of(row)) not in named:
                matter[head] = max(matter.get(head, 0.0), abs(row["effect"]))
        mine = together.loc[(together["task"] == behaviour) & (together["direction"] == "noise")].to_dict("records")
        task = found.about.get("tasks", {}).get(behaviour, {})
        undone = {str(row["reason"]) for row in records if str(row["reason"]).startswith("cannot tell")}
        rows.append(
            {
                "behaviour": behaviour,
                "kinds": ", ".join(kinds),
                "named": len(named),
                "carried": mine[0]["effect"] if mine else math.nan,
                "carried_low": mine[0]["effect_low"] if mine else math.nan,
                "carried_high": mine[0]["effect_high"] if mine else math.nan,
                "left": 1 - mine[0]["effect"] if mine and mine[0]["effect"] >= 0 else math.nan,
                "heads that matter and are not named": " ".join(sorted(matter, key=lambda head: -matter[head])),
                "cannot tell": "" if task.get("is done", True) else next(iter(undone), "the model does not do it"),
            }
        )
    return pd.DataFrame(rows)


def _behaviour(found: HeadScores, kind: str) -> str:
    """The task that a kind serves, by its heading; of one known by a pattern, what its ablation is judged by."""
    one = finders().get(kind)
    return one.heading if isinstance(one, TaskFinder) else found.unit(kind).split(", ")[0] or kind


def counts(found: HeadScores) -> dict[str, int]:
    """How many heads there are, how many some kind names, how many only attend or only matter, how many were tested to
    no avail, and how many were never tested."""
    best: dict[str, int] = {}
    order = (NAMED, ATTENDS, MATTERS, "tested", "untested")
    for row in found.frame.to_dict("records"):
        rank = order.index(outcome(row) or ("untested" if math.isnan(row.get("effect", math.nan)) else "tested"))
        best[head_of(row)] = min(rank, best.get(head_of(row), len(order)))
    ranks = list(best.values())
    names = ("named", "only attend", "only matter", "tested, nothing found", "never tested")
    return {"heads": len(ranks), **{name: ranks.count(i) for i, name in enumerate(names)}}
