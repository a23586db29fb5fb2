"""`compare`: what moved from one atlas to another, beyond what other items would have moved too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp.atlas.comparison import Comparison
from interp.atlas.results import Atlas
from interp.atlas.tables import outcome
from interp.errors import InputError
from interp.heads.syntax import FINDER as SYNTAX_FINDER
from interp.results import HeadScores
from interp.results.heads import head_of, is_kind

__all__ = ["compare"]

_ADDRESS = ["stack", "sublayer", "layer", "head"]
_SETTINGS = ("rigor", "n", "seed", "top", "screen", "alpha", "per_item", "corpus")
_N_RESAMPLES = 2_000
_NOT_SURELY = "cannot tell: no head that is in one only surely changed"


def compare(before: Any, after: Any, *, seed: int = 0) -> Comparison:
    """What moved between two atlases (of two models, two checkpoints, two seeds), kind by kind; and head by head where
    both models have the same heads. Kinds that only one has are said in `about`. Raises `InputError` for anything but
    atlases, and where they have no kind in common."""
    for one in (before, after):
        if not isinstance(one, Atlas):
            raise InputError(f"compare takes two atlases, not {type(one).__name__}. Make them: interp.atlas(model).")
    common = [kind for kind in before.scores.kinds if kind in after.scores.kinds]
    if not common:
        kinds = " and ".join(", ".join(one.scores.kinds) for one in (before, after))
        raise InputError(f"These atlases have no kind in common: {kinds}.")
    same = _shape(before.scores) == _shape(after.scores)
    heads = [_of_heads(before.scores, after.scores, kind, seed) if same else [] for kind in common]
    rows = [_of_kind(before, after, kind, same, mine) for kind, mine in zip(common, heads, strict=True)]
    about = {
        "before": _name(before),
        "after": _name(after),
        "same_shape": same,
        "differences": _differences(before, after),
        "only_before": [kind for kind in before.scores.kinds if kind not in common],
        "only_after": [kind for kind in after.scores.kinds if kind not in common],
    }
    columns = ["kind", *_ADDRESS, "address"]
    columns += [f"{name}_{side}" for name in ("verdict", "score", "effect") for side in ("before", "after")]
    columns += [f"{name}_change{end}" for name in ("score", "effect") for end in ("", "_low", "_high")]
    table = pd.DataFrame([row for some in heads for row in some], columns=[*columns, "paired", "surely"])
    return Comparison(pd.DataFrame(rows), table, about)


def _name(one: Atlas) -> str:
    return f"{one.about.get('model', 'a model')} (n {one.about.get('n')}, seed {one.about.get('seed')})"


def _shape(found: HeadScores) -> set[tuple[Any, ...]]:
    """All heads that were scored, by address."""
    return set(found.frame[_ADDRESS].drop_duplicates().itertuples(index=False, name=None))


def _differences(before: Atlas, after: Atlas) -> list[str]:
    """Settings and cutoffs that differ, in words."""
    found = [
        f"{name} {before.about.get(name)} and {after.about.get(name)}"
        for name in _SETTINGS
        if name != "seed" and before.about.get(name) != after.about.get(name)
    ]
    limits = [one.scores.about.get("cutoffs", {}) for one in (before, after)]
    for kind in limits[0]:
        if kind in limits[1] and limits[0][kind] != limits[1][kind]:
            found.append(f"cutoffs of {kind} {limits[0][kind]} and {limits[1][kind]}")
    if len(before.scores.kinds) != len(after.scores.kinds):
        found.append(f"p corrected for {len(before.scores.kinds)} and {len(after.scores.kinds)} kinds")
    return found


def _of_kind(before: Atlas, after: Atlas, kind: str, same: bool, heads: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = [one.scores.of(kind).to_dict("records") for one in (before, after)]
    named = [{head_of(row) for row in some if is_kind(row)} for some in rows]
    again = [one.resampled[kind] for one in (before, after)]
    both, either = named[0] & named[1], named[0] | named[1]
    jaccard = len(both) / len(either) if either and same else math.nan
    surely = {head["address"] for head in heads if head["surely"]}
    depth = [_depth(one.scores, some) for one, some in zip((before, after), rows, strict=True)]
    return {
        "kind": kind,
        "both": _sorted(both) if same else "",
        "only_before": _sorted(named[0] - named[1] if same else named[0]),
        "only_after": _sorted(named[1] - named[0] if same else named[1]),
        "n_before": len(named[0]),
        "n_after": len(named[1]),
        "jaccard": jaccard,
        "stability_before": again[0].jaccard,
        "stability_after": again[1].jaccard,
        "moved": _moved(jaccard, again[0].least, again[1].least, either, same, bool((either - both) & surely)),
        "depth_before": depth[0],
        "depth_after": depth[1],
        "best_before": max((row["score"] for row in rows[0]), default=math.nan),
        "best_after": max((row["score"] for row in rows[1]), default=math.nan),
    }


def _moved(jaccard: float, before: float, after: float, either: set[str], same: bool, surely: bool) -> str:
    """Whether the sets overlap less than each one's own resamples do, and a head that is in one only surely changed."""
    if not same:
        return "other heads: compare counts and depth"
    if not either:
        return "no: nothing is named in either"
    known = [one for one in (before, after) if not math.isnan(one)]
    if not known:
        return "cannot tell: no items were kept"
    if jaccard >= min(known):
        return "no"
    return "yes" if surely else _NOT_SURELY


