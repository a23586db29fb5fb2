"""What was measured over a training: tables that are saved, drawn and said."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.figures.emergence import emergence_curves
from interp.figures.page import figure_html, write_page
from interp.figures.tables import table_html
from interp.results.frames import about_html, as_records, load_frames, save_frames

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Emergence"]

_KIND, _FORMAT = "emergence", 1
_LEFT_OUT = (
    "This is one training: intervals are of rows (or items, or pairs) and say how well it is measured, not what "
    "another seed would do (interp.dynamics.order takes several). A head that attends as its kind does need not do its "
    "work; patching and ablation say that. Heads called best are so in the last checkpoint, on rows that are not "
    "reported. Dates are read off lines between checkpoints, on a log scale. That loss moved at the same time does not "
    "say which moved the other."
)


@dataclass(frozen=True)
class Emergence:
    """What was measured at each checkpoint, and what changed.

    `scores`: a row per checkpoint and series: step, measure, series, value, low, high (95%, of rows; NaN for what has
    no rows, such as scores of weights). Measures: `loss` (nats) by group of tokens; `in_context` (nats; the more
    negative, the more the context helps); of each kind of head its `sum` over all heads and `best`, the head that is
    best at the end, followed back; `K-composition` above that of random weights; `patch`, shares of the last
    checkpoint's logit difference, and `patch gap`, logits; and those the caller gave.

    `changes`: a row per series, with the fields of `interp.dynamics.changes.Change`; `at_10`, `at_25`, … with their
    intervals: where that percentage of the way is first behind it; `loss_share`: the share of the loss's whole change
    that falls between a tenth and nine tenths of the series' own; `loss_at`: the share that is behind it at `step`. The
    loss is that of `about["loss"]`, the group whose loss changed most.

    `ablations`: sets of heads set to their mean at chosen checkpoints: loss, change and its interval (nats), and the
    mean and largest change of random sets of the same layers. `about`: rows, seed, the best heads, what was left out
    and why, and `uniform`: the score of a head that attends everywhere alike.
    """

    scores: pd.DataFrame
    changes: pd.DataFrame
    about: Mapping[str, Any]
    ablations: pd.DataFrame = field(default_factory=lambda: _no_ablations())

    @property
    def steps(self) -> list[int]:
        """Updates that each checkpoint has behind it."""
        return sorted(set(self.scores["step"].tolist()))

    @property
    def leaves_out(self) -> str:
        """What these numbers do not say."""
        return _LEFT_OUT

    def series(self, measure: str, series: str) -> pd.Series:
        """One series, by step; `InputError` for one that was not measured, with those that were."""
        import pandas as pd

        of = self.scores[(self.scores["measure"] == measure) & (self.scores["series"] == series)]
        if of.empty:
            known = self.changes[["measure", "series"]].itertuples(index=False)
            raise InputError(f"There is no {measure} {series}. Measured are {', '.join(map(' '.join, known))}.")
        return pd.Series(of["value"].tolist(), index=of["step"].tolist(), name=f"{measure} {series}")

    def to_frame(self) -> pd.DataFrame:
        """A copy of `scores`."""
        return self.scores.copy()

    def summary(self) -> pd.DataFrame:
        """What changed, when, how sharply, and how much of the loss moved with it, as text for people. The earliest
        stands first; what did not change stands last and has no date."""
        import pandas as pd

        onset = next((name for name in self.changes if _is_onset(name)), None)
        rows = []
        for row in self.changes.sort_values("step", kind="stable", na_position="last").to_dict("records"):
            line = {"series": f"{row['measure']}, {row['series']}"}
            line |= {name: f"{row[name]:.2f}" for name in ("start", "end")}
            if onset is not None:
                line[f"{onset.removeprefix('at_')}% of the way"] = _step(row[onset])
            line["halfway (95%)"] = _dated(row["step"], row["step_low"], row["step_high"])
            line["doublings"] = _dash(row["octaves"], ".1f")
            line["loss moved meanwhile"] = _dash(row["loss_share"], ".0%")
            line["loss moved by then"] = _dash(row["loss_at"], ".0%")
            rows.append(line)
        return pd.DataFrame(rows)

    def describe(self) -> str:
        """What was measured on what, and what is left out."""
        about = self.about
        said = [f"{len(self.steps)} checkpoints of {about.get('model')}, {about.get('n')} rows that report"]
        said += [f"{what} was left out: {why}" for what, why in about.get("left_out", {}).items()]
        return ". ".join([*said, self.leaves_out])

    def plot(self) -> Any:
        """A plotly figure: losses, attention and the rest on one axis of steps, and the loss's halfway step."""
        return emergence_curves(self.scores, self._loss_date(), title=f"Emergence in {self.about.get('model')}")

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page."""
        sections = [figure_html(self.plot(), "emergence")]
        sections.append(about_html(repr(self), self.describe(), self.summary()))
        if len(self.ablations):
            sections += ["<h2>Heads set to their mean together</h2>", table_html(self.ablations)]
        return write_page(path, f"Emergence in {self.about.get('model')}", sections)

    def to_records(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return {**{name: as_records(one) for name, one in self._tables().items()}, "about": dict(self.about)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: scores, changes and ablations as Parquet, and about.json."""
        return save_frames(path, _KIND, _FORMAT, self.about, self._tables())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Emergence:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        about, tables = load_frames(path, _KIND, _FORMAT, ("scores", "changes", "ablations"))
        return cls(tables["scores"], tables["changes"], about, tables["ablations"])

    def __repr__(self) -> str:
        steps = self.steps
        return f"Emergence({len(self.changes)} series at {len(steps)} checkpoints, steps {steps[0]} to {steps[-1]})"

    def __str__(self) -> str:
        return f"{self.summary().to_string(index=False)}\n{self.describe()}"

    def _repr_html_(self) -> str:
        return about_html(repr(self), self.describe(), self.summary())

    def _tables(self) -> dict[str, pd.DataFrame]:
        return {"scores": self.scores, "changes": self.changes, "ablations": self.ablations}

    def _loss_date(self) -> float:
        of: Any = self.changes[(self.changes["measure"] == "loss") & (self.changes["series"] == self.about.get("loss"))]
        return float(of["step"].iloc[0]) if len(of) else float("nan")


def _no_ablations() -> pd.DataFrame:
    import pandas as pd

    from interp.dynamics.causing import ABLATED

    return pd.DataFrame(columns=ABLATED)


def _is_onset(name: Any) -> bool:
    return str(name).startswith("at_") and str(name)[3:].isdigit()


def _step(value: float) -> str:
    return _dash(value, ".0f" if value >= 10 else ".1f")


def _dated(step: float, low: float, high: float) -> str:
    return _step(step) if low != low else f"{_step(step)} ({_step(low)} to {_step(high)})"


def _dash(value: float, form: str) -> str:
    return "–" if value != value else f"{value:{form}}"
