"""The Patching page: what it shows of a pair, what it refuses, what its job stores, what its address brings back."""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import streamlit as st
import torch
from mounted import bar, drawn, run_code
from serving import HOSTILE, tiny_model

import interp
from app import patching
from app.jobs import Job, Jobs, shared_jobs
from app.patching import Asked, arguments, axes_of
from app.store import run_store
from interp.causal.plan import Plan
from interp.errors import StorageError, UnknownModelError

PAIR = {"clean": "the cat sat on", "corrupt": "the mat sat on", "answer": "a", "foil": "cat"}


def asked(**changes: str) -> Asked:
    settings = {"site": "resid_pre", "over": "layer,pos", "direction": "denoise", "metric": "logit_diff"}
    return Asked(**{"model": "tiny", **PAIR, **settings, **changes})


def html(at) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def tokens(at) -> dict:
    (found,) = drawn(at)
    return found


def figure(at) -> dict:
    (chart,) = at.get("plotly_chart")
    return json.loads(chart.proto.spec)


def address(at) -> dict[str, str]:
    return {name: value if isinstance(value, str) else value[0] for name, value in at.query_params.items()}


def box(at, label: str):
    return next(one for one in (*at.selectbox, *at.text_input) if one.label == label)


def stored(**changes: str) -> str:
    return patching.patch(asked(**changes), Job("one", 1))


# ---- the editor ----


def test_the_tokens_of_a_pair_stand_over_each_other_and_the_cost_is_said(opened):
    at = opened("patching", **PAIR)
    assert not at.exception
    assert tokens(at)["pairs"] == [["the", "the"], ["cat", "mat"], ["sat", "sat"], ["on", "on"]]
    assert tokens(at)["differ"] == [False, True, False, False]
    assert "cells to compute" in html(at) and [one.label for one in at.button] == ["Patch"]
    assert address(at) == PAIR and "No patching run is stored yet" in html(at)


def test_the_indirect_object_pair_is_there_at_first(opened):
    at = opened("patching")  # all its words are unknown to the tiny model: said, not raised
    assert box(at, "Clean prompt").value == "When Mary and John went to the store, John gave a drink to"
    assert "John gave" in box(at, "Clean prompt").value and "Mary gave" in box(at, "Corrupt prompt").value
    assert not at.exception and 'role="alert"' in html(at) and not at.button and address(at) == {}


def test_prompts_that_do_not_align_are_shown_token_by_token(opened):
    at = opened("patching", **{**PAIR, "corrupt": "the mat on"})
    text = html(at)
    assert not at.exception and not drawn(at) and not at.button
    assert "The clean prompt has 4 tokens and the corrupt one 3" in text
    assert "<pre" in text and "first difference" in text and "Pair 0" not in text


def test_hostile_tokens_reach_the_page_as_text_only(opened):
    at = opened("patching", **{**PAIR, "clean": f"the {HOSTILE[0]}", "corrupt": f"the {HOSTILE[1]}"})
    assert tokens(at)["pairs"][1] == list(HOSTILE[:2])
    at = opened("patching", **{**PAIR, "clean": f"{HOSTILE[0]} on", "corrupt": HOSTILE[1]})
    assert HOSTILE[0] not in html(at) and "&lt;img/src=x" in html(at)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": ""}, "answer"),
        ({"clean": ""}, "empty"),
        ({"foil": ""}, "foil"),
        ({"clean": "cat " * 900, "corrupt": "mat " * 900}, None),  # 900 tokens fit into this model
    ],
)
def test_what_cannot_be_asked_is_a_notice_below_the_editor(opened, change, message):
    at = opened("patching", **{**PAIR, **change})
    assert not at.exception
    assert (message in html(at) and not at.button) if message else at.button


def test_a_metric_that_needs_no_foil_goes_without(opened):
    assert opened("patching", **{**PAIR, "foil": ""}, metric="prob").button


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"site": "resid"}, "There is no site resid on this page; there are resid_pre"),
        ({"metric": "nonsense"}, "There is no metric nonsense"),
        ({"direction": "up"}, "There is no direction up"),
        ({"over": "layer,neuron"}, "This page has no map over layer,neuron"),
        ({"over": "../x"}, "names no axes"),
        ({"share": "2"}, "neither 0 nor 1"),
        ({"clean": "x" * 4_001}, "4,001 characters"),
        ({"effects": "../../etc/passwd"}, "There is no readable run ../../etc/passwd"),
        ({"model": "/etc/passwd"}, "is not a model of this page"),
    ],
)
def test_what_an_address_gets_wrong_is_said_and_the_page_is_shown(opened, query, message):
    at = opened("patching", **{**PAIR, **query})
    assert not at.exception and message in html(at)
    assert at.button or "clean" in query


