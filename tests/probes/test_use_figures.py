"""Figures of probes: nothing is drawn without its interval, control and baselines, and names are text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from interp.errors import InputError
from interp.figures.probes import accuracy_by_layer, beside_causes, dose_response, head_map

LAYERS = pd.DataFrame({"layer": [2, 0, 1], "score": [0.9, 0.6, 0.8], "score_low": [0.8, 0.5, 0.7]})
LAYERS = LAYERS.assign(score_high=1.0, control=0.5, majority=0.55, embedding=0.6, random_init=np.nan)


def test_a_curve_comes_with_its_interval_control_and_every_baseline_there_is() -> None:
    traces = {trace.name: trace for trace in accuracy_by_layer(LAYERS, title="number").data}
    assert set(traces) == {"95% interval", "accuracy", "control task", "majority", "embedding"}
    assert list(traces["accuracy"].x) == [0, 1, 2] and list(traces["accuracy"].y) == [0.6, 0.8, 0.9]
    assert list(traces["95% interval"].y) == [1.0, 1.0, 1.0, 0.8, 0.7, 0.5]
    both = accuracy_by_layer(LAYERS.assign(random_init=0.7), title="number")
    assert "random init" in {trace.name for trace in both.data}


def test_lines_differ_in_more_than_their_colour() -> None:
    lines = [trace for trace in accuracy_by_layer(LAYERS, title="x").data if "lines" in trace.mode][1:]
    assert len({trace.line.dash for trace in lines}) == len({trace.line.color for trace in lines}) == len(lines)


def test_a_map_of_heads_leaves_out_what_is_no_head() -> None:
    heads = pd.DataFrame({"layer": [0, 1, 1], "head": [1.0, 0.0, np.nan], "score": [0.9, 0.7, 0.99]})
    grid = np.asarray(head_map(heads, title="z").data[0].z)
    assert grid.shape == (2, 2) and np.nanmax(grid) == 0.9 and np.isnan(grid[0, 0])


def test_doses_are_drawn_with_single_random_directions_as_their_spread() -> None:
    rows = [
        {"control": "", "dose": dose, "effect": dose, "low": dose - 0.1, "high": dose + 0.1, "least": np.nan}
        for dose in (1.0, -1.0)
    ]
    rows.append({"control": "random directions", "dose": 1.0, "effect": 0, "low": 0, "high": 0, "least": -0.3})
    frame = pd.DataFrame(rows).assign(intervention="steer", most=0.4, position="<i>", place="x")
    figure = dose_response(frame, title="<b>")
    assert [0.4, -0.3] in [list(trace.y) for trace in figure.data]
    assert [-1.0, 1.0] in [list(trace.x) for trace in figure.data]
    assert figure.layout.title.text == "&lt;b&gt;"


def test_points_are_named_where_the_two_disagree() -> None:
    frame = pd.DataFrame(
        {"head": ["0.1", "<b>"], "accuracy": [0.9, 0.5], "effect": [0.0, 0.3], "agreement": ["a", "b"]}
    )
    names = [list(trace.text) for trace in beside_causes(frame, title="x", labelled=["<b>"]).data]
    assert names == [[""], ["&lt;b&gt;"]]


def test_tables_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(InputError, match="no column 'layer'"):
        accuracy_by_layer(pd.DataFrame({"score": [1.0]}), title="x")
    with pytest.raises(InputError, match="no rows"):
        head_map(pd.DataFrame({"layer": [], "head": [], "score": []}), title="x")
    with pytest.raises(InputError, match="no dose to draw"):
        empty = {name: [1.0] for name in ("dose", "effect", "low", "high")}
        dose_response(pd.DataFrame({**empty, "intervention": "swap", "control": ""}), title="x")
