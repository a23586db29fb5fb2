"""The demonstration: each number has its own rows and prompts, and the words are those of the tests of use."""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import SimpleNamespace

import jaxtyping
import numpy as np
import pandas as pd
import pytest

import interp
import probes
from interp.errors import InputError
from probes.data import ProbeDataset
from probes.demonstration import (
    _BEFORE,
    POINTS,
    RIGORS,
    Demonstration,
    _headline,
    _pairs,
    _places,
    _with_best,
    at_points,
    layer_table,
)


def labelled() -> ProbeDataset:
    table = pd.DataFrame({"text": [0, 0, 0, 1], "pos": [1, 4, 5, 1], "token": "x", "group": "g", "type": "t"})
    table["where"] = ["subject", "attractor", "before verb", "subject"]
    labels = pd.DataFrame(
        {
            "subject number": ["singular", "singular", "singular", "plural"],
            "attractor number": [None, "plural", "plural", None],
        }
    )
    x = np.arange(8.0).reshape(4, 2)
    return ProbeDataset({"blocks.0.hook_resid_pre": x}, table, labels)


def test_each_number_is_labelled_only_where_it_is_read() -> None:
    data = at_points(labelled())
    assert data.targets == tuple(point.target for point in POINTS)
    assert data.table["where"].tolist() == ["subject", "attractor", "subject"]  # no row without a label
    said = {name: data.labels[name].tolist() for name in data.targets}
    assert [one if isinstance(one, str) else None for one in said[POINTS[0].target]] == ["singular", None, "plural"]
    assert [one if isinstance(one, str) else None for one in said[POINTS[1].target]] == [None, "plural", None]
    assert [one if isinstance(one, str) else None for one in said[POINTS[2].target]] == [None, "singular", None]
    assert data.rows(data.places[0]).tolist() == [[0.0, 1.0], [2.0, 3.0], [6.0, 7.0]]


def test_its_prompts_are_two_an_item_and_flip_towards_the_foil(smollm2) -> None:
    for point in POINTS:
        pairs = _pairs(smollm2, point, 6, 0)
        assert len(pairs) == 12 and all(pairs.items.count(item) == 2 for item in set(pairs.items))
        assert len({*pairs.answer}) > 1 and all(len(pairs.span(f"{point.where}:last", i)) == 1 for i in range(12))
        for i in range(12):
            (before,), attractor = pairs.span(_BEFORE, i), pairs.span("attractor", i)
            assert before == attractor[0] - 1
            assert pairs.clean[i][before:] == pairs.corrupt[i][before:]  # they differ at the subject only
    one_number = _pairs(smollm2, POINTS[1], 6, 0)
    task = interp.tasks.load("agreement", smollm2, "subject", split="report", n=6, seed=0)
    congruence = dict(zip(task.pairs.clean, task.labels["congruence"], strict=True))
    assert {congruence[row] for row in one_number.clean} == {"congruent"}
    mixed = [congruence[row] for row in _pairs(smollm2, POINTS[0], 6, 0).clean]
    assert mixed.count("congruent") == mixed.count("incongruent") == 6


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No check of types: stand-ins are let in, and thousands of short calls are quick."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


class Scored:
    """Scores of places by target, as a sweep's results hold them."""

    def __init__(self, **scores: dict[str, float]):
        self.scores = scores

    def to_frame(self) -> pd.DataFrame:
        sites = {"post": "blocks.3.hook_resid_post"}
        rows = [
            {"target": target, "place": place, "site": sites.get(place, f"blocks.{place[-1]}.hook_resid_pre")}
            | {"layer": 3 if place == "post" else int(place[-1]), "score": score}
            for target, some in self.scores.items()
            for place, score in some.items()
        ]
        return pd.DataFrame(rows)

    def at(self, place: str, target: str) -> SimpleNamespace:
        return SimpleNamespace(row={"score": self.scores[target][place]})


@pytest.mark.usefixtures("unchecked")
def test_places_are_chosen_by_decoding_alone() -> None:
    results = Scored(
        a={"pre.0": 0.5, "pre.1": 0.995, "pre.2": 1.0, "pre.3": 1.0, "post": 1.0},
        b={"pre.0": 0.5, "pre.1": 0.6, "pre.2": 0.7, "pre.3": 0.9, "post": 1.0},
    )
    model = SimpleNamespace(main=SimpleNamespace(config=SimpleNamespace(n_layers=4)))
    places = _places(model, results, None, 2)  # type: ignore[arg-type]
    assert places == ["pre.1", "pre.2"]
    assert _with_best(results, places, "a") == ["pre.1", "pre.2"]
    assert _with_best(results, places, "b") == ["pre.1", "pre.2", "pre.3"]  # behind the last layer nothing is read
    assert _headline(results, places, "a") == "pre.1"
    assert _headline(results, _with_best(results, places, "b"), "b") == "pre.3"
    with pytest.raises(InputError, match="enters layer 7"):
        _places(model, results, [7], 2)


def test_every_public_name_of_the_package_is_there() -> None:
    for name in probes.__all__:
        assert getattr(probes, name) is not None
    importlib.import_module("probes.sweep")  # whose module has the function's name

    assert callable(probes.sweep) and callable(probes.dataset) and callable(probes.label_sets)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        probes.nothing  # noqa: B018
    assert "test_use" in dir(probes)


@pytest.fixture
def shown(smollm2, monkeypatch, unchecked) -> Demonstration:
    monkeypatch.setitem(RIGORS["quick"], "n_random", 2)
    return probes.demonstrate(smollm2, n=16, items=8, layers=[6])


@pytest.mark.slow
def test_on_smollm2_number_is_used_at_the_subject_and_the_subjects_is_not_at_the_attractor(
    shown: Demonstration, tmp_path
) -> None:
    rows = shown.by_layer.loc[shown.by_layer["place"] == "resid_pre.6"].set_index("target")
    subject, other, read = (rows.loc[point.target] for point in POINTS)
    assert subject["score"] > 0.9 and other["score"] > 0.9  # both are decodable
    assert subject["verdict"] == "decodable and used here" and subject["steer_low"] > 0.5
    assert read["steer_high"] < 0.05  # what stands at the attractor of the subject's number does nothing
    # The attractor's own number attracts, less than the subject's moves.
    assert 0 < other["steer"] < subject["steer"]
    natural = shown.about["attraction"]
    assert 0 < natural["share"] < 1
    assert [use.about["target"] for use in shown.uses] == [point.target for point in POINTS]
    assert [use.about["place"] for use in shown.uses] == list(shown.about["full_test_at"].values())
    assert shown.to_markdown().count("pre.6") > 6 and "Through the model" in shown.to_markdown()
    page = shown.to_html(tmp_path / "page.html").read_text()
    assert page.count("Plotly.newPlot") == 6
    assert all(sentence in str(shown) for sentence in shown.sentences)
    assert set(shown.to_records()) == {"probes", "by_layer", "uses", "about"}
    assert set(layer_table(shown.results, POINTS[0].target)["place"]) >= {"resid_pre.0", "resid_pre.6"}
    assert "in its other number moves" in shown.sentences[-1]
    odd = replace(shown, about={"model": "<b>"})
    assert "<b>" not in odd.to_html(tmp_path / "odd.html").read_text().split("<h1>")[1].split("</h1>")[0]


def test_wrong_requests_are_refused(smollm2) -> None:
    with pytest.raises(InputError, match="rigor is 'slow'"):
        probes.demonstrate(smollm2, rigor="slow")