def test_axes_follow_the_site(opened):
    assert list(axes_of("resid_mid")) == ["layer,pos"]
    assert list(axes_of("z")) == ["layer,head", "layer,pos"] and next(iter(axes_of("v"))) == "layer,kv_head"
    at = opened("patching", **PAIR, site="z")
    assert box(at, "Axes").value == "layer,head"
    box(at, "Site").set_value("k").run()
    assert box(at, "Axes").value == "layer,kv_head" and address(at)["site"] == "k"
    box(at, "Axes").set_value("layer,pos").run()
    box(at, "Site").set_value("pattern").run()
    assert not at.exception and box(at, "Axes").value == "layer,pos" and at.button


@pytest.mark.parametrize("site", patching.CHOICES["site"])
def test_each_site_can_be_patched_over_each_of_its_axes(runs, site):
    model = tiny_model()
    for over in axes_of(site):
        assert asked(site=site, over=over).plan(model).cost.cells > 0


# ---- stored runs ----


def test_a_stored_run_is_mapped_with_both_runs_and_the_largest_cells(opened):
    run = stored()
    at = opened("patching", effects=run)
    assert not at.exception and box(at, "Run").value == run
    exact = run_store().open(run).results()
    sent = figure(at)["data"][0]["z"]
    shown = np.frombuffer(base64.b64decode(sent["bdata"]), sent["dtype"]).reshape(3, 4)
    np.testing.assert_allclose(shown, exact.mean().values, atol=1e-6)
    text = html(at)
    assert f"{exact.base.mean():.3f}" in text and f"{exact.source.mean():.3f}" in text
    assert "corrupt run, edited (base)" in text and "clean run, copied from (source)" in text
    assert "of source − base" in text and "How it was measured" in [one.label for one in at.expander]


def test_the_code_of_a_stored_pair_computes_its_effects_anew(opened):
    run = stored(site="z", over="layer,head", direction="noise", metric="log_prob", foil="")
    at = opened("patching", effects=run)
    assert "interp.patch(" in bar(at)["code"] and "None)" in bar(at)["code"]
    again = run_code(at)["found"].to_frame()
    np.testing.assert_allclose(again["effect"], run_store().open(run).results().to_frame()["effect"], atol=1e-6)


def test_without_a_run_the_code_is_of_what_is_asked(opened):
    at = opened("patching", **PAIR)
    found = run_code(at)["found"]
    assert found.values.shape == (1, 3, 4) and "Tables and page" not in str(at.get("popover"))
    asked_for = run_store().open(stored()).results()
    np.testing.assert_allclose(found.values.values, asked_for.values.values, atol=1e-6)
    assert np.abs(found.values.values).max() > 0.01


def test_the_code_of_a_run_with_other_settings_opens_it(opened):
    exact = run_store().open(stored()).results()
    other = run_store().save(exact, spec={**asked().spec, "window": 3}, title="wider")
    at = opened("patching", effects=other.id)
    assert "interp.patch(" not in bar(at)["code"]
    np.testing.assert_array_equal(run_code(at)["found"].values.values, exact.values.values)


def test_its_address_alone_brings_back_the_pair_and_the_settings(opened):
    run = stored(site="z", over="layer,head", direction="noise", metric="log_prob")
    at = opened("patching", effects=run)
    assert [box(at, label).value for label in ("Clean prompt", "Corrupt prompt", "Answer", "Foil")] == list(
        PAIR.values()
    )
    assert [box(at, label).value for label in ("Site", "Axes", "Direction", "Metric")] == [
        "z",
        "layer,head",
        "noise",
        "log_prob",
    ]
    assert address(at) == {"effects": run} and "asks something else" not in html(at)
    box(at, "Answer").set_value("mat").run()
    assert address(at) == {"effects": run, "answer": "mat"} and "asks something else" in html(at)


def test_choosing_another_run_loads_what_it_was_asked(opened):
    first, second = stored(), stored(site="v", over="layer,kv_head")
    at = opened("patching", metric="prob")
    assert address(at) == {"effects": second, "metric": "prob"}  # the newest
    box(at, "Run").set_value(first).run()
    assert box(at, "Site").value == "resid_pre" and box(at, "Metric").value == "logit_diff"
    assert address(at) == {"effects": first}


