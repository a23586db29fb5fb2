"""Claims on the recall of facts: where the subject matters, and which heads fetch its attribute."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from interp.causal.patching import patch
from interp.heads.facts import attribute_logit
from interp.heads.study import END
from interp.heads.ways import baseline
from interp.report.claim import Claim, Measured, Missing, Pilot
from interp.report.counting import joint_effect, some_head
from interp.report.evidence import Evidence
from interp.report.intervals import from_items, of_items, row_ends, said
from interp.results.heads import head_of, is_kind

__all__ = ["CLAIMS", "NAMED"]

_FRAMES = (
    "The pilot asked every country in the one frame named; ours are asked in held-out frames, and heads are judged on "
    "facts that the model knows."
)
_RESIDUAL, _CUT, _MLPS = ("fact_recall: residual", "fact_recall: attention from the end", "fact_recall: MLPs")
_SHARE = "share of clean − corrupt"
_WINDOW_REACH = 2  # layers on either side in a window of five


def _known(relation: str, which: str) -> Any:
    """Of the countries asked about, how many answers come first among the relation's ("known") or among all texts."""

    def measure(evidence: Evidence) -> Measured:
        about = evidence.task_facts.get("fact_recall", {}).get("known", {}).get(relation)
        if not about or not about["asked"]:
            raise Missing(f"no {relation} was asked for")
        asked = int(about["asked"])
        right = about["known"] if which == "known" else round(about["top1"] * asked)
        countries = [f"{i:05}" for i in range(asked)]
        return from_items(of_items(np.arange(asked) < right, countries, seed=evidence.seed), "of countries")

    return measure


def _layers(evidence: Evidence, name: str) -> pd.DataFrame:
    evidence.rows("fact_recall")
    evidence.must_do("fact_recall")
    table = evidence.table(name).copy()
    n = _counted(evidence, table)
    for column in [column for column in table if f"{column}_low" in table]:
        ends = [row_ends(row, str(column), n, share=True) for row in table.to_dict("records")]
        table[f"{column}_low"], table[f"{column}_high"] = ([end[i] for end in ends] for i in (0, 1))
    return table


def _counted(evidence: Evidence, rows: pd.DataFrame) -> int | None:
    """The items of a table by layer."""
    return int(rows["n_items"].iloc[0]) if "n_items" in rows else evidence.items("fact_recall", "tested")


def _extreme(evidence: Evidence, rows: pd.DataFrame, column: str, *, least: bool) -> Measured:
    """The layer where a column is least, or most."""
    if column not in rows or rows[column].dropna().empty:
        raise Missing(f"“{column}” was not measured in these layers")
    row = rows.loc[rows[column].idxmin() if least else rows[column].idxmax()]
    note = f"at layer {int(row['layer'])}, chosen by this very figure"
    ends = (float(row[f"{column}_low"]), float(row[f"{column}_high"]))
    return said(Measured(float(row[column]), *ends, "share of clean − corrupt", _counted(evidence, rows), note))


def _n_layers(rows: pd.DataFrame) -> int:
    return int(max(rows["layer"].tolist())) + 1


