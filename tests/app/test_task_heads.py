"""Kinds of tasks on the Atlas and the Head page: filters, facts, reasons, further tables, examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from mounted import drawn
from serving import HOSTILE, task_scores, tiny_scores, tiny_task
from streamlit.testing.v1 import AppTest

import interp
from app import examples, facts, wording
from app.components.layer_chart import layer_lines
from app.jobs import Jobs
from app.store import run_store
from interp import planted, tasks
from interp.atlas.results import Atlas
from interp.atlas.together import COLUMNS
from interp.heads.base import finders
from interp.heads.task_finder import TaskFinder
from interp.report.results import Report
from interp.results import HeadScores
from interp.tasks.base import definition


def html(at: AppTest) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def components(at: AppTest) -> list[dict]:
    """The data of what a page draws, but for the grid of a layer."""
    return [one for one in drawn(at) if "cells" not in one]


def address(at: AppTest) -> dict[str, str]:
    return {name: value if isinstance(value, str) else value[0] for name, value in at.query_params.items()}


def texts(at: AppTest) -> str:
    """Everything that the page would show as text outside of components."""
    tables = [frame.value.to_string() for frame in at.dataframe]
    return "\n".join([html(at), *tables])


@pytest.fixture
def task_run(runs) -> str:
    """The id of the newest run of a fresh store, which holds kinds of tasks."""
    return run_store().save(task_scores(), spec={}, title="tasks").id


@pytest.fixture
def few_prompts(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Tasks are three prompts of the tiny model; what was asked for is returned."""
    asked: list[dict] = []

    def load(name, model, corruption, **options):
        asked.append({"name": name, "corruption": corruption, **options})
        return tiny_task(name, model, corruption, **options)

    monkeypatch.setattr(tasks, "load", load)
    return asked


def test_the_filter_counts_marks_and_dims(task_run, opened):
    at = opened("atlas", kind="name_mover")
    (choice,) = at.segmented_control
    assert choice.options == [
        "all heads · 12", "named · 1", "attends like · 1", "matters for · 1", "any verdict · 3", "failed candidates · 2"
    ]  # fmt: skip
    assert not any(components(at)[0]["dim"]) and len(at.dataframe[0].value) == 10
    choice.set_value("failed").run()
    assert address(at)["verdict"] == "failed"
    data = components(at)[0]
    assert [i for i, dim in enumerate(data["dim"]) if not dim] == [2, 7] and data["cursor"] == {"layer": 1, "head": 3}
    rows = at.dataframe[0].value
    assert list(rows["head"]) == ["1.3", "0.2"] and "score 0.08 < 0.3" in rows["why no better"].iloc[0]
    assert list(rows.columns)[:2] == ["head", "why no better"]


@pytest.mark.parametrize(
    ("verdict", "heads"), [("named", ["2.1"]), ("any", ["2.1", "2.0", "1.0"]), ("matters", ["1.0"])]
)
def test_an_address_opens_the_filter(task_run, opened, verdict, heads):
    at = opened("atlas", kind="name_mover", verdict=verdict)
    assert not at.exception and list(at.dataframe[0].value["head"]) == heads
    assert address(at) == {"run": task_run, "kind": "name_mover", "verdict": verdict}


def test_an_unknown_filter_is_said(task_run, opened):
    at = opened("atlas", verdict="<b>best")
    assert not at.exception and "&lt;b&gt;best" in html(at) and len(at.dataframe[0].value) == 10
    at = opened("atlas", verdict="best")
    assert "There is no verdict filter best" in html(at)


def test_a_filter_that_leaves_no_head_says_so(task_run, opened):
    at = opened("atlas", kind="fact_recall", verdict="named")
    assert (
        not at.exception and "No head of this kind is left by the filter" in html(at) and all(components(at)[0]["dim"])
    )


def test_the_facts_of_the_task_stand_above_the_map(task_run, opened):
    said = html(opened("atlas", kind="name_mover"))
    for words in ("Task ioi: done", "accuracy 96%", "3.00 (2.50 to 3.50)", "metric logit_diff", "corruption swap"):
        assert words in said
    assert "20 select, 20 report" in said and "nearest 0.25" in said and "Decided by noise or denoise" in said
    said = html(opened("atlas", kind="fact_recall"))
    assert "does not do the task fact_recall" in said and "always on one side" in said