def test_shares_are_of_source_minus_base_and_remembered(opened):
    at = opened("patching", effects=stored())
    at.toggle[0].set_value(True).run()
    assert address(at)["share"] == "1" and not at.exception
    assert "share of source" in json.dumps(figure(at)["data"][0]["colorbar"], ensure_ascii=False)


def test_where_both_runs_agree_there_is_no_share_to_show(opened):
    run = stored(corrupt=PAIR["clean"])
    at = opened("patching", effects=run, share="1")
    assert not at.exception and not at.toggle and "nothing to divide by" in html(at) and figure(at)


def test_tokens_on_the_axis_of_the_map_are_escaped(opened):
    at = opened("patching", effects=stored(clean=f"the {HOSTILE[0]}", corrupt=f"the {HOSTILE[1]}", direction="noise"))
    labels = figure(at)["data"][0]["x"]
    assert len(labels) == 2 and "&lt;img/src=x" in labels[1] and "<" not in "".join(labels)


def test_effects_without_a_map_or_a_source_are_still_listed(opened, runs):
    effects = stored()
    found = run_store().open(effects).results()
    bare = replace(found, values=found.values.isel(layer=0, pos=0, drop=True), source=None, about={"method": "other"})
    run = run_store().save(bare, spec={"clean": ["one", "two"], "over": "x", "site": 3})
    at = opened("patching", effects=run.id)
    assert not at.exception and not at.get("plotly_chart") and "A map needs one or two axes" in html(at)


def test_atlas_and_head_list_runs_of_heads_only(opened, runs):
    effects = stored()
    for page in ("atlas", "head"):
        at = opened(page)
        assert effects not in at.selectbox[0].options and address(at)["run"] == runs[1]
        assert at.selectbox[0].value == runs[1]
    assert box(opened("patching"), "Run").value == effects


def test_a_run_of_a_model_that_is_not_here_is_still_shown(opened, monkeypatch):
    run = stored()

    def refuse(name: str) -> None:
        raise UnknownModelError(f"{name!r} is no model that load knows.")

    st.cache_resource.clear()
    monkeypatch.setattr("interp.load", refuse)
    at = opened("patching", effects=run)
    assert not at.exception and "is no model that load knows" in html(at)
    assert figure(at) and not at.button


def test_arguments_are_read_from_what_commands_store_too():
    spec = {"clean": ["a b"], "corrupt": ["a c"], "answer": ["d"], "site": "z", "over": ["layer", "head"]}
    assert arguments(spec) == {
        "clean": "a b",
        "corrupt": "a c",
        "answer": "d",
        "foil": "",
        "site": "z",
        "over": "layer,head",
    }
    assert arguments({"clean": ["a", "b"], "site": "mlp_post", "over": ["neuron"], "metric": ["x"]}) == {}


# ---- the job ----


def test_a_job_stores_what_the_engine_finds(runs, monkeypatch):
    job, stages = Job("one", 1), []
    report = job.report
    monkeypatch.setattr(job, "report", lambda *stage: (stages.append(stage), report(*stage)))
    run = run_store().open(patching.patch(asked(site="z", over="layer,head"), job))
    model = tiny_model()
    pairs = interp.PromptPairs.from_text(model, *PAIR.values())
    np.testing.assert_allclose(
        run.results().values, interp.patch(model, pairs, "z", ("layer", "head")).values, atol=1e-6
    )
    assert run.info.kind == "effects" and run.info.title == "z, layer × head, denoise: the cat sat on"
    assert run.manifest["spec"]["over"] == ["layer", "head"] and run.manifest["spec"]["clean"] == PAIR["clean"]
    assert len(run.info.model_hash or "") == 64 and "patch" in run.manifest["timings"]
    assert stages[0][0] == "loading the model" and stages[-1][:2] == ("cells patched", stages[-1][2])


def slowed(monkeypatch, after: int) -> threading.Event:
    """Many small waves, the job held up once `after` cells were reported until it is cancelled."""
    reached, real = threading.Event(), Plan.run
    monkeypatch.setattr(patching, "MAX_BYTES", 20_000)  # room for a cell or two

    def run(self, progress=None):
        def report(done: int, total: int) -> None:
            assert callable(progress)
            progress(done, total)
            while done >= after:
                reached.set()
                time.sleep(0.01)
                progress(done, total)

        return real(self, report)

    monkeypatch.setattr(Plan, "run", run)
    return reached


def ended(job: Job) -> Job:
    until = time.monotonic() + 20
    while job.state == "running" and time.monotonic() < until:
        time.sleep(0.01)
    return job


