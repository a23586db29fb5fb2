"""Keys that fired in an MLP, what their values promote, and what removing them did."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from interp.errors import InputError
from interp.figures.bars import part_bars
from interp.figures.page import figure_html, write_page
from interp.results.frames import about_html, as_records, load_frames, save_frames

__all__ = ["MLPMemory"]

_KIND, _FORMAT = "MLP memory", 1


@dataclass(frozen=True)
class MLPMemory:
    """`fired`: one row per layer, position and strongest neuron: rank, neuron, activation (and in a gated MLP its gate
    and up), value_norm, strength = |activation| × value_norm, the tokens it `promotes` and `suppresses`, and `effect`:
    the metric without it there − the metric as it is (negative: it helps the answer). `sets`: one row per layer and
    position, for these neurons together: their strength, its `share` of all neurons' there, effect, and the mean,
    lowest and highest effect of random sets of as much strength, with p.
    """

    fired: pd.DataFrame
    sets: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """A copy of `fired`, one row per layer, position and neuron."""
        return self.fired.copy()

    @property
    def values(self) -> xr.Dataset:
        """Named arrays `[layer pos rank]`: neuron, activation, strength, effect."""
        columns = ["neuron", "activation", "strength", "effect"]
        return self.fired.set_index(["layer", "pos", "rank"])[columns].to_xarray()

    def top(self, n: int = 10) -> pd.DataFrame:
        """The neurons whose removal changes the metric most."""
        effects: Any = self.fired["effect"]
        order = effects.abs().sort_values(ascending=False, kind="stable").index
        return self.fired.loc[order].head(n).reset_index(drop=True)

    def summary(self, n: int = 10) -> pd.DataFrame:
        """`top` as text for people."""
        rows = []
        for row in self.top(n).to_dict("records"):
            line = {"neuron": f"{row['layer']}.mlp.{row['neuron']}", "at": f"{row['text']!r} ({row['pos']})"}
            line |= {"activation": f"{row['activation']:+.2f}", "strength": f"{row['strength']:.2f}"}
            line["promotes"] = " ".join(repr(one) for one in row["promotes"])
            line["suppresses"] = " ".join(repr(one) for one in row["suppresses"])
            line["effect"] = f"{row['effect']:+.3f}"
            rows.append(line)
        return pd.DataFrame(rows)

    def together(self) -> pd.DataFrame:
        """The sets as text for people."""
        rows = []
        for row in self.sets.to_dict("records"):
            line = {"layer": str(row["layer"]), "at": f"{row['text']!r} ({row['pos']})"}
            line |= {"neurons": str(row["neurons"]), "share of strength": f"{row['share']:.2f}"}
            line["effect"] = f"{row['effect']:+.3f}"
            if "random_effect" in row:
                ends = f"{row['random_low']:+.3f} to {row['random_high']:+.3f}"
                line["random sets of as much"] = f"{row['random_effect']:+.3f} ({ends})"
                reached = row["random_strength"] / row["strength"] if row["strength"] else float("nan")
                line["their strength"] = f"{reached:.2f}×"
            rows.append(line)
        return pd.DataFrame(rows)

    def describe(self) -> str:
        """What was measured, and what it leaves out."""
        about = self.about
        foil = f" − {about['foil']}" if about.get("foil") else ""
        said = f"Effect on {about.get('metric')} of {about.get('answer')}{foil} ({about.get('unit')}), "
        return f"{said}{about.get('base', float('nan')):.3f} as it is. {about.get('left_out', '')}"

    def plot(self, n: int = 20) -> Any:
        """A plotly bar chart of the neurons whose removal changes the metric most."""
        table = self.top(n)
        rows: Any = table.itertuples(index=False)
        names = [f"{row.layer}.mlp.{row.neuron} at {row.pos}" for row in rows]
        table = pd.DataFrame({"part": names, "value": table["effect"], "token": table["text"]})
        title = f"effect of removing neurons on {self.about.get('metric')}"
        return part_bars(table, title=title, unit=str(self.about.get("unit")))

    def at(self, pos: int, layer: int | None = None) -> pd.DataFrame:
        """The neurons of one position (and layer), strongest first."""
        n_pos = len(self.about.get("text", []))
        found = self.fired.loc[self.fired["pos"] == (pos % n_pos if n_pos else pos)]
        found = found if layer is None else found.loc[found["layer"] == layer]
        if not len(found):
            raise InputError(f"Position {pos} was not looked at. Looked at: {sorted(set(self.fired['pos']))}.")
        return found.sort_values(["layer", "rank"]).reset_index(drop=True)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page: the chart, neurons, sets."""
        sections = [figure_html(self.plot(), "neurons"), about_html(repr(self), self.describe(), self.summary(30))]
        sections.append(about_html("The strongest together", "", self.together()))
        return write_page(path, f"MLP memory of {self.about.get('model', 'a model')}", sections)

    def to_records(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return {"fired": as_records(self.fired), "sets": as_records(self.sets), "about": dict(self.about)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: fired.parquet, sets.parquet and about.json, all or nothing."""
        return save_frames(path, _KIND, _FORMAT, self.about, {"fired": self.fired, "sets": self.sets})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MLPMemory:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        about, tables = load_frames(path, _KIND, _FORMAT, ("fired", "sets"))
        for name in ("promotes", "suppresses"):
            tables["fired"][name] = [list(one) for one in tables["fired"][name]]
        return cls(tables["fired"], tables["sets"], about)

    def __repr__(self) -> str:
        layers = ", ".join(str(one) for one in self.about.get("layers", []))
        n_pos = self.fired["pos"].nunique()
        return f"MLPMemory(layer {layers}, {n_pos} positions, {len(self.fired)} neurons looked at)"

    def __str__(self) -> str:
        tables = f"{self.summary().to_string(index=False)}\n{self.together().to_string(index=False)}"
        return f"{tables}\n{self.describe()}"

    def _repr_html_(self) -> str:
        return about_html(repr(self), self.describe(), self.summary())
