"""What kinds, verdicts and columns are called on the pages, and which verdicts a filter lets through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.heads.base import finders
from interp.heads.task_finder import TaskFinder
from interp.results import HeadScores

__all__ = [
    "FILTERS",
    "column_names",
    "group_of",
    "grouped",
    "heading_of",
    "measure_name",
    "outcomes",
    "passing",
    "task_of",
]

PATTERNS = "pattern"
FILTERS = {
    "all": "all heads",
    "named": "named",
    "attends": "attends like",
    "matters": "matters for",
    "any": "any verdict",
    "failed": "failed candidates",
}
_SHARE = "share of clean − corrupt"
_COLUMNS = {  # name and unit
    "score": ("score", ""),
    "baseline": ("best rule without a head", ""),
    "writing": ("writing", ""),
    "effect": ("effect of the head alone", ""),
    "control": ("effect of other heads of its layer", ""),
    "score_select": ("score on the selecting prompts", ""),
    "score_no_bos": ("score without BOS", ""),
    "noise": ("corrupt output put into the clean run (noise)", _SHARE),
    "denoise": ("clean output put into the corrupt run (denoise)", _SHARE),
    "mean": ("mean ablation", _SHARE),
    "resample": ("resample ablation", _SHARE),
    "path": ("direct path into the name movers' queries", _SHARE),
    "backup_mean": ("harm beyond its own, name movers at their mean", _SHARE),
    "backup_zero": ("harm beyond its own, name movers at zero", _SHARE),
    "knockout": ("edge that the head is found by cut", _SHARE),
    "function_vector": ("mean output set on shuffled examples", "rise of p(answer)"),
    "carried": ("logit of the antecedent lost with that edge", "logit"),
    "attention": ("attention to what the kind looks at", "share of attention"),
    "attention_to_S": ("attention to S1 and S2", "share of attention"),
    "attention_to_IO": ("attention to IO", "share of attention"),
    "attention_to_IO_mean": ("attention to IO, name movers at their mean", "share of attention"),
    "attention_to_IO_zero": ("attention to IO, name movers at zero", "share of attention"),
    "attention_to_relation": ("attention to the relation", "share of attention"),
    "attention_to_subject": ("attention to the subject", "share of attention"),
    "attention_to_attractor": ("attention to the noun between", "share of attention"),
    "attention_to_context": ("attention to what the context says", "share of attention"),
    "attention_to_needle": ("attention to the whole needle", "share of attention"),
    "attention_mismatched": ("attention to an unrelated word in its place", "share of attention"),
    "attention_from_END": ("attention from where the word is still to come", "share of attention"),
    "without_first": ("score among all tokens but the first", "share of words"),
    "in_context": ("the same by what the head moves in context", "share of ordinals"),
    "other_words": ("how often other words look at the same one", "share of words"),
    "offset": ("best fixed offset", "words"),
    "n_words": ("words of the relation", ""),
    "score_with_special": ("score with special tokens counted", "share of words"),
    "writing_shuffled": ("writing, answers of other items", ""),
    "rise_mean": ("rise of the direct effect, name movers at their mean", _SHARE),
    "rise_zero": ("rise of the direct effect, name movers at zero", _SHARE),
    "antecedent_first": ("score where the antecedent stands first", "share of prompts"),
    "antecedent_second": ("score where the antecedent stands second", "share of prompts"),
    "p": ("p of the head alone", ""),
    "p_corrected": ("p corrected for heads and kinds", ""),
    "q": ("q (Benjamini-Hochberg)", ""),
}
_OF_KIND = {  # columns that say something else for one kind
    ("coreference", "knockout"): "edge from pronoun to antecedent cut",
    ("coreference", "attention"): "attention to the antecedent",
    ("retrieval", "knockout"): "edge from the end to the needle cut",
    ("retrieval", "attention"): "attention to the word that is written next",
    ("successor", "attention"): "attention to the last ordinal",
    ("semantic_relation", "attention"): "attention to the related word",
    ("function_vector", "attention"): "attention to the examples' answers",
    ("syntax", "control"): "the same with another word's edge",
}
_PARTS = {"_control": "other heads of the layer", "_p_corrected": "p corrected", "_p": "p"}
_NO_NUMBERS = ("layer", "head", "kind", "stack", "sublayer", "role", "verdict", "reason", "decided_by")


def task_of(kind: str, about: Mapping[str, Any]) -> str | None:
    """The task that a kind serves; None for one known by its pattern."""
    found = finders().get(kind)
    if found is not None:
        return found.task if isinstance(found, TaskFinder) else None
    data = str(about.get("data", {}).get(kind, ""))
    return data.removeprefix("task ") if data.startswith("task ") else None


def heading_of(kind: str, about: Mapping[str, Any]) -> str | None:
    """Under which a result tells what the model does for a kind: its task, perhaps by a corruption of its own."""
    found = finders().get(kind)
    return found.heading if isinstance(found, TaskFinder) else task_of(kind, about)


def group_of(kind: str, about: Mapping[str, Any]) -> str:
    """What kinds are grouped by: "pattern", or the task."""
    task = task_of(kind, about)
    return PATTERNS if task is None else f"task {task}"


def grouped(results: HeadScores) -> dict[str, str]:
    """The kinds of a run with the names that a list shows, patterns first and then task by task."""
    groups = {kind: group_of(kind, results.about) for kind in results.kinds}
    order = sorted(groups, key=lambda kind: (groups[kind] != PATTERNS, groups[kind]))
    return {kind: f"{groups[kind]} · {kind}" for kind in order}


def outcomes(rows: pd.DataFrame) -> NDArray[np.str_]:
    """Of each row "named", "attends", "matters", "other" (a verdict in other words), "failed" (a candidate that was
    tested and got none), or "untested"."""
    tested = rows["effect"].notna() if "effect" in rows else pd.Series(False, index=rows.index)
    found = []
    for kind, verdict, was_tested in zip(rows["kind"], rows["verdict"], tested, strict=True):
        words = verdict if isinstance(verdict, str) else ""
        if words == kind or words.startswith(f"{kind} ("):
            found.append("named")
        elif words.startswith("attends like"):
            found.append("attends")
        elif words.startswith("matters for"):
            found.append("matters")
        else:
            found.append("other" if words else "failed" if was_tested else "untested")
    return np.array(found, dtype="<U8")


def passing(found: NDArray[np.str_], chosen: str) -> NDArray[np.bool_]:
    """Which outcomes a filter lets through."""
    if chosen == "all":
        return np.ones(len(found), dtype=bool)
    if chosen == "any":
        return np.isin(found, ("named", "attends", "matters", "other"))
    return found == chosen


def column_names(results: HeadScores, kind: str) -> dict[str, str]:
    """The columns that hold a number for some head of a kind, with names and units. Intervals are shown with what they
    are of, and what a decisive measure repeats is left out."""
    rows = results.of(kind)
    numbers = [
        name
        for name in rows.columns
        if name not in _NO_NUMBERS
        and not name.endswith(("_low", "_high", "_effect"))
        and pd.api.types.is_numeric_dtype(rows[name])
        and rows[name].notna().to_numpy().any()
    ]
    known = [name for name in _COLUMNS if name in numbers]
    units = {"effect": results.unit(kind), "control": results.unit(kind)}
    writing = results.about.get("writing", {}).get(kind)
    named = {}
    for name in [*known, *(name for name in numbers if name not in known)]:
        words, unit = measure_name(name, kind), units.get(name) or _COLUMNS.get(name, ("", ""))[1]
        words = f"writing: {writing}" if name == "writing" and writing else words
        named[name] = f"{words} [{unit}]" if unit else words
    return named


def measure_name(name: str, kind: str = "") -> str:
    """A column's name in words, as a kind of head means it."""
    if (kind, name) in _OF_KIND:
        return _OF_KIND[kind, name]
    if name in _COLUMNS:
        return _COLUMNS[name][0]
    for end, words in _PARTS.items():
        if name.endswith(end) and (base := name.removesuffix(end)) in _COLUMNS:
            return f"{words}: {_COLUMNS[base][0]}"
    return name.replace("_", " ")
