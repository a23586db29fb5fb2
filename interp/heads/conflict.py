"""What the two kinds that serve conflicts between context and memory share (Yu 2023; Jin 2024): which head pushes which
answer, and how often either wins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.causal.attribution import attribute
from interp.heads.shares import share_above_zero
from interp.heads.study import END, Study
from interp.heads.task_finder import Test
from interp.heads.ways import baseline, distance, exchanges
from interp.stats import bootstrap_interval
from interp.tasks.base import definition
from interp.tasks.load import load as load_task
from interp.tasks.measure import values_of

__all__ = [
    "CONTEXT",
    "EFFECT",
    "MEMORY",
    "OBJECT",
    "POSITIONS",
    "SHARES",
    "context_over_memory",
    "exchanged",
    "pushes",
    "shares",
]

Grid = NDArray[np.floating]
OBJECT, SUBJECT = "context_object", "subject"
POSITIONS = (OBJECT, "context_subject", SUBJECT)
CONTEXT, MEMORY = "context", "memory"
SHARES = "conflict: how often the context wins"
EFFECT = "effect, first order"


def context_over_memory(study: Study) -> Grid:
    """What a head adds directly at END to the context's answer over the memory's."""
    return study.writes(END, up=study.answers, down=study.foils)


def exchanged(corruption: str) -> Test:
    """Heads exchanged with those of one corruption's prompts."""
    return Test(
        f"score of the context's answer − memory's, head exchanged with that of the {corruption} prompt",
        exchanges,
        ("noise", "denoise"),
        ("mean", "resample"),
    )


def pushes(study: Study) -> pd.DataFrame:
    """Of every head: its direct logit at END of the context's answer and of the memory's, each above the relation's
    other answers, and of one over the other; and what its exchange does, with sign, as a share of the distance between
    clean and corrupt: above 0 the context's answer loses by it. Effects are estimates to first order, since there are
    some hundred heads; those of the tested ones are exact elsewhere."""
    others = _others(study)
    effects = attribute(study.model, study.main, "z", over=("layer", "head"), direction="noise", metric=study.metric)
    gap = distance(study)
    measured = {
        CONTEXT: study.writes(END, up=study.answers, down=others),
        MEMORY: study.writes(END, up=study.foils, down=others),
        f"{CONTEXT} − {MEMORY}": context_over_memory(study),
        EFFECT: -effects.values.values / (gap if gap > 0 else np.nan),
    }
    scored = np.flatnonzero(~np.isnan(measured[MEMORY][0].ravel()))  # a layer may have fewer heads than the widest
    layer, head = np.divmod(scored, measured[MEMORY].shape[-1])
    table: dict[str, Any] = {"layer": layer, "head": head}
    for name, values in measured.items():
        by_item = study.by_item(values)[:, scored]
        low, high = bootstrap_interval(by_item)
        table |= {name: by_item.mean(axis=0), f"{name}_low": low, f"{name}_high": high}
    both = f"{CONTEXT} − {MEMORY}"
    signs = [table[f"{both}_low"] > 0, table[f"{both}_high"] < 0]
    table["pushes"] = np.select(signs, [CONTEXT, MEMORY], "")
    frame = pd.DataFrame(table).assign(n_items=study.n_items)
    return frame.iloc[np.argsort(-np.abs(table[both]), kind="stable")].reset_index(drop=True)


def _others(study: Study) -> list[list[int]]:
    """First tokens of the relation's other answers; of all prompts' answers where the relation is not known."""
    by_relation = study.about.get("same_relation_answers", {})
    classes = {name: sorted({one[0] for one in answers}) for name, answers in by_relation.items()}
    relations = study.labels.get("relation", [None] * len(study.main))
    every = sorted({token for both in (study.answers, study.foils) for some in both for token in some})
    return [
        [token for token in classes.get(relation, every) if token not in (*up, *down)] or [*up, *down]
        for relation, up, down in zip(relations, study.answers, study.foils, strict=True)
    ]


def shares(study: Study) -> pd.DataFrame:
    """By template and relation, and for every control: on which share of the prompts the context's answer is above the
    memory's, with intervals over items."""
    if not {"frame", "relation", "split"} <= study.labels.keys() or "facts" not in study.about:
        clean, corrupt = baseline(study)
        return pd.DataFrame(
            [
                {
                    "prompts": name,
                    "template": "all",
                    "relation": "all",
                    **share_above_zero(values, study.items, "context"),
                }
                for name, values in (("conflict", clean), (study.corruption, corrupt))
            ]
        )
    about, split = study.about, str(study.labels["split"][0])
    options = {"split": split, "facts": about["facts"], **{name: about[name] for name in ("n", "seed", "bos")}}
    rows: list[dict[str, Any]] = []
    for corruption in definition("conflict").corruptions:
        task = load_task("conflict", study.model, corruption, **options)
        sides = {"conflict": "clean"} if corruption == study.corruption else {}
        for name, side in {**sides, corruption: "corrupt"}.items():
            rows += _by_template(name, values_of(task, study.model, side), task)
    return pd.DataFrame(rows)


def _by_template(name: str, values: Grid, task: Any) -> list[dict[str, Any]]:
    columns = {"template": np.array(task.labels["frame"]), "relation": np.array(task.labels["relation"])}
    items, rows = np.array(task.items), []
    for template in ("all", *dict.fromkeys(columns["template"].tolist())):
        for relation in ("all", *dict.fromkeys(columns["relation"].tolist())):
            mine = np.ones(len(values), dtype=bool)
            for column, value in (("template", template), ("relation", relation)):
                mine &= (value == "all") | (columns[column] == value)
            if mine.any():
                said = {"prompts": name, "template": template, "relation": relation}
                rows.append({**said, **share_above_zero(values[mine], items[mine], "context")})
    return rows