def test_kinds_are_grouped_and_every_measured_column_has_a_name(task_run, opened):
    at = opened("atlas", kind="name_mover")
    assert at.selectbox[1].options[:2] == [f"pattern · {HOSTILE[0]}", "task fact_recall · fact_recall"]
    options = at.selectbox[2].options
    assert "writing: direct logit" in options and "resample ablation [share of clean − corrupt]" in options
    assert "other heads of the layer: clean output put into the corrupt run (denoise)" in options
    at.selectbox[2].set_value("resample").run()
    values = components(at)[0]["values"]
    assert values[2 * 4 + 1] == 0.1 and values[0] is None
    assert (
        at.dataframe[0].value["resample ablation [share of clean − corrupt]"].notna().sum() == 5
    )  # the measured ones come first


def test_further_tables_are_drawn_with_their_numbers_beside_them(task_run, opened):
    at = opened("atlas", kind="name_mover")
    assert len(at.get("plotly_chart")) == 1 and "0.70 (0.00 to 0.90)" in html(at)
    at = opened("atlas", kind="fact_recall")
    assert not at.get("plotly_chart") and "fact_recall: &lt;img" in html(at)


def test_hostile_names_reasons_and_positions_are_text(task_run, opened, few_prompts):
    for page in (
        opened("atlas", kind="name_mover", verdict="failed"),
        opened("atlas", kind="fact_recall"),
        opened("head", head="1.3", kind="name_mover"),
    ):
        assert not page.exception and not any(mark in html(page) for mark in (HOSTILE[0], HOSTILE[2]))
        marked = " ".join(element.value for element in page.markdown)
        assert not any(mark in marked for mark in HOSTILE[:3])


def test_hostile_columns_are_literal_in_the_chart():
    rows = pd.DataFrame({"layer": [0, 1], "<b>noise</b>": [0.1, 0.2]})
    assert layer_lines(rows).data[0].name == "&lt;b&gt;noise&lt;/b&gt;"


def test_everything_measured_about_a_head_is_listed(task_run, opened, few_prompts):
    at = opened("head", head="2.1")
    said = html(at)
    assert not at.exception and "3 kinds" not in said
    for words in ("0.40 (0.35 to 0.45)", "0.30 (0.25 to 0.35)", "mean ablation; supports", "attention to S1 and S2"):
        assert words in said
    for words in ("0.004", "0.008", "best rule without a head", "writing: direct logit"):
        assert words in said
    assert "cannot tell: not done" in said  # fact_recall of the same head
    assert "older" in said  # the other runs of the model, named


def test_the_way_back_opens_the_map_of_that_kind(task_run, opened, few_prompts, monkeypatch):
    went: list[str] = []
    monkeypatch.setattr("app.head_facts.open_page", went.append)
    at = opened("head", head="2.1", kind="fact_recall", verdict="failed")
    next(button for button in at.button if button.key == "to the atlas").click().run()
    assert went == ["atlas"]
    state = at.session_state
    assert state["setting:kind"] == "fact_recall" and state["setting:verdict"] == "all"


def test_its_own_examples_are_read_from_the_end_strongest_first(task_run, opened, few_prompts):
    at = opened("head", head="2.1")
    assert not at.exception
    assert few_prompts == [{"name": "ioi", "corruption": "abc", "split": "report", "n": examples.N_ITEMS, "seed": 0}]
    drawn = components(at)[1:]
    assert [one["start"] for one in drawn] == [5, 5, 5] and drawn[0]["marks"] == {
        "1": "IO",
        "2": "S1",
        "4": "S2",
        "5": "END",
    }
    model = interp.load("tiny")
    shares = {}
    for text in ("the cat sat on the mat", f"a cat {HOSTILE[0]} on the mat", "the mat sat on a cat"):
        _, cache = model.run_with_cache(text, ["pattern.2"], prepend_bos=False)
        shares[text] = float(cache["pattern", 2][0, 1, 5, 1].detach())
    order = sorted(shares, key=lambda text: -shares[text])
    assert [one["tokens"] for one in drawn] == [text.split() for text in order]
    assert f"{shares[order[0]]:.2f}" in html(at) and "END→IO" in html(at)
    at.run()
    assert len(few_prompts) == 1  # drawn once


def test_prompts_that_take_long_become_a_job_that_can_be_cancelled_and_started_again(
    task_run, opened, monkeypatch, few_prompts
):
    from app import head_facts

    patient = tasks.load
    waiting = {"on": True}

    def slow(*arguments, **options):
        import time

        import torch

        while waiting["on"]:
            time.sleep(0.01)
            torch.ones(1) + 1  # where a cancel is noticed
        return patient(*arguments, **options)

    monkeypatch.setattr(tasks, "load", slow)
    monkeypatch.setattr(head_facts, "PATIENCE", 0.1)
    at = opened("head", head="2.1")
    assert not at.exception and "draw prompts of the task ioi for tiny" in html(at) and len(components(at)) == 1
    next(button for button in at.button if button.label == "Cancel").click().run()
    for _ in range(50):
        at.run()
        if "cancelled." in html(at):
            break
    again = next(button for button in at.button if button.label == "Try again")
    waiting["on"] = False
    monkeypatch.setattr(head_facts, "PATIENCE", 5.0)
    again.click().run()
    assert not at.exception and len(components(at)) == 4


