"""The trial of kinds that share a task: choose candidates on one split, and put them to the test on the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.causal.attribution import attribute
from interp.causal.patching import patch
from interp.circuits.streaming import HeadGrid, head_grid
from interp.heads.ablation import HeadSet, matched_set
from interp.heads.plan import CONTROLS_PER_LAYER, stability
from interp.heads.study import SHARED, Study
from interp.heads.task_finder import Behaviour, TaskFinder, Test
from interp.heads.ways import baseline, distance
from interp.sites import Head
from interp.stats import bootstrap_interval, sign_flip

__all__ = ["Splits", "Trial", "TrialSettings", "run_trial"]

_CLASSES = ("names", "same_relation_answers")  # token ids that kinds compare with, of no use to a reader
_SET = ["kind", "heads", "metric", "unit", "clean", "ablated", "effect", "effect_low", "effect_high"]
_SET += ["random_mean", "random_max", "p", "stability"]
Grid = NDArray[np.floating]
Progress = Callable[[str, int, int], None]
Harm = dict[str, dict[HeadSet, Grid]]


@dataclass(frozen=True)
class TrialSettings:
    """`screen`: candidates by attention and a first-order estimate of their effect ("attention"), by attention and
    the exact effect ("exact"), or every head ("none")."""

    top: int
    n_random_sets: int
    screen: str
    seed: int
    n_kinds: int


@dataclass(frozen=True)
class Splits:
    """The prompts that choose, those that test, and the latter without BOS, where the task has both."""

    select: Study
    report: Study
    bare: Study | None = None


@dataclass(frozen=True)
class Trial:
    """What a trial gives: rows of heads, one row of each kind's set, what is said of it, and further tables."""

    frame: pd.DataFrame
    sets: pd.DataFrame
    about: dict[str, Any]
    tables: dict[str, pd.DataFrame]


def run_trial(group: Sequence[TaskFinder], splits: Splits, settings: TrialSettings, progress: Progress) -> Trial:
    """Put all kinds of one task to the test; exchanges and ablations that several ask for are run once."""
    task, grid = group[0].task, head_grid(splits.report.model)
    progress(f"{task}: attention", 0, 1)
    _prepare(group, splits)
    chosen = {one.name: one.behaviour(splits.select) for one in group}
    shown = {one.name: one.behaviour(splits.report) for one in group}
    bare = {one.name: one.behaviour(splits.bare).score for one in group} if splits.bare is not None else {}
    estimate, tested = _estimate(splits.select.thinned(), settings.screen), splits.report.thinned()
    progress(f"{task}: attention", 1, 1)
    frames, rows, tables, tests = [], [], {}, {}
    for test in dict.fromkeys(one.test for one in group):
        kinds = [one for one in group if one.test is test]
        plan = _plan(kinds, splits.select, chosen, estimate, grid, settings)
        why_not = test.needs(tested) if test.needs is not None else ""
        if not distance(tested) > 0:
            why_not = "clean and corrupt prompts are scored alike"
        stage = f"{task}: {test.label}"
        progress(stage, 0, len(plan.sets))
        harm: Harm = {} if why_not else _measured(test, tested, plan.sets, settings.seed, stage, progress)
        for one in kinds:
            view = _View(
                one, plan, harm, splits, tested, chosen[one.name], shown[one.name], bare.get(one.name), grid, settings
            )
            frames.append(view.frame())
            rows.append(view.set_row() if harm else None)
            for name, make in one.tables.items():
                progress(f"{task}: {name}", 0, 1)
                tables[name] = pd.DataFrame(make(tested))
                progress(f"{task}: {name}", 1, 1)
        tests[test.label] = why_not
    return Trial(
        pd.concat(frames, ignore_index=True),
        pd.DataFrame([row for row in rows if row is not None], columns=_SET),
        _about(group, splits, tested, shown, tests),
        tables,
    )


def _prepare(group: Sequence[TaskFinder], splits: Splits) -> None:
    """Let kinds find out what they need on the selecting prompts, and hand it to the others."""
    for make in dict.fromkeys(one.prepare for one in group if one.prepare is not None):
        make(splits.select)
    for study in (splits.report, splits.bare):
        if study is not None:
            study.memo |= {name: value for name, value in splits.select.memo.items() if name in SHARED}


def _measured(test: Test, study: Study, sets: Sequence[HeadSet], seed: int, stage: str, progress: Progress) -> Harm:
    """The harm of every set."""

    def report(done: int, total: int) -> None:
        progress(stage, round(len(sets) * done / max(total, 1)), len(sets))

    found = test.measure(study, sets, seed, report)
    progress(stage, len(sets), len(sets))
    return {name: dict(harm) for name, harm in found.items()}


