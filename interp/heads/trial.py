"""The trial of kinds that share a task: choose candidates on one split, and put them to the test on the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.causal.shelf import shared_recordings
from interp.circuits.streaming import head_grid
from interp.heads.breakdowns import by_corruption, by_template
from interp.heads.choose import Choice, choose, estimated_harm
from interp.heads.rows import SET_COLUMNS, KindRows
from interp.heads.study import SHARED, Study
from interp.heads.task_finder import Behaviour, TaskFinder, Test
from interp.heads.trial_input import Splits, TrialSettings
from interp.heads.ways import Harm, baseline, distance
from interp.results.heads import all_items
from interp.sites import Head
from interp.stats import bootstrap_interval

__all__ = ["BY_CORRUPTION", "BY_TEMPLATE", "Trial", "run_trial"]

_CLASSES = ("names", "same_relation_answers")  # token ids that kinds compare with, of no use to a reader
BY_CORRUPTION, BY_TEMPLATE = "effects by corruption", "by template"  # tables, behind the task's name
# Items that choose candidates, by their exact effect or by an estimate of it; those that decide are others.
_SCREENED = {"exact": 50, "attention": 24}
_STRONGEST = 4  # candidates that are put to the other corruptions, at least
Grid = NDArray[np.floating]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Trial:
    """What a trial gives: rows of heads, one row of each kind's set, what is said of it, further tables, and the items
    behind the means."""

    frame: pd.DataFrame
    sets: pd.DataFrame
    about: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    items: pd.DataFrame


def run_trial(group: Sequence[TaskFinder], splits: Splits, settings: TrialSettings, progress: Progress) -> Trial:
    """Put all kinds of one task to the test; exchanges and ablations that several ask for are run once."""
    with shared_recordings():
        return _run_trial(group, splits, settings, progress)


def _run_trial(group: Sequence[TaskFinder], splits: Splits, settings: TrialSettings, progress: Progress) -> Trial:
    task, grid = group[0].heading, head_grid(splits.report.model)
    progress(f"{task}: attention", 0, 1)
    _prepare(group, splits)
    chosen = {one.name: one.behaviour(splits.select) for one in group}
    shown = {one.name: one.behaviour(splits.report) for one in group}
    bare = {one.name: one.behaviour(splits.bare).score for one in group} if splits.bare is not None else {}
    tested = splits.thinned(splits.report, settings.per_item)
    stage = f"{task}: attention"
    limits = [one for one in (splits.n_items, _SCREENED.get(settings.screen)) if one is not None]
    screened = splits.select.thinned(1, min(limits, default=None))
    estimate = estimated_harm(screened, settings.screen, lambda done, total: progress(stage, done, total + 1))
    progress(stage, 1, 1)
    frames, rows, tables, tests, templates, items = [], [], {}, {}, [], []
    candidates: dict[str, tuple[Head, ...]] = {}
    for test in dict.fromkeys(one.test for one in group):
        kinds = [one for one in group if one.test is test]
        plan = choose(kinds, splits.select, chosen, estimate, grid, settings)
        why_not = test.needs(tested) if test.needs is not None else ""
        if not distance(tested) > 0:
            why_not = "clean and corrupt prompts are scored alike"
        stage = f"{task}: {test.label}"
        harm: Harm = {} if why_not else _measured(test, tested, plan, settings.seed, stage, progress)
        candidates |= {one.name: _strongest(one, plan.candidates[one.name], tested, harm) for one in kinds}
        templates.append(by_template(kinds, plan.candidates, splits.report, shown, tested, harm))
        for one in kinds:
            view = KindRows(
                one, plan, harm, splits, tested, chosen[one.name], shown[one.name], bare.get(one.name), grid, settings
            )
            frames.append(view.frame())
            items.append(view.items())
            rows.append(view.set_row() if harm else None)
            for name, make in one.tables.items():
                progress(f"{task}: {name}", 0, 1)
                tables[name] = pd.DataFrame(make(tested))
                progress(f"{task}: {name}", 1, 1)
        tests[test.label] = why_not
    tables[f"{task}: {BY_TEMPLATE}"] = pd.concat(templates, ignore_index=True)
    tables[f"{task}: {BY_CORRUPTION}"] = _corruptions(group, candidates, splits, tested, settings.seed, progress)
    return Trial(
        pd.concat(frames, ignore_index=True),
        pd.DataFrame([row for row in rows if row is not None], columns=list(SET_COLUMNS)),
        _about(group, splits, tested, shown, tests),
        tables,
        all_items([one for one in items if len(one)]),
    )


def _prepare(group: Sequence[TaskFinder], splits: Splits) -> None:
    """Let kinds find out what they need on the selecting prompts, and hand it to the others."""
    for make in dict.fromkeys(one.prepare for one in group if one.prepare is not None):
        make(splits.select)
    for study in (splits.report, splits.bare):
        if study is not None:
            study.memo |= {name: value for name, value in splits.select.memo.items() if name in SHARED}


def _measured(test: Test, study: Study, plan: Choice, seed: int, stage: str, progress: Progress) -> Harm:
    """The harm of every set by the measures that decide, and of candidates by those that stand beside them."""
    sets, alone = plan.sets, [(head,) for head in plan.singles]
    n = len(sets) + len(alone)

    def report(before: int, mine: int) -> Callable[[int, int], None]:
        return lambda done, total: progress(stage, before + round(mine * done / max(total, 1)), n)

    progress(stage, 0, n)
    found = {name: dict(harm) for name, harm in test.measure(study, sets, seed, report(0, len(sets))).items()}
    beside = test.beside(study, alone, seed, report(len(sets), len(alone)))
    progress(stage, n, n)
    return {**{name: dict(harm) for name, harm in beside.items()}, **found}


def _strongest(one: TaskFinder, heads: Sequence[Head], study: Study, harm: Harm) -> tuple[Head, ...]:
    """The candidates that reach the cutoff by a measure that decides, and others by what they do, up to four."""
    done = [{head: one.sign * study.by_item(harm[name][(head,)][:, None]).mean() for head in heads}
            for name in one.test.decisive if name in harm]  # fmt: skip
    best = {head: max((float(effects[head]) for effects in done), default=0.0) for head in heads}
    order = sorted(heads, key=lambda head: -best[head])
    return tuple(order[: max(_STRONGEST, sum(value >= one.effect_cutoff for value in best.values()))])


def _corruptions(
    group: Sequence[TaskFinder],
    candidates: Mapping[str, Sequence[Head]],
    splits: Splits,
    tested: Study,
    seed: int,
    progress: Progress,
) -> pd.DataFrame:
    """Effects against the corruption that decides, and against the others on one prompt of each item, of the kinds'
    strongest candidates."""
    stage = f"{group[0].heading}: {BY_CORRUPTION}"
    progress(stage, 0, 1 + len(splits.others))
    studies = {tested.corruption: tested, **{name: splits.thinned(one, 1) for name, one in splits.others.items()}}
    return by_corruption(group, candidates, studies, seed, lambda done, total: progress(stage, done, total))


def _compares(metric: Any) -> bool:
    """Whether a metric above 0 says that the answer is above the foil."""
    return not isinstance(metric, str) or metric.endswith("_diff")


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
        "n_items": {"select": splits.select.n_items, "report": study.n_items, "tested": tested.n_items},
        "templates": {"select": sorted(set(splits.select.main.templates)), "report": sorted(set(study.main.templates))},
        "corruption": study.corruption,
        "metric": study.metric if isinstance(study.metric, str) else study.metric.name,
        **({"accuracy": float((clean > 0).mean())} if study.main.foil and _compares(study.metric) else {}),
        "clean": float(clean.mean()),
        "corrupt": float(corrupt.mean()),
        "clean − corrupt (95%)": [float(gap.mean()), low, high],
        "is done": bool(low > 0 or (high < 0 and all(one.either_way for one in group))),
        **{name: value for name, value in study.about.items() if name not in _CLASSES},
        **({"corruptions left out": dict(splits.left_out)} if splits.left_out else {}),
    }
    if "movers" in tested.memo:
        task["name movers"] = " ".join(str(head) for head in tested.memo["movers"]) or "none"
    if "no_resample" in tested.memo:
        task["resample"] = f"not measured: {tested.memo['no_resample']}"
    return {
        "tasks": {group[0].heading: task},
        "baselines": {one.name: dict(shown[one.name].baselines) for one in group if shown[one.name].baselines},
        "problems": {one.name: shown[one.name].problem for one in group if shown[one.name].problem}
        | {one.name: tests[one.test.label] for one in group if tests[one.test.label]},
    }
