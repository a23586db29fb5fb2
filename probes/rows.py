"""What was measured as a table: one row per target and place, with interval, baselines, control and verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.stats import norm, t
from sklearn.metrics import recall_score

from interp.stats import bootstrap_interval
from probes.controls import training_means
from probes.data import Place
from probes.fitting.tasks import Task
from probes.measure import Parts, scores_of
from probes.plan import RowSet, Settings

__all__ = ["COLUMNS", "judged", "target_rows"]

MARGIN = 0.05  # a probe at most this much above its baseline, at the upper end, is at it
COLUMNS = (
    *("target", "place", "site", "layer", "head", "width", "n", "n_groups", "balance", "metric"),
    *("score", "score_low", "score_high", "balanced_accuracy", "majority", "control", "control_shuffled"),
    *("selectivity", "selectivity_low", "selectivity_high", "embedding", "random_init", "alpha", "stability"),
    *("p", "mdl", "mdl_uniform", "compression", "v_information", "verdict", "why"),
)
_NAN = float("nan")
Site = Mapping[str, Parts]  # by site


def target_rows(
    target: str,
    one: RowSet,
    places: list[Place],
    widths: Mapping[Place, int],
    sites: Site,
    twin: Site,
    embedding: str | None,
    settings: Settings,
) -> pd.DataFrame:
    """The rows of one target, without what describes a place in bits and without verdicts. `sites` are the parts by
    site, `twin` those of the randomly initialised model."""
    task = one.tasks[one.targets.index(target)]
    predicted = np.stack([_of(sites, place, target, "predicted") for place in places])
    controls = one.controls[one.targets.index(target)]
    guessed = np.stack([_of(sites, place, target, "controls", axis=1) for place in places]) if controls else None
    score = scores_of(predicted, task, one.of)
    good, size = _by_group(predicted, task, one)
    low, high = _interval(good, size, task, settings.seed)
    nothing = np.full(len(places), _NAN)
    control, selectivity, s_low, s_high = nothing, nothing, nothing, nothing
    if guessed is not None:
        each = [_by_group(guessed[:, i], made, one) for i, made in enumerate(controls)]
        control = np.mean([scores_of(guessed[:, i], made, one.of) for i, made in enumerate(controls)], axis=0)
        selectivity = score - control
        # Both as shares of one size: that of the task, so that groups are drawn for both at once.
        scaled = np.mean([g / s.sum(axis=0) * size.sum(axis=0) for g, s in each], axis=0)
        s_low, s_high = bootstrap_interval(good - scaled, divisor=size, seed=settings.seed)
    lambdas = [_lambda(_of(sites, place, target, "alpha", axis=1), settings) for place in places]
    baseline = None
    if embedding is not None and embedding in sites:
        baseline = scores_of(sites[embedding][f"{target}.predicted"], task, one.of)
    frame = pd.DataFrame(
        {
            **_whole(target, one, task),
            "place": [str(place) for place in places],
            "site": [place.site for place in places],
            "layer": [place.layer for place in places],
            "head": pd.array([pd.NA if place.head is None else place.head for place in places], dtype="Int64"),
            "width": [widths[place] for place in places],
            "score": score,
            "score_low": low,
            "score_high": high,
            "balanced_accuracy": [_balanced(row, task) for row in predicted],
            "majority": np.bincount(task.values).max() / len(task.values) if task.classes else 0.0,
            "control": control,
            "control_shuffled": [_scalar(sites, place, f"{target}.shuffled") for place in places],
            "selectivity": selectivity,
            "selectivity_low": s_low,
            "selectivity_high": s_high,
            "embedding": _NAN if baseline is None else float(baseline[0]),
            "random_init": _twin_scores(twin, places, target, task, one),
            "alpha": lambdas,
            "stability": [_scalar(sites, place, f"{target}.stability") for place in places],
            "p": _family_wise(sites, places, target),
        }
    )
    return frame.reindex(columns=list(COLUMNS))


def judged(frame: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """With the columns `verdict` and `why`. A verdict is about what can be decoded; whether the model uses it takes
    `test_use`."""
    n_places = frame.groupby("target")["place"].transform("size")
    said = [_verdict(row, settings, n) for row, n in zip(frame.to_dict("records"), n_places, strict=True)]
    return frame.assign(verdict=[one for one, _ in said], why=[why for _, why in said])


def _verdict(row: Mapping[Any, Any], settings: Settings, n_places: int) -> tuple[str, str]:
    name = "accuracy" if row["metric"] == "accuracy" else "R²"
    floor, score, low, high = (row[key] for key in ("majority", "score", "score_low", "score_high"))
    base = f"majority {floor:.2f}" if row["metric"] == "accuracy" else "the mean predicts 0"
    said = f"{name} {score:.2f} ({low:.2f} to {high:.2f}) on held-out groups; {base}"
    said += f", random labels per word {row['control']:.2f}" if not np.isnan(row["control"]) else ""
    notes = [
        f"{what} gives as much ({row[column]:.2f})"
        for column, what in (("embedding", "the embedding layer"), ("random_init", "a randomly initialised model"))
        if row[column] >= low
    ]
    more = f". But {' and '.join(notes)}" if notes else ""
    if not low > floor:
        if high < floor + MARGIN:
            return "not decodable", f"{said}: no better than that"
        return "cannot tell", f"{said}: the interval holds the baseline. More groups would narrow it"
    if settings.rigor == "quick" and not _corrected(row, settings.alpha / n_places) > floor:
        return "cannot tell", f"{said}: not above it once corrected for {n_places} places. rigor='full' can tell more"
    if np.isnan(row["control"]):
        return "cannot tell", f"{said}: there are too few word types for a control task, so it may be learnt by heart"
    if not row["selectivity"] > 0:
        return "cannot tell", f"{said}: random labels are learnt as well, so it may be learnt by heart"
    if settings.rigor == "full" and not row["p"] <= settings.alpha:
        return (
            "cannot tell",
            f"{said}; p = {row['p']:.2g} over all places with permuted labels, above {settings.alpha:g}",
        )
    return "decodable", said + more


def _corrected(row: Mapping[Any, Any], alpha: float) -> float:
    """A lower bound of the score at another level, by the bootstrap's spread and Student's distribution over groups: so
    far out resamples are too few, and of few groups they differ too little."""
    n = int(row["n_groups"])
    wider = t.ppf(1 - alpha, n - 1) / norm.ppf(0.975) * np.sqrt(n / (n - 1))
    return row["score"] - wider * (row["score"] - row["score_low"])


def _interval(good: NDArray, size: NDArray, task: Task, seed: int) -> tuple[NDArray, NDArray]:
    """By bootstrap over groups `[group place]`. Where all rows are right (or none), resamples never differ: the ends
    are then those of the exact binomial over groups."""
    low, high = bootstrap_interval(good, divisor=size, seed=seed)
    if task.classes:
        end = 0.025 ** (1 / len(good))  # as many groups in a row have this chance to be alike
        low = np.where((good == size).all(axis=0), end, low)
        high = np.where((good == 0).all(axis=0), 1 - end, high)
    return low, high


def _whole(target: str, one: RowSet, task: Task) -> dict[str, Any]:
    """What all places of a target share."""
    if task.classes:
        counts = np.bincount(task.values, minlength=task.n_classes)
        shown = sorted(zip(task.classes, counts.tolist(), strict=True), key=lambda pair: -pair[1])
        balance = ", ".join(f"{name} {count}" for name, count in shown[:8])
        balance += f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    else:
        balance = f"mean {task.values.mean():.3g}, sd {task.values.std():.3g}"
    n_groups = len(pd.unique(pd.Series(one.groups)))
    metric = "accuracy" if task.classes else "r2"
    return {"target": target, "n": len(one.rows), "n_groups": n_groups, "balance": balance, "metric": metric}


def _by_group(predicted: NDArray, task: Task, one: RowSet) -> tuple[NDArray, NDArray]:
    """Sums over each group's rows `[group place]` of what is good, and of what could be."""
    if task.classes:
        good, size = (predicted == task.values).astype(float), np.ones(len(task.values))
    else:
        size = (task.values - training_means(task.values, one.of)) ** 2
        good = size - (task.values - predicted) ** 2
    codes, names = pd.factorize(one.groups)
    member = coo_array((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(len(names), len(codes))).tocsr()
    return member @ good.T, np.broadcast_to((member @ size)[:, None], (len(names), len(predicted)))


def _balanced(predicted: NDArray, task: Task) -> float:
    if not task.classes:
        return _NAN
    return float(recall_score(task.values, predicted.astype(int), average="macro", labels=range(task.n_classes)))


def _twin_scores(twin: Site, places: list[Place], target: str, task: Task, one: RowSet) -> list[float]:
    if not twin:
        return [_NAN] * len(places)
    found = [_of(twin, place, target, "predicted") if place.site in twin else None for place in places]
    return [_NAN if row is None else float(scores_of(row, task, one.of)) for row in found]


def _family_wise(sites: Site, places: list[Place], target: str) -> NDArray | float:
    """p of each place: how often the best place under permuted labels does as well (Westfall & Young 1993). The data
    as they are count as one permutation."""
    if f"{target}.permuted" not in sites[places[0].site]:
        return _NAN
    null = np.stack([_of(sites, place, target, "permuted", axis=1) for place in places]).max(axis=0)
    observed = np.array([_scalar(sites, place, f"{target}.observed") for place in places])
    return (1 + (null >= observed[:, None] - 1e-9).sum(axis=1)) / (1 + len(null))


def _of(sites: Site, place: Place, target: str, what: str, axis: int = 0) -> NDArray:
    """What was measured at a place, its head chosen along `axis`."""
    return sites[place.site][f"{target}.{what}"].take(place.head or 0, axis=axis)


def _scalar(sites: Site, place: Place, name: str) -> float:
    found = sites[place.site].get(name)
    return _NAN if found is None else float(found[place.head or 0])


def _lambda(chosen: NDArray, settings: Settings) -> float:
    """The λ that most folds chose (the larger one of two)."""
    if settings.estimator == "difference":
        return _NAN
    counts = np.bincount(chosen.astype(int), minlength=len(settings.alphas))
    return settings.alphas[int(np.flatnonzero(counts == counts.max())[-1])]
