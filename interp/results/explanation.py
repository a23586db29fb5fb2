"""Why a query attended to a key: the score of one attention edge, split over what made the query and the key."""

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

__all__ = ["AttentionExplanation"]

_FORMAT = 1
_POSITION = "position bias"
_LEFT_OUT = (
    "Scales of norms are frozen at this text's values, so a part is what it adds here, not what the score would be "
    "without it (confirm=True measures that). Sources are what wrote directly to the residual stream: what an earlier "
    "head or MLP itself read is not traced further. A score says where attention goes, not what "
    "is moved: see interp.ov."
)


@dataclass(frozen=True)
class AttentionExplanation:
    """One attention edge, source by source.

    `values` `[measure, query_source, key_source]`: parts of the score q·k × scale, before any softcap (measure
    "score"), and of that score less its mean over the keys compared with ("contrast"), which is what softmax reacts
    to. `position_bias` is what a bias of distances adds to either. `about["sum_apart"]` is the largest difference
    between sums of parts and the scores of the pass, over the largest score.

    `keys` has one row per visible key: its score with the bias and its attention. `confirmed` holds what happened when
    single sources were replaced, or is None. Sources carry their kind, layer and head as coordinates.
    """

    values: xr.DataArray
    position_bias: Mapping[str, float]
    keys: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)
    confirmed: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        if self.values.dims != ("measure", "query_source", "key_source"):
            raise InputError(f"Parts of a score have other axes: {', '.join(map(str, self.values.dims))}.")

    @property
    def measure(self) -> str:
        """The one that is shown unless another is asked for: "contrast" where there is one."""
        return str(self.values["measure"].values[-1])

    @property
    def leaves_out(self) -> str:
        """What these numbers do not say."""
        at, why = self.about.get("read"), self.about.get("read_because")
        if self.confirmed is None or why is None:
            return _LEFT_OUT
        said = f"The answer is read at {self.about.get('read_token')!r} ({at}): {why}. Only this edge was touched."
        return f"{_LEFT_OUT} {said}"

    def total(self, measure: str | None = None) -> float:
        """The sum of all parts and of the position bias."""
        which = self._chosen(measure)
        return float(self.values.sel(measure=which).sum()) + self.position_bias[which]

    def by_query(self, measure: str | None = None) -> xr.DataArray:
        """Each query source, summed over the key's `[query_source]`."""
        return self.values.sel(measure=self._chosen(measure), drop=True).sum("key_source")

    def by_key(self, measure: str | None = None) -> xr.DataArray:
        """Each key source, summed over the query's `[key_source]`."""
        return self.values.sel(measure=self._chosen(measure), drop=True).sum("query_source")

    def interaction(self, measure: str | None = None) -> xr.DataArray:
        """Each part less what the two marginals make of it (row mean + column mean − grand mean): rows and columns sum
        to 0. Large: these two sources belong together; 0 everywhere: every query source treats the key alike."""
        parts = self.values.sel(measure=self._chosen(measure), drop=True)
        return parts - parts.mean("key_source") - parts.mean("query_source") + parts.mean()

    def to_frame(self, measure: str | None = None) -> pd.DataFrame:
        """One row per pair of sources with its part, largest first; the position bias is a row of its own."""
        which = self._chosen(measure)
        parts = self.values.sel(measure=which, drop=True)
        table = parts.rename("part").to_dataframe().reset_index()
        first = ["query_source", "key_source", "part"]
        table = table.loc[:, [*first, *(name for name in table.columns if name not in first)]]
        if self.position_bias[which]:
            row = {"query_source": _POSITION, "key_source": _POSITION, "part": self.position_bias[which]}
            table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
        return _largest_first(table).reset_index(drop=True)

    def marginals(self, measure: str | None = None) -> pd.DataFrame:
        """One row per side and source: its sum over the other side, largest first; with the position bias the rows of
        either side sum to the total."""
        tables = []
        bias = self.position_bias[self._chosen(measure)]
        for side, sums in (("query", self.by_query(measure)), ("key", self.by_key(measure))):
            extra = {name: sums.coords[f"{side}_{name}"].values for name in ("kind", "layer", "head")}
            names = sums[f"{side}_source"].values
            table = pd.DataFrame({"side": side, "source": names, "part": sums.values, **extra})
            if bias:
                row = {"side": side, "source": _POSITION, "part": bias, "kind": "position", "layer": -1, "head": -1}
                table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
            tables.append(_largest_first(table))
        return pd.concat(tables, ignore_index=True)

    def top(self, n: int = 8) -> pd.DataFrame:
        """The largest sources of either side, and the largest pairs, side by side, as text for people."""
        sums = self.marginals()
        blocks = {side: sums.loc[sums["side"] == side].head(n).reset_index(drop=True) for side in ("query", "key")}
        pairs = self.to_frame().head(n)
        return pd.DataFrame(
            {
                **{f"{side} side": [_with(a, b) for a, b in zip(t["source"], t["part"], strict=True)] + _pad(n, t)
                   for side, t in blocks.items()},
                "query source × key source": [
                    _with(f"{a} × {b}", part)
                    for a, b, part in zip(pairs["query_source"], pairs["key_source"], pairs["part"], strict=True)
                ] + _pad(n, pairs),
            }
        )  # fmt: skip

    def plot(self, measure: str | None = None, *, n: int = 16) -> Any:
        """A plotly map of the `n` largest sources of each side; all others together are one row and one column."""
        which = self._chosen(measure)
        grid, names = self.values.sel(measure=which, drop=True).values, []
        for axis, sums in enumerate((self.by_query(which), self.by_key(which))):
            order = np.argsort(-np.abs(sums.values), kind="stable")
            kept = np.sort(order[:n])
            labels = sums[sums.dims[0]].values[kept].tolist()
            rest = np.setdiff1d(np.arange(len(order)), kept)
            picked = np.take(grid, kept, axis)
            if len(rest):
                picked = np.concatenate([picked, np.take(grid, rest, axis).sum(axis, keepdims=True)], axis)
                labels.append(f"{len(rest)} others")
            grid, names = picked, [*names, labels]
        title = f"{self.about.get('head', 'head')}: {self._edge()} ({which} {self.total(which):.2f})"
        return cell_map(
            grid, title=title, rows=("query source", names[0]), columns=("key source", names[1]), name=which
        )

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page with the map, the tables, and what they leave out."""
        return write_page(path, f"Head {self.about.get('head')}: {self._edge()}", [
            f"<p>{escape(repr(self))}</p>", figure_html(self.plot(), "parts"), table_html(self.top(15)),
            "<h2>Keys</h2>", table_html(self.keys),
            *(["<h2>Confirmed</h2>", table_html(self.confirmed)] if self.confirmed is not None else []),
            f'<p class="note">{escape(self.leaves_out)}</p>',
        ])  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: parts.parquet, keys.parquet, confirmed.parquet where there is one, and about.json."""
        coords = {str(name): [list(one.dims), one.values.tolist()] for name, one in self.values.coords.items()}
        about = {"format": _FORMAT, "coords": coords, "about": dict(self.about)}
        about["position_bias"] = dict(self.position_bias)
        with atomic_folder(path, marker="about.json") as folder:
            pd.DataFrame({"part": self.values.values.ravel()}).to_parquet(folder / "parts.parquet")
            self.keys.to_parquet(folder / "keys.parquet")
            if self.confirmed is not None:
                self.confirmed.to_parquet(folder / "confirmed.parquet")
            write_json(folder / "about.json", about)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AttentionExplanation:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        folder = Path(path)
        saved = read_json(folder / "about.json")
        if not isinstance(saved, dict) or saved.get("format") != _FORMAT or "coords" not in saved:
            raise StorageError(f"{folder} holds no explanation of format {_FORMAT}. Make it again with this version.")
        try:
            coords = {name: (dims, values) for name, (dims, values) in saved["coords"].items()}
            dims = ("measure", "query_source", "key_source")
            parts = pd.read_parquet(folder / "parts.parquet")["part"].to_numpy()
            shape = [len(coords[name][1]) for name in dims]
            values = xr.DataArray(parts.reshape(shape), coords=coords, dims=dims)
            more = folder / "confirmed.parquet"
            confirmed = pd.read_parquet(more) if more.is_file() else None
            keys = pd.read_parquet(folder / "keys.parquet")
            return cls(values, saved["position_bias"], keys, saved["about"], confirmed)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"Cannot read the explanation in {folder}: {error}") from error

    def __repr__(self) -> str:
        sizes = f"{self.values.sizes['query_source']} × {self.values.sizes['key_source']} sources"
        said = f"score {self.total('score'):.2f}"
        said += f", contrast {self.total('contrast'):.2f}" if self.measure == "contrast" else ""
        return f"AttentionExplanation({self.about.get('head')}: {self._edge()}, {said}, {sizes})"

    def _repr_html_(self) -> str:
        confirmed = table_html(self.confirmed) if self.confirmed is not None else ""
        note = f"<p><small>{escape(self.leaves_out)}</small></p>"
        return f"<h4>{escape(repr(self))}</h4>{table_html(self.top())}{confirmed}{note}"

    def _edge(self) -> str:
        query, key = self.about.get("query_token"), self.about.get("key_token")
        return f"{query!r} at {self.about.get('query')} → {key!r} at {self.about.get('key')}"

    def _chosen(self, measure: str | None) -> str:
        known = [str(one) for one in self.values["measure"].values]
        if measure is not None and measure not in known:
            raise InputError(f"measure is {measure!r}. There is {' and '.join(known)}.")
        return measure or self.measure


def _largest_first(table: pd.DataFrame) -> pd.DataFrame:
    return table.iloc[np.argsort(-np.abs(table["part"].to_numpy(dtype=float)), kind="stable")]


def _with(name: str, part: float) -> str:
    return f"{name} {part:+.2f}"


def _pad(n: int, table: pd.DataFrame) -> list[str]:
    return [""] * (n - len(table))
