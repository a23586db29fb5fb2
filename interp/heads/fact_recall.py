"""Extraction heads of facts: from the end they attend to the subject and write its attribute (Geva 2023, §5; Chughtai
2024). What reads the subject and what enriches it, MLPs at its last token, is measured beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.causal.knockout import knockout
from interp.causal.patching import patch
from interp.heads.facts import MARGIN, attribute_logit, class_logit, even_share, mixed
from interp.heads.study import END, Study
from interp.heads.task_finder import Behaviour, TaskFinder, TaskWriting, Test
from interp.heads.ways import exchanges
from interp.results import Effects

__all__ = ["FINDER"]

Grid = NDArray[np.floating]
_MLP_WINDOW = 5
_KNOCKOUT_WINDOW = 5
_TABLE_PROMPTS = 32  # of those that are tested; by layer, many interventions each


def _attends(study: Study) -> Behaviour:
    """END→subject, with END→relation beside it where the pairs name that."""
    beside = {}
    if "relation" in study.main.positions:
        beside["attention_to_relation"] = study.attention(END, "relation")
    return Behaviour(study.attention(END, "subject"), beside, {"even": even_share(study, "subject")})


def _roles(study: Study) -> np.ndarray:
    """Whether the head moves the relation's class of answers too."""
    subject = attribute_logit(study, "subject")
    if "relation" not in study.main.positions:
        return mixed(study, subject, np.full_like(subject, -np.inf), "subject")
    return mixed(study, subject, np.nan_to_num(class_logit(study, "relation"), nan=-np.inf), "subject")


def _mlps(study: Study) -> pd.DataFrame:
    """Denoising and noising the MLP's output at the subject's last token, in windows of layers; layer 0 re-embeds
    tokens, so what it restores is no sign of storage. Empty without any MLP."""
    if all(block.mlp is None for block in study.model.main.config.blocks):
        return pd.DataFrame()
    study = study.some(range(min(len(study.main), _TABLE_PROMPTS)))
    rows: dict[str, Effects] = {}
    for direction in ("denoise", "noise"):
        rows[direction] = patch(
            study.model,
            study.main,
            "mlp_out",
            over=("layer",),
            at={"pos": "subject:last"},
            window=_MLP_WINDOW,
            direction=direction,
            metric=study.metric,
            progress=False,
        )
    return _by_layer(study, rows)


def _residuals(study: Study) -> pd.DataFrame:
    """Denoising the residual stream at the subject's last token and at the end."""
    study = study.some(range(min(len(study.main), _TABLE_PROMPTS)))
    ends = {"subject": "subject:last", "end": END} if END in study.main.positions else {"subject": "subject:last"}
    return _by_layer(
        study,
        {
            name: patch(
                study.model,
                study.main,
                "resid_post",
                over=("layer",),
                at={"pos": at},
                metric=study.metric,
                progress=False,
            )
            for name, at in ends.items()
        },
    )


def _cut(study: Study) -> pd.DataFrame:
    """Attention from the end cut in windows of layers: to the subject, and to the relation (Geva 2023, §5)."""
    study = study.some(range(min(len(study.main), _TABLE_PROMPTS)))
    read = END if END in study.main.positions else -1
    found = {
        name: knockout(
            study.model,
            study.main,
            queries=read,
            keys=name,
            window=_KNOCKOUT_WINDOW,
            metric=study.metric,
            progress=False,
        )
        for name in ("subject", "relation")
        if name in study.main.positions
    }
    return _by_layer(study, found)


def _by_layer(study: Study, effects: dict[str, Effects]) -> pd.DataFrame:
    """Pooled shares by layer with their intervals, and over how many items."""
    table: dict[str, Grid] = {}
    for name, one in effects.items():
        table.setdefault("layer", one.values["layer"].values)
        low, high = one.ci(normalize="pooled")
        table |= {name: one.mean(normalize="pooled").values, f"{name}_low": low.values, f"{name}_high": high.values}
    return pd.DataFrame(table).assign(n_items=study.n_items)


_TABLES: Sequence[tuple[str, object]] = (
    ("fact_recall: MLPs at the subject's last token, five layers together", _mlps),
    ("fact_recall: residual stream restored", _residuals),
    ("fact_recall: attention from the end cut, five layers together", _cut),
)
FINDER = TaskFinder(
    name="fact_recall",
    definition="mean attention from the end to the subject",
    task="fact_recall",
    corruptions=("subject", "relation", "nonce"),
    positions=("subject",),
    queries=(END,),
    behaviour=_attends,
    score_cutoff=0.2,
    margin=MARGIN,
    writing=TaskWriting("direct logit of the attribute, less the mean over its relation's other ones", attribute_logit),
    test=Test(
        "score of the fact, head exchanged with another subject's",
        exchanges,
        ("noise", "denoise"),
        ("mean", "resample"),
    ),
    role=_roles,
    tables=dict(_TABLES),  # type: ignore[arg-type]
)
