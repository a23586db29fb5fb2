"""docs/families.md lists what the parity checks cover: no family more, none less."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from interp.families.base import families
from tests.families import make_table
from tests.families.make_table import CHECKS, PAGE, checked, page, rows_by_family
from tests.families.parity import TOLERANCE

ROOT = Path(__file__).resolve().parents[2]


def table() -> dict[str, list[str]]:
    """Family -> the cells of its line: model types, number of models, one for each check."""
    lines = PAGE.read_text(encoding="utf-8").split("| family |")[1].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line]
    return {family: rest for family, *rest in cells}


def test_the_page_lists_the_registered_families_that_are_checked() -> None:
    registered = {family.name for family in families()}
    assert list(table()) == [family for family in rows_by_family() if family in registered]


def test_the_page_counts_the_models_that_there_are_and_names_registered_types() -> None:
    types = {family.name: set(family.hf_model_types) for family in families()}
    for family, rows in rows_by_family().items():
        named, n_models, *_ = table()[family]
        assert int(n_models) == len(rows), f"{family}: run `make parity`"
        assert set(named.split(", ")) <= types[family]


def test_every_difference_on_the_page_is_one_that_the_tests_allow() -> None:
    for family, (_, _, *cells) in table().items():
        assert len(cells) == len(CHECKS)
        assert all(cell == "–" or float(cell) <= TOLERANCE for cell in cells), (family, cells)
        assert [check for check, cell in zip(CHECKS, cells, strict=True) if cell == "–"] in ([], ["incremental"])


def test_the_readme_names_every_family_and_links_the_page() -> None:
    paragraphs = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")
    listed = next(text for text in paragraphs if f"docs/{PAGE.name}" in text).split(":", 1)[1]
    named = re.findall(r"\w+", listed)
    assert set(table()) == set(named) - {"decoders", "encoders", "both"}


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_a_line_of_the_page_is_made_of_what_the_checks_find(family: str) -> None:
    kind, found = checked(rows_by_family()[family][0])
    without = {"incremental"} if family == "bert" else set()
    assert kind == family and set(found) == set(CHECKS) - without
    assert 0 < max(found.values()) <= TOLERANCE
    line = page({family: [(kind, found), (kind, {**found, "logits": 0.3})]}).splitlines()[-1]
    assert line.startswith(f"| {family} | {family} | 2 | 3e-1 | ") and ("–" in line) == bool(without)
    assert line.endswith("| 0 |")


@pytest.mark.parametrize("apart", [2 * TOLERANCE, float("nan")])
def test_a_family_too_far_away_fails_the_command_and_leaves_the_page(
    apart: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = dict.fromkeys(CHECKS, 0.0) | {"patterns": apart}
    monkeypatch.setattr(make_table, "PAGE", tmp_path / "families.md")
    monkeypatch.setattr(make_table, "rows_by_family", lambda: {"gpt2": [0, 1]})
    monkeypatch.setattr(make_table, "checked", lambda row: ("gpt2", found))
    assert make_table.main() == 1 and not any(tmp_path.iterdir())
    assert "above 1e-04: gpt2" in capsys.readouterr().err
    found["patterns"] = TOLERANCE / 2
    assert make_table.main() == 0 and "| gpt2 | gpt2 | 2 |" in make_table.PAGE.read_text(encoding="utf-8")
