"""How many heads are of a kind, and how sure that count is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from interp.heads.base import Finder, finder
from interp.heads.syntax import SyntaxFinder
from interp.heads.task_finder import TaskFinder
from interp.report.claim import Measured, Missing
from interp.report.evidence import Evidence
from interp.report.intervals import is_share, row_ends, said
from interp.results.heads import head_of, is_kind

__all__ = ["best_score", "heads_of", "joint_effect", "some_head"]

Row = Mapping[Any, Any]


def heads_of(evidence: Evidence, kind: str) -> list[str]:
    """The heads whose verdict names the kind, best score first."""
    return [head_of(row) for row in evidence.rows(kind).to_dict("records") if is_kind(row)]


def some_head(kind: str) -> Callable[[Evidence], Measured]:
    """How many heads the verdict names. The interval's lower end counts those whose own intervals of score and effect
    lie wholly above the cutoffs; its upper end all that their intervals do not exclude."""

    def measure(evidence: Evidence) -> Measured:
        one = finder(kind)
        rows = evidence.rows(kind).to_dict("records")
        evidence.must_do(one.heading if isinstance(one, TaskFinder) else one.cause)
        if problem := evidence.found.about.get("problems", {}).get(kind):
            raise Missing(problem)
        named = [row for row in rows if is_kind(row)]
        sure = [row for row in named if _clear(evidence, one, row)]
        open_ = [row for row in rows if is_kind(row) or not _excluded(evidence, one, row)]
        said = ", ".join(head_of(row) for row in named) or "none"
        untested = sum(_absent(row.get("effect")) for row in open_)
        more = "more attend so but" if "score" in _limits(evidence, kind) else "more"
        note = f"heads: {said}" + (
            f"; {untested} {more} were not tested (a search with screen=none tests every head)" if untested else ""
        )
        return Measured(len(named), len(sure), len(open_), "heads", evidence.items(kind), note)

    return measure


def best_score(kind: str) -> Callable[[Evidence], Measured]:
    """The score of the head that scored best on the prompts it was chosen by, on the others."""

    def measure(evidence: Evidence) -> Measured:
        rows = evidence.rows(kind)
        if rows["score_select"].dropna().empty:
            raise Missing(f"no head has a {kind} score")
        row = rows.loc[rows["score_select"].idxmax()].to_dict()
        return evidence.column(kind, head_of(row), "score")

    return measure


def joint_effect(kind: str, *, beyond_random: bool = False) -> Callable[[Evidence], Measured]:
    """Harm of ablating a kind's best heads together; beyond that of the most harmful random set of the same layers."""

    def measure(evidence: Evidence) -> Measured:
        one, row = finder(kind), evidence.joint(kind)
        evidence.must_do(one.heading if isinstance(one, TaskFinder) else one.cause)
        less, note = 0.0, f"heads {row['heads']}: {row['metric']} {row['clean']:.2f} → {row['ablated']:.2f}"
        if beyond_random:
            less = row["random_max"]
            if _absent(less):
                raise Missing("the layers of these heads have too few others for a random set")
            note += f"; random sets {row['random_mean']:+.2f}, at most {less:+.2f}"
        low, high = _joint_ends(evidence, row)
        at = (row["effect"] - less, low - less, high - less)
        return said(Measured(*at, row["unit"], evidence.items(kind, "tested"), note))

    return measure


def _limits(evidence: Evidence, kind: str) -> Mapping[str, float]:
    return evidence.found.about.get("cutoffs", {}).get(kind, {})


def _clear(evidence: Evidence, one: Finder | TaskFinder | SyntaxFinder, row: Row) -> bool:
    """Whether a named head would be named at the near end of every interval too."""
    limit = _limits(evidence, one.name)
    if "score" in limit and not evidence.ends(row, "score")[0] >= limit["score"]:
        return False
    if "effect" not in limit:
        return True
    if "(jointly)" in row["verdict"]:
        return _joint_ends(evidence, evidence.joint(one.name))[0] >= limit["effect"]
    return any(_near(ends, one) >= limit["effect"] for ends in _effects(evidence, one, row))


def _excluded(evidence: Evidence, one: Finder | TaskFinder | SyntaxFinder, row: Row) -> bool:
    """Whether a head falls short of a cutoff at the far end of an interval, or writes the wrong way."""
    limit = _limits(evidence, one.name)
    high = _or_value(evidence.ends(row, "score")[1], row["score"])
    if "score" in limit and not high >= limit["score"]:
        return True
    if "margin" in limit and not high >= row.get("baseline", -math.inf) + limit["margin"]:
        return True
    if one.writing is not None and not _absent(row["writing"]):
        ends = [row.get(f"writing_{end}", math.nan) for end in ("low", "high")]
        ends = [row["writing"] if _absent(end) else end for end in ends]
        if not any(one.writing.passes(end, limit["writing"]) for end in ends):
            return True
    if "effect" not in limit or _absent(row.get("effect")):
        return False  # none is asked for, or it was not tested
    return all(_far(ends, one) < limit["effect"] for ends in _effects(evidence, one, row))


def _effects(evidence: Evidence, one: Finder | TaskFinder | SyntaxFinder, row: Row) -> list[tuple[float, float]]:
    """The intervals of the measures that decide. An effect of 0 on every item keeps its own: what is exchanged reaches
    nothing there, which is no matter of sampling."""
    names = ["effect"]
    if isinstance(one, TaskFinder) and len(one.test.decisive) > 1:
        names.append(f"{one.test.decisive[1]}_effect")
    both = [(0.0, 0.0) if _nothing(row, name) else evidence.ends(row, name) for name in names]
    return [ends for ends in both if not _absent(ends[0])]


def _near(ends: tuple[float, float], one: Finder | TaskFinder | SyntaxFinder) -> float:
    return ends[0] if getattr(one, "sign", 1) > 0 else -ends[1]


def _far(ends: tuple[float, float], one: Finder | TaskFinder | SyntaxFinder) -> float:
    return ends[1] if getattr(one, "sign", 1) > 0 else -ends[0]


def _joint_ends(evidence: Evidence, row: Row) -> tuple[float, float]:
    return row_ends(row, "effect", evidence.items(row["kind"], "tested"), share=is_share(row["unit"]))


def _nothing(row: Row, name: str) -> bool:
    return all(row.get(f"{name}{end}") == 0 for end in ("", "_low", "_high"))


def _or_value(end: float, value: float) -> float:
    """An end of an interval, or the value where there is none."""
    return value if math.isnan(end) else end


def _absent(value: Any) -> bool:
    return value is None or math.isnan(value)
