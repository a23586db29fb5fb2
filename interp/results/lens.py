"""What each layer's residual would predict, position by position."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from interp.errors import InputError
from interp.figures.lens import lens_map, rank_curves
from interp.figures.page import figure_html, write_page
from interp.results.frames import about_html, as_records, load_frames, save_frames

__all__ = ["Lens"]

_KIND, _FORMAT = "lens", 1


@dataclass(frozen=True)
class Lens:
    """Predictions of every layer. Three tables, one row per prompt, position and layer (0: the embeddings; n_layers:
    the model's own prediction), the second also per rank and the third per pinned token:

    `frame`: `text` (the token that stands there), `entropy` and `kl` = KL(final ‖ layer), in nats. `tokens`: the
    likeliest next tokens, `token_id`, `prob`, `logit`. `pins`: each pinned token's `rank` (1 is the likeliest), `prob`,
    `logit`.
    """

    frame: pd.DataFrame
    tokens: pd.DataFrame
    pins: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """One row per prompt, position and layer, with the likeliest token and its probability, and each pin's rank."""
        keys = ["prompt", "pos", "layer"]
        best = self.tokens.loc[self.tokens["rank"] == 1].set_index(keys)[["token", "prob"]]
        table = self.frame.join(best.rename(columns={"token": "top", "prob": "top_prob"}), on=keys)
        for pin, rows in self.pins.groupby("pin", sort=False):
            ranks = rows.rename(columns={"rank": f"rank of {pin}"}).set_index(keys)[[f"rank of {pin}"]]
            table = table.join(ranks, on=keys)
        return table

    @property
    def values(self) -> xr.Dataset:
        """Named arrays: entropy and kl `[prompt layer pos]`, top_prob and top_token `[… rank]`, pin_rank and pin_prob
        `[… pin]`. NaN (or None) where a shorter prompt has no such position."""
        keys = ["prompt", "layer", "pos"]
        parts = [self.frame.set_index(keys)[["entropy", "kl"]].to_xarray()]
        if len(self.tokens):
            likely = self.tokens.rename(columns={"prob": "top_prob", "token": "top_token"}).set_index([*keys, "rank"])
            parts.append(likely[["top_prob", "top_token"]].to_xarray())
        if len(self.pins):
            pinned = self.pins.rename(columns={"rank": "pin_rank", "prob": "pin_prob"}).set_index([*keys, "pin"])
            parts.append(pinned[["pin_rank", "pin_prob"]].to_xarray())
        merged: Any = xr.merge(parts)
        return merged

    def curve(self, pin: str | None = None, *, pos: int = -1, prompt: int = 0) -> pd.DataFrame:
        """Rank and probability of pinned tokens by layer, at one position (negative counts from the end)."""
        if not len(self.pins):
            raise InputError("No token was pinned. Ask again with pins=.")
        names = list(self.pins["pin"].unique())
        if pin is not None and pin not in names:
            pin = next((name for name in names if name.strip() == pin.strip()), pin)
        if pin is not None and pin not in names:
            raise InputError(f"{pin!r} was not pinned. Pinned are {', '.join(map(repr, names))}.")
        rows: Any = self._at(self.pins, pos, prompt)
        rows = rows if pin is None else rows.loc[rows["pin"] == pin]
        return rows[["pin", "layer", "rank", "prob", "logit"]].reset_index(drop=True)

    def at(self, pos: int = -1, *, prompt: int = 0, n: int = 3) -> pd.DataFrame:
        """One position as text for people: per layer the likeliest tokens, entropy, KL and the pins' ranks."""
        places, likely = self._at(self.frame, pos, prompt), self._at(self.tokens, pos, prompt)
        pinned, rows = self._at(self.pins, pos, prompt), []
        for row in places.to_dict("records"):
            best = likely.loc[(likely["layer"] == row["layer"]) & (likely["rank"] <= n)]
            said = [f"{one['token']!r} {one['prob']:.2f}" for one in best.to_dict("records")]
            line: dict[str, Any] = {"layer": str(row["layer"]), "likeliest": ", ".join(said) or "–"}
            line |= {"entropy": f"{row['entropy']:.2f}", "KL": f"{row['kl']:.2f}"}
            for one in pinned.loc[pinned["layer"] == row["layer"]].to_dict("records"):
                line[f"rank of {one['pin']!r}"] = str(int(one["rank"]))
            rows.append(line)
        return pd.DataFrame(rows)

    def describe(self) -> str:
        """What was read, and what it leaves out."""
        return f"{self.about.get('method', 'lens')} of {self.about.get('model')}. {self.about.get('left_out', '')}"

    def plot(self, what: str = "map", *, pos: int = -1, prompt: int = 0) -> Any:
        """A plotly figure: "map", layer by position with the likeliest tokens; "ranks", the pins' curves at `pos`."""
        title = f"{self.about.get('method')} of {self.about.get('model')}"
        if what == "ranks":
            return rank_curves(self.curve(pos=pos, prompt=prompt), title=f"{title}, position {pos}")
        if what != "map":
            raise InputError(f'what is {what!r}. Choose "map" or "ranks".')
        table = self.to_frame()
        table = table.loc[table["prompt"] == self._prompt(prompt)]
        return lens_map(table, title=title)

    def to_html(self, path: str | os.PathLike[str], *, prompt: int = 0) -> Path:
        """Write a self-contained page: the map, the pins' curves, and the last position in words."""
        sections = [figure_html(self.plot(prompt=prompt), "map")]
        if len(self.pins):
            sections.append(figure_html(self.plot("ranks", prompt=prompt), "ranks"))
        sections.append(about_html(repr(self), self.describe(), self.at(prompt=prompt)))
        return write_page(path, f"Lens of {self.about.get('model', 'a model')}", sections)

    def to_records(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        tables = {"places": self.frame, "tokens": self.tokens, "pins": self.pins}
        return {**{name: as_records(table) for name, table in tables.items()}, "about": dict(self.about)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: three tables and about.json, all or nothing."""
        tables = {"places": self.frame, "tokens": self.tokens, "pins": self.pins}
        return save_frames(path, _KIND, _FORMAT, self.about, tables)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Lens:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        about, tables = load_frames(path, _KIND, _FORMAT, ("places", "tokens", "pins"))
        return cls(tables["places"], tables["tokens"], tables["pins"], about)

    def _prompt(self, prompt: int) -> int:
        if prompt not in set(self.frame["prompt"]):
            raise InputError(f"There is no prompt {prompt}; these are 0 to {self.frame['prompt'].max()}.")
        return prompt

    def _at(self, table: pd.DataFrame, pos: int, prompt: int) -> pd.DataFrame:
        n_pos = int(self.frame.loc[self.frame["prompt"] == self._prompt(prompt), "pos"].max()) + 1
        if not -n_pos <= pos < n_pos:
            raise InputError(f"There is no position {pos}; prompt {prompt} has {n_pos}.")
        return table.loc[(table["prompt"] == prompt) & (table["pos"] == pos % n_pos)]

    def __repr__(self) -> str:
        n_prompts = self.frame["prompt"].nunique()
        n_layers = self.frame["layer"].nunique()
        return f"Lens({self.about.get('method')}, {n_prompts} prompt × {n_layers} layer, {self._n_pins} pinned)"

    @property
    def _n_pins(self) -> int:
        return len(set(self.pins["pin"]))

    def __str__(self) -> str:
        return f"{self.at().to_string(index=False)}\n{self.describe()}"

    def _repr_html_(self) -> str:
        return about_html(repr(self), self.describe(), self.at())
