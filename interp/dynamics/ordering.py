"""`order`: which came first, over several trainings that differ in their seed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.dynamics.changes import crossing
from interp.dynamics.results import Emergence
from interp.errors import InputError
from interp.figures.emergence import order_map
from interp.figures.page import figure_html, write_page
from interp.results.frames import about_html, as_records, load_frames, save_frames

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Order", "order", "sign_test"]

_KIND, _FORMAT = "order of emergence", 1
_LEAST = 5  # trainings below which nothing is said
_LEFT_OUT = (
    "The unit is the training. p is of an exact sign test of one pair of series, two-sided, ties left out, and not "
    "corrected for the number of pairs and onsets: five trainings that agree give 0.06, six 0.03. What comes first "
    "depends on what is called an onset; so several are shown. Before does not mean because."
)


@dataclass(frozen=True)
class Order:
    """Pairs of series over trainings, for each onset asked.

    `pairs`: first, second, onset, n (trainings in which both changed), before, after, tied; `octaves`, the median of
    log2((1 + step of second) / (1 + step of first)), so positive where the first leads, with `low` and `high`: order
    statistics that hold the median with `confidence`, at least 95% where there are enough trainings for that; p; and
    `verdict` on `first`: before, after, not settled (p above alpha), cannot tell. `onsets`: training, series, onset,
    step (NaN where it did not change).
    """

    pairs: pd.DataFrame
    onsets: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """A copy of `pairs`."""
        return self.pairs.copy()

    def summary(self) -> pd.DataFrame:
        """The pairs as text for people."""
        import pandas as pd

        rows = []
        for row in self.pairs.to_dict("records"):
            line = {"series": row["first"], "against": row["second"], "onset": row["onset"]}
            line["came before in"] = f"{row['before']} of {row['n']}" + (f", {row['tied']} tied" if row["tied"] else "")
            line["octaves ahead"] = "–" if row["octaves"] != row["octaves"] else (
                f"{row['octaves']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"
            )  # fmt: skip
            line |= {"p": "–" if row["p"] != row["p"] else f"{row['p']:.3f}", "verdict": row["verdict"]}
            rows.append(line)
        return pd.DataFrame(rows)

    def dates(self, onset: str) -> pd.DataFrame:
        """Steps of one onset, a row per series and a column per training."""
        of = self.onsets[self.onsets["onset"] == onset]
        if of.empty:
            raise InputError(f"There is no onset {onset!r}. There are {', '.join(self.onsets['onset'].unique())}.")
        table = of.pivot(index="series", columns="training", values="step")
        return table.loc[list(dict.fromkeys(of["series"])), list(dict.fromkeys(of["training"]))]

    def describe(self) -> str:
        """How many trainings, and what is left out."""
        return f"{self.about.get('n')} trainings: {', '.join(self.about.get('trainings', []))}. {_LEFT_OUT}"

    def plot(self, onset: str | None = None) -> Any:
        """A plotly map of who came first, for one onset (by default the last one asked)."""
        onset = onset or self.pairs["onset"].iloc[-1]
        title = f"Who came first in {self.about.get('n')} trainings, by {onset}"
        of: Any = self.pairs[self.pairs["onset"] == onset]
        return order_map(of, title=title)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page."""
        names = list(dict.fromkeys(self.pairs["onset"]))
        figures = [figure_html(self.plot(name), f"order-{i}") for i, name in enumerate(names)]
        return write_page(path, "Which came first", [about_html(repr(self), self.describe(), self.summary()), *figures])

    def to_records(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return {"pairs": as_records(self.pairs), "onsets": as_records(self.onsets), "about": dict(self.about)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: pairs and onsets as Parquet, and about.json."""
        return save_frames(path, _KIND, _FORMAT, self.about, {"pairs": self.pairs, "onsets": self.onsets})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Order:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        about, tables = load_frames(path, _KIND, _FORMAT, ("pairs", "onsets"))
        return cls(tables["pairs"], tables["onsets"], about)

    def __repr__(self) -> str:
        return f"Order({len(self.pairs)} pairs of series and onsets in {self.about.get('n')} trainings)"

    def __str__(self) -> str:
        return f"{self.summary().to_string(index=False)}\n{self.describe()}"

    def _repr_html_(self) -> str:
        return about_html(repr(self), self.describe(), self.summary())


def order(
    emergences: Emergence | Sequence[Emergence],
    series: Sequence[tuple[str, str]] | None = None,
    *,
    onsets: float | str | Sequence[float | str] = (0.1, 0.25, 0.5, "left"),
    alpha: float = 0.05,
) -> Order:
    """Of each two series, in how many trainings one came before the other.

    `emergences`: one for each seed, of the same recipe. `series`: those to compare, as (measure, series); by default
    all that were measured in every training. `onsets`: shares of the way from first to last value, between 0.01 and
    0.99, or "left": the first checkpoint from which on the series stays 3 standard errors away from where it started.
    Fewer than five trainings give numbers, and the verdict "cannot tell".
    Raises `InputError` for fewer than two trainings, those of two recipes, or one that is given twice.
    """
    import pandas as pd

    emergences = [emergences] if isinstance(emergences, Emergence) else list(emergences)
    names = _trainings(emergences)
    wanted = _series(emergences, series)
    labels = {one: f"{one[0]}, {one[1]}" for one in wanted}
    rows, pairs = [], []
    for onset in _onsets(onsets):
        label = onset if isinstance(onset, str) else f"{100 * onset:g}%"
        dates = {one: np.array([_date(each, one, onset) for each in emergences]) for one in wanted}
        for one, steps in dates.items():
            rows += [
                {"training": name, "series": labels[one], "onset": label, "step": float(step)}
                for name, step in zip(names, steps, strict=True)
            ]
        for a, b in itertools.combinations(wanted, 2):
            numbers = _compared(dates[a], dates[b], alpha)
            pairs.append({"first": labels[a], "second": labels[b], "onset": label, **numbers})
    about = {"n": len(emergences), "trainings": names, "alpha": alpha}
    return Order(pd.DataFrame(pairs), pd.DataFrame(rows), about)


def sign_test(before: int, after: int) -> float:
    """The exact two-sided p of so many trainings one way and the other, if either way were as likely. NaN for none."""
    n, least = before + after, min(before, after)
    if n == 0:
        return float("nan")
    return min(1.0, 2 * sum(comb(n, i) for i in range(least + 1)) / 2**n)


def _compared(first: np.ndarray, second: np.ndarray, alpha: float) -> dict[str, Any]:
    both = ~np.isnan(first) & ~np.isnan(second)
    ahead = np.log2((1 + second[both]) / (1 + first[both]))
    n, before, after = len(ahead), int((ahead > 0).sum()), int((ahead < 0).sum())
    p = sign_test(before, after)
    low, high, confidence = _median_interval(ahead)
    if n < _LEAST:
        verdict = f"cannot tell: {n} trainings"
    elif p <= alpha:
        verdict = "before" if before > after else "after"
    else:
        verdict = "not settled"
    return {
        "n": n, "before": before, "after": after, "tied": n - before - after,
        "octaves": float(np.median(ahead)) if n else float("nan"), "low": low, "high": high,
        "confidence": confidence, "p": p, "verdict": verdict,
    }  # fmt: skip


def _median_interval(values: np.ndarray) -> tuple[float, float, float]:
    """The narrowest pair of order statistics that holds the median with 95%, or else the whole range."""
    n, ordered = len(values), np.sort(values)
    if n == 0:
        return float("nan"), float("nan"), float("nan")
    k, held = 0, 1 - 2 / 2**n
    while (more := 1 - 2 * sum(comb(n, i) for i in range(k + 2)) / 2**n) >= 0.95:
        k, held = k + 1, more
    return float(ordered[k]), float(ordered[n - 1 - k]), max(0.0, held)


def _date(one: Emergence, series: tuple[str, str], onset: float | str) -> float:
    row = one.changes[(one.changes["measure"] == series[0]) & (one.changes["series"] == series[1])].iloc[0]
    if onset == "left":
        return float(row["left"])
    if np.isnan(row["step"]):
        return float("nan")
    values = one.series(*series)
    assert not isinstance(onset, str)
    return crossing(values.to_numpy(dtype=float), values.index.to_numpy(dtype=float), onset)


def _onsets(onsets: float | str | Sequence[float | str]) -> list[float | str]:
    given: list[float | str] = [onsets] if isinstance(onsets, str | float | int) else list(onsets)
    for one in given:
        share = not isinstance(one, str) and 0.01 <= one <= 0.99
        if not share and one != "left":
            raise InputError(f'{one!r} is no onset. Give shares of the way between 0.01 and 0.99, or "left".')
    return given


def _series(emergences: Sequence[Emergence], asked: Sequence[tuple[str, str]] | None) -> list[tuple[str, str]]:
    known = [list(zip(one.changes["measure"], one.changes["series"], strict=True)) for one in emergences]
    common = [one for one in known[0] if all(one in others for others in known[1:])]
    if asked is None:
        wanted = common
    else:
        wanted = [(str(one[0]), str(one[1])) for one in asked]
        if missing := [one for one in wanted if one not in common]:
            raise InputError(
                f"{', '.join(missing[0])} was not measured in every training. There is "
                f"{'; '.join(', '.join(one) for one in common)}."
            )
    if len(set(wanted)) < 2:
        raise InputError("What comes first takes two series.")
    return list(dict.fromkeys(wanted))


def _trainings(emergences: Sequence[Emergence]) -> list[str]:
    if len(emergences) < 2:
        n = len(emergences)
        raise InputError(f"What comes first in general takes several trainings; this is {n}. Train other seeds.")
    of = [one.about.get("training") for one in emergences]
    held = [f" with {one['held']}" if one and "held" in one else "" for one in of]
    recipes = sorted({f"{a['recipe']} of {a['steps']} steps{b}" for a, b in zip(of, held, strict=True) if a})
    if len(recipes) > 1:
        raise InputError(f"These trainings are of different recipes: {', '.join(recipes)}. Give seeds of one.")
    seeds = [one["seed"] for one in of if one]
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise InputError(f"Seed {twice[0]} is given twice. One training counts once.")
    return [f"seed {one['seed']}" if one else f"training {i + 1}" for i, one in enumerate(of)]
