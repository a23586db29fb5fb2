"""What a run says about a kind of head and its task, and what it says about one head."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from app.components.text import notice, plain
from app.wording import FILTERS, group_of, heading_of, measure_name, outcomes, passing, task_of
from interp.figures.tables import text_cell
from interp.heads.base import finders
from interp.results import HeadScores
from interp.results.heads import with_interval
from interp.sites import Head

__all__ = ["address", "further_tables", "measures", "of_kind", "overview", "place", "rows_of"]

_SHORT = 120  # characters of a list of templates
_SCORES = ("score", "score_select", "score_no_bos", "writing", "baseline")
_OWN = (*_SCORES, "effect", "control", "p", "p_corrected", "q")
Row = Mapping[Hashable, Any]


def of_kind(results: HeadScores, kind: str) -> None:
    """Draw a kind's definition, how its task is done, what rules without a head score, and what speaks against it."""
    about = results.about
    writing = about.get("writing", {}).get(kind)
    lines = [f"{kind}: {about.get('definitions', {}).get(kind, '')}" + (f"; writing: {writing}" if writing else "")]
    test = about.get("tests", {}).get(kind)
    if test:
        words = " or ".join(map(str, test.get("decides", [])))
        support = " or ".join(map(str, test.get("supports", [])))
        sign = " Without such a head the task is done better." if test.get("sign", 1) < 0 else ""
        lines.append(f"Decided by {words}{f', supported by {support}' if support else ''}.{sign}")
    if criteria := results.criteria(kind):
        lines.append(criteria)
    task = task_of(kind, about)
    known = about.get("tasks", {}).get(task)
    if isinstance(known, Mapping):
        lines += _task_lines(str(task), known)
    if rules := about.get("baselines", {}).get(kind):
        lines.append("Rules without a head: " + ", ".join(f"{name} {text_cell(x)}" for name, x in rules.items()))
    plain("\n".join(lines))
    if isinstance(known, Mapping) and not known.get("is done", True):
        notice(f"The model does not do the task {task}, so nothing can be said about heads that serve it.", "warning")
    if problem := about.get("problems", {}).get(kind):
        notice(f"{kind}: {problem}.", "warning")


def _task_lines(name: str, known: Mapping[str, Any]) -> list[str]:
    """How the model does a task, and on what that was measured; what an older run does not say is left out."""
    done = ("done" if known["is done"] else "not done") if "is done" in known else ""
    said = [f"Task {name}" + (f": {done}" if done else "")]
    gap = known.get("clean − corrupt (95%)")
    if isinstance(gap, list | tuple) and len(gap) == 3:
        value, low, high = map(text_cell, gap)
        said.append(f"clean − corrupt {value} ({low} to {high})")
    if "accuracy" in known:
        said.append(f"accuracy {known['accuracy']:.0%}")
    said += [f"{word} {known[word]}" for word in ("metric", "corruption") if word in known]
    sizes = []
    for word, key in (("items", "n_items"), ("prompts", "prompts"), ("templates", "templates")):
        parts = known.get(key)
        if isinstance(parts, Mapping):
            counts = {split: len(x) if isinstance(x, list | tuple) else x for split, x in parts.items()}
            sizes.append(f"{word}: " + ", ".join(f"{count} {split}" for split, count in counts.items()))
    lines = [" · ".join(said)] + ([" · ".join(sizes)] if sizes else [])
    templates = known.get("templates")
    if isinstance(templates, Mapping) and templates.get("report"):
        words = " | ".join(map(str, templates["report"]))
        lines.append(f"Reported on: {words if len(words) <= _SHORT else words[:_SHORT] + '…'}")
    return lines


def further_tables(results: HeadScores, kind: str) -> list[tuple[str, pd.DataFrame]]:
    """What else was measured for a kind; tables that name no kind of the run are shown with each."""
    return [
        (name, rows)
        for name, rows in results.tables.items()
        if (owner := name.split(":")[0]) == kind or owner not in results.kinds
    ]


