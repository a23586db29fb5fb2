"""The Probes page: what a stored run decodes, a text along a probe, and what a test of use said."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from mounted import drawn, run_code
from probed import TARGET, probed
from serving import HOSTILE, tiny_model

from interp.errors import InputError
from interp.runs.store import RunStore
from probes.projection import project


@pytest.fixture
def stored(runs: tuple[str, str]) -> dict[str, str]:
    """The ids of a run of probes and of a test of use in the pages' store."""
    store = RunStore(os.environ["INTERP_STORE"])
    results, use = probed()
    saved = {"probes": store.save(results, spec={}, title="probes"), "use": store.save(use, spec={}, title="use")}
    return {name: run.info.id for name, run in saved.items()}


def html(at) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def strip(at) -> dict:
    (found,) = drawn(at)
    return found


def box(at, label: str):
    return next(one for one in at.selectbox if one.label == label)


def test_without_probes_the_page_says_how_to_make_some(opened) -> None:
    at = opened("probes")
    assert not at.exception and "interp probe smollm2-135m --task agreement" in html(at)


def test_what_is_decodable_is_drawn_with_control_and_baselines_and_told(opened, stored) -> None:
    results, _ = probed()
    at = opened("probes")
    assert not at.exception, at.exception
    figure = json.loads(at.get("plotly_chart")[0].proto.spec)
    names = " ".join(str(one.get("name")) for one in figure["data"])
    assert "control" in names and "majority" in names and "embedding" in names
    assert box(at, "Place").value == str(results.best(TARGET).place)
    assert "Decodable is not used" in html(at)
    assert HOSTILE[0] not in html(at) and "&lt;img/src=x" in html(at)  # escaped wherever it is said


def test_probes_of_heads_are_drawn_as_a_map(opened, stored) -> None:
    store = RunStore(os.environ["INTERP_STORE"])
    results, _ = probed(sites="z")
    assert results.frame["head"].notna().any()
    run = store.save(results, spec={}, title="of heads").info.id
    at = opened("probes", probes=run, prompt="the cat sat", bos="0")
    assert not at.exception
    kinds = [one["type"] for chart in at.get("plotly_chart") for one in json.loads(chart.proto.spec)["data"]]
    assert "heatmap" in kinds and len(strip(at)["values"]) == 3


def test_a_text_is_read_along_the_probe_that_is_chosen(opened, stored) -> None:
    results, _ = probed()
    at = opened("probes", prompt="the cat sat", bos="0", place="resid_pre.1")
    found, model = results.at("resid_pre.1", TARGET), tiny_model()
    with torch.no_grad():
        _, cache = model.run_with_cache("the cat sat", ["resid_pre.1"], prepend_bos=False)
    along = cache["resid_pre.1"][0].double().numpy() @ np.asarray(found.direction, dtype=float)
    means = np.asarray(found.means, dtype=float) @ np.asarray(found.direction, dtype=float)
    expected = (along - found.threshold) / (means.max() - means.min())
    assert strip(at)["tokens"] == ["the", "cat", "sat"]
    assert strip(at)["values"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert strip(at)["ends"] == [found.classes[int(means.argmin())], found.classes[int(means.argmax())]]
    box(at, "Place").set_value("resid_pre.2").run()
    assert strip(at)["values"] != pytest.approx(expected.tolist(), abs=1e-3)
    assert at.query_params["place"] in ("resid_pre.2", ["resid_pre.2"])


def test_the_code_of_the_page_gives_its_numbers(opened, stored) -> None:
    at = opened("probes", prompt="the cat sat", bos="0", place="resid_pre.1")
    names = run_code(at)
    assert names["along"].values.tolist() == pytest.approx(strip(at)["values"], abs=1e-6)
    assert str(names["probe"].place) == "resid_pre.1"


def test_the_test_of_use_is_told_in_its_own_sentence_and_drawn(opened, stored) -> None:
    _, use = probed()
    at = opened("probes")
    assert not at.exception
    assert len(at.get("plotly_chart")) == 2
    assert use.verdict in html(at) and "random directions" in html(at)


def test_what_is_not_there_is_refused_and_the_first_shown(opened, stored) -> None:
    for name, said in (("place", "has no place"), ("target", "has no target"), ("use", "no test of use")):
        at = opened("probes", **{name: "nonsense"})
        assert not at.exception and said in html(at), name
        assert len(at.get("plotly_chart")) == 2


def test_probes_of_a_model_that_is_not_at_hand_are_shown_without_a_text(opened, stored, monkeypatch) -> None:
    from app import models

    monkeypatch.setattr(models, "installed", lambda: ["other"])
    at = opened("probes")
    assert not at.exception and "not at hand" in html(at) and not drawn(at)


def test_a_projection_needs_the_model_that_the_probe_was_fitted_on() -> None:
    found = probed()[0].at("resid_pre.1", TARGET)
    with pytest.raises(InputError, match=r"reads 8 numbers .* Give the model that the probe was fitted on"):
        project(replace(found, direction=found.direction[:8]), tiny_model(), "the cat")
    flat = replace(found, means=np.zeros_like(found.means))
    with pytest.raises(InputError, match="do not lie apart"):
        project(flat, tiny_model(), "the cat")
