"""What lies behind a head's mean effect: the same by template, and against every corruption of the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.heads.study import Study
from interp.heads.task_finder import Behaviour, TaskFinder
from interp.heads.ways import Harm, baseline, distance, ways
from interp.sites import Head
from interp.stats import bootstrap_interval

__all__ = ["by_corruption", "by_template"]

Grid = NDArray[np.floating]
Candidates = Mapping[str, Sequence[Head]]
_DIRECTIONS = ("noise", "denoise")


def by_template(
    kinds: Sequence[TaskFinder],
    candidates: Candidates,
    report: Study,
    shown: Mapping[str, Behaviour],
    tested: Study,
    harm: Harm,
) -> pd.DataFrame:
    """Score and effect of each kind's candidates on each template alone: means over its items, in shares of the
    distance between clean and corrupt over all templates."""
    rows: list[dict[str, Any]] = []
    templates = {
        template: np.array(report.main.templates) == template for template in sorted(set(report.main.templates))
    }
    within = np.array(tested.main.templates)
    for one in kinds:
        for head in candidates[one.name]:
            score = shown[one.name].score[:, head.layer, head.head]
            for template, mine in templates.items():
                address = {"kind": one.name, "head": str(head), "template": template}
                counted = {
                    "n_items": len(set(report.items[mine])),
                    "score": _item_mean(score[mine], report.items[mine]),
                }
                for measure in (name for name in one.test.decisive if name in harm):
                    effect = harm[measure][(head,)][within == template]
                    mean = _item_mean(effect, tested.items[within == template])
                    rows.append({**address, **counted, "measure": measure, "effect": mean})
                if not harm:
                    rows.append({**address, **counted, "measure": "", "effect": np.nan})
    return pd.DataFrame(rows)


def by_corruption(
    kinds: Sequence[TaskFinder],
    candidates: Candidates,
    studies: Mapping[str, Study],
    seed: int,
    report: Callable[[int, int], None],
) -> pd.DataFrame:
    """Exchanges of each kind's candidates with the prompts of every corruption, in both directions: as shares of the
    distance between clean and corrupt (NaN where there is none), and in the metric's unit."""
    rows: list[dict[str, Any]] = []
    for number, (corruption, study) in enumerate(studies.items()):
        clean, corrupt = (float(one.mean()) for one in baseline(study))
        facts = {"corruption": corruption, "clean": clean, "corrupt": corrupt, "n_items": study.n_items}
        for at in dict.fromkeys(one.test.exchanged_at for one in kinds):
            mine = [one for one in kinds if one.test.exchanged_at == at]
            sets = [(head,) for head in dict.fromkeys(head for one in mine for head in candidates[one.name])]
            if not sets or not distance(study) > 0:
                continue
            found = ways(study, sets, seed, measures=_DIRECTIONS, at={"pos": at} if at else None)
            for direction, harm in found.items():
                by_item = study.by_item(np.stack([harm[one] for one in sets], axis=1))
                low, high = bootstrap_interval(by_item, seed=seed)
                for one in mine:
                    for head in candidates[one.name]:
                        i = sets.index((head,))
                        effect = float(by_item[:, i].mean())
                        rows.append(
                            {
                                **{"kind": one.name, "head": str(head), **facts, "direction": direction},
                                **{"effect": effect, "effect_low": low[i], "effect_high": high[i]},
                                "in_units": effect * distance(study),
                            }
                        )
        report(number + 1, len(studies))
    return pd.DataFrame(rows)


def _item_mean(values: Grid, items: np.ndarray) -> float:
    """The mean over items of each one's mean; NaN without any."""
    means = [values[items == item].mean() for item in dict.fromkeys(items.tolist())]
    return float(np.mean(means)) if means else float("nan")
