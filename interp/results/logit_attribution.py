"""A logit as the sum of what parts of the model wrote."""

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
from interp.figures.bars import part_bars
from interp.figures.page import figure_html, write_page
from interp.results.frames import about_html, as_records, load_frames, save_frames
from interp.stats import bootstrap_interval, item_means

__all__ = ["LogitAttribution"]

_KIND, _FORMAT = "logit attribution", 1


@dataclass(frozen=True)
class LogitAttribution:
    """What each part adds to a logit or a logit difference, per prompt.

    `frame`: one row per prompt and part: its label, `kind` (embed, attn, head, source, mlp, neuron, bias), sublayer,
    layer, head, neuron, source (the attended position) and token, `value` in logits. `check`: per prompt the `sum` of
    all parts beside the model's own `logit`, their difference, and the tolerance it is held to.
    """

    frame: pd.DataFrame
    check: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """A copy of the table, one row per prompt and part."""
        return self.frame.copy()

    @property
    def values(self) -> xr.DataArray:
        """`[prompt, part]`; NaN where a prompt has no such part (a source position that a shorter prompt lacks)."""
        table = self.frame.pivot(index="prompt", columns="part", values="value")
        table = table.reindex(columns=self.frame["part"].drop_duplicates())
        coords = {"prompt": table.index.to_numpy(), "part": table.columns.to_numpy(dtype=str)}
        return xr.DataArray(table.to_numpy(dtype=float), coords=coords, dims=("prompt", "part"))

    def mean(self) -> pd.DataFrame:
        """One row per part: its mean over items (prompts that share an item are averaged first) with a 95% bootstrap
        interval over items where two or more have it, and its share of the whole mean."""
        values = self.values.values
        items = self.about.get("items")
        by_item = item_means(values, np.array(items)[self.values["prompt"].values]) if items else values
        there = ~np.isnan(by_item)
        means = np.where(there, by_item, 0.0).sum(0) / there.sum(0)
        low, high = np.full((2, len(means)), np.nan)
        several = there.sum(0) > 1
        if several.any():
            low[several], high[several] = bootstrap_interval(by_item[:, several])
        columns = ["part", "kind", "sublayer", "layer", "head", "neuron", "source", "token"]
        found: Any = self.frame.drop_duplicates("part")[columns].reset_index(drop=True)
        n_texts: Any = self.frame.groupby("part", sort=False)["token"].nunique()
        found["token"] = found["token"].where(
            (found["part"].map(n_texts) == 1).to_numpy(dtype=bool)
        )  # differs between prompts
        found["value"], found["value_low"], found["value_high"] = means, low, high
        return found

    def top(self, n: int = 10, kind: str | None = None) -> pd.DataFrame:
        """The parts with the largest means either way."""
        table: Any = self.mean()
        if kind is not None:
            if kind not in set(table["kind"]):
                known = ", ".join(table["kind"].unique())
                raise InputError(f"There is no part of kind {kind!r}. There are {known}.")
            table = table.loc[table["kind"] == kind]
        order = table["value"].abs().sort_values(ascending=False, kind="stable").index
        return table.loc[order].head(n).reset_index(drop=True)

    def summary(self, n: int = 10) -> pd.DataFrame:
        """`top` as text for people."""
        rows = []
        for row in self.top(n).to_dict("records"):
            line = {"part": row["part"], "kind": row["kind"]}
            if self.about.get("by") == "source":
                line["token"] = repr(row["token"]) if isinstance(row["token"], str) else "–"
            ends = (row["value_low"], row["value_high"])
            between = "" if np.isnan(ends[0]) else f" ({ends[0]:.3f} to {ends[1]:.3f})"
            line["logits (95%)" if between else "logits"] = f"{row['value']:+.3f}{between}"
            rows.append(line)
        return pd.DataFrame(rows)

    @property
    def ok(self) -> bool:
        """Whether the parts sum to the model's own logits within the tolerance, on every prompt."""
        return bool(self.check["ok"].all())

    def describe(self) -> str:
        """The sum and its check, and what is left out, as sentences."""
        worst: Any = self.check.loc[self.check["difference"].idxmax()]
        state = "sum to" if self.ok else "DO NOT SUM TO"
        said = (
            f"{len(self.values['part'])} parts {state} {self._question}: {self.check['sum'].mean():.4f} beside the "
            f"model's {self.check['logit'].mean():.4f} (largest difference {worst['difference']:.1e}, tolerance "
            f"{worst['tolerance']:.1e})."
        )
        return f"{said} {self.about.get('left_out', '')}"

    def plot(self, n: int = 20) -> Any:
        """A plotly bar chart of the largest parts."""
        title = f"direct effect on {self._question}, by {self.about.get('by')}"
        return part_bars(self.top(n), title=title, unit="logits")

    def to_html(self, path: str | os.PathLike[str], n: int = 40) -> Path:
        """Write a self-contained page: the chart, the table, the check."""
        sections = [figure_html(self.plot(), "parts"), about_html(repr(self), self.describe(), self.summary(n))]
        return write_page(path, f"Logit attribution of {self.about.get('model', 'a model')}", sections)

    def to_records(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return {"parts": as_records(self.mean()), "check": as_records(self.check), "about": dict(self.about)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: parts.parquet, check.parquet and about.json, all or nothing."""
        return save_frames(path, _KIND, _FORMAT, self.about, {"parts": self.frame, "check": self.check})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LogitAttribution:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        about, tables = load_frames(path, _KIND, _FORMAT, ("parts", "check"))
        texts = {name: "string" for name in ("part", "kind", "sublayer", "token")}
        return cls(tables["parts"].astype(texts), tables["check"], about)

    @property
    def _question(self) -> str:
        answer, foil = self.about.get("answer"), self.about.get("foil")
        several = isinstance(answer, list) or isinstance(foil, list)
        if several:
            return "the logit difference" if foil else "the answer's logit"
        return f"the logit of {answer} − {foil}" if foil else f"the logit of {answer}"

    def __repr__(self) -> str:
        n_prompts = len(set(self.frame["prompt"]))
        state = "sum checked" if self.ok else "SUM IS OFF"
        many = f"{n_prompts} prompt{'s' if n_prompts > 1 else ''}"
        return f"LogitAttribution({many} × {len(self.values['part'])} parts by {self.about.get('by')}, {state})"

    def __str__(self) -> str:
        return f"{self.summary().to_string(index=False)}\n{self.describe()}"

    def _repr_html_(self) -> str:
        return about_html(repr(self), self.describe(), self.summary())