def _depth(found: HeadScores, rows: Sequence[Mapping[Any, Any]]) -> float:
    """Mean depth of the named heads, 0 in the first layer and 1 in the last."""
    last = max(*found.frame["layer"].tolist(), 1)
    named = [row["layer"] / last for row in rows if is_kind(row)]
    return float(np.mean(named)) if named else math.nan


def _sorted(heads: set[str]) -> str:
    def at(head: str) -> tuple[Any, ...]:
        *stack, layer, number = head.split(".")
        return (*stack, int(layer), int(number))

    return " ".join(sorted(heads, key=at))


def _of_heads(before: HeadScores, after: HeadScores, kind: str, seed: int) -> list[dict[str, Any]]:
    """The heads that either atlas gives a verdict."""
    rows = [{head_of(row): row for row in one.of(kind).to_dict("records")} for one in (before, after)]
    items = [_items(one, kind) for one in (before, after)]
    found = []
    for head in (one for one in rows[0] if one in rows[1]):
        a, b = rows[0][head], rows[1][head]
        if not (outcome(a) or outcome(b)):
            continue
        # Of different relations: these are no two values of one thing.
        apart = kind == SYNTAX_FINDER.name and a["role"] != b["role"]
        line = {"kind": kind, **{name: a[name] for name in _ADDRESS}, "address": head, "paired": False}
        line["surely"] = not apart and any(_lie_apart(a, b, name) for name in ("score", "effect"))
        for name in ("verdict", "score", "effect"):
            line |= {f"{name}_before": a.get(name), f"{name}_after": b.get(name)}
        for name, measure in (("score", "score"), ("effect", _first(before, kind))):
            was, now = (one.get((head, measure)) for one in items)
            x, y = (math.nan if apart else one.get(name, math.nan) for one in (a, b))
            change, low, high, paired = _change(was, now, x, y, seed)
            line |= {f"{name}_change": change, f"{name}_change_low": low, f"{name}_change_high": high}
            line["paired"] = line["paired"] or paired
            line["surely"] = line["surely"] or low > 0 or high < 0
        found.append(line)
    return found


def _lie_apart(a: Mapping[Any, Any], b: Mapping[Any, Any], name: str) -> bool:
    """Whether the intervals of a value do not meet."""
    ends = [[float(row.get(f"{name}_{end}", math.nan)) for end in ("low", "high")] for row in (a, b)]
    return ends[0][1] < ends[1][0] or ends[1][1] < ends[0][0]


def _first(found: HeadScores, kind: str) -> str:
    """The measure that `effect` is of."""
    decides = found.about.get("tests", {}).get(kind, {}).get("decides", [])
    return str(decides[0]) if decides else "ablation"


def _items(found: HeadScores, kind: str) -> dict[tuple[str, str], pd.Series]:
    """Values by item, of each head and measure."""
    mine = found.items.loc[found.items["kind"] == kind] if len(found.items) else found.items
    values: dict[tuple[str, str], dict[str, float]] = {}
    for row in mine.to_dict("records"):
        values.setdefault((head_of(row), str(row["measure"])), {})[str(row["item"])] = float(row["value"])
    return {at: pd.Series(by_item) for at, by_item in values.items()}


def _change(
    before: pd.Series | None, after: pd.Series | None, was: float, now: float, seed: int
) -> tuple[float, float, float, bool]:
    """The change of a mean with its 95% bootstrap interval, in pairs where both have the same items; NaN ends where
    one was not kept by item."""
    if before is None or after is None:
        return now - was, math.nan, math.nan, False
    before, after = before.dropna(), after.dropna()
    if not len(before) or not len(after):
        return now - was, math.nan, math.nan, False
    generator = np.random.default_rng([seed, *b"compare"])
    paired = set(before.index) == set(after.index)
    if paired:
        difference = (after - before.reindex(after.index)).to_numpy()
        means = _resampled(difference, generator)
    else:
        means = _resampled(after.to_numpy(), generator) - _resampled(before.to_numpy(), generator)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(after.mean() - before.mean()), float(low), float(high), paired


def _resampled(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    n = len(values)
    return generator.multinomial(n, np.full(n, 1 / n), size=_N_RESAMPLES) @ values / n
