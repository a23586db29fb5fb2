"""From numbers to words: a head is called by a kind's name only if all parts of the kind's definition pass; otherwise
the reason is given."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from interp.errors import InputError
from interp.heads.base import Finder
from interp.heads.syntax import SyntaxFinder
from interp.heads.task_finder import NOTHING, TaskFinder, TaskWriting
from interp.sites import Head

__all__ = ["Cutoffs", "cutoffs_of", "judge"]

Cutoffs = dict[str, dict[str, float]]
Row = Mapping[Hashable, Any]
_NO_SET = {"heads": "", "effect": math.nan, "p": math.nan, "random_max": math.nan}


def cutoffs_of(found: Sequence[Finder | TaskFinder | SyntaxFinder], changed: Any) -> Cutoffs:
    """The cutoffs in force: each kind's defaults (score, margin, writing, effect), and what the caller changed."""
    limits: Cutoffs = {}
    for one in found:
        limits[one.name] = {} if one.score_cutoff is None else {"score": one.score_cutoff}
        if not isinstance(one, Finder) and one.margin is not None:
            limits[one.name]["margin"] = one.margin
        if one.writing is not None:
            limits[one.name]["writing"] = one.writing.cutoff
        if one.effect_cutoff is not None:
            limits[one.name]["effect"] = one.effect_cutoff
    if not isinstance(changed, Mapping | None) or not all(isinstance(one, Mapping) for one in (changed or {}).values()):
        raise InputError(f'cutoffs is {changed!r}. Give them by kind and name: {{"induction": {{"score": 0.5}}}}.')
    for kind, values in (changed or {}).items():
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"The cutoff {name} of {kind} is {value!r}. Give a finite number.")
            if kind not in limits or name not in limits[kind]:
                there = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in limits.items())
                raise InputError(f"There is no cutoff {name!r} of {kind!r} in this search. There are {there}.")
            limits[kind][name] = float(value)
    return limits


def judge(
    found: Sequence[Finder | TaskFinder | SyntaxFinder],
    frame: pd.DataFrame,
    sets: pd.DataFrame,
    limits: Cutoffs,
    alpha: float,
    about: Mapping[str, Any],
) -> tuple[list[str], list[str], list[str]]:
    """One verdict per row (the kind's name, perhaps with "(jointly)" or a role, "attends like …", "matters for …", or
    ""), why it is no better, or "", and the measure whose effect decided: the one that passes, or the first.
    "sufficient": only bringing the head's clean output into the corrupt run passes, as where others back the head
    up."""
    by_name = {one.name: one for one in found}
    joint = {row["kind"]: row for row in sets.to_dict("records")}
    verdicts, reasons, deciding = [], [], []
    for row in frame.to_dict("records"):
        one, limit = by_name[row["kind"]], limits[row["kind"]]
        if isinstance(one, TaskFinder):
            verdict, reason, measure = _of_task(one, row, limit, alpha, about)
        elif isinstance(one, SyntaxFinder):
            verdict, reason = _of_syntax(one, row, limit, alpha)
            measure = "attention"
        else:
            verdict, reason = _of_pattern(one, row, joint.get(row["kind"], _NO_SET), limit, alpha)
            measure = "ablation" if _number(row, "effect") is not None else ""
        verdicts.append(verdict)
        reasons.append(reason)
        deciding.append(measure)
    return verdicts, reasons, deciding


def _of_pattern(one: Finder, row: Row, together: Row, limit: Mapping[str, float], alpha: float) -> tuple[str, str]:
    attends, why = _attends(row, limit)
    writes = one.writing is None or one.writing.passes(row["writing"], limit["writing"])
    why += [] if writes else [_writing_fails(row, one.writing, limit)]
    if limit.get("effect") is None:  # the kind asks for no harm
        verdict = one.name if attends and writes else f"attends like {one.name}" if attends else ""
        return verdict, "; ".join(why)
    failing = _effect_fails(row, limit["effect"], alpha, 1)
    head = str(Head(row["layer"], row["head"], row["sublayer"], row["stack"]))
    beats_random = together["effect"] > together["random_max"]  # never where there is none (NaN)
    jointly = one.joint and head in together["heads"].split() and together["effect"] >= limit["effect"]
    jointly = jointly and together["p"] <= alpha and beats_random
    if attends and writes and (not failing or jointly):
        return (f"{one.name} (jointly)", "; ".join(failing)) if failing else (one.name, "")
    reason = "; ".join([*why, *failing])
    if attends:
        return f"attends like {one.name}", reason
    return ("" if failing else f"matters for {one.cause}"), reason


def _of_syntax(one: SyntaxFinder, row: Row, limit: Mapping[str, float], alpha: float) -> tuple[str, str]:
    """By attention alone: far enough above the best fixed offset and above the other words' looks, and surely so."""
    _, why = _attends(row, limit)
    if not row["score"] >= row["other_words"] + limit["margin"]:
        why.append(f"other words look at the same one nearly as often ({row['other_words']:.2f})")
    if not row["p_corrected"] <= alpha:
        why.append(f"p {row['p_corrected']:.2g} > {alpha:g}")
    return ("" if why else f"{one.name} ({row['role']})"), "; ".join(why)