def _half(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.loc[rows["layer"] < _n_layers(rows) / 2]


def _up_to(rows: pd.DataFrame, layer: int) -> pd.DataFrame:
    return rows.loc[rows["layer"] <= layer]


def _flip(evidence: Evidence) -> Measured:
    """The first layer behind which the end restores more than the subject; its interval reaches from the first layer
    where the two intervals meet to the first where they have changed places."""
    rows = _layers(evidence, _RESIDUAL)
    if "end" not in rows:
        raise Missing("the pairs do not name the end")
    conditions = {
        "value": rows["end"] > rows["subject"],
        "low": rows["end_high"] >= rows["subject_low"],
        "high": rows["end_low"] >= rows["subject_high"],
    }
    last = float(_n_layers(rows))
    found = {end: min(rows.loc[here, "layer"].tolist(), default=last) for end, here in conditions.items()}
    value, low, high = (float(found[end]) for end in ("value", "low", "high"))
    return Measured(value, low, high, f"layer (of {int(last)})", _counted(evidence, rows))


def _flip_depth(evidence: Evidence) -> Measured:
    at = _flip(evidence)
    n_layers = _n_layers(_layers(evidence, _RESIDUAL))
    whole = f"at layer {at.value:g} ({at.low:g} to {at.high:g}) of {n_layers}"
    return Measured(at.value / n_layers, at.low / n_layers, at.high / n_layers, "of the depth", at.n_items, whole)


def _on_other_corruption(kind: str, corruption: str, role: str = "") -> Any:
    """The largest effect of the named heads (of a role, if any has it) when something else is swapped: the head is
    chosen by this very figure, so that a low one is said of all of them."""

    def measure(evidence: Evidence) -> Measured:
        rows = evidence.rows(kind).to_dict("records")
        evidence.must_do("fact_recall")
        named = [row for row in rows if is_kind(row)]
        heads = {head_of(row) for row in named if row.get("role") == role} or {head_of(row) for row in named}
        if not heads:
            raise Missing(f"no head is called {kind}")
        mine = _effects_by_corruption(evidence, kind, corruption)
        mine = mine.loc[mine["head"].astype(str).isin(sorted(heads))]
        if mine.empty:
            raise Missing(f"the effect of these heads with the {corruption} swapped was not measured")
        row = mine.loc[mine["effect"].idxmax()].to_dict()
        low, high = row_ends(row, "effect", int(row["n_items"]), share=True)
        note = f"{row['head']}, the largest of {', '.join(sorted(mine['head'].astype(str)))}"
        return said(Measured(float(row["effect"]), low, high, _SHARE, int(row["n_items"]), note))

    return measure


def _effects_by_corruption(evidence: Evidence, kind: str, corruption: str) -> pd.DataFrame:
    """Rows of heads whose clean output was replaced by that of one corruption's prompts."""
    for title, table in evidence.found.tables.items():
        if title.endswith(": effects by corruption"):
            mine = table.loc[(table["kind"] == kind) & (table["corruption"] == corruption)]
            mine = mine.loc[(mine["direction"] == "noise") & mine["effect"].notna()]
            if len(mine):
                return mine
    raise Missing(f"effects of {kind} heads with the {corruption} swapped were not measured")


def _later_windows(evidence: Evidence) -> Measured:
    rows = _layers(evidence, _MLPS)
    return _extreme(evidence, rows.loc[rows["layer"] > _WINDOW_REACH], "denoise", least=False)


CLAIMS = (
    Claim(
        "fact_recall.known",
        "fact_recall",
        "The model knows at least half of the capitals: the right one is likelier than any other capital.",
        _known("capital", "known"),
        "≥",
        0.5,
    ),
    Claim(
        "fact_recall.exists",
        "fact_recall",
        "Some head attends from the end to the subject by at least .2, raises its attribute above others of the "
        "relation, and carries at least 5% of the answer.",
        some_head("fact_recall"),
        "≥",
        1,
    ),
    Claim(
        "fact_recall.joint",
        "fact_recall",
        "The extraction heads' candidates, exchanged together, carry at least 5% of the answer more than any random "
        "set of the same layers.",
        joint_effect("fact_recall", beyond_random=True),
        "≥",
        0.05,
    ),
    Claim(
        "fact_recall.early_site",
        "fact_recall",
        "The fact sits at the subject early on: its clean residual stream restores at least 90% in each layer of the "
        "first half.",
        lambda evidence: _extreme(evidence, _half(_layers(evidence, _RESIDUAL)), "subject", least=True),
        "≥",
        0.9,
    ),
    Claim(
        "fact_recall.end_knows_nothing",
        "fact_recall",
        "The last token knows nothing yet: its clean residual stream restores at most 10% in each layer of the first "
        "half.",
        lambda evidence: _extreme(evidence, _half(_layers(evidence, _RESIDUAL)), "end", least=False),
        "≤",
        0.1,
    ),
    Claim(
        "fact_recall.late_site",
        "fact_recall",
        "The fact moves late: the last token overtakes the subject only in the second half of the layers.",
        _flip_depth,
        "≥",
        0.5,
    ),
    Claim(
        "fact_recall.knockout",
        "fact_recall",
        "It moves by attention from the end to the subject: cutting that in five layers together costs at least 20%.",
        lambda evidence: _extreme(evidence, _layers(evidence, _CUT), "subject", least=False),
        "≥",
        0.2,
    ),
    Claim(
        "fact_recall.mlps",
        "fact_recall",
        "MLPs at the subject's last token enrich it: five layers together, without layer 0, restore at least 20%.",
        _later_windows,
        "≥",
        0.2,
        explain="Layer 0 re-embeds the tokens, so what its MLP restores is no sign of storage; windows that hold it "
        "are left out.",
    ),
    Claim(
        "fact_recall.not_the_relation",
        "fact_recall",
        "Heads that extract from the subject do not ask which relation: with the relation swapped each carries at "
        "most 5%.",
        _on_other_corruption("fact_recall", "relation", "subject"),
        "≤",
        0.05,
        explain="Chughtai (2024) calls such heads subject heads; one that carries more depends on the relation too.",
    ),
    Claim(
        "fact_relation.exists",
        "fact_relation",
        "Some head attends from the end to the relation, raises its answers as a class above those of other "
        "relations, and carries at least 5% of the answer when the relation is swapped.",
        some_head("fact_relation"),
        "≥",
        1,
    ),
    Claim(
        "fact_relation.joint",
        "fact_relation",
        "The relation heads' candidates, exchanged together, carry at least 5% of the answer more than any random set "
        "of the same layers.",
        joint_effect("fact_relation", beyond_random=True),
        "≥",
        0.05,
    ),
    Claim(
        "fact_relation.not_the_subject",
        "fact_relation",
        "Relation heads do not know the subject: with the subject swapped each carries at most 5%.",
        _on_other_corruption("fact_relation", "subject"),
        "≤",
        0.05,
    ),
)


def _share_of(head: str, relation: str) -> Any:
    """What the exchange of a head costs on one relation, as a share of clean − corrupt there."""

    def measure(evidence: Evidence) -> Measured:
        evidence.rows("fact_recall")
        evidence.must_do("fact_recall")
        found = evidence.once(f"facts: {head} by relation", lambda: _by_relation(evidence, head))
        if relation not in found:
            raise Missing(f"no {relation} that the model knows was asked for")
        note = f"denoising {found[relation]['denoise'][0]:.2f}; direct logit {found[relation]['writing'][0]:+.2f}"
        return from_items(found[relation]["noise"], "share of clean − corrupt", note)

    return measure


def _by_relation(evidence: Evidence, head: str) -> dict[str, Any]:
    at, study = evidence.address(head), evidence.study("fact_recall", (END,))
    relations = np.array(study.labels.get("relation", [""] * len(study.main)))
    clean, corrupt = baseline(study)
    written = attribute_logit(study)[:, at.layer, at.head]
    changed = {
        direction: patch(
            study.model,
            study.main,
            [head],
            over=("target",),
            direction=direction,
            metric=study.metric,
            progress=False,
        ).values.values[:, 0]
        for direction in ("noise", "denoise")
    }
    found: dict[str, Any] = {}
    for relation in dict.fromkeys(relations.tolist()):
        mine = relations == relation
        items = np.array(study.main.items)[mine].tolist()
        gap = (clean - corrupt)[mine]
        found[relation] = {
            "noise": of_items(-changed["noise"][mine], items, seed=evidence.seed, divisor=gap),
            "denoise": of_items(changed["denoise"][mine], items, seed=evidence.seed, divisor=gap),
            "writing": of_items(written[mine], items, seed=evidence.seed, share=False),
        }
    return found


def _writes_attribute(head: str, relation: str) -> Any:
    """Direct logit of the answer less the mean over the relation's other answers, of all that a head writes."""

    def measure(evidence: Evidence) -> Measured:
        evidence.rows("fact_recall")
        found = evidence.once(f"facts: {head} by relation", lambda: _by_relation(evidence, head))
        if relation not in found:
            raise Missing(f"no {relation} that the model knows was asked for")
        return from_items(found[relation]["writing"], "logits")

    return measure


def _writes_subject(head: str) -> Any:
    """Direct logit of the subject's own first token from the subject, less the mean over the other subjects'."""

    def measure(evidence: Evidence) -> Measured:
        evidence.rows("fact_recall")
        return from_items(evidence.once(f"facts: {head} and the subject", lambda: make(evidence)), "logits")

    def make(evidence: Evidence) -> list[float]:
        at, study = evidence.address(head), evidence.study("fact_recall", (END,))
        own = [study.main.clean[i][study.span("subject", i)[0]] for i in range(len(study.main))]
        others = [sorted(set(own) - {one}) for one in own]
        if not all(others):
            raise Missing("there is only one subject")
        written = study.writes(END, "subject", up=[[one] for one in own], down=others)
        return of_items(written[:, at.layer, at.head], study.main.items, seed=evidence.seed, share=False)

    return measure


def _restored_to_20(evidence: Evidence) -> Measured:
    return _extreme(evidence, _up_to(_layers(evidence, _RESIDUAL), 20), "subject", least=True)


def _end_to_20(evidence: Evidence) -> Measured:
    return _extreme(evidence, _up_to(_layers(evidence, _RESIDUAL), 20), "end", least=False)


def _distance_from_23(evidence: Evidence) -> Measured:
    """How far the flip lies from layer 23, the middle of the pilot's 22 to 24."""
    at = _flip(evidence)
    ends = sorted(abs(end - 23) for end in (at.low, at.high))
    nearest = 0.0 if at.low <= 23 <= at.high else ends[0]
    note = f"the last token overtakes at layer {at.value:g} ({at.low:g} to {at.high:g})"
    if math.isnan(at.value):
        raise Missing("the two never change places")
    return Measured(abs(at.value - 23), nearest, ends[1], "layers", at.n_items, note)


NAMED = (
    *(
        Claim(
            f"fact_recall.top1_{relation}",
            "fact_recall",
            f"The {relation} comes first among all texts for at least {cutoff:.0%} of the countries (half of the "
            "pilot's).",
            _known(relation, "top1"),
            "≥",
            cutoff,
            Pilot(pilot, f"“{frame}”. {_FRAMES}"),
        )
        for relation, cutoff, pilot, frame in (
            ("capital", 0.4, 0.81, "The capital of X is"),
            ("language", 0.41, 0.83, "The official language of X is"),
        )
    ),
    Claim(
        "fact_recall.subject_to_20",
        "fact_recall",
        "The residual stream at the subject restores at least 90% in each layer up to 20.",
        _restored_to_20,
        "≥",
        0.9,
        Pilot(0.98, f".98 to 1.0. {_FRAMES}"),
    ),
    Claim(
        "fact_recall.end_to_20",
        "fact_recall",
        "The residual stream at the last token restores at most 10% in each layer up to 20.",
        _end_to_20,
        "≤",
        0.1,
        Pilot(0.01, _FRAMES),
    ),
    Claim(
        "fact_recall.flip_22_24",
        "fact_recall",
        "The two change places between layers 22 and 24: at most one layer from 23.",
        _distance_from_23,
        "≤",
        1.0,
    ),
    *(
        Claim(
            f"fact_recall.23.4_{relation}",
            "fact_recall",
            f"23.4 alone carries at least {cutoff:g} of the {relation} (half of the pilot's).",
            _share_of("23.4", relation),
            "≥",
            cutoff,
            Pilot(pilot, _FRAMES),
        )
        for relation, cutoff, pilot in (("capital", 0.33, 0.66), ("language", 0.45, 0.90))
    ),
    Claim(
        "fact_recall.23.4_writes_country",
        "fact_recall",
        "23.4 writes the country itself too: its direct logit lies above that of other countries.",
        _writes_subject("23.4"),
        "≥",
        0.0,
    ),
    Claim(
        "fact_recall.23.4_writes_capital",
        "fact_recall",
        "23.4 writes the capital: its direct logit lies above that of other capitals.",
        _writes_attribute("23.4", "capital"),
        "≥",
        0.0,
    ),
)
