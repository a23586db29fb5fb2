"""A report as a list of headings, paragraphs, lists and tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp.figures.document import Part, html_sections
from interp.figures.page import figure_html
from interp.figures.tables import text_cell
from interp.report.null import ABOUT, TITLE
from interp.results.heads import head_of, is_kind, with_interval

if TYPE_CHECKING:
    from interp.report.results import Report

__all__ = ["document", "sections_html", "summary"]

_BY_HEAD = (": effects by corruption", ": by template")  # how tables of heads end that are shown
_MOST = 12  # rows of candidates that failed


def document(report: Report, *, figures: bool = False) -> list[Part]:
    """The whole report, its title first; with `figures` also parts of the kind "figure", plotly's data."""
    about = report.about
    counts = ", ".join(f"{n} {verdict}" for verdict, n in report.counts().items())
    parts: list[Part] = [
        ("1", f"What the heads of {about.get('model', 'a model')} do: claims, measured"),
        ("text", str(about.get("caveat", ""))),
        (
            "text",
            f"{len(report.claims)} claims: {counts}. A claim holds if the whole 95% interval of what was measured lies "
            "on its side of the cutoff, and does not hold if all of it lies on the other; else, and where the model "
            "does not do the task or nothing was measured, there is no telling.",
        ),
        ("2", "All claims"),
        ("table", summary(report.claims)),
    ]
    for kind in report.kinds:
        parts += _of_kind(report, kind)
    parts += [*null_part(report), *_beside(report, figures)]
    return [*parts, ("2", "How it was measured"), ("list", _settings(report))]


def sections_html(parts: Sequence[Part]) -> list[str]:
    """Ready HTML of a document with figures."""
    made: list[str] = []
    for number, (kind, said) in enumerate(parts):
        made += [figure_html(_Drawn(said), f"figure{number}")] if kind == "figure" else html_sections([(kind, said)])
    return made


def _beside(report: Report, figures: bool) -> list[Part]:
    """What was measured of the same heads in another way."""
    parts: list[Part] = []
    for one in report.about.get("beside", []):
        parts += [("2", str(one["heading"])), ("list", [str(said) for said in one["words"]])]
        parts += [("figure", one["figure"])] if figures and one.get("figure") else []
        table = report.tables.get(one["heading"])
        parts += [("table", table)] if table is not None and len(table) else []
    return parts


class _Drawn:
    """A figure of which only the data is left."""

    def __init__(self, data: Any):
        self._data = data

    def to_json(self) -> str:
        return json.dumps(self._data)


def summary(claims: pd.DataFrame) -> pd.DataFrame:
    """One line per claim, for people."""
    rows = claims.to_dict("records")
    shown = {
        "claim": [row["id"] for row in rows],
        "measured (95%)": [_measured(row) for row in rows],
        "must be": [row["must_be"] for row in rows],
        "verdict": [row["verdict"] for row in rows],
    }
    return pd.DataFrame(shown)


def _of_kind(report: Report, kind: str) -> list[Part]:
    claims = report.claims.loc[report.claims["kind"] == kind].to_dict("records")
    parts: list[Part] = [("2", kind)]
    if why := report.about.get("left_out", {}).get(kind):
        parts.append(("text", f"Not measured: {why}"))
    elif about := report.found.describe(kind):
        parts.append(("text", f"{about}."))
    if claims:
        parts += [("3", "Claims"), ("list", [_told(row) for row in claims])]
    else:
        parts.append(("text", "No claim is made about this kind yet."))
    if kind not in report.found.kinds:
        return parts
    rows = report.found.of(kind)
    named = rows.loc[[is_kind(row) for row in rows.to_dict("records")]]
    failed = rows.loc[[bool(row["verdict"]) and not is_kind(row) for row in rows.to_dict("records")]]
    parts += [("3", "Heads found")]
    parts.append(("table", _heads(named)) if len(named) else ("text", "None."))
    if len(failed):
        parts += [("3", "Candidates that failed, and why"), ("table", _heads(failed.head(_MOST), reasons=True))]
        if len(failed) > _MOST:
            parts.append(("text", f"And {len(failed) - _MOST} more with a lower score."))
    elif not len(named):
        parts.append(("text", _best_of(rows)))
    shown = named if len(named) else rows.sort_values("score", ascending=False).head(1)
    return (
        parts + _together(report, kind, failed) + further(report, kind, [head_of(r) for r in shown.to_dict("records")])
    )


