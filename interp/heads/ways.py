"""What exchanging or ablating sets of heads does to a task: into the clean run and into the corrupt one, by the mean
and by resampling, each as a share of the metric's distance between the two runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.causal.ablation import ablate
from interp.causal.patching import patch
from interp.errors import InputError
from interp.heads.ablation import HeadSet
from interp.heads.study import Study
from interp.results import Effects

__all__ = ["MEASURES", "Harm", "Report", "baseline", "distance", "exchanges", "four_ways", "part", "shares", "ways"]

Harm = dict[str, dict[HeadSet, NDArray[np.floating]]]
Report = Callable[[int, int], None]
MEASURES = ("noise", "denoise", "mean", "resample")


def _run(measure: str, study: Study, sets: Sequence[HeadSet], at: Any, seed: int, report: Any) -> Effects:
    targets = [list(one) for one in sets]
    if measure in ("noise", "denoise"):
        return patch(
            study.model,
            study.main,
            targets,
            over=("target",),
            direction=measure,  # type: ignore[arg-type]
            at=at,
            metric=study.metric,
            progress=report,
        )
    return ablate(
        study.model,
        study.main,
        targets,
        measure,  # type: ignore[arg-type]
        at=at,
        reference=study.reference,
        metric=study.metric,
        seed=seed,
        progress=report,
    )


def exchanges(study: Study, sets: Sequence[HeadSet], seed: int, report: Report | None = None) -> Harm:
    """Harm per prompt of each set: "noise", "denoise"."""
    return ways(study, sets, seed, report, measures=MEASURES[:2])


def four_ways(study: Study, sets: Sequence[HeadSet], seed: int, report: Report | None = None) -> Harm:
    """Harm per prompt of each set: "noise", "denoise", "mean", "resample"."""
    return ways(study, sets, seed, report)


def ways(
    study: Study,
    sets: Sequence[HeadSet],
    seed: int,
    report: Report | None = None,
    *,
    measures: Sequence[str] = MEASURES,
    at: Mapping[str, Any] | None = None,
) -> Harm:
    """Some of the measures, `at` some positions. Sets that were measured before are not run again.

    Harm is positive where the metric moves from its clean value towards the corrupt one; for "denoise", where clean
    heads bring the corrupt run towards the clean one. Resampling is left out, and said so in the study's memo, where
    a prompt has no other of its template and length. `report(done, of)` counts sets.
    """
    found: Harm = {}
    for number, measure in enumerate(measures):
        known = study.memo.setdefault(f"harm:{measure}:{sorted((at or {}).items())}", {})
        new = [one for one in dict.fromkeys(sets) if one not in known]
        if new:
            try:
                effects = _run(measure, study, new, at, seed, part(report, number, len(measures)))
            except InputError as error:
                if measure != "resample" or "to resample from" not in str(error):
                    raise
                study.memo["no_resample"] = "no other prompt of the same template and length to resample from"
                continue
            known.update(shares(study, effects, new, towards_clean=measure == "denoise"))
        found[measure] = {one: known[one] for one in sets}
    return found


def part(report: Report | None, number: int, of: int) -> Report | bool:
    """The progress of one measure among several, in thousandths of all."""
    if report is None:
        return False
    return lambda done, total: report(int(1000 * (number + (done / total if total else 1.0)) / of), 1000)


def shares(
    study: Study, effects: Effects, sets: Sequence[HeadSet], *, towards_clean: bool = False
) -> dict[HeadSet, NDArray[np.floating]]:
    """Effects `[prompt target]` as harm per prompt, in shares of the distance between clean and corrupt."""
    values = effects.values.values / distance(study)
    return {one: (values[:, i] if towards_clean else -values[:, i]) for i, one in enumerate(sets)}


def distance(study: Study) -> float:
    """How far the mean metrics of clean and corrupt prompts lie apart."""
    clean, corrupt = baseline(study)
    return float(abs(clean.mean() - corrupt.mean()))


def baseline(study: Study) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The metric of each prompt, clean and corrupt."""
    if "baseline" not in study.memo:
        stack = study.model.main.name
        head = f"{stack}.attn.0.0" if stack else "0.0"
        effects = patch(
            study.model, study.main, [head], over=("target",), direction="noise", metric=study.metric, progress=False
        )
        assert effects.base is not None and effects.source is not None
        study.memo["baseline"] = effects.base, effects.source
    return study.memo["baseline"]