def test_a_cancelled_job_leaves_what_it_had_finished(opened, monkeypatch):
    whole = run_store().open(stored()).results()
    reached = slowed(monkeypatch, after=4)
    job = Jobs().start("one", lambda job: patching.patch(asked(), job))
    assert reached.wait(20)
    job.cancel()
    assert ended(job).state == "cancelled" and job.result
    run = run_store().open(job.result)
    found = run.results()
    assert found.about["partial"] and run.info.title.startswith("partial: ")
    done = ~np.isnan(found.values.values)
    assert 4 <= done.sum() < found.values.size
    np.testing.assert_allclose(found.values.values[done], whole.values.values[done], atol=1e-6)
    at = opened("patching", effects=job.result)
    assert not at.exception and "This run is partial" in html(at) and figure(at)


def test_a_job_cancelled_before_a_cell_is_done_stores_nothing(runs, monkeypatch):
    reached = slowed(monkeypatch, after=0)
    before = len(run_store().list())
    job = Jobs().start("one", lambda job: patching.patch(asked(), job))
    assert reached.wait(20)
    job.cancel()
    assert ended(job).state == "cancelled" and job.result is None and len(run_store().list()) == before


def test_a_cancel_does_not_wait_for_a_wave(runs, monkeypatch):
    started = threading.Event()

    def endless(self, progress=None):
        while True:
            torch.ones(2) + 1
            started.set()

    monkeypatch.setattr(Plan, "run", endless)
    job = Jobs().start("one", lambda job: patching.patch(asked(), job))
    assert started.wait(20)
    job.cancel()
    began = time.monotonic()
    assert ended(job).state == "cancelled" and time.monotonic() - began < 2


def test_what_cannot_be_patched_is_the_jobs_error(runs):
    job = ended(Jobs().start("one", lambda job: patching.patch(asked(foil=""), job)))
    assert job.state == "failed" and "foil" in job.error and job.result is None


def test_a_store_that_cannot_be_written_is_said_before_anything_runs(runs, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTERP_STORE", str(tmp_path / "file"))
    monkeypatch.setattr("interp.load", None)
    with pytest.raises(StorageError, match="Cannot write"):
        patching.patch(asked(), Job("one", 1))


def test_the_button_starts_the_job_and_its_run_is_shown(opened):
    at = opened("patching", **PAIR)
    at.button[0].click().run()
    job = ended(shared_jobs().latest(patching.job_name(asked())))
    assert job.state == "done"
    at.run()
    assert not at.exception and figure(at)
    assert address(at)["effects"] == job.result


def test_two_readers_with_different_pairs_have_jobs_of_their_own(opened, monkeypatch):
    go = threading.Event()
    real = patching.patch
    monkeypatch.setattr(patching, "patch", lambda asked, job: (go.wait(10), real(asked, job))[1])
    at = opened("patching", **PAIR)
    at.button[0].click().run()
    assert "Cancel" in [one.label for one in at.button]
    other = opened("patching", **{**PAIR, "corrupt": "the cat mat on"})
    assert [one.label for one in other.button] == ["Patch"]  # neither followed nor in the way
    same = opened("patching", **PAIR)
    assert "Cancel" in [one.label for one in same.button]  # as after a reload
    go.set()
    ended(shared_jobs().latest(patching.job_name(asked())))
    other.run()
    assert "effects" not in address(other) or address(other)["effects"] == run_store().list()[0].id


def test_a_job_can_still_be_cancelled_after_the_pair_was_edited(opened, monkeypatch):
    go = threading.Event()
    real = patching.patch
    monkeypatch.setattr(patching, "patch", lambda asked, job: (go.wait(10), real(asked, job))[1])
    at = opened("patching", **PAIR)
    at.button[0].click().run()
    box(at, "Foil").set_value("mat").run()
    assert not at.exception and [one.label for one in at.button] == ["Cancel", "Patch"]
    at.button[0].click().run()
    job = shared_jobs().latest(patching.job_name(asked()))
    assert job is not None and job.cancelling
    go.set()
    assert ended(job).state == "cancelled"
    at.run()
    assert [one.label for one in at.button] == ["Patch"]


def test_a_full_server_is_a_notice_on_the_page(opened, monkeypatch):
    monkeypatch.setattr("app.jobs.MOST_RUNNING", 0)
    at = opened("patching", **PAIR)
    at.button[0].click().run()
    assert not at.exception and "jobs already" in html(at)