def _of_task(
    one: TaskFinder, row: Row, limit: Mapping[str, float], alpha: float, about: Mapping[str, Any]
) -> tuple[str, str, str]:
    attends, why = _attends(row, limit)
    decided = one.test.decisive[0] if _number(row, "effect") is not None else ""
    if problem := about.get("problems", {}).get(one.name):
        why.append(problem)
    writes, waived = True, ""
    if one.writing is not None and "writing" in row:
        if _absent(about, one):
            waived = "writing not asked for: the model has no logits"
        else:
            writes = one.writing.passes(row["writing"], limit["writing"]) and _surely(row, one.writing, limit)
            why += [] if writes else [_writing_fails(row, one.writing, limit)]
    failing = _effect_fails(row, limit["effect"], alpha, one.sign)
    if not failing and one.test.supporting:
        supports = [name for name in one.test.supporting if one.sign * row.get(name, math.nan) >= limit["effect"]]
        failing = [] if supports else [f"{' and '.join(one.test.supporting)} below {limit['effect']:g}"]
    words = [str(row["role"])] if row.get("role") else []
    if failing and len(one.test.decisive) > 1:
        second = one.test.decisive[1]
        other = {name: row.get(f"{second}_{name}", math.nan) for name in ("effect", "control", "p_corrected")}
        if not _effect_fails(other, limit["effect"], alpha, one.sign):
            failing, words, decided = [], [*words, one.test.word], second
    task = about.get("tasks", {}).get(one.heading, {})
    if not task.get("is done", True):
        gap = task["clean − corrupt (95%)"][0]
        return "", f"cannot tell: the model does not do the task {one.task} (clean − corrupt {gap:.2g})", decided
    reason = "; ".join([*why, *failing])
    if attends and writes and not failing and not problem:
        return (f"{one.name} ({', '.join(words)})" if words else one.name), waived, decided
    if attends and one.score_cutoff is not None:
        return f"attends like {one.name}", reason, decided
    return ("" if failing else f"matters for {one.task}"), reason, decided


def _absent(about: Mapping[str, Any], one: TaskFinder) -> bool:
    """Whether the kind's writing cannot be measured in this model, which has no logits."""
    return bool(about.get("tasks", {}).get(one.heading, {}).get("no logits"))


def _attends(row: Row, limit: Mapping[str, float]) -> tuple[bool, list[str]]:
    """Whether the attention score passes, and what about it does not."""
    why = []
    if "score" in limit and not row["score"] >= limit["score"]:
        why.append(f"score {row['score']:.2f} < {limit['score']:g}")
    margin, base = limit.get("margin"), row.get("baseline", math.nan)
    if margin is not None and not row["score"] >= base + margin:
        why.append(f"score {row['score']:.2f} not {margin:g} above the baseline {base:.2f}")
    return not why, why


def _number(row: Row, name: str) -> float | None:
    """A value of a row, if it was measured."""
    value = row.get(name)
    return None if value is None or math.isnan(value) else value


def _surely(row: Row, writing: Any, limit: Mapping[str, float]) -> bool:
    """Whether the interval of what a head writes, where it has one, lies wholly on the right side of the cutoff."""
    end = _number(row, "writing_low" if writing.side == "≥" else "writing_high")
    return end is None or (end >= limit["writing"] if writing.side == "≥" else end < limit["writing"])


def _writing_fails(row: Row, writing: Any, limit: Mapping[str, float]) -> str:
    if _number(row, "writing") is None:
        return "writing not measured"
    value = row["writing"]
    if writing.passes(value, limit["writing"]):
        low, high = row["writing_low"], row["writing_high"]
        return f"writing {value:.2g} ({low:.2g} to {high:.2g}) not surely {writing.side} {limit['writing']:g}"
    if isinstance(writing, TaskWriting) and abs(value) <= NOTHING:
        return "writes nothing that is read"
    return f"writing {value:.2g} not {writing.side} {limit['writing']:g}"


def _effect_fails(row: Mapping[Any, Any], needed: float, alpha: float, sign: int) -> list[str]:
    """What about the head's effect does not pass."""
    effect, control, p = (row.get(name, math.nan) for name in ("effect", "control", "p_corrected"))
    if effect is None or math.isnan(effect):
        return ["not tested"]
    why = []
    if not sign * effect >= needed:
        why.append(f"effect {effect:.3f} not {'≥' if sign > 0 else '≤'} {sign * needed:g}")
    if math.isnan(control):
        why.append("no other head in its layer to compare with")
    elif not sign * effect > sign * control:
        why.append(f"no more than other heads of its layer ({control:.3f})")
    if not (p is not None and p <= alpha):
        why.append("p not reached" if p is None or math.isnan(p) else f"p {p:.2g} > {alpha:g}")
    return why