def overview(results: HeadScores) -> pd.DataFrame:
    """One row per kind: its group, whether its task is done, the heads it names, and how many others got what."""
    lines = []
    for kind in results.kinds:
        rows = results.of(kind)
        found = outcomes(rows)
        task = results.about.get("tasks", {}).get(heading_of(kind, results.about), {})
        named = ", ".join(address(row) for row in rows.loc[found == "named"].to_dict("records"))
        line = {"kind": kind, "group": group_of(kind, results.about)}
        line["task done"] = ("yes" if task["is done"] else "no") if "is done" in task else "–"
        line["named heads"] = named or "–"
        line |= {FILTERS[name]: str(passing(found, name).sum()) for name in ("attends", "matters", "failed")}
        lines.append(line)
    return pd.DataFrame(lines)


def rows_of(results: HeadScores, head: str) -> list[Row]:
    """The rows of one head, one a kind, in the run's order of kinds."""
    frame = results.to_frame()
    one = Head.parse(head)
    wanted = (frame["layer"] == one.layer) & (frame["head"] == one.head)
    return [row for row in frame.loc[wanted].to_dict("records") if address(row) == head]


def measures(results: HeadScores, row: Row) -> pd.DataFrame:
    """Every number that was measured for one head of one kind, with interval, controls and p where it has them."""
    kind = str(row["kind"])
    tests = results.about.get("tests", {}).get(kind, {})
    decisive = [str(name) for name in tests.get("decides", [])]
    supporting = [str(name) for name in tests.get("supports", [])]
    lines = []
    for name in _SCORES:
        if _measured(row, name):
            label = results.about.get("writing", {}).get(kind) if name == "writing" else None
            words = measure_name(name, kind) + (f": {label}" if label else "")
            lines.append({"measured": words, "value (95%)": with_interval(row, name)})
    if not decisive and _measured(row, "effect"):
        unit = f" [{results.unit(kind)}]" if results.unit(kind) else ""
        lines.append({"measured": measure_name("effect") + unit} | _against(row, "effect", ""))
    for place, name in enumerate(decisive):
        if _measured(row, name):
            prefix = "" if place == 0 else f"{name}_"
            words = f"{measure_name(name, kind)}; decides"
            lines.append({"measured": words} | _against(row, f"{prefix}effect", prefix))
    written = getattr(getattr(finders().get(kind), "writing", None), "tested", "")  # the same number by another name
    rest = [str(name) for name in row if _is_measure(str(name)) and str(name) not in (*_OWN, *decisive, written)]
    for name in rest:
        if _measured(row, name):
            words = measure_name(name, kind) + ("; supports" if name in supporting else "")
            lines.append({"measured": words, "value (95%)": with_interval(row, name)})
    columns = ["measured", "value (95%)", "others of the layer", "p"]
    table = pd.DataFrame(lines, columns=columns, dtype=object)
    return table.drop(columns=[name for name in columns[2:] if table[name].isna().to_numpy().all()])


def _against(row: Row, effect: str, prefix: str) -> dict[str, str]:
    p = row.get(f"{prefix}p_corrected")
    return {
        "value (95%)": with_interval(row, effect),
        "others of the layer": text_cell(row.get(f"{prefix}control")),
        "p": "–" if p is None or pd.isna(p) else f"{p:.2g}",
    }


def _is_measure(name: str) -> bool:
    words = ("kind", "stack", "sublayer", "layer", "head", "role", "verdict", "reason", "decided_by")
    return name not in words and not name.endswith(("_low", "_high", "_effect", "_control", "_p", "_p_corrected"))


def _measured(row: Row, name: str) -> bool:
    value = row.get(name)
    return isinstance(value, int | float) and not pd.isna(value)


def address(row: Row) -> str:
    """The address of a row's head."""
    return str(Head(int(row["layer"]), int(row["head"]), str(row["sublayer"]), str(row["stack"])))


def place(head: str) -> tuple[int, int]:
    """Layer and head of an address."""
    one = Head.parse(head)
    return one.layer, one.head
