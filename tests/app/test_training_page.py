"""The page Training: what is played, where it begins, what its address and its code bring back, and what it refuses."""

from __future__ import annotations

import base64
import os

import numpy as np
import pytest
from grown import STEPS, grown, played
from mounted import bar, drawn, run_code
from serving import HOSTILE

from app.components.training_player import panels, player_data, starting_view
from app.run_list import open_settings
from interp.errors import InputError
from interp.runs.store import RunStore


@pytest.fixture
def stored(runs: tuple[str, str]) -> dict[str, str]:
    """The ids of a playback and of the same models measured, in the pages' store."""
    store = RunStore(os.environ["INTERP_STORE"])
    saved = {"emergence": store.save(grown(), spec={}, title="measured")}
    saved["playback"] = store.save(played(), spec={}, title=f"played {HOSTILE[0]}")
    return {name: run.info.id for name, run in saved.items()}


def html(at) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def player(at) -> dict:
    (found,) = drawn(at)
    return found


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=kind)


def test_without_a_training_the_page_says_how_to_make_one(opened) -> None:
    at = opened("training")
    assert not at.exception and not drawn(at)
    assert "interp train induction --out" in html(at) and "interp emergence runs/induction --store" in html(at)


def test_the_player_holds_the_attention_the_scores_and_the_lens_of_all_checkpoints(opened, stored) -> None:
    at = opened("training")
    assert not at.exception, at.exception
    data, found = player(at), played()
    (attention,) = data["attention"]
    weights = unpacked(attention["weights"], "u1").reshape(found.patterns["attn"].shape) / 255
    assert np.allclose(weights, found.patterns["attn"], atol=0.5 / 255 + 1e-3)
    assert np.allclose(np.array(data["heads"], dtype=float).reshape(found.heads.shape), found.heads, atol=1e-5)
    lens = data["lens"]
    top = unpacked(lens["top"], "<u4").reshape(found.lens.top.shape)
    names = np.array(lens["names"], dtype=object)[top]
    assert names[2, -1, :, 0].tolist() == found.read(300).query("layer == 3")["likeliest"].tolist()
    following = unpacked(lens["next"], "<u2").reshape(found.lens.next_prob.shape) / 65535
    assert np.allclose(following, found.lens.next_prob, atol=1e-5)
    assert data["steps"] == STEPS and data["tokens"] == found.about["tokens"]


def test_series_stand_on_one_axis_with_the_dates_of_their_changes(opened, stored) -> None:
    shown = player(opened("training"))["panels"]
    assert shown[0]["title"] == "loss, nats" and shown[1]["title"].startswith("attention, best head")
    loss = shown[0]["series"][0]
    assert loss["value"] == pytest.approx(grown().series("loss", "all").tolist(), abs=1e-4)
    assert loss["low"][0] < loss["value"][0] < loss["high"][0]
    dates = grown().changes.set_index(["measure", "series"])["step"]
    for panel in shown:
        for one in panel["series"]:
            date = dates[tuple(one["name"].split(", ", 1))]
            assert one["date"] == (None if np.isnan(date) else pytest.approx(date, abs=1e-4))


def test_changes_and_ablations_are_told_and_names_are_escaped(opened, stored) -> None:
    at = opened("training")
    assert "loss moved meanwhile" in html(at) and "Change of the loss in nats" in html(at)
    assert HOSTILE[0] not in html(at) and HOSTILE[0] in player(at)["tokens"]
    assert "&lt;img/src=x" in html(at)


def test_the_address_brings_back_training_step_head_and_kind(opened, stored) -> None:
    asked = {"training": stored["playback"], "step": "10", "train_head": "1.2", "train_kind": "previous_token"}
    at = opened("training", **asked)
    assert player(at)["start"] == {"step": 10, "head": "1.2", "kind": "previous_token"}
    again = {name: (value[0] if isinstance(value, list) else value) for name, value in at.query_params.items()}
    assert again == asked
    assert "Step 10 as tables" in [one.label for one in at.expander]


