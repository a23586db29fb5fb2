"""The Atlas: two runs or kinds held against each other, the order of its table, the same as Python."""

from __future__ import annotations

import numpy as np
import pytest
from mounted import drawn, run_code
from serving import HOSTILE, tiny_scores

from app.comparing import Side, agreement, difference_data, table_of
from app.store import run_store
from interp.results import HeadScores


def html(at) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def address(at) -> dict[str, str]:
    return {name: value if isinstance(value, str) else value[0] for name, value in at.query_params.items()}


def box(at, label: str):
    return next(one for one in (*at.selectbox, *at.toggle) if one.label == label)


def changed(by: float) -> HeadScores:
    """The tiny scores with one head of one kind moved."""
    scores = tiny_scores()
    frame = scores.frame.copy()
    at = (frame["kind"] == "induction") & (frame["layer"] == 0) & (frame["head"] == 1)
    for name in ("score", "score_low", "score_high"):
        frame.loc[at, name] += by
    frame.loc[at, "verdict"] = "attends like induction"
    return HeadScores(frame, scores.sets, scores.about)


def smaller() -> HeadScores:
    scores = tiny_scores()
    return HeadScores(scores.frame.loc[scores.frame["layer"] < 2].copy(), scores.sets, scores.about)


def test_two_kinds_of_a_run_stand_side_by_side_on_one_scale(opened, runs):
    at = opened("atlas", run=runs[0], kind="induction", against_run=runs[0], against="previous_token")
    one, other = drawn(at)
    assert not at.exception and one["label"].startswith("induction") and other["label"].startswith("previous_token")
    assert one["high"] == other["high"] and other["values"][1 * 4 + 2] == 0.9 and one["values"][2 * 4 + 3] == 0.9
    rows = at.dataframe[0].value
    assert set(rows["head"][:2]) == {"1.2", "2.3"} and list(rows["intervals"][:2]) == ["apart", "apart"]
    assert "Rank correlation over 12 heads" in html(at) and "Of the 10 highest" in html(at)


def test_the_code_of_one_map_gives_its_numbers(opened, runs):
    at = opened("atlas", run=runs[0], kind="previous_token")
    (data,), names = drawn(at), run_code(at)
    scores = names["rows"].sort_values(["layer", "head"])["score"].to_numpy()
    assert set(names["rows"]["kind"]) == {"previous_token"} and scores.max() == 0.9
    np.testing.assert_allclose(scores, data["values"], atol=1e-6)


def test_two_runs_are_subtracted_head_by_head(opened, runs):
    other = run_store().save(changed(0.5), spec={}, title="moved").id
    query = {"run": runs[0], "kind": "induction", "against_run": other, "compared": "difference"}
    at = opened("atlas", **query)
    (data,) = drawn(at)
    assert data["signed"] and data["low"] == -data["high"] == -0.5 and data["cursor"] == {"layer": 0, "head": 1}
    assert [round(value, 6) for value in data["values"]].count(0.0) == 11 and sum(data["marks"]) == 2
    assert "attends like induction" in data["notes"][1] and "+0.50" in data["notes"][1]
    rows = at.dataframe[0].value
    assert rows["head"].iloc[0] == "0.1" and rows["difference"].iloc[0] == pytest.approx(0.5)
    assert address(at) == {**query, "against": "induction"}
    names = run_code(at)
    scores = [names[name].sort_values(["layer", "head"])["score"].to_numpy() for name in ("rows", "against")]
    np.testing.assert_allclose(scores[1] - scores[0], data["values"], atol=1e-6)
    box(at, "Compare with").set_value("nothing").run()
    assert not at.exception and set(address(at)) == {"run", "kind"} and not drawn(at)[0]["signed"]


def test_runs_of_other_heads_are_not_subtracted_and_that_is_said(opened, runs):
    other = run_store().save(smaller(), spec={}, title="small").id
    at = opened("atlas", run=runs[0], kind="induction", against_run=other, compared="difference")
    assert not at.exception and [one["layers"] for one in drawn(at)] == [3, 2]
    assert "have not the same heads" in html(at) and not at.dataframe


def test_columns_of_their_own_are_kept_apart(runs):
    one = Side(tiny_scores(), "previous_token", "score", "a")
    other = Side(changed(-0.25), "induction", "effect", "b")
    assert difference_data(one, other, name="x") is not None and len(table_of(one, other)) == 12
    assert agreement(one, other) == "1 heads were measured in both."


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"against_run": "nowhere"}, "There is no readable run nowhere to compare with"),
        ({"against_run": "RUN", "against": "copying"}, "holds no kind copying"),
        ({"against_run": "RUN", "compared": "upside"}, "Maps are not compared upside"),
        ({"sort": "colour"}, "Heads cannot be sorted by colour"),
        ({"against_run": HOSTILE[0]}, "&lt;img/src=x"),
    ],
)
def test_what_an_address_gets_wrong_is_said_and_the_map_is_drawn(opened, runs, query, message):
    at = opened("atlas", run=runs[0], **{name: runs[0] if value == "RUN" else value for name, value in query.items()})
    assert not at.exception and message in html(at) and drawn(at) and HOSTILE[0] not in html(at)


def test_the_table_is_sorted_as_asked(opened, runs):
    at = opened("atlas", run=runs[0], kind="induction")
    shown = list(at.dataframe[0].value["head"])
    assert shown[0] == "2.3" and len(shown) == 10
    box(at, "Sorted by").set_value("lowest").run()
    assert next(iter(at.dataframe[0].value["head"])) == "0.0" and address(at)["sort"] == "lowest"
    box(at, "Sorted by").set_value("layer").run()
    box(at, "All 12 heads").set_value(True).run()
    assert list(at.dataframe[0].value["head"]) == [f"{layer}.{head}" for layer in range(3) for head in range(4)]
    for sort in ("effect", "verdict"):
        at = opened("atlas", run=runs[0], kind="induction", sort=sort)
        assert next(iter(at.dataframe[0].value["head"])) == "2.3"
