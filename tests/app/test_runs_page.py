"""The Runs page: searching, opening, comparing, deleting, and what of a run leaves the server."""

from __future__ import annotations

import zipfile
from datetime import UTC, date, datetime

import pandas as pd
import pytest
from mounted import bar, run_code
from serving import HOSTILE, tiny_model, tiny_scores
from streamlit.testing.v1 import AppTest

import interp
from app.components.toolbar import as_page
from app.run_list import difference, matching, open_settings
from interp.errors import InputError
from interp.results import HeadScores
from interp.runs.manifest import RunInfo
from interp.runs.store import RunStore


def html(at: AppTest) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def address(at: AppTest) -> dict[str, str]:
    return {name: value if isinstance(value, str) else value[0] for name, value in at.query_params.items()}


def box(at: AppTest, label: str):
    return next(one for one in (*at.selectbox, *at.text_input) if one.label == label)


@pytest.fixture
def stored(runs, tmp_path) -> RunStore:
    return RunStore(tmp_path / "runs")


def changed(by: float) -> HeadScores:
    """The tiny scores, head 0.1 of the first kind moved by some score."""
    made = tiny_scores()
    frame = made.frame.copy()
    at = (frame["kind"] == "previous_token") & (frame["layer"] == 0) & (frame["head"] == 1)
    frame.loc[at, "score"] += by
    return HeadScores(frame, made.sets, made.about)


def test_the_newest_run_is_shown_with_its_provenance(opened, runs):
    at = opened("runs")
    assert not at.exception and address(at) == {"picked": runs[1]}
    rows = at.dataframe[0].value
    assert [one for one in rows["id"] if one in runs] == [runs[1], runs[0]] and len(rows) == 3
    assert "sha256" in html(at) and "schema" in html(at) and "previous_token" in html(at)
    assert [one.label for one in at.button if one.label.startswith("Open")] == ["Open in Atlas"]


def test_a_deep_link_restores_the_run_and_the_search(opened, runs):
    at = opened("runs", picked=runs[0], search="older")
    assert not at.exception and list(at.dataframe[0].value["id"]) == [runs[0]]
    assert address(at) == {"picked": runs[0], "search": "older"}
    assert f"runs.open('{runs[0]}')" in bar(at)["code"]


def test_the_code_of_the_page_opens_the_same_run(opened, runs):
    found = run_code(opened("runs", picked=runs[0]))["found"]
    pd.testing.assert_frame_equal(found.to_frame(), tiny_scores().to_frame())


def test_a_search_that_finds_nothing_says_what_to_do(opened):
    at = opened("runs", search="no such run")
    assert not at.exception and "No run matches. Use fewer words" in html(at)


def test_runs_are_found_by_model_task_kind_and_day():
    def run(name: str, kind: str, day: int) -> RunInfo:
        created = datetime(2026, 3, day, 23, 59, tzinfo=UTC)
        return RunInfo(f"run-{day}", "damaged", "no file", kind=kind, title=name, model="tiny", created=created)

    every = [run("one", "heads", 1), run("two", "effects", 2), run("one two", "effects", 3)]
    ids = lambda found: [one.id for one in found]  # noqa: E731
    assert ids(matching(every, "two TINY", kind=None)) == ["run-2", "run-3"]
    assert ids(matching(every, "effects one", kind=None)) == ["run-3"]
    assert ids(matching(every, "", kind="heads")) == ["run-1"]
    assert ids(matching(every, "", kind=None, since=date(2026, 3, 2), until=date(2026, 3, 2))) == ["run-2"]
    assert ids(matching([*every, RunInfo("x", "damaged")], "", kind=None, since=date(2026, 3, 3))) == ["run-3"]


def test_the_task_of_a_run_is_searched_too(opened, stored):
    run = stored.save(tiny_scores(), spec={"task": "agreement", "n": 8})
    assert list(opened("runs", search="agreement").dataframe[0].value["id"]) == [run.id]


def test_two_runs_of_heads_are_compared_head_by_head(opened, stored, runs):
    after = stored.save(changed(0.25), spec={})
    at = opened("runs", picked=runs[0], other=after.id)
    assert not at.exception and address(at) == {"picked": runs[0], "other": after.id}
    assert "24 rows in both" in html(at)
    names, found = run_code(at), difference(tiny_scores(), changed(0.25))
    moved = names["found"].loc[names["found"]["score change"].abs() > 1e-9]
    assert len(moved) == 1 and moved["score change"].iloc[0] == pytest.approx(0.25)
    first = found.tables["changes"].iloc[0]
    assert (first["kind"], first["layer"], first["head"]) == ("previous_token", 0, 1)


