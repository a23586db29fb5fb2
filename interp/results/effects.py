"""The effects of interventions: per prompt and cell, with intervals over items, saved and drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from interp.errors import InputError, StorageError
from interp.figures.heads import cell_map
from interp.figures.page import figure_html, write_page
from interp.figures.tables import table_html
from interp.files import atomic_folder, read_json, write_json
from interp.stats import bootstrap_interval, item_means, sign_flip

__all__ = ["Effects"]

_FORMAT = 2
Normalize = Literal["pooled", "per_prompt"] | None


@dataclass(frozen=True)
class Effects:
    """What an intervention did, per prompt and cell: `values` is an xarray `[prompt, *grid]`, metric(patched run) −
    metric(base run), in the metric's unit: 0 means that nothing happened. NaN: a prompt has no such cell.

    `base` and `source` `[prompt]` are the metric of the run that was edited and of the run copied from. `items` name
    the independent items that prompts belong to (by default each prompt is one); they, not prompts, are what
    intervals and p-values resample. `about` says site, direction, metric, unit, whether it is exact, and whatever
    else made the numbers.

    `normalize` divides by source − base, so 0 is as the base run and 1 as the source run; it is never clamped.
    "pooled" is the ratio of means (one divisor), "per_prompt" the mean of ratios.
    """

    values: xr.DataArray
    items: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    base: NDArray[np.floating] | None = None
    source: NDArray[np.floating] | None = None
    templates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.values.ndim < 1 or self.values.dims[0] != "prompt":
            raise InputError(
                f"Effects run over prompts first; these have axes {', '.join(map(str, self.values.dims))}."
            )
        n_prompts = self.values.sizes["prompt"]
        for name, one in (("item names", self.items), ("templates", self.templates)):
            if one and len(one) != n_prompts:
                raise InputError(f"There are {len(one)} {name} for {n_prompts} prompts.")
        for name, metric in (("base", self.base), ("source", self.source)):
            if metric is not None and metric.shape != (n_prompts,):
                raise InputError(f"{name} has shape {metric.shape}; there are {n_prompts} prompts.")

    @property
    def grid(self) -> tuple[str, ...]:
        """Names of the axes behind `prompt`."""
        return tuple(str(dim) for dim in self.values.dims[1:])

    @property
    def n_items(self) -> int:
        """Independent items, which intervals and p-values resample; one has neither."""
        return len(set(self.items)) if self.items else self.values.sizes["prompt"]

    @property
    def patched(self) -> xr.DataArray:
        """The metric of each patched run itself, `[prompt, *grid]`."""
        if self.base is None:
            raise InputError("These effects do not say what the metric of the base run was.")
        return self.values + xr.DataArray(self.base, coords={"prompt": self.values["prompt"]}, dims="prompt")

    def normalize(self, how: Normalize) -> Effects:
        """The effects over source − base. Raises `InputError` where the two runs give the same metric."""
        if how is None:
            return self
        gap = self._gap()
        if how == "pooled":
            divisor = np.full_like(gap, gap.mean())
        elif how == "per_prompt":
            divisor = gap
        else:
            raise InputError(f'normalize is {how!r}. Choose "pooled", "per_prompt" or None.')
        if (divisor == 0).any():
            where = "on average" if how == "pooled" else f"on prompt {int(np.flatnonzero(divisor == 0)[0])}"
            raise InputError(f"Both runs give the same metric {where}, so there is nothing to divide by.")
        values = self.values / xr.DataArray(divisor, coords={"prompt": self.values["prompt"]}, dims="prompt")
        about = {**self.about, "unit": "share of source − base", "normalize": how}
        assert self.base is not None and self.source is not None
        return replace(self, values=values, about=about, base=self.base / divisor, source=self.source / divisor)

    def mean(self, *, normalize: Normalize = None) -> xr.DataArray:
        """The mean over prompts; prompts without a cell are left out of it."""
        return self.normalize(normalize).values.mean("prompt")

    def ci(
        self, level: float = 0.95, *, normalize: Normalize = None, seed: int = 0
    ) -> tuple[xr.DataArray, xr.DataArray]:
        """Lower and upper end of each cell's bootstrap interval over items. "pooled" resamples the divisor too."""
        gap = None
        if normalize == "pooled":
            self.normalize(normalize)
            gap = self._by_item(self._gap()[:, None])
            gap = gap[:, 0]
        values = self if normalize == "pooled" else self.normalize(normalize)
        by_item = values._by_item(values._flat)
        there = ~np.isnan(by_item).all(axis=0)  # a cell that no item has gets no interval
        low, high = np.full((2, by_item.shape[1]), np.nan)
        if there.any():
            low[there], high[there] = bootstrap_interval(by_item[:, there], level=level, seed=seed, divisor=gap)
        return self._cells(low), self._cells(high)

    def pvalues(self, *, side: str = "two", seed: int = 0) -> tuple[xr.DataArray, xr.DataArray]:
        """p of each cell by sign flips of items, and the same corrected over all cells by the max-statistic. Cells
        that some item does not have get none."""
        by_item = self._by_item(self._flat)
        whole = ~np.isnan(by_item).any(axis=0)
        p, corrected = np.full((2, by_item.shape[1]), np.nan)
        if whole.any():
            p[whole], corrected[whole] = sign_flip(by_item[:, whole], side=side, seed=seed)
        return self._cells(p), self._cells(corrected)

    def to_frame(self, *, normalize: Normalize = None) -> pd.DataFrame:
        """One row per cell: its coordinates, mean, interval, p and corrected p; of one item only the mean."""
        columns = {"effect": self.mean(normalize=normalize)}
        if self.n_items > 1:
            columns["effect_low"], columns["effect_high"] = self.ci(normalize=normalize)
            columns["p"], columns["p_corrected"] = self.pvalues()
        else:
            absent = xr.full_like(columns["effect"], np.nan)
            columns |= dict.fromkeys(("effect_low", "effect_high", "p", "p_corrected"), absent)
        if not self.grid:
            return pd.DataFrame([{name: float(one) for name, one in columns.items()}])
        return xr.Dataset(columns).to_dataframe().reset_index().loc[:, [*self.grid, *columns]]

    def top(self, n: int = 10, *, normalize: Normalize = None) -> pd.DataFrame:
        """The cells with the largest effects either way, as text for people."""
        table = self.to_frame(normalize=normalize)
        table = table.loc[table["effect"].notna()]
        table = table.loc[table["effect"].abs().sort_values(ascending=False, kind="stable").index].head(n)
        shown = pd.DataFrame({axis: [self._label(axis, one) for one in table[axis]] for axis in self.grid})
        parts = zip(table["effect"], table["effect_low"], table["effect_high"], strict=True)
        with_interval = self.n_items > 1
        shown["effect (95%)" if with_interval else "effect"] = [
            f"{mean:.3f} ({low:.3f} to {high:.3f})" if with_interval else f"{mean:.3f}" for mean, low, high in parts
        ]
        if normalize is None and self.source is not None and self.base is not None and self._gap().mean() != 0:
            shown["of source − base"] = [f"{one / self._gap().mean():.3f}" for one in table["effect"]]
        if with_interval:
            shown["p (corrected)"] = [f"{one:.2g}" for one in table["p_corrected"]]
        return shown

    def to_html(self, path: str | os.PathLike[str], *, normalize: Normalize = None) -> Path:
        """Write a self-contained page: a map where the grid has one or two axes, the largest effects, and how they were
        measured."""
        sections = [figure_html(self.plot(normalize=normalize), "map")] if len(self.grid) in (1, 2) else []
        facts = "".join(f"<li>{escape(name)}: {escape(str(value))}</li>" for name, value in self.about.items())
        sections += [f"<p>{escape(repr(self))}</p>", table_html(self.top(30, normalize=normalize))]
        sections.append(f'<h2>How it was measured</h2><ul class="note">{facts}</ul>')
        return write_page(path, f"{self.about.get('method', 'Effects')} of {self.about.get('site', '')}", sections)

    def plot(self, *, normalize: Normalize = None) -> Any:
        """A plotly heat map of the means over the first two axes of the grid; a single axis is one row."""
        if len(self.grid) not in (1, 2):
            raise InputError(
                f"A map needs one or two axes; these effects have {len(self.grid)}. Choose cells with .values.sel."
            )
        shown = self.normalize(normalize)
        means = shown.mean().values if len(self.grid) == 2 else shown.mean().values[None]
        rows, columns = self.grid if len(self.grid) == 2 else ("", self.grid[0])
        title = ", ".join(str(shown.about[key]) for key in ("method", "site", "direction") if key in shown.about)
        unit = " ".join(str(shown.about.get(key, "")) for key in ("metric", "unit")).strip() or "effect"
        names = {
            axis: [self._label(axis, one) for one in self.values[axis].values.tolist()] if axis else [""]
            for axis in (rows, columns)
        }
        return cell_map(
            means, title=title or unit, rows=(rows, names[rows]), columns=(columns, names[columns]), name=unit
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: values.parquet (one row per prompt and cell), runs.parquet (the metric of the unedited runs)
        and about.json, all or nothing."""
        coordinates = {str(dim): self.values[dim].values.tolist() for dim in self.values.dims}
        about = {"format": _FORMAT, "coordinates": coordinates, "items": list(self.items), "about": dict(self.about)}
        about["templates"] = list(self.templates)
        unedited = {name: x for name, x in (("base", self.base), ("source", self.source)) if x is not None}
        with atomic_folder(path, marker="about.json") as folder:
            pd.DataFrame({"effect": self.values.values.ravel()}).to_parquet(folder / "values.parquet")
            pd.DataFrame(unedited).to_parquet(folder / "runs.parquet")
            write_json(folder / "about.json", about)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Effects:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        folder = Path(path)
        saved = read_json(folder / "about.json")
        if not isinstance(saved, dict) or saved.get("format") != _FORMAT or "coordinates" not in saved:
            raise StorageError(f"{folder} holds no effects of format {_FORMAT}. Make them again with this version.")
        try:
            values = pd.read_parquet(folder / "values.parquet")["effect"].to_numpy()
            runs = pd.read_parquet(folder / "runs.parquet")
            shape = [len(one) for one in saved["coordinates"].values()]
            array = xr.DataArray(values.reshape(shape), coords=saved["coordinates"], dims=list(saved["coordinates"]))
            base, source = (runs[name].to_numpy() if name in runs else None for name in ("base", "source"))
            return cls(array, tuple(saved["items"]), saved["about"], base, source, tuple(saved["templates"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"Cannot read the effects in {folder}: {error}") from error

    def __repr__(self) -> str:
        said = ", ".join(f"{key} {self.about[key]}" for key in ("site", "direction", "metric") if key in self.about)
        kind = {True: "exact", False: "approximate"}.get(self.about.get("exact"), "")  # type: ignore[arg-type]
        axes = " × ".join(f"{self.values.sizes[axis]} {axis}" for axis in ("prompt", *self.grid))
        partial = "partial" if self.about.get("partial") else ""
        return f"Effects({', '.join(part for part in (axes, said, kind, partial) if part)})"

    def _repr_html_(self) -> str:
        table = self.to_frame().sort_values(by="effect", key=abs, ascending=False).head(10)
        return f"<h4>{escape(repr(self))}</h4>{table_html(table)}"

    def _label(self, axis: str, name: Any) -> str:
        """A coordinate as text; positions with their token, where all prompts have the same one."""
        tokens = self.about.get("tokens")
        return f"{name} {tokens[name]}" if axis == "pos" and tokens and int(name) < len(tokens) else str(name)

    @property
    def _flat(self) -> np.ndarray:
        return self.values.values.reshape(self.values.sizes["prompt"], -1)

    def _gap(self) -> np.ndarray:
        if self.base is None or self.source is None:
            raise InputError("There is no source run to normalise by: these effects were not copied from another run.")
        return self.source - self.base

    def _by_item(self, values: np.ndarray) -> np.ndarray:
        return item_means(values, np.array(self.items)) if self.items else values

    def _cells(self, flat: np.ndarray) -> xr.DataArray:
        return self.values.isel(prompt=0, drop=True).copy(data=flat.reshape(self.values.shape[1:]))
