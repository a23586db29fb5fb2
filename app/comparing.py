"""Two columns of head scores held against each other: of two runs, or of two kinds of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from app.components.head_map import map_data
from interp.results import HeadScores

__all__ = ["Side", "agreement", "difference_data", "table_of"]

_ADDRESS = ["stack", "sublayer", "layer", "head"]
_BEST = 10


@dataclass(frozen=True)
class Side:
    """A column of one kind of one run; `name` is what tells it from the other side."""

    results: HeadScores
    kind: str
    value: str
    name: str

    @property
    def rows(self) -> pd.DataFrame:
        return self.results.of(self.kind)


def _joined(one: Side, other: Side) -> pd.DataFrame | None:
    """Heads of both in the order of the first, with value, low, high and verdict of `_one` and `_other`; None where
    the two have not the same heads."""
    wanted = [_columns(side).add_suffix(end) for side, end in ((one, "_one"), (other, "_other"))]
    if set(wanted[0].index) != set(wanted[1].index):
        return None
    return wanted[0].join(wanted[1]).reset_index()


def _columns(side: Side) -> pd.DataFrame:
    rows = side.rows.set_index(_ADDRESS)
    ends = {end: rows.get(f"{side.value}_{end}", pd.Series(np.nan, rows.index)) for end in ("low", "high")}
    verdicts = rows["verdict"].fillna("").astype(str)
    return pd.DataFrame({"value": rows[side.value].astype(float), **ends, "verdict": verdicts})


def difference_data(one: Side, other: Side, *, name: str) -> dict[str, Any] | None:
    """What the map draws of `other` − `one`, head by head; None where the two have not the same heads."""
    joined = _joined(one, other)
    if joined is None:
        return None
    data = map_data(one.rows, one.kind, one.value, name=name)
    shape = (data["layers"], data["heads"])
    values, notes = np.full(shape, np.nan), np.full(shape, "not scored in both", dtype=object)
    marks = np.zeros(shape, dtype=int)
    for row in joined.to_dict("records"):
        a, b, at = row["value_one"], row["value_other"], (row["layer"], row["head"])
        verdicts = [str(row[f"verdict_{side}"]) or "no verdict" for side in ("one", "other")]
        values[at] = b - a
        marks[at] = 0 if verdicts[0] == verdicts[1] else 2
        change = verdicts[0] if verdicts[0] == verdicts[1] else f"{verdicts[0]} → {verdicts[1]}"
        notes[at] = f"{b:.2f} − {a:.2f} = {b - a:+.2f} · {change}" if np.isfinite(b - a) else "not measured in both"
    finite = np.abs(values[np.isfinite(values)])
    most = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    best = np.unravel_index(np.nanargmax(np.abs(values)), shape) if finite.size else (0, 0)
    return data | {
        "values": [round(x, 6) if np.isfinite(x) else None for x in values.ravel().tolist()],
        "notes": notes.ravel().tolist(),
        "marks": marks.ravel().tolist(),
        "low": -most,
        "high": most,
        "signed": True,
        "cursor": {"layer": int(best[0]), "head": int(best[1])},
        "label": f"{name}: {other.name} − {one.name}",
        "verdict": "another verdict",
    }


def table_of(one: Side, other: Side) -> pd.DataFrame:
    """A row per head of both, the largest difference first; "apart" where the 95% intervals do not meet."""
    joined = _joined(one, other)
    if joined is None:
        return pd.DataFrame()
    a, b = joined["value_one"], joined["value_other"]
    shown = pd.DataFrame(
        {"head": [f"{layer}.{head}" for layer, head in zip(joined["layer"], joined["head"], strict=True)]}
    )
    shown["difference"] = b - a
    shown[one.name], shown[other.name] = a, b
    shown["intervals"] = _apart(joined)
    verdicts = [joined[f"verdict_{side}"].replace("", "–") for side in ("one", "other")]
    shown["verdicts"] = [x if x == y else f"{x} → {y}" for x, y in zip(*verdicts, strict=True)]
    order = np.argsort(-np.abs(shown["difference"].to_numpy()), kind="stable")  # what was not measured comes last
    return shown.iloc[order].reset_index(drop=True)


def _apart(joined: pd.DataFrame) -> list[str]:
    ends = ["low_one", "high_one", "low_other", "high_other"]
    said = []
    for low, high, low2, high2 in joined[ends].astype(float).itertuples(index=False):
        known = np.isfinite([low, high, low2, high2]).all()
        said.append("–" if not known else "apart" if high < low2 or high2 < low else "meet")
    return said


def agreement(one: Side, other: Side) -> str:
    """How alike the two columns order the heads, in a sentence."""
    joined = _joined(one, other)
    if joined is None:
        return "The two have not the same heads, so they are shown side by side and not subtracted."
    pair = joined[["value_one", "value_other"]].dropna()
    if len(pair) < 3:
        return f"{len(pair)} heads were measured in both."
    ranks = pair.rank()
    rho = (
        float(np.corrcoef(ranks.iloc[:, 0], ranks.iloc[:, 1])[0, 1])
        if min(len(set(ranks.iloc[:, side])) for side in (0, 1)) > 1
        else float("nan")
    )
    best = [set(pair.iloc[:, side].nlargest(_BEST).index) for side in (0, 1)]
    said = f"Rank correlation over {len(pair)} heads: {rho:.2f}. " if np.isfinite(rho) else ""
    return f"{said}Of the {min(_BEST, len(pair))} highest on either side, {len(best[0] & best[1])} are the same."