def further(report: Report, kind: str, heads: Sequence[str]) -> list[Part]:
    """What was measured of each head by corruption and by template: of some heads of a kind, the others counted."""
    parts: list[Part] = []
    for title, table in report.found.tables.items():
        if not title.endswith(_BY_HEAD) or "kind" not in table or "head" not in table:
            continue
        mine = table.loc[table["kind"] == kind]
        rows = mine.loc[mine["head"].astype(str).isin(heads)]
        if not len(rows):
            continue
        parts += [("3", _capital(title)), ("table", _compact(rows.drop(columns="kind")))]
        left = mine["head"].nunique() - rows["head"].nunique()
        if left:
            parts.append(("text", f"The same was measured of {left} more head{'s' * (left > 1)}, in the saved tables."))
    return parts


def _compact(rows: pd.DataFrame) -> pd.DataFrame:
    """Each value with its interval in one cell."""
    ends = {f"{name}_{end}" for name in rows.columns for end in ("low", "high") if f"{name}_low" in rows}
    table = {}
    for name in (name for name in rows.columns if name not in ends):
        if f"{name}_low" in rows:
            table[f"{name} (95%)"] = [with_interval(row, str(name)) for row in rows.to_dict("records")]
        else:
            table[str(name).replace("_", " ")] = [_cell(value) for value in rows[name]]
    return pd.DataFrame(table)


def _cell(value: Any) -> Any:
    return "–" if _nan(value) or value == "" else f"{value:g}" if isinstance(value, int) else value


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def null_part(report: Report) -> list[Part]:
    """How a randomly initialised model of the same shape scores, a row per kind."""
    table = report.tables.get(TITLE)
    if table is None or not len(table):
        return []
    lines = []
    for row in table.loc[table["why"] == ""].to_dict("records"):
        line: dict[str, Any] = {"kind": row["kind"]}
        for who, name in (("", "best head"), ("random_", "random model's best")):
            line[name] = f"{row[f'{who}head']}: {with_interval(row, f'{who}score')}"
        line["difference (95%)"] = with_interval(row, "difference")
        for name, label in (("passing", "score passes"), ("passing_and_writing", "and writing")):
            both = (_count(row[f"{who}{name}"]) for who in ("", "random_"))
            line[f"{label} (ours / random)"] = " / ".join(both)
        lines.append({**line, "heads": _count(row["n_heads"]), "items": _count(row["n_items"])})
    parts: list[Part] = [("2", TITLE), ("text", ABOUT)]
    parts += [("table", pd.DataFrame(lines))] if lines else []
    missing = table.loc[table["why"] != ""].to_dict("records")
    return [*parts, ("list", [f"{row['kind']}: not measured: {row['why']}." for row in missing])] if missing else parts


def _count(value: Any) -> str:
    return "–" if _nan(value) else f"{int(value)}"


def _best_of(rows: pd.DataFrame) -> str:
    """What kept the best one from being named, where no head has any verdict."""
    best = rows.sort_values("score", ascending=False).iloc[0].to_dict()
    return f"The highest score is {best['score']:.2f}, of {head_of(best)}: {best.get('reason') or 'no verdict'}."


