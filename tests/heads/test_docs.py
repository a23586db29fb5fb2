"""The table of kinds in docs/heads.md is that of the registry."""

from __future__ import annotations

from pathlib import Path

from interp.heads.base import Finder, finders
from interp.heads.syntax import SyntaxFinder
from interp.heads.task_finder import TaskFinder

PAGE = Path(__file__).resolve().parents[2] / "docs" / "heads.md"
HEADER = "| kind | data | positions | attention | writes | decides | supports | least effect | models |"


def row(one: Finder | TaskFinder | SyntaxFinder) -> str:
    writing = "–"
    if one.writing is not None:
        writing = f"{one.writing.label} {one.writing.side} {one.writing.cutoff:g}"
    attention = ("–" if isinstance(one, TaskFinder) else "") if one.score_cutoff is None else f"≥ {one.score_cutoff:g}"
    effect = "–" if one.effect_cutoff is None else f"{one.effect_cutoff:g}"
    if isinstance(one, TaskFinder):
        attention += "" if one.margin is None else f", {one.margin:g} above baselines"
        data, positions = f"task `{one.task}`, {one.corruptions[0]}", ", ".join(one.positions)
        decides, supports = ", ".join(one.test.decisive), ", ".join(one.test.supporting) or "–"
        effect = ("−" if one.sign < 0 else "") + effect
    elif isinstance(one, SyntaxFinder):
        attention = f"{one.margin:g} above offset and other words"
        data, positions, decides, supports = one.data, "–", "attention", f"{one.cause} (reported)"
    else:
        data, positions, decides, supports = one.data, "–", f"mean ablation: `{one.cause}`", "–"
    models = ", ".join(sorted(one.applies_to))
    cells = (f"`{one.name}`", data, positions, attention, writing, decides, supports, effect, models)
    return f"| {' | '.join(cells)} |"


def table() -> str:
    return "\n".join([HEADER, "|" + "---|" * HEADER.count(" | ") + "---|", *(row(one) for one in finders().values())])


def definitions() -> str:
    return "\n".join(f"- `{one.name}`: {one.definition}." for one in finders().values())


def test_the_page_on_heads_says_of_each_kind_what_the_registry_says() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert table() in page, "docs/heads.md should hold:\n" + table()
    assert definitions() in page, "docs/heads.md should hold:\n" + definitions()
