"""From numbers to words: a head is called by a kind's name only if all parts of the kind's definition pass."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from interp.errors import InputError
from interp.heads.base import Finder
from interp.sites import Head

__all__ = ["Cutoffs", "cutoffs_of", "verdicts"]

Cutoffs = dict[str, dict[str, float]]


def cutoffs_of(found: list[Finder], changed: Mapping[str, Mapping[str, float]] | None) -> Cutoffs:
    """The cutoffs in force: each kind's defaults (score, writing, effect), and what the caller changed of them."""
    limits: Cutoffs = {}
    for one in found:
        limits[one.name] = {"score": one.score_cutoff}
        if one.writing is not None:
            limits[one.name]["writing"] = one.writing.cutoff
        if one.effect_cutoff is not None:
            limits[one.name]["effect"] = one.effect_cutoff
    for kind, values in (changed or {}).items():
        for name, value in values.items():
            if kind not in limits or name not in limits[kind]:
                there = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in limits.items())
                raise InputError(f"There is no cutoff {name!r} of {kind!r} in this search. There are {there}.")
            limits[kind][name] = float(value)
    return limits


def verdicts(found: list[Finder], frame: pd.DataFrame, sets: pd.DataFrame, limits: Cutoffs, alpha: float) -> list[str]:
    """One verdict per row: the kind's name, the name with "(jointly)", "attends like …", "matters for …", or ""."""
    by_name = {one.name: one for one in found}
    joint = {row["kind"]: row for row in sets.to_dict("records")}
    return [
        _verdict(by_name[row["kind"]], row, joint[row["kind"]], limits[row["kind"]], alpha)
        for row in frame.to_dict("records")
    ]


def _verdict(one: Finder, row: dict, together: dict, limit: dict[str, float], alpha: float) -> str:
    attends = row["score"] >= limit["score"]
    writes = one.writing is None or one.writing.passes(row["writing"], limit["writing"])
    needed = limit.get("effect")
    if needed is None:  # the kind asks for no harm
        return one.name if attends and writes else f"attends like {one.name}" if attends else ""
    alone = row["effect"] >= needed and row["effect"] > row["control"] and row["p_corrected"] <= alpha
    head = str(Head(row["layer"], row["head"], row["sublayer"], row["stack"]))
    beats_random = together["effect"] > together["random_max"]  # never where there is none (NaN)
    jointly = one.joint and head in together["heads"].split() and together["effect"] >= needed
    jointly = jointly and together["p"] <= alpha and beats_random
    if attends and writes and (alone or jointly):
        return one.name if alone else f"{one.name} (jointly)"
    if attends:
        return f"attends like {one.name}"
    return f"matters for {one.cause}" if alone else ""
