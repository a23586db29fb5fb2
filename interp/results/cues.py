"""Which heads carry which cue, and how their contributions add up to the outcome."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from interp.errors import InputError
from interp.figures.cues import cue_maps
from interp.figures.page import figure_html, write_page
from interp.figures.tables import table_html
from interp.results.frames import about_html, as_records, load_frames, save_frames

__all__ = ["CueCompetition"]

_KIND, _FORMAT = "cue competition", 1
_LEFT_OUT = (
    "Cues act additively here: interactions stay in the residual (`fit` is the share that the cues explain). Direct "
    "parts have the final norm's scale frozen and say nothing of what acts through later layers; the exchange is "
    "exact, but of one head at a time, and only of the heads that were tested: parts that stand in for each other "
    "show less than they carry. Prompts come from a few templates in English, and items share words, which "
    "intervals ignore."
)


@dataclass(frozen=True)
class CueCompetition:
    """What cues do to the logit difference, in logits: how much it changes as a cue turns from favouring the foil to
    favouring the answer, all other cues held.

    `outcome`: one row per cue: `value` with a 95% bootstrap interval over items, `p`, and its exact split over `heads`,
    `mlps` and `other` (embeddings and biases). `parts`: one row per measure ("direct", "exchange"), part and cue; `p`
    by sign flips of items, `p_corrected` over all parts and cues of its measure and kind of part. `prompts`: each
    prompt with its cues and logit difference.
    """

    outcome: pd.DataFrame
    parts: pd.DataFrame
    prompts: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def leaves_out(self) -> str:
        """What these numbers do not say."""
        return _LEFT_OUT

    def to_frame(self) -> pd.DataFrame:
        """A copy of `parts`."""
        return self.parts.copy()

    @property
    def values(self) -> xr.DataArray:
        """`[measure part cue]`; NaN for what was not tested."""
        index = ["measure", "part", "cue"]
        return self.parts.set_index(index)["value"].to_xarray()

    def top(self, n: int = 5, measure: str = "exchange") -> pd.DataFrame:
        """The heads with the largest contribution to each cue."""
        known = list(self.parts["measure"].unique())
        if measure not in known:
            raise InputError(f"measure is {measure!r}. There is {' and '.join(known)}.")
        rows = self.parts.loc[(self.parts["measure"] == measure) & (self.parts["kind"] == "head")]
        order = rows["value"].abs().sort_values(ascending=False, kind="stable").index
        ranked: Any = rows.loc[order].groupby("cue", sort=False).head(n)
        place = {cue: i for i, cue in enumerate(self.outcome["cue"])}
        columns = ["cue", "part", "value", "low", "high", "p_corrected"]
        return ranked.sort_values("cue", key=lambda one: one.map(place), kind="stable")[columns].reset_index(drop=True)

    def summary(self) -> pd.DataFrame:
        """The outcome as text for people."""
        rows = []
        for row in self.outcome.to_dict("records"):
            line = {"cue": row["cue"], "logits (95%)": f"{row['value']:+.2f} ({row['low']:.2f} to {row['high']:.2f})"}
            line |= {"p": f"{row['p']:.4f}"} | {name: f"{row[name]:+.2f}" for name in ("heads", "mlps", "other")}
            rows.append(line)
        return pd.DataFrame(rows)

    def describe(self) -> str:
        """What was asked, how well additive cues fit, and what is left out."""
        about = self.about
        return (
            f"{about['answer']}, {about['n_items']} items of {about['prompts_per_item']} prompts, {about['model']}. "
            f"Additive cues explain {about['fit']:.0%} of the variance within items. Parts sum to the logits within "
            f"{about['sum_apart']:.1e}. Tested by exchange on {about['n_tested']} items that did not choose them: "
            f"{len(about['tested'])} heads. {self.leaves_out}"
        )

    def plot(self, n: int = 14) -> Any:
        """A plotly figure: heads × cues, and the sums of heads, MLPs and the rest beside the outcome."""
        direct = self.parts.loc[(self.parts["measure"] == "direct") & (self.parts["kind"] == "head")]
        cues = self.outcome["cue"].tolist()
        grid = direct.pivot(index="part", columns="cue", values="value")[cues]
        chosen = np.abs(grid.to_numpy()).max(1).argsort()[::-1][:n]
        exact = self.parts.loc[self.parts["measure"] == "exchange"]
        other = exact.pivot(index="part", columns="cue", values="value").reindex(columns=cues)
        return cue_maps(grid.iloc[chosen], other, self.outcome, title=f"Cues in {self.about.get('task')}")

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page."""
        tables = [table_html(self.top(6, one)) for one in ("direct", "exchange") if one in set(self.parts["measure"])]
        sections = [figure_html(self.plot(), "cues"), about_html(repr(self), self.describe(), self.summary()), *tables]
        return write_page(path, f"Competing cues in {self.about.get('task')}", sections)

    def to_records(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        tables = {"outcome": self.outcome, "parts": self.parts, "prompts": self.prompts}
        return {**{name: as_records(one) for name, one in tables.items()}, "about": dict(self.about)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: outcome, parts and prompts as Parquet, and about.json."""
        tables = {"outcome": self.outcome, "parts": self.parts, "prompts": self.prompts}
        return save_frames(path, _KIND, _FORMAT, self.about, tables)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CueCompetition:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        about, tables = load_frames(path, _KIND, _FORMAT, ("outcome", "parts", "prompts"))
        return cls(tables["outcome"], tables["parts"], tables["prompts"], about)

    def __repr__(self) -> str:
        return f"CueCompetition({self.about.get('task')}: {len(self.outcome)} cues, {self.about.get('n_items')} items)"

    def __str__(self) -> str:
        return (
            f"{self.summary().to_string(index=False)}\n{self.top(3).round(3).to_string(index=False)}\n{self.describe()}"
        )

    def _repr_html_(self) -> str:
        return about_html(repr(self), self.describe(), self.summary()) + table_html(self.top(3))
