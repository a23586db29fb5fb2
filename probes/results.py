"""What a sweep found: a table of places, and the direction of each probe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from interp.errors import InputError, StorageError
from interp.figures.document import Part, html_sections, markdown
from interp.figures.page import figure_html, write_page
from interp.figures.tables import table_html
from interp.files import atomic_folder, read_json, write_json, write_text
from probes.data import Place, ProbeDataset
from probes.directions import directions_of

__all__ = ["FoundProbe", "ProbeResults"]

_KIND, _FORMAT = "probes", 1
_HALVES = ("below the median", "above the median")  # what stands for classes where labels are numbers


@dataclass(frozen=True, eq=False)
class FoundProbe:
    """The probe of one target at one place.

    `direction [width]` has length 1; of two classes it points towards `classes[1]`, and rows whose product with it is
    above `threshold` are of that class. More classes have `directions [class width]`, and `direction` is the line along
    which those differ most; `threshold` is then NaN. Of numbers it points towards larger ones, and the classes are the
    rows below and above the median. `means [class width]` are the mean activations of classes, `spread` their distance
    along the direction (of more classes the largest). `row` is the probe's row of the table. `dataset` is absent after
    loading: `ProbeResults.with_dataset` gives it again.
    """

    place: Place
    target: str
    classes: tuple[str, ...]
    direction: NDArray[np.floating]
    threshold: float
    means: NDArray[np.floating]
    spread: float
    row: Mapping[str, Any]
    dataset: ProbeDataset | None = None
    directions: NDArray[np.floating] | None = None

    def __str__(self) -> str:
        return f"{self.target} at {self.place}: {self.row['verdict']}. {self.row['why']}."

    def __repr__(self) -> str:
        return f"FoundProbe({self.target} at {self.place}, {self.row['metric']} {self.row['score']:.3f})"


@dataclass(frozen=True, eq=False)
class ProbeResults:
    """Probes of all places and targets. `frame` has one row for each; what was not measured is absent (NaN), never 0.

    Columns: target, place, site, layer, head, width; n, n_groups, balance; metric and score on held-out groups with its
    interval (`score_low`, `score_high`), balanced_accuracy; the baselines majority, embedding, random_init; control
    (random labels per word), control_shuffled, selectivity with interval; alpha (λ), stability; p, mdl, mdl_uniform,
    compression, v_information where rigor was "full"; verdict and why. A verdict says what can be decoded, never that
    it is used. `arrays` are the probes' directions and class means, by row of the table.
    """

    frame: pd.DataFrame
    arrays: Mapping[str, NDArray[np.floating]]
    about: Mapping[str, Any] = field(default_factory=dict)
    dataset: ProbeDataset | None = None

    @classmethod
    def of(
        cls, frame: pd.DataFrame, sites: Mapping[str, Any], about: Mapping[str, Any], dataset: ProbeDataset
    ) -> ProbeResults:
        """From what was measured of each site."""
        arrays: dict[str, NDArray] = {}
        for number, row in enumerate(frame.to_dict("records")):
            head = 0 if pd.isna(row["head"]) else int(row["head"])
            numbers = not about["classes"][row["target"]]
            found = directions_of(sites[row["site"]], str(row["target"]), head, numbers=numbers)
            arrays |= {f"{number}.{name}": one for name, one in found.items()}
        return cls(frame, arrays, _plain(about), dataset)

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.frame["target"]))

    def to_frame(self) -> pd.DataFrame:
        """A copy of the table, one row per target and place."""
        return self.frame.copy()

    def at(self, place: Place | str, target: str | None = None) -> FoundProbe:
        """The probe at a place: a `Place`, or its name such as "resid_pre.5" or "z.23.4"."""
        rows = self._of(target)
        here = rows.loc[rows["place"] == str(place)]
        if not len(here):
            here = rows.loc[(rows["site"] == str(place)) & rows["head"].isna()]
        if not len(here):
            some = ", ".join(rows["place"].head(6))
            raise InputError(f"There is no probe at {str(place)!r}. There are {len(rows)} places, e.g. {some}.")
        return self._found(int(here.index[0]))

    def best(self, target: str | None = None) -> FoundProbe:
        """The probe with the highest score; of equals the one with the higher lower end, then the first."""
        rows = self._of(target).sort_values(["score", "score_low"], ascending=False, kind="stable")
        return self._found(int(rows.index[0]))

    def with_dataset(self, dataset: ProbeDataset) -> ProbeResults:
        """The same results with the data they came from, which saving leaves out. Raises `InputError` for data that
        lack a place or a target."""
        missing = sorted(set(self.frame["place"]) - {str(place) for place in dataset.places})
        missing += [target for target in self.targets if target not in dataset.targets]
        if missing:
            raise InputError(f"These data have no {missing[0]!r}. Give the data that the probes were fitted on.")
        return replace(self, dataset=dataset)

    def top(self, target: str | None = None, n: int = 10) -> pd.DataFrame:
        """The best places of a target (or of each) as text for people."""
        tables = [
            self._of(one).sort_values("score", ascending=False, kind="stable").head(n) for one in self._asked(target)
        ]
        rows = []
        for row in pd.concat(tables).to_dict("records"):
            line = {"target": row["target"], "place": row["place"]}
            line[f"{self._metric(target)} (95%)"] = (
                f"{row['score']:.2f} ({row['score_low']:.2f} to {row['score_high']:.2f})"
            )
            for name in ("majority", "control", "selectivity", "embedding", "random_init"):
                line[name.replace("_", " ")] = "–" if pd.isna(row[name]) else f"{row[name]:.2f}"
            if self.about.get("rigor") == "full":
                line["p"] = "–" if pd.isna(row["p"]) else f"{row['p']:.2g}"
                line["code, bits"] = "–" if pd.isna(row["mdl"]) else f"{row['mdl']:.0f} of {row['mdl_uniform']:.0f}"
                line["V-information"] = "–" if pd.isna(row["v_information"]) else f"{row['v_information']:.2f}"
            line["verdict"] = row["verdict"]
            rows.append(line)
        return pd.DataFrame(rows)

    def describe(self, target: str) -> str:
        """One target in words: how many places decode it, and where best."""
        rows, best = self._of(target), self.best(target)
        n = rows["verdict"].tolist().count("decodable")
        return (
            f"{target}: {rows['balance'].iloc[0]}; {rows['n'].iloc[0]} rows in {rows['n_groups'].iloc[0]} groups. "
            f"Decodable from {n} of {len(rows)} places. Best at {best.place}: {best.row['why']}."
        )

    def plot(self, target: str | None = None, *, value: str = "score", heads: bool | None = None) -> Any:
        """A plotly figure: `value` by layer with interval, control and baselines (of the first kind of tensor that has
        no heads), or with `heads` a map of the heads. By default whichever there is, layers first."""
        from interp.figures.probes import accuracy_by_layer, head_map

        rows = self._of(target)
        title = f"{rows['target'].iloc[0]}: {self._metric(str(rows['target'].iloc[0]))}"
        whole, split = rows.loc[rows["head"].isna()], rows.loc[rows["head"].notna()]
        if heads is None:
            heads = not len(whole)
        shown = split if heads else whole
        if not len(shown):
            raise InputError(f"None of these places {'is a head' if heads else 'is without heads'}.")
        kinds = shown["site"].str.replace(r"blocks\.\d+\.", "", regex=True)
        shown = shown.loc[kinds == kinds.iloc[0]]
        if heads:
            return head_map(shown, title=title, value=value)
        return accuracy_by_layer(shown, title=title, value=value, metric=self._metric(target))

    def to_markdown(self, path: str | os.PathLike[str] | None = None) -> str:
        """Markdown with every table; also written to `path`."""
        text = markdown(self._document())
        if path is not None:
            write_text(path, text)
        return text

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page: a figure and a table per target, and how it was measured."""
        figures = [
            figure_html(self.plot(target, heads=heads), f"target-{i}-{'heads' if heads else 'layers'}")
            for i, target in enumerate(self.targets)
            for heads in sorted(set(self.frame["head"].notna()))
        ]
        return write_page(path, self._title(), [*figures, *html_sections(self._document()[1:])])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: probes.parquet, probes.safetensors (directions, class means), about.json, all or nothing."""
        arrays = {name: np.ascontiguousarray(one) for name, one in self.arrays.items()}
        with atomic_folder(path, marker="about.json") as folder:
            self.frame.to_parquet(folder / "probes.parquet")
            save_file(arrays, folder / "probes.safetensors")
            write_json(folder / "about.json", {"kind": _KIND, "format": _FORMAT, "about": _plain(self.about)})
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ProbeResults:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        folder = Path(path)
        saved = read_json(folder / "about.json")
        good = isinstance(saved, dict) and isinstance(saved.get("about"), dict)
        if not good or saved.get("kind") != _KIND or saved.get("format") != _FORMAT:
            raise StorageError(f"{folder} holds no probes of format {_FORMAT}. Make them again with this version.")
        try:
            frame = pd.read_parquet(folder / "probes.parquet")
            arrays = load_file(folder / "probes.safetensors")
            lacking = [name for name in ("target", "place", "site", "head", "score", "why") if name not in frame]
            lacking += [f"{i}.means" for i in range(len(frame)) if f"{i}.means" not in arrays]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise StorageError(f"Cannot read the probes in {folder}: {error}") from error
        if lacking:
            raise StorageError(f"Cannot read the probes in {folder}: {lacking[0]} is missing.")
        return cls(frame, arrays, saved["about"])

    def __repr__(self) -> str:
        places = self.frame["place"].nunique()
        return f"ProbeResults({self.about.get('estimator')}, {len(self.targets)} targets × {places} places)"

    def __str__(self) -> str:
        parts = [
            f"{self.describe(one)}\n{self.top(one, 5).drop(columns='target').to_string(index=False)}"
            for one in self.targets
        ]
        return "\n\n".join([*parts, "Decodable is not used: that takes probes.test_use."])

    def _repr_html_(self) -> str:
        return f"<h4>{escape(self._title())}</h4>{table_html(self.top(n=5))}"

    def _title(self) -> str:
        return f"Probes of {self.about.get('model', 'a model')}"

    def _document(self) -> list[Part]:
        parts: list[Part] = [("1", self._title())]
        for target in self.targets:
            parts += [
                ("2", target),
                ("text", self.describe(target)),
                ("table", self.top(target).drop(columns="target")),
            ]
        parts.append(("text", "Decodable is not used: whether the model uses it takes a test of use."))
        said = [
            f"{name}: {', '.join(map(str, one)) if isinstance(one, list) else one}" for name, one in self.about.items()
        ]
        return [*parts, ("2", "How it was measured"), ("list", said)]

    def _asked(self, target: str | None) -> list[str]:
        return [target] if target is not None else list(self.targets)

    def _of(self, target: str | None) -> pd.DataFrame:
        if target is None and len(self.targets) > 1:
            raise InputError(f"There are {len(self.targets)} targets: {', '.join(self.targets)}. Say which one.")
        chosen = next(iter(self.targets), "") if target is None else target
        if chosen not in self.targets:
            raise InputError(f"There are no probes of {chosen!r}. There are {', '.join(self.targets)}.")
        return self.frame.loc[self.frame["target"] == chosen]

    def _metric(self, target: str | None) -> str:
        metrics = set(self.frame["metric"] if target is None else self._of(target)["metric"])
        names = {"accuracy": "accuracy", "r2": "R²"}
        return "score" if len(metrics) > 1 else names.get(str(min(metrics)), "score")

    def _found(self, number: int) -> FoundProbe:
        row = {str(name): value for name, value in self.frame.loc[number].to_dict().items()}
        own = {name: self.arrays[f"{number}.{name}"] for name in ("direction", "threshold", "means", "spread")}
        head = None if pd.isna(row["head"]) else int(row["head"])
        return FoundProbe(
            Place(str(row["site"]), head),
            str(row["target"]),
            tuple(self.about.get("classes", {}).get(row["target"], ())) or _HALVES,
            own["direction"],
            own["threshold"].item(),
            own["means"],
            own["spread"].item(),
            row,
            self.dataset,
            self.arrays.get(f"{number}.directions"),
        )


def _plain(value: Any) -> Any:
    """As JSON takes it: NaN and infinities as null."""
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | np.ndarray):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | bool) else str(value)