def test_two_atlases_are_compared_as_the_command_does(opened, stored):
    from interp.atlas.results import Atlas

    ids = []
    for scores in (tiny_scores(), changed(0.25)):
        about = {**scores.about, "seed": 0}
        made = Atlas(HeadScores(scores.frame, scores.sets, about), pd.DataFrame(), about)
        ids.append(stored.save(made, spec={"analysis": "atlas"}).id)
    at = opened("runs", picked=ids[0], other=ids[1])
    assert not at.exception and "Jaccard" in html(at) and "tiny (n 8, seed 0)" in html(at)
    found = run_code(at)["found"]
    assert list(found.kinds["kind"]) == ["previous_token", "induction"]


def test_runs_of_different_kinds_are_not_compared(opened, stored, runs):
    found = interp.lens(tiny_model(), "the cat sat", k=2)
    other = stored.save(found, spec={"text": "the cat sat"})
    at = opened("runs", picked=runs[0], other=other.id)
    assert not at.exception and "have no rows in common" in html(at)
    with pytest.raises(InputError, match="no rows in common"):
        difference(found, interp.lens(tiny_model(), "the cat sat", k=2).frame)


def test_a_run_is_deleted_only_by_its_whole_id(opened, stored, runs):
    at = opened("runs", picked=runs[0])
    for typed, left in (("", True), (runs[0][:-1], True), (runs[0], False)):
        at.text_input(key="typed id").set_value(typed)
        next(one for one in at.button if one.label == "Delete for good").click().run()
        assert not at.exception and (stored.path / runs[0]).exists() == left
    assert f"Run {runs[0]} was deleted" in html(at) and "picked" in address(at) and address(at)["picked"] != runs[0]


def test_the_archive_of_a_run_is_a_run_again(opened, stored, runs, tmp_path):
    at = opened("runs", picked=runs[0])
    assert "Export archive (zip)" in [one.proto.label for one in at.get("download_button")]
    with zipfile.ZipFile(stored.export(runs[0], tmp_path)) as archive:
        archive.extractall(tmp_path / "again")
    assert RunStore(tmp_path / "again").open(runs[0]).results().kinds == tiny_scores().kinds


@pytest.mark.parametrize("picked", ["../../etc/passwd", "x", HOSTILE[0]])
def test_an_id_that_is_none_leads_nowhere(opened, picked):
    at = opened("runs", picked=picked)
    assert not at.exception and HOSTILE[0] not in html(at)
    assert "There is no run" in html(at) or "is not a name" in html(at)


def test_a_damaged_run_says_why_and_can_be_deleted(opened, stored):
    (broken,) = [run.id for run in stored.list() if run.status != "ok"]
    at = opened("runs", picked=broken)
    assert not at.exception and "This run cannot be opened: manifest.json cannot be read" in html(at)
    assert "Delete for good" in [one.label for one in at.button]


def test_an_empty_store_says_how_to_fill_it(opened, tmp_path):
    import shutil

    shutil.rmtree(tmp_path / "runs")
    at = opened("runs")
    assert not at.exception and f"interp heads tiny --store {tmp_path / 'runs'}" in html(at)


def test_each_kind_is_opened_with_settings_that_its_page_reads(stored, runs, opened):
    model = tiny_model()
    lens = interp.lens(model, "the cat sat", k=2)
    run = stored.save(lens, spec={"text": ["the cat sat"], "bos": False, "pins": [], "model": "tiny"})
    page, settings = open_settings(run.info)
    at = opened(page, **{name: value for name, value in settings.items() if value})
    assert page == "lens" and not at.exception and address(at)["prompt"] == "the cat sat"
    foreign = stored.save(lens, spec={"text": {"not": "text"}, "bos": False})
    assert open_settings(foreign.info) is None
    page, settings = open_settings(stored.info(runs[0]))
    assert page == "atlas" and settings["run"] == runs[0]


def test_hostile_titles_and_arguments_stay_text_on_the_page_and_in_the_report(opened, stored):
    run = stored.save(tiny_scores(), spec={name: name for name in HOSTILE}, title=" ".join(HOSTILE))
    at = opened("runs", picked=run.id)
    assert not at.exception and HOSTILE[0] not in html(at) and "&lt;img/src=x" in html(at)
    assert not any(mark in one.value for one in at.markdown for mark in HOSTILE)
    assert HOSTILE[0] not in bar(at)["code"]
    made = HeadScores(tiny_scores().frame.assign(kind=HOSTILE[0]), pd.DataFrame(), {"model": HOSTILE[2]})
    for page in (as_page("x", made.to_html), as_page(HOSTILE[2], {HOSTILE[0]: pd.DataFrame({HOSTILE[2]: HOSTILE})})):
        text = page.decode()
        assert HOSTILE[0] not in text and HOSTILE[2] not in text