def _estimate(study: Study, screen: str) -> Grid | None:
    """Harm of exchanging each head, `[layer head]`: to first order, or exactly; None for a model without logits."""
    if screen == "none" or not (isinstance(study.metric, str) or screen == "exact"):
        return None
    options: dict[str, Any] = {"over": ("layer", "head"), "direction": "noise", "metric": study.metric}
    if screen == "exact":
        effects = patch(study.model, study.main, "z", **options, progress=False)
    else:
        effects = attribute(study.model, study.main, "z", **options)
    return -effects.mean(normalize=None).values


@dataclass(frozen=True)
class _Plan:
    """Which heads are tested alone, what they are compared with, and the sets tested together."""

    singles: tuple[Head, ...]
    controls: Mapping[int, tuple[Head, ...]]
    tops: Mapping[str, HeadSet]
    randoms: Mapping[str, tuple[HeadSet, ...]]

    @property
    def sets(self) -> list[HeadSet]:
        alone = [(head,) for head in self.singles]
        alone += [(head,) for heads in self.controls.values() for head in heads]
        random = [one for sets in self.randoms.values() for one in sets]
        return [one for one in dict.fromkeys([*alone, *self.tops.values(), *random]) if one]

    def others(self, head: Head) -> list[Head]:
        return [other for other in self.controls.get(head.layer, ()) if other != head]


def _plan(
    kinds: Sequence[TaskFinder],
    study: Study,
    chosen: Mapping[str, Behaviour],
    estimate: Grid | None,
    grid: HeadGrid,
    settings: TrialSettings,
) -> _Plan:
    generator = np.random.default_rng([settings.seed, *b"trial"])
    tops, candidates = {}, {}
    for one in kinds:
        score = study.by_item(chosen[one.name].score).mean(axis=0).reshape(grid.n_layers, grid.n_heads)
        candidates[one.name] = _candidates(score, None if estimate is None else one.sign * estimate, grid, settings.top)
        tops[one.name] = _joint(one, study, score, candidates[one.name], grid)
    if settings.screen == "none":
        blocks = study.model.main.config.blocks
        singles = tuple(
            Head(i, head, "attn", grid.stack) for i, one in enumerate(blocks) for head in range(one.attn.n_heads)
        )
        controls = {layer: tuple(head for head in singles if head.layer == layer) for layer in range(grid.n_layers)}
    else:
        singles = tuple(sorted({head for heads in candidates.values() for head in heads}, key=_order))
        layers = sorted({head.layer for head in singles})
        controls = {layer: _controls(study, layer, set(singles), estimate, generator) for layer in layers}
    randoms = {
        kind: tuple(
            drawn
            for _ in range(settings.n_random_sets)
            if len(drawn := matched_set(heads, grid.widths, set(heads), generator)) == len(heads)
        )
        for kind, heads in tops.items()
    }
    return _Plan(singles, controls, tops, randoms)


