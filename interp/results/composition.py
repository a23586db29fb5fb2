"""Composition scores of all pairs of heads, with what random weights would give."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from interp.errors import InputError, StorageError
from interp.figures.heads import cell_map
from interp.figures.page import figure_html, write_page
from interp.figures.tables import table_html
from interp.files import atomic_folder, read_json, write_json

__all__ = ["CompositionScores"]

_FORMAT = 1
_AXES = ("from_layer", "from_head", "to_layer", "to_head")
_LEFT_OUT = (
    "Weights only: a high score says that one head could read what another writes, not that any text makes it happen "
    "(patch the path: interp.path_patch). Scales of norms, centring, the gains of query and key norms, rotary "
    "positions, biases, MLPs and heads in between are left out. "
    "All directions count alike, also those that no residual ever takes."
)


@dataclass(frozen=True)
class CompositionScores:
    """`values` and `rotated_z` `[from_layer from_head to_layer to_head]`; NaN where the writer is not earlier.

    `random_mean` and `random_deviation` are those of the scores of Gaussian heads of the same shapes; `z` counts from
    there. `rotated_z` counts each squared score in deviations under a random rotation between its two heads, which
    keeps their spectra: the fairer null where heads are of low rank.
    """

    values: xr.DataArray
    rotated_z: xr.DataArray
    random_mean: float
    random_deviation: float
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.dims != _AXES or self.rotated_z.dims != _AXES:
            raise InputError(
                f"Composition scores have axes {', '.join(_AXES)}; got {', '.join(map(str, self.values.dims))}."
            )

    @property
    def z(self) -> xr.DataArray:
        """Deviations above the mean of random heads of the same shapes."""
        return (self.values - self.random_mean) / self.random_deviation

    @property
    def leaves_out(self) -> str:
        """What these numbers do not say."""
        return _LEFT_OUT

    def to_frame(self) -> pd.DataFrame:
        """One row per pair, the highest score first."""
        columns = {"score": self.values, "z": self.z, "rotated_z": self.rotated_z}
        table = xr.Dataset(columns).to_dataframe().dropna(subset=["score"]).reset_index()
        return table.sort_values("score", ascending=False, kind="stable").reset_index(drop=True)

    def into(self, layer: int, head: int) -> xr.DataArray:
        """Scores of all earlier heads into one `[from_layer from_head]`."""
        self._must_hold(layer, head)
        return self.values.sel(to_layer=layer, to_head=head, drop=True).sel(from_layer=slice(0, layer - 1))

    def out_of(self, layer: int, head: int) -> xr.DataArray:
        """Scores of one head into all later ones `[to_layer to_head]`."""
        self._must_hold(layer, head)
        n_layers = self.values.sizes["to_layer"]
        return self.values.sel(from_layer=layer, from_head=head, drop=True).sel(to_layer=slice(layer + 1, n_layers))

    def top(self, n: int = 10) -> pd.DataFrame:
        """The highest scores, as text for people."""
        table = self.to_frame().head(n)
        pairs = [f"{a}.{b} → {c}.{d}" for a, b, c, d in table[list(_AXES)].itertuples(index=False)]
        numbers = {name: [f"{one:.{digits}f}" for one in table[name]] for name, digits in
                   (("score", 3), ("z", 1), ("rotated_z", 1))}  # fmt: skip
        return pd.DataFrame({"pair": pairs, **numbers})

    def plot(self) -> Any:
        """A plotly map of writing heads (rows) by reading heads (columns); what is not earlier stays empty."""
        layers, heads = self.values.sizes["from_layer"], self.values.sizes["from_head"]
        names = [f"{layer}.{head}" for layer in range(layers) for head in range(heads)]
        kind = self.about.get("kind", "")
        grid = self.values.values.reshape(len(names), len(names))
        title = f"{kind}-composition of {self.about.get('model', 'all heads')} (random: {self.random_mean:.3f})"
        return cell_map(grid, title=title, rows=("writes", names), columns=("reads", names), name="score", signed=False)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page."""
        return write_page(path, f"{self.about.get('kind')}-composition", [
            f"<p>{escape(repr(self))}</p>", figure_html(self.plot(), "map"), table_html(self.top(40)),
            f'<p class="note">{escape(self.leaves_out)}</p>',
        ])  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: scores.parquet (in the order of the axes) and about.json."""
        about = {"format": _FORMAT, "sizes": [self.values.sizes[one] for one in _AXES], "about": dict(self.about)}
        about |= {"random_mean": self.random_mean, "random_deviation": self.random_deviation}
        flat = {"score": self.values.values.ravel(), "rotated_z": self.rotated_z.values.ravel()}
        with atomic_folder(path, marker="about.json") as folder:
            pd.DataFrame(flat).to_parquet(folder / "scores.parquet")
            write_json(folder / "about.json", about)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CompositionScores:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        folder = Path(path)
        saved = read_json(folder / "about.json")
        if not isinstance(saved, dict) or saved.get("format") != _FORMAT or "sizes" not in saved:
            raise StorageError(f"{folder} holds no composition scores of format {_FORMAT}. Make them again.")
        try:
            table = pd.read_parquet(folder / "scores.parquet")
            coords = {axis: list(range(size)) for axis, size in zip(_AXES, saved["sizes"], strict=True)}
            score, rotated = (
                xr.DataArray(np.asarray(table[name]).reshape(saved["sizes"]), coords=coords, dims=_AXES)
                for name in ("score", "rotated_z")
            )
            return cls(score, rotated, saved["random_mean"], saved["random_deviation"], saved["about"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"Cannot read the composition scores in {folder}: {error}") from error

    def __repr__(self) -> str:
        n = int(self.values.notnull().sum())
        said = f"{self.about.get('kind')}, {n} pairs, reads {self.about.get('reads')}"
        return f"CompositionScores({said}, {self.about.get('weights')}, random {self.random_mean:.3f})"

    def _repr_html_(self) -> str:
        note = f"<p><small>{escape(self.leaves_out)}</small></p>"
        return f"<h4>{escape(repr(self))}</h4>{table_html(self.top())}{note}"

    def _must_hold(self, layer: int, head: int) -> None:
        layers, heads = self.values.sizes["from_layer"], self.values.sizes["from_head"]
        if not (0 <= layer < layers and 0 <= head < heads):
            raise InputError(f"There is no head {layer}.{head}: there are {layers} layers of {heads} heads.")
