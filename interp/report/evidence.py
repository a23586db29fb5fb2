"""What claims are judged by: the scores that `find_heads` gives, and further quantities, measured once and kept."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from interp.errors import InputError
from interp.files import read_json, write_json
from interp.heads.base import finder
from interp.heads.splits import halves
from interp.heads.study import Study
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.report.claim import Measured, Missing
from interp.report.intervals import row_ends, said
from interp.results import HeadScores
from interp.sites import Head
from interp.tasks.load import load as load_task

__all__ = ["Evidence", "settings_key"]

METHOD = 3  # raised whenever the same call would give other numbers
# Kinds whose score is a difference, not a share of attention or of prompts.
_RISES = ("agreement", "backup", "function_vector", "semantic_relation")


@dataclass
class Evidence:
    """The model, what was found in it, and the settings. `pairs` are the user's own, where the search used such."""

    model: HookedTransformer
    found: HeadScores
    n: int
    seed: int
    pairs: Mapping[str, PromptPairs] | None = None
    corpus: Any = None
    folder: Path | None = None
    key: str = ""
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None
    _known: dict[str, Any] = field(default_factory=dict)
    _loaded: dict[Any, Any] = field(default_factory=dict)  # what tasks measured of the model
    _shared: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """A further quantity (of what JSON can hold), measured at its first use and kept in the folder. Raises
        `Missing` where it cannot be measured."""
        if name not in self._known:
            self._known[name] = self._kept(name, make)
        value = self._known[name]
        if isinstance(value, dict) and "missing" in value:
            raise Missing(value["missing"])
        return value

    def _kept(self, name: str, make: Callable[[], Any]) -> Any:
        path: Path | None = None
        if self.folder is not None:
            slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            path = self.folder / f"{slug}-{hashlib.sha256((self.key + name).encode()).hexdigest()[:12]}.json"
            if path.is_file():
                return _exchanged(read_json(path), None, math.nan)
        self.progress(f"measuring {name}", 0, 1)
        try:
            value = make()
        except (InputError, Missing) as error:
            return {"missing": str(error)}  # found out anew each time: it may be mended
        self.progress(f"measuring {name}", 1, 1)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, _exchanged(value, math.nan, None))  # JSON has no NaN
        return value

    def shared(self, name: str, make: Callable[[], Any]) -> Any:
        """What several quantities are measured with: made once, and not kept in the folder."""
        if name not in self._shared:
            self._shared[name] = make()
        return self._shared[name]

    # --- what find_heads gave

    @property
    def task_facts(self) -> Mapping[str, Any]:
        return self.found.about.get("tasks", {})

    def must_do(self, task: str) -> None:
        """Raise `Missing` where the model does not do a task: what heads do for it then means nothing."""
        about = self.task_facts.get(task)
        if about is not None and not about.get("is done", True):
            mean, low, high = about["clean − corrupt (95%)"]
            raise Missing(
                f"the model does not do the task {task}: clean − corrupt is {mean:.2g} ({low:.2g} to {high:.2g})"
            )
        cause = self.found.about.get("causes", {}).get(task)
        if about is None and cause is not None and task == "ioi" and not cause["clean"] > cause["reference"]:
            raise Missing(f"the model does not do the task {task}: clean {cause['clean']:.2g}, not above the reference")

    def rows(self, kind: str) -> pd.DataFrame:
        """The rows of a kind, or `Missing`."""
        if kind not in self.found.kinds:
            raise Missing(f"{kind} heads were not looked for")
        return self.found.of(kind)

    def address(self, head: str) -> Head:
        """A head of the main stack by its name, or `Missing` where the model has no such one."""
        at, blocks = Head.parse(head), self.model.main.config.blocks
        if at.layer >= len(blocks) or at.head >= blocks[at.layer].attn.n_heads:
            raise Missing(f"{self.model.cfg.model_name} has no head {head}")
        return at

    def row(self, kind: str, head: str) -> Mapping[Any, Any]:
        at = Head.parse(head)
        rows = self.rows(kind)
        mine = rows.loc[(rows["layer"] == at.layer) & (rows["head"] == at.head)]
        if mine.empty:
            raise Missing(f"{head} has no {kind} score")
        return mine.iloc[0].to_dict()

    def joint(self, kind: str) -> Mapping[Any, Any]:
        """The row of a kind's heads ablated together, or `Missing`."""
        self.rows(kind)
        mine = self.found.sets.loc[self.found.sets["kind"] == kind] if len(self.found.sets) else self.found.sets
        if mine.empty:
            why = self.found.about.get("problems", {}).get(kind)
            raise Missing(why or f"no set of {kind} heads was ablated")
        return mine.iloc[0].to_dict()

    def table(self, name: str) -> pd.DataFrame:
        for title, table in self.found.tables.items():
            if title.startswith(name):
                return table
        raise Missing(f"the table “{name}” was not measured")

    def items(self, kind: str, which: str = "report") -> int | None:
        """How many items a kind's figures rest on; `which`: "tested" for those of interventions."""
        task = getattr(finder(kind), "heading", "")
        counted = self.task_facts.get(task, {}).get("n_items", {})
        return counted.get(which) or counted.get("report") or (self.n if not task else None)

    def column(self, kind: str, head: str, name: str, unit: str = "") -> Measured:
        """A figure of one head with its interval. Effects that were not tested are `Missing`."""
        row = self.row(kind, head)
        value = row.get(name, math.nan)
        if value is None or math.isnan(value):
            raise Missing(f"{head} was not among the heads whose {name.replace('_', ' ')} was measured")
        low, high = self.ends(row, name)
        note = f"{head}: {row['verdict'] or 'no verdict'}" + (f" ({row['reason']})" if row.get("reason") else "")
        return said(Measured(value, low, high, unit, self.items(kind, _which(name)), note))

    def ends(self, row: Mapping[Any, Any], name: str) -> tuple[float, float]:
        """The interval of a figure of a row; where every item gave the same, see `intervals.ends_of`."""
        of_task = bool(getattr(finder(row["kind"]), "task", ""))
        share = row["kind"] not in _RISES if name == "score" else of_task and name.endswith("effect")
        if name == "score" and share and row["score"] in (0, 1):  # weights of items may have given a width
            row = {**row, "score_low": row["score"], "score_high": row["score"]}
        return row_ends(row, name, self.items(row["kind"], _which(name)), share=share)

    # --- prompts, for what was not measured yet

    @cached_property
    def _studies(self) -> dict[tuple[str, str, str], Study]:
        return {}

    def study(self, task: str, queries: Sequence[str], split: str = "report", corruption: str = "") -> Study:
        """A study of the prompts that `find_heads` chose by ("select") or reported on."""
        corruption = corruption or (self._corruption(task) or "" if self.pairs is None else "")
        key = (task, split, corruption)
        if key in self._studies and set(queries) <= set(self._studies[key].queries):
            return self._studies[key]
        if self.pairs is not None:
            first = next(iter(self.pairs.values()))
            halved = halves(first, self.seed)[split == "report"]
            if corruption and corruption not in self.pairs:
                raise Missing(f"no pairs with the corruption {corruption} were given")
            pairs = (self.pairs[corruption] if corruption else first).select(halved)
            metric = "logit_diff" if pairs.foil else "log_prob"
            made = Study(self.model, {corruption or "pairs": pairs}, tuple(queries), metric=metric)
        else:
            loaded = load_task(
                task, self.model, corruption or None, split=split, n=self.n, seed=self.seed, known=self._loaded
            )
            if loaded.pairs is None:
                raise Missing(f"{task} has no pairs")
            metric = str(loaded.about.get("metric", "logit_diff"))
            pairs = {loaded.corruption: loaded.pairs}
            made = Study(self.model, pairs, tuple(queries), loaded.labels, loaded.about, metric)
        self._studies[key] = made
        return made

    def _corruption(self, task: str) -> str | None:
        """The one that the search reported on: the first of the kinds that use the task."""
        using = (finder(kind) for kind in self.found.kinds)
        return next((one.corruptions[0] for one in using if getattr(one, "task", "") == task), None)


def _which(name: str) -> str:
    """Which items a column rests on: scores and writing are of all that are reported, effects of those tested."""
    return "report" if name.startswith(("score", "writing")) else "tested"


def _exchanged(value: Any, old: float | None, new: float | None) -> Any:
    """The same with NaN for None, or the reverse, all the way down."""
    if isinstance(value, dict):
        return {name: _exchanged(one, old, new) for name, one in value.items()}
    if isinstance(value, list):
        return [_exchanged(one, old, new) for one in value]
    is_nan = isinstance(value, float) and math.isnan(value)
    return new if (value is None if old is None else is_nan) else value


def settings_key(found: HeadScores, model_hash: str, pairs: Mapping[str, PromptPairs] | None) -> str:
    """What decides the further quantities: the model, and how its heads were found."""
    about = {name: found.about.get(name) for name in ("n", "seed", "top", "screen", "corpus")}
    rows = None
    if pairs is not None:
        fields = ("clean", "corrupt", "answer", "foil", "read", "positions", "items", "templates")
        rows = {name: {part: getattr(one, part) for part in fields} for name, one in pairs.items()}
    whole = {"method": METHOD, "model": model_hash, "about": about, "pairs": rows}
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()[:16]