def _controls(
    study: Study, layer: int, singles: set[Head], estimate: Grid | None, generator: np.random.Generator
) -> tuple[Head, ...]:
    """Random heads of a layer that are no candidates; where every head is one, the half that seemed to matter least on
    the selecting prompts."""
    stack = study.model.main.name
    widths = head_grid(study.model).widths
    n_heads = widths[layer]
    wanted = [Head(layer, 0, "attn", stack)] * CONTROLS_PER_LAYER
    if drawn := matched_set(wanted, widths, singles, generator):
        return drawn
    order = (
        range(n_heads) if estimate is None else np.argsort(np.abs(estimate[layer, :n_heads]), kind="stable").tolist()
    )
    return tuple(Head(layer, head, "attn", stack) for head in list(order)[: max(n_heads // 2, min(n_heads, 2))])


def _candidates(score: Grid, estimate: Grid | None, grid: HeadGrid, top: int) -> list[Head]:
    """Half of them the best by attention, the rest the best by their estimated effect."""
    by_score = [i for i in np.argsort(-score, axis=None, kind="stable").tolist() if not np.isnan(score.flat[i])]
    found = by_score[: top if estimate is None else (top + 1) // 2]
    if estimate is not None:
        by_effect = [i for i in np.argsort(-estimate, axis=None, kind="stable").tolist() if i not in found]
        found += [i for i in by_effect if not np.isnan(score.flat[i])][: top - len(found)]
    return [_head(grid, i) for i in found]


def _joint(one: TaskFinder, study: Study, score: Grid, candidates: Sequence[Head], grid: HeadGrid) -> HeadSet:
    """The candidates whose attention and writing pass on the selecting prompts; the best by attention if none does."""
    writing = None
    if one.writing is not None and one.writing.measure is not None and study.model.cfg.has_unembed:
        writing = study.by_item(one.writing.measure(study)).mean(axis=0).reshape(grid.n_layers, grid.n_heads)
    passing = [
        head
        for head in candidates
        if score[head.layer, head.head] >= one.score_cutoff
        and (writing is None or one.writing.passes(writing[head.layer, head.head], one.writing.cutoff))  # type: ignore[union-attr]
    ]
    best = sorted(candidates, key=lambda head: -score[head.layer, head.head])[:1]  # none where none has a score
    return tuple(sorted(passing or best, key=_order))


@dataclass(frozen=True)
class _View:
    """One kind's part of a trial."""

    one: TaskFinder
    plan: _Plan
    harm: Harm
    splits: Splits
    tested: Study
    chosen: Behaviour
    shown: Behaviour
    bare: Grid | None
    grid: HeadGrid
    settings: TrialSettings

    def frame(self) -> pd.DataFrame:
        """One row per head."""
        study, one, effects = self.splits.report, self.one, self._effects()
        columns = {"score": self.shown.score, **self.shown.beside}
        if one.writing is not None and one.writing.measure is not None and study.model.cfg.has_unembed:
            columns["writing"] = one.writing.measure(study)
            columns["writing_shuffled"] = one.writing.measure(study.shuffled(self.settings.seed))
        by_item = {name: study.by_item(values) for name, values in columns.items()}
        table = pd.DataFrame({name: _mean(values) for name, values in by_item.items()})
        for name in ("score", "writing"):
            if name in by_item:
                table[f"{name}_low"], table[f"{name}_high"] = self._interval(by_item[name])
        if "writing" not in table:
            name = one.writing.tested if one.writing is not None else ""
            table["writing"] = [effects.get(_head(self.grid, i), {}).get(name, np.nan) for i in range(len(table))]
        table["score_select"] = _mean(self.splits.select.by_item(self.chosen.score))
        table["score_no_bos"] = np.nan if self.bare is None else _mean(self.splits.bare.by_item(self.bare))  # type: ignore[union-attr]
        table["baseline"] = max(self.shown.baselines.values(), default=np.nan)
        table["role"] = one.role(study).ravel() if one.role is not None else ""
        heads = [_head(self.grid, i) for i in range(len(table))]
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
            "ablated": clean - joint.mean() * (clean - corrupt),
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


def _about(
    group: Sequence[TaskFinder],
    splits: Splits,
    tested: Study,
    shown: Mapping[str, Behaviour],
    tests: Mapping[str, str],
) -> dict[str, Any]:
    """What the model does on the task, and on what the kinds were tried."""
    study = splits.report
    clean, corrupt = baseline(tested)
    gap = tested.by_item((clean - corrupt)[:, None])
    low, high = (float(end[0]) for end in bootstrap_interval(gap))
    task = {
        "prompts": {"select": len(splits.select.main), "report": len(study.main), "tested": len(tested.main)},
        "n_items": {"select": splits.select.n_items, "report": study.n_items},
        "templates": {"select": sorted(set(splits.select.main.templates)), "report": sorted(set(study.main.templates))},
        "corruption": study.corruption,
        "metric": study.metric if isinstance(study.metric, str) else study.metric.name,
        **({"accuracy": float((clean > 0).mean())} if study.main.foil and "copies" not in study.main.positions else {}),
        "clean": float(clean.mean()),
        "corrupt": float(corrupt.mean()),
        "clean − corrupt (95%)": [float(gap.mean()), low, high],
        "is done": bool(low > 0 or (high < 0 and all(one.either_way for one in group))),
        **{name: value for name, value in study.about.items() if name not in _CLASSES},
    }
    if "no_resample" in tested.memo:
        task["resample"] = f"not measured: {tested.memo['no_resample']}"
    return {
        "tasks": {group[0].task: task},
        "baselines": {one.name: dict(shown[one.name].baselines) for one in group if shown[one.name].baselines},
        "problems": {one.name: shown[one.name].problem for one in group if shown[one.name].problem}
        | {one.name: tests[one.test.label] for one in group if tests[one.test.label]},
    }


def _mean(by_item: Grid) -> Grid:
    """Means over items; NaN for a head that a layer does not have."""
    counted = ~np.isnan(by_item).all(axis=0)
    found = np.full(by_item.shape[1], np.nan)
    found[counted] = np.nanmean(by_item[:, counted], axis=0)
    return found


def _head(grid: HeadGrid, flat: int) -> Head:
    return Head(*divmod(int(flat), grid.n_heads), "attn", grid.stack)


def _order(head: Head) -> tuple[int, int]:
    return head.layer, head.head
