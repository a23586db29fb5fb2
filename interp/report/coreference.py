"""Claims on coreference, and on heads that only look as if they resolved it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from interp.circuits.streaming import head_grid
from interp.heads.study import Study
from interp.heads.ways import baseline
from interp.report.claim import Claim, Measured, Missing, Pilot
from interp.report.counting import best_score, some_head
from interp.report.evidence import Evidence
from interp.report.intervals import from_items, of_cells, of_items, said
from interp.results.heads import head_of
from interp.stats import item_means

__all__ = ["CLAIMS", "ENCODER", "NAMED"]

_FRAMES = (
    "The pilot had its own sentences and one seed; ours are held-out frames and words, full quartets of pronoun and "
    "order, and an interval over items."
)


def _looked_for(evidence: Evidence) -> None:
    evidence.rows("coreference")


def _resolves(evidence: Evidence) -> Measured:
    """How often the model copies the antecedent rather than the distractor."""
    _looked_for(evidence)
    if not evidence.model.cfg.has_unembed:
        raise Missing("this model gives no logits")

    def make() -> list[float]:
        study = evidence.study("coreference", ("pronoun",))
        return of_items(baseline(study)[0] > 0, study.main.items, seed=evidence.seed)

    return from_items(evidence.once("coreference: the unedited runs", make), "of prompts")


def _by_order(evidence: Evidence) -> pd.DataFrame:
    """How often each head chooses the antecedent where it stands first, and where it stands second, the nearer one:
    with intervals over items."""
    _looked_for(evidence)

    def make() -> dict[str, Any]:
        study = evidence.study("coreference", ("pronoun",))
        chosen = study.attention("pronoun", "antecedent") > study.attention("pronoun", "distractor")
        first = _antecedent_first(study)
        if first.all() or not first.any():
            raise Missing("the antecedent always stands on the same side in these pairs")
        n_layers, n_heads = head_grid(study.model).n_layers, head_grid(study.model).n_heads
        layer, head = np.divmod(np.arange(n_layers * n_heads), n_heads)
        table: dict[str, Any] = {"layer": layer.tolist(), "head": head.tolist()}
        for name, mask in (("first", first), ("second", ~first)):
            flat = chosen.reshape(len(chosen), -1)[mask].astype(float)
            by_item = item_means(flat, study.items[mask])
            low, high = of_cells(by_item, seed=evidence.seed)
            columns = {name: by_item.mean(axis=0), f"{name}_low": low, f"{name}_high": high}
            table |= {column: values.tolist() for column, values in columns.items()}
        return table | {"n": int(min(len(set(study.items[mask])) for mask in (first, ~first)))}

    table = dict(evidence.once("coreference: choice by order", make))
    n = table.pop("n")
    frame = pd.DataFrame(table).merge(evidence.rows("coreference"), on=["layer", "head"])
    frame.attrs["n"] = n
    return frame


def _antecedent_first(study: Study) -> np.ndarray:
    places = ((study.span("antecedent", i)[0], study.span("distractor", i)[0]) for i in range(len(study.main)))
    return np.array([antecedent < distractor for antecedent, distractor in places])


def _unmasked(evidence: Evidence) -> Measured:
    """How many heads are right at least 90% of the time when the antecedent is the nearer one, and at most half of it
    when it is not."""
    both = _by_order(evidence)
    ends = {"": ("second", "first"), "_low": ("second_low", "first_high"), "_high": ("second_high", "first_low")}
    known = both.assign(**{name: both[name].fillna(float(name.endswith("high"))) for name in sum(ends.values(), ())})
    mine = {end: (known[near] >= 0.9) & (known[far] <= 0.5) for end, (near, far) in ends.items()}
    rows = both.loc[mine[""]].sort_values("second", ascending=False)
    worst = rows.loc[(rows["second"] - rows["first"]).sort_values(ascending=False, kind="stable").index].head(3)
    shown = ", ".join(f"{head_of(r)} ({r['first']:.2f}/{r['second']:.2f})" for r in worst.to_dict("records"))
    note = f"antecedent farther / nearer: {shown}" if shown else ""
    named = both["verdict"].astype(str).str.startswith("coreference")
    note += f"; of them called coreference heads: {np.count_nonzero(mine[''] & named)}"
    value, low, high = (int(np.count_nonzero(one)) for one in mine.values())
    return Measured(value, low, high, "heads", both.attrs["n"], note.lstrip("; "))


def _one_order(head: str, name: str) -> Any:
    def measure(evidence: Evidence) -> Measured:
        both, row = _by_order(evidence), evidence.row("coreference", head)
        mine = both.loc[(both["layer"] == row["layer"]) & (both["head"] == row["head"])].iloc[0]
        value, low, high = (float(mine[one]) for one in (name, f"{name}_low", f"{name}_high"))
        note = f"balanced {row['score']:.2f}; {row['verdict'] or 'no verdict'}"
        return said(Measured(value, low, high, "of prompts", both.attrs["n"], note))

    return measure


def _score_of(head: str) -> Any:
    return lambda evidence: evidence.column("coreference", head, "score", "of prompts")


def _free_prediction(evidence: Evidence) -> Measured:
    _looked_for(evidence)
    raise Missing(
        "in full quartets the text before the pronoun is the same for both pronouns, so its prediction is right in "
        "half of them whatever the model does; the pilot's sentences were not balanced in this way"
    )


CLAIMS = (
    Claim(
        "coreference.resolves",
        "coreference",
        "The model copies the antecedent rather than the distractor on at least 70% of the prompts.",
        _resolves,
        "≥",
        0.7,
    ),
    Claim(
        "coreference.score",
        "coreference",
        "Some head attends more to the antecedent than to the distractor on at least 70% of the prompts, both orders "
        "counted alike.",
        best_score("coreference"),
        "≥",
        0.7,
    ),
    Claim(
        "coreference.exists",
        "coreference",
        "Some head does so, .1 above every rule that needs no head, and carries at least 5% of the answer.",
        some_head("coreference"),
        "≥",
        1,
    ),
    Claim(
        "coreference.nearest_unmasked",
        "coreference",
        "Balance matters: some head chooses the antecedent at least 90% of the time where it is the nearer mention, "
        "and at most half of the time where it is not.",
        _unmasked,
        "≥",
        1,
        explain="Such a head attends to the nearest noun. On prompts of one order it would pass for a perfect "
        "coreference head.",
    ),
)
NAMED = (
    Claim(
        "coreference.9.4",
        "coreference",
        "9.4 chooses the antecedent on at least 70% of the prompts, both orders counted alike.",
        _score_of("9.4"),
        "≥",
        0.7,
        Pilot(0.85, _FRAMES),
    ),
    Claim(
        "coreference.16.5_nearer",
        "coreference",
        "16.5 looks like a coreference head where the antecedent is the nearer mention: right at least 90% of the "
        "time.",
        _one_order("16.5", "second"),
        "≥",
        0.9,
        Pilot(0.99, _FRAMES),
    ),
    Claim(
        "coreference.16.5_farther",
        "coreference",
        "16.5 is a nearest-name head: where the antecedent is the farther mention it is right at most half of the "
        "time.",
        _one_order("16.5", "first"),
        "≤",
        0.5,
        Pilot(0.08, _FRAMES),
    ),
    Claim(
        "coreference.free_prediction",
        "coreference",
        "Predicting he or she freely is near chance: right at most 65% of the time.",
        _free_prediction,
        "≤",
        0.65,
        Pilot(0.58, _FRAMES),
    ),
)
ENCODER = tuple(
    Claim(
        f"coreference.{head}",
        "coreference",
        f"{head} chooses the antecedent on at least 70% of the prompts, both orders counted alike.",
        _score_of(head),
        "≥",
        0.7,
        Pilot(pilot, _FRAMES, "METHODS pilot, MiniLM"),
    )
    for head, pilot in (("2.4", 0.96), ("1.3", 0.94))
)