def test_a_task_that_a_model_cannot_be_asked_is_one_sentence(task_run, opened, monkeypatch):
    def refuse(*arguments, **options):
        raise interp.InterpError("ioi is made of words, and this model has no tokenizer.")

    monkeypatch.setattr(tasks, "load", refuse)
    at = opened("head", head="2.1")
    assert not at.exception and "this model has no tokenizer" in html(at)


def test_runs_without_reasons_roles_or_tests_still_open(runs, opened):
    about = {name: value for name, value in tiny_scores().about.items() if name == "model"}
    frame = tiny_scores().frame.drop(columns=["p_corrected", "control"])
    old = run_store().save(replace(tiny_scores(), frame=frame, about=about), spec={}).id
    for page in (opened("atlas", run=old, verdict="failed"), opened("head", run=old, head="1.2")):
        assert not page.exception
    assert "Its own examples" not in " ".join(element.value for element in page.markdown)
    assert "1.50 (1.25 to 1.75)" in html(page)


@pytest.fixture(scope="module")
def planted_scores() -> HeadScores:
    """What find_heads really returns for a planted circuit."""
    known = planted.make("coreference")
    return interp.find_heads(known.model, ["coreference"], pairs=known.pairs)


def test_real_results_of_a_planted_circuit_are_shown(runs, opened: Callable[..., AppTest], few_prompts, planted_scores):
    run = run_store().save(replace(planted_scores, about={**planted_scores.about, "model": "tiny"}), spec={}).id
    named = planted_scores.frame.loc[planted_scores.frame["verdict"] == "coreference"]
    at = opened("atlas", run=run, verdict="named")
    assert not at.exception and list(at.dataframe[0].value["head"]) == facts_of(named)
    assert "nearest 0.50" in html(at)
    at = opened("head", run=run, head=facts_of(named)[0])
    assert not at.exception and "edge from pronoun to antecedent cut; supports" in html(at)
    assert components(at)[1]["start"] == 4 and "pronoun→antecedent" in html(at)


def facts_of(rows: pd.DataFrame) -> list[str]:
    return [facts.address(row) for row in rows.to_dict("records")]


@pytest.mark.parametrize("kind", [name for name, one in finders().items() if isinstance(one, TaskFinder)])
def test_every_kind_of_a_task_reads_places_that_its_task_names(kind):
    one = finders()[kind]
    named = {*definition(one.task).positions, "END"}
    assert {examples.read_from(one), examples.reads(one)} <= named
    assert examples.reads(one) != examples.read_from(one) and wording.task_of(kind, {}) == one.task


@pytest.mark.parametrize("holder", ["atlas", "report"])
def test_an_atlas_and_a_report_are_opened_as_the_scores_they_hold(runs, opened, holder):
    scores = task_scores()
    empty = pd.DataFrame(columns=list(COLUMNS if holder == "atlas" else Report.COLUMNS))
    held = Atlas(scores, empty, scores.about) if holder == "atlas" else Report(empty, scores, scores.about)
    run = run_store().save(held, spec={}, title=f"the {holder}")
    at = opened("atlas")
    assert not at.exception and at.selectbox[0].value == run.id
    alone = run_store().save(scores, spec={}, title="bare").id
    assert texts(opened("atlas", run=run.id)) == texts(opened("atlas", run=alone))


def test_each_outcome_has_its_word():
    rows = pd.DataFrame(
        {
            "kind": ["a"] * 8,
            "verdict": ["a", "a (jointly)", "abc", "attends like a", "matters for b", "", "", None],
            "effect": [0.1, 0.1, 0.1, np.nan, 0.1, 0.1, np.nan, 0.1],
        }
    )
    found = wording.outcomes(rows)
    assert list(found) == ["named", "named", "other", "attends", "matters", "failed", "untested", "failed"]
    assert wording.passing(found, "any").sum() == 5 and wording.passing(found, "all").all()


def test_a_running_job_is_never_forgotten():
    import threading

    jobs, go = Jobs(), threading.Event()
    long = jobs.start("long", lambda job: go.wait(20))
    for i in range(30):
        short = jobs.start(f"short {i}", lambda job: None)
        while short.state == "running":
            pass
    assert jobs.running("long") is long
    go.set()