def test_the_code_of_the_page_gives_its_numbers(opened, stored, capsys) -> None:
    at = opened("training", step="10", train_head="1.2")
    names = run_code(at)
    assert np.array_equal(names["found"].pattern(10, "1.2"), played().pattern(10, "1.2"))
    assert names["grown"].changes.equals(grown().changes)
    assert str(played().read(10)) in capsys.readouterr().out and "1.2" in bar(at)["code"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"step": "11"}, "no checkpoint of step 11. The nearest is 10"),
        ({"step": "soon"}, "is not a step of a training"),
        ({"train_head": "7.0"}, "There is no head 7.0"),
        ({"train_head": "<b>"}, "is not a head"),
        ({"train_kind": "mirror"}, "scores no mirror heads"),
        ({"training": "nonsense"}, "There is no training nonsense"),
    ],
)
def test_what_is_not_there_is_said_and_the_page_is_drawn_without_it(opened, stored, asked, said) -> None:
    at = opened("training", **asked)
    assert not at.exception and said in html(at)
    assert player(at)["start"]["step"] == 300


def test_a_playback_alone_is_played_without_dates(opened, runs) -> None:
    RunStore(os.environ["INTERP_STORE"]).save(played(), spec={}, title="alone")
    at = opened("training")
    assert not at.exception and "nothing is dated" in html(at)
    assert {one["date"] for panel in player(at)["panels"] for one in panel["series"]} == {None}
    assert "grown" not in bar(at)["code"]


def test_a_training_that_was_only_measured_is_drawn_and_says_how_to_play_it(opened, runs) -> None:
    run = RunStore(os.environ["INTERP_STORE"]).save(grown(), spec={}, title="only measured")
    at = opened("training")
    assert not at.exception and not drawn(at) and len(at.get("plotly_chart")) == 1
    assert "interp.dynamics.playback" in html(at) and "loss moved meanwhile" in html(at)
    assert at.query_params["training"] in (run.info.id, [run.info.id])
    assert run_code(at)["found"].changes.equals(grown().changes)


def test_a_run_of_measures_leads_to_the_playback_of_its_training(opened, stored) -> None:
    at = opened("training", training=stored["emergence"])
    assert not at.exception and "There is no training" not in html(at)
    assert at.query_params["training"] in (stored["playback"], [stored["playback"]])
    store = RunStore(os.environ["INTERP_STORE"])
    for name in stored:
        page, settings = open_settings(store.info(stored[name])) or ("", {})
        assert page == "training" and settings["training"] == stored[name]


def test_measures_of_another_training_are_not_put_beside_a_playback(opened, runs) -> None:
    import dataclasses

    store = RunStore(os.environ["INTERP_STORE"])
    for found, number in ((played(), "1"), (grown(), "2")):
        training = {"recipe": "copy", "seed": 0, "steps": 300, "hash": number}
        store.save(dataclasses.replace(found, about={**found.about, "training": training}), spec={})
    assert "nothing is dated" in html(opened("training"))


def test_a_view_begins_at_the_end_with_the_best_head_and_refuses_what_is_not_there() -> None:
    found = played()
    view = starting_view(found, None, None, None)
    scores = found.to_frame().query("step == 300 and kind == 'induction'")
    assert view == {"step": 300, "head": scores.loc[scores["score"].idxmax(), "head"], "kind": "induction"}
    with pytest.raises(InputError, match="nearest is 300"):
        starting_view(found, 299, None, None)


def test_series_that_were_measured_at_other_steps_have_gaps_and_no_numbers() -> None:
    curves = played().curves()
    fewer = curves[curves["step"] != 10]
    (loss, *_), *_ = (panel["series"] for panel in panels(fewer, None, STEPS))
    assert loss["value"][1] is None and loss["value"][0] is not None
    data = player_data(played(), fewer, None, id="x")
    assert data["panels"][0]["loss"] and data["scored"] == "attn"