def _together(report: Report, kind: str, failed: pd.DataFrame) -> list[Part]:
    """The best heads together, and what they and everything else leave open."""
    sets = report.found.sets
    mine = sets.loc[sets["kind"] == kind].to_dict("records") if len(sets) else []
    parts: list[Part] = []
    open_ = []
    for row in mine:
        random = (
            ""
            if _nan(row["random_mean"])
            else f"; random sets of the same layers {row['random_mean']:+.2f} (most harmful {row['random_max']:+.2f})"
        )
        unit = row.get("unit", "")
        said = (
            f"{row['heads']}: {row['effect']:+.2f} {unit} ({row['effect_low']:.2f} to {row['effect_high']:.2f})"
            f"{random}; p = {row['p']:.2g}."
        )
        parts += [("3", "Together"), ("text", said)]
        if str(unit).startswith("share") and row["effect"] > 0:
            rest = f"the other {1 - row['effect']:.0%} stays unexplained by this kind"
            against = "more than the whole, so something works against them that this kind does not explain"
            open_.append(
                f"These heads together carry {row['effect']:.0%} of what was measured: "
                f"{rest if row['effect'] <= 1 else against}."
            )
    matters = [head_of(row) for row in failed.to_dict("records") if str(row["verdict"]).startswith("matters")]
    if matters:
        open_.append(f"Heads that matter without attending like this kind: {', '.join(matters[:_MOST])}.")
    if open_:
        parts += [("3", "What stays unexplained"), ("list", open_)]
    return parts


def _told(row: Mapping[Any, Any]) -> str:
    """One claim in full."""
    said = f"{row['verdict'].upper()}: {row['claim']}"
    if not _nan(row["value"]):
        items = f", {int(row['n_items'])} items" if not _nan(row["n_items"]) else ""
        said += f" Measured {_measured(row)}{items}; must be {row['must_be']}."
    parts = [said]
    parts += [f"Why there is no telling: {row['why']}."] if row["why"] else []
    parts += [f"{row['note']}."] if row["note"] else []
    if not _nan(row["pilot"]):
        compared = f": {row['against_pilot']}" if row["against_pilot"] else ""
        parts.append(f"{row['pilot_source']}: {row['pilot']:.3g}{compared}.")
    parts += [row["explain"]] if row["explain"] else []
    return " ".join(part.replace("..", ".") for part in parts) + f" [{row['id']}]"


def _measured(row: Mapping[Any, Any]) -> str:
    if _nan(row["value"]):
        return "–"
    whole = row["unit"].startswith(("heads", "layer"))  # what is counted
    value, low, high = (f"{x:g}" if whole else _number(x) for x in (row["value"], row["low"], row["high"]))
    interval = "" if _nan(row["low"]) else f" ({low} to {high})"
    return f"{value}{interval} {row['unit']}".strip()


def _number(value: float) -> str:
    """Two decimals, or as many as show that a small number is not 0."""
    return f"{value:.1g}" if 0 < abs(value) < 0.005 else text_cell(float(value))


def _heads(rows: pd.DataFrame, *, reasons: bool = False) -> pd.DataFrame:
    table = []
    shuffled = "writing_shuffled" in rows and bool(rows["writing_shuffled"].notna().to_numpy().any())
    decided = "decided_by" in rows and any(isinstance(one, str) and one for one in rows["decided_by"])
    for row in rows.to_dict("records"):
        line = {"head": head_of(row), "score (95%)": _interval(row, "score"), "writing": text_cell(row["writing"])}
        if shuffled:
            line["answers shuffled"] = text_cell(row["writing_shuffled"])
        line |= {"effect (95%)": _interval(row, "effect"), "others": text_cell(row.get("control"))}
        line |= {"p": "–" if _nan(p := row.get("p_corrected")) else f"{p:.2g}", "verdict": row["verdict"]}
        if decided:
            line["decided by"] = _cell(row["decided_by"])
        table.append(line | ({"reason": row.get("reason", "")} if reasons else {}))
    return pd.DataFrame(table)


def _interval(row: Mapping[Any, Any], name: str) -> str:
    value = row.get(name)
    if _nan(value):
        return "–"
    assert value is not None
    return f"{value:.2f} ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})"


def _settings(report: Report) -> list[str]:
    """Everything that made the numbers, a line each."""
    lines = [f"{name}: {value}" for name, value in report.about.items() if name not in ("left_out", "caveat", "beside")]
    for task, about in report.found.about.get("tasks", {}).items():
        shown = {key: _rounded(one) for key, one in about.items() if key not in ("known",)}
        lines.append(f"task {task}: " + "; ".join(f"{key} {one}" for key, one in shown.items()))
    for kind, test in report.found.about.get("tests", {}).items():
        lines.append(f"cause of {kind}: decided by {' or '.join(test['decides'])}")
    return lines


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.3g}"
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def _nan(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
