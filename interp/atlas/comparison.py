"""What moved between two atlases: kind by kind, and head by head where the two models have the same heads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from interp.figures.tables import table_html, text_cell
from interp.results.frames import about_html, as_records, load_frames, save_frames
from interp.results.heads import with_interval

__all__ = ["Comparison"]

_KIND, _FORMAT = "atlas_comparison", 2
_LEFT_OUT = (
    "A set of named heads changes when items change, so a set moved only if the two overlap less than resamples of "
    "each one's own items do, and a head that is in one only surely changed: p and the choice of candidates change "
    "with items too, which resamples do not show. Effects are shares of each model's own clean − corrupt: the same "
    "share of a smaller difference is a smaller effect. Where items are the same they are compared in pairs."
)


@dataclass(frozen=True)
class Comparison:
    """`kinds`: one row each: heads named by both, only before, only after, the Jaccard index, the stability of either
    set, `moved` ("yes" where the sets overlap less than 97.5% of the resamples of each do and a head that is in one
    only surely changed, "no", or why it cannot be said), mean relative depth of the named heads, best scores. `heads`:
    one row per head and kind that either atlas gives a verdict: both verdicts, scores, effects, the change of score
    and effect with its 95% interval, and whether one of them `surely` changed (that interval leaves 0 out, or the two
    values' intervals do not meet); empty where the two models differ in shape."""

    kinds: pd.DataFrame
    heads: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def leaves_out(self) -> str:
        """What these numbers do not say."""
        return _LEFT_OUT

    def to_frame(self) -> pd.DataFrame:
        """A copy of `kinds`."""
        return self.kinds.copy()

    def summary(self) -> pd.DataFrame:
        """One line per kind, for people."""
        rows = []
        for row in self.kinds.to_dict("records"):
            rows.append(
                {
                    "kind": row["kind"],
                    "kept": row["both"] or "–",
                    "only before": row["only_before"] or "–",
                    "only after": row["only_after"] or "–",
                    "Jaccard": text_cell(row["jaccard"]),
                    "stability": f"{text_cell(row['stability_before'])} / {text_cell(row['stability_after'])}",
                    "moved": row["moved"],
                    "mean depth": f"{text_cell(row['depth_before'])} / {text_cell(row['depth_after'])}",
                }
            )
        return pd.DataFrame(rows)

    def changes(self) -> pd.DataFrame:
        """The heads whose effect or score surely changed, largest first, for people."""
        sure = self.heads.loc[self.heads["surely"].astype(bool)]
        order = sure["effect_change"].abs().fillna(0).sort_values(ascending=False, kind="stable").index
        rows = [
            {
                **{"kind": row["kind"], "head": row["address"]},
                **{"before": row["verdict_before"] or "–", "after": row["verdict_after"] or "–"},
                "change of score (95%)": with_interval(row, "score_change"),
                "change of effect (95%)": with_interval(row, "effect_change"),
            }
            for row in sure.loc[order].to_dict("records")
        ]
        return pd.DataFrame(rows)

    def describe(self) -> str:
        """What was compared, and under which different settings."""
        about = self.about
        said = f"{about.get('before')} → {about.get('after')}."
        if about.get("differences"):
            said += f" Measured differently: {'; '.join(about['differences'])}."
        return f"{said} {self.leaves_out}"

    def plot(self) -> Any:
        """A plotly bar chart of the Jaccard index of each kind's sets."""
        from interp.figures.bars import part_bars

        shown = self.kinds.loc[self.kinds["jaccard"].notna()]
        title = "overlap of named heads"
        return part_bars(shown, title=title, unit="Jaccard index", name="kind", value="jaccard")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder, all or nothing."""
        return save_frames(path, _KIND, _FORMAT, self.about, {"kinds": self.kinds, "heads": self.heads})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Comparison:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        about, tables = load_frames(path, _KIND, _FORMAT, ("kinds", "heads"))
        return cls(tables["kinds"], tables["heads"], about)

    def to_records(self) -> dict[str, Any]:
        """Plain data for JSON: both tables' rows, and what was compared."""
        return {"kinds": as_records(self.kinds), "heads": as_records(self.heads), "about": dict(self.about)}

    def __str__(self) -> str:
        return f"{self.describe()}\n{self.summary().to_string(index=False)}"

    def _repr_html_(self) -> str:
        changes = self.changes()
        parts = [about_html("What moved", self.describe(), self.summary()), table_html(changes) if len(changes) else ""]
        return "".join(parts)
