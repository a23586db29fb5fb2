"""One kind's part of a trial as tables: a row of each head, and one of the kind's set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.circuits.streaming import HeadGrid
from interp.heads.ablation import HeadSet
from interp.heads.choose import Choice, head_at
from interp.heads.plan import stability
from interp.heads.study import Study
from interp.heads.task_finder import Behaviour, TaskFinder
from interp.heads.trial_input import Splits, TrialSettings
from interp.heads.ways import Harm, baseline
from interp.results.heads import all_items, item_rows
from interp.sites import Head
from interp.stats import bootstrap_interval, sign_flip

__all__ = ["SET_COLUMNS", "KindRows", "mean_of_items"]

SET_COLUMNS = ("kind", "heads", "metric", "unit", "clean", "ablated", "effect", "effect_low", "effect_high")
SET_COLUMNS += ("random_mean", "random_max", "p", "stability")
Grid = NDArray[np.floating]


@dataclass(frozen=True)
class KindRows:
    """One kind's part of a trial."""

    one: TaskFinder
    plan: Choice
    harm: Harm
    splits: Splits
    tested: Study
    chosen: Behaviour
    shown: Behaviour
    bare: Grid | None
    grid: HeadGrid
    settings: TrialSettings

    @cached_property
    def _by_item(self) -> dict[str, Grid]:
        """What was read in the passes, `[item head]`, by the column's name."""
        study, one = self.splits.report, self.one
        columns = {"score": self.shown.score, **self.shown.beside}
        if one.writing is not None and one.writing.measure is not None and study.model.cfg.has_unembed:
            columns["writing"] = one.writing.measure(study)
            columns["writing_shuffled"] = one.writing.measure(study.shuffled(self.settings.seed))
        return {name: study.by_item(values) for name, values in columns.items()}

    def items(self) -> pd.DataFrame:
        """What lies behind the means of the heads that were tested alone, a row per item."""
        report, tested = (np.unique(study.items) for study in (self.splits.report, self.tested))
        parts = []
        for head in self.plan.singles:
            flat = head.layer * self.grid.n_heads + head.head
            read = {name: self._by_item[name][:, flat] for name in ("score", "writing") if name in self._by_item}
            done = {name: harm[(head,)] for name, harm in self.harm.items() if (head,) in harm}
            done = {name: self.tested.by_item(harm[:, None])[:, 0] for name, harm in done.items()}
            parts += [item_rows(self.one.name, head, name, report, values) for name, values in read.items()]
            parts += [item_rows(self.one.name, head, name, tested, values) for name, values in done.items()]
        return all_items(parts)

    def frame(self) -> pd.DataFrame:
        """One row per head."""
        study, one, effects = self.splits.report, self.one, self._effects()
        by_item = self._by_item
        table = pd.DataFrame({name: mean_of_items(values) for name, values in by_item.items()})
        for name in ("score", "writing"):
            if name in by_item:
                table[f"{name}_low"], table[f"{name}_high"] = self._interval(by_item[name])
        if "writing" not in table:
            name = one.writing.tested if one.writing is not None else ""
            table["writing"] = [effects.get(head_at(self.grid, i), {}).get(name, np.nan) for i in range(len(table))]
        table["score_select"] = mean_of_items(self.splits.select.by_item(self.chosen.score))
        table["score_no_bos"] = np.nan if self.bare is None else mean_of_items(self.splits.bare.by_item(self.bare))  # type: ignore[union-attr]
        table["baseline"] = max(self.shown.baselines.values(), default=np.nan)
        table["role"] = one.role(study).ravel() if one.role is not None else ""
        heads = [head_at(self.grid, i) for i in range(len(table))]
        address = pd.DataFrame(
            {
                "kind": one.name,
                "stack": self.grid.stack,
                "sublayer": "attn",
                "layer": [head.layer for head in heads],
                "head": [head.head for head in heads],
            }
        )
        tested = pd.DataFrame([effects.get(head, {}) for head in heads])
        whole = pd.concat([address, table, tested], axis=1)
        for name in ("effect", "effect_low", "effect_high", "control", "p", "p_corrected"):
            if name not in whole:
                whole[name] = np.nan
        return whole.loc[whole["score"].notna()].reset_index(drop=True)

    def _interval(self, by_item: Grid) -> tuple[Grid, Grid]:
        """Of each head that was scored."""
        low, high = np.full((2, by_item.shape[1]), np.nan)
        scored = ~np.isnan(by_item).all(axis=0)
        if scored.any():
            low[scored], high[scored] = bootstrap_interval(by_item[:, scored], seed=self.settings.seed)
        return low, high

    def _effects(self) -> dict[Head, dict[str, float]]:
        """Of each head tested alone: every measure's mean, the decisive one's interval, its controls' and p."""
        if not self.harm:
            return {}
        study, test, plan = self.tested, self.one.test, self.plan
        found: dict[Head, dict[str, float]] = {head: {} for head in plan.singles}
        for name, harm in self.harm.items():
            for head in plan.singles:
                found[head][name] = float(np.nanmean(study.by_item(harm[(head,)][:, None])))
        for place, name in enumerate(test.decisive):
            if name not in self.harm:
                continue
            tested = self._against_controls(self.harm[name], len(test.decisive))
            for head, values in tested.items():
                found[head] |= values if place == 0 else {f"{name}_{what}": x for what, x in values.items()}
        return found

    def _against_controls(self, harm: Mapping[HeadSet, Grid], n_measures: int) -> dict[Head, dict[str, float]]:
        """Mean harm with its interval, that of the controls, and p of the excess, corrected over heads, kinds and
        the measures that decide."""
        study, plan = self.tested, self.plan
        alone = np.concatenate([study.by_item(harm[(head,)][:, None]) for head in plan.singles], axis=1)
        control = np.stack([self._control(harm, head) for head in plan.singles], axis=1)
        low, high = bootstrap_interval(alone, seed=self.settings.seed)
        p, corrected = np.full((2, len(plan.singles)), np.nan)
        matched = ~np.isnan(control).any(axis=0)
        if matched.any():
            excess = self.one.sign * (alone - control)[:, matched]
            p[matched], corrected[matched] = sign_flip(excess, side="greater", seed=self.settings.seed)
        return {
            head: {
                "effect": alone[:, i].mean(),
                "effect_low": low[i],
                "effect_high": high[i],
                "control": control[:, i].mean(),
                "p": min(p[i] * n_measures, 1.0),
                "p_corrected": min(corrected[i] * n_measures * self.settings.n_kinds, 1.0),
            }
            for i, head in enumerate(plan.singles)
        }

    def _control(self, harm: Mapping[HeadSet, Grid], head: Head) -> Grid:
        """Mean harm per item of the controls of a head; NaN where there are none."""
        others = self.plan.others(head)
        if not others:
            return np.full(self.tested.n_items, np.nan)
        return self.tested.by_item(np.mean([harm[(other,)] for other in others], axis=0)[:, None])[:, 0]

    def set_row(self) -> dict[str, Any]:
        """The candidates that pass on the selecting prompts, together, against random sets of the same layers."""
        study, one = self.tested, self.one
        heads, randoms, harm = self.plan.tops[one.name], self.plan.randoms[one.name], self.harm[one.test.decisive[0]]
        joint = study.by_item(harm[heads][:, None])
        low, high = bootstrap_interval(joint, seed=self.settings.seed)
        p, control = np.array([np.nan]), None
        if randoms:
            control = study.by_item(np.mean([harm[s] for s in randoms], axis=0)[:, None])
            p, _ = sign_flip(one.sign * (joint - control), side="greater", seed=self.settings.seed)
        means = [float(harm[s].mean()) for s in randoms]
        clean, corrupt = (float(values.mean()) for values in baseline(study))
        return {
            "kind": one.name,
            "heads": " ".join(str(head) for head in heads),
            "metric": one.test.label,
            "unit": "share of clean − corrupt",
            "clean": clean,
            "ablated": clean - joint.mean() * abs(clean - corrupt),  # harm is in shares of the distance
            "effect": joint.mean(),
            "effect_low": low[0],
            "effect_high": high[0],
            "random_mean": np.mean(means) if means else np.nan,
            "random_max": max(means, key=lambda x: one.sign * x) if means else np.nan,
            "p": np.minimum(p[0] * self.settings.n_kinds, 1.0),
            "stability": stability(self._select_scores(), max(len(heads), 1), seed=self.settings.seed),
        }

    def _select_scores(self) -> Grid:
        by_item = self.splits.select.by_item(self.chosen.score)
        return by_item.reshape(len(by_item), self.grid.n_layers, self.grid.n_heads)


def mean_of_items(by_item: Grid) -> Grid:
    """Means over items; NaN for a head that a layer does not have."""
    counted = ~np.isnan(by_item).all(axis=0)
    found = np.full(by_item.shape[1], np.nan)
    found[counted] = np.nanmean(by_item[:, counted], axis=0)
    return found
