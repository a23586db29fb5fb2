"""Effects keep prompts apart, count items, and come back from a disk as they were."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from interp.errors import InputError, StorageError
from interp.results import Effects
from interp.stats import bootstrap_interval, item_means, sign_flip


@pytest.fixture
def effects() -> Effects:
    values = np.random.default_rng(0).normal(0.0, 1.0, size=(24, 2, 3))
    values[:, 1, 2] += 3.0
    array = xr.DataArray(values, dims=("prompt", "layer", "pos"), coords={"layer": [0, 1], "pos": [3, 4, 5]})
    items = tuple(f"noun {i // 2}" for i in range(24))
    return Effects(
        array.assign_coords(prompt=range(24)), items, {"metric": "<b>logit difference</b>", "unit": "logits"}
    )


def test_intervals_and_p_values_are_those_of_item_means(effects):
    means = item_means(effects.values.values.reshape(24, -1), np.array(effects.items))
    assert len(means) == 12
    low, high = effects.ci()
    np.testing.assert_allclose(low.values.ravel(), bootstrap_interval(means)[0])
    np.testing.assert_allclose(high.values.ravel(), bootstrap_interval(means)[1])
    np.testing.assert_allclose(effects.pvalues()[1].values.ravel(), sign_flip(means, side="two")[1])


def test_the_one_real_cell_is_found_and_the_others_are_not(effects):
    _, corrected = effects.pvalues()
    assert float(corrected.sel(layer=1, pos=5)) < 0.01
    assert int((corrected < 0.05).sum()) == 1


def test_frames_name_their_cells(effects):
    frame = effects.to_frame()
    assert list(frame.columns) == ["layer", "pos", "effect", "effect_low", "effect_high", "p", "p_corrected"]
    assert len(frame) == 6 and frame.loc[frame["effect"].idxmax(), ["layer", "pos"]].tolist() == [1, 5]
    one = Effects(effects.values[:, 1, 2]).to_frame()
    assert len(one) == 1 and one["effect"][0] == pytest.approx(float(effects.mean().sel(layer=1, pos=5)))


def test_effects_come_back_from_a_folder_as_they_were(effects, tmp_path):
    back = Effects.load(effects.save(tmp_path / "run"))
    xr.testing.assert_identical(back.values, effects.values)
    assert back.items == effects.items and back.about == effects.about


def test_damaged_and_foreign_folders_are_refused(effects, tmp_path):
    folder = effects.save(tmp_path / "run")
    about = json.loads((folder / "about.json").read_text())
    (folder / "about.json").write_text(json.dumps({**about, "coordinates": {"prompt": [1]}}))
    with pytest.raises(StorageError, match="run"):
        Effects.load(folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("a month of work")
    with pytest.raises(StorageError, match="other files"):
        effects.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_maps_show_means_and_need_two_axes(effects):
    heat = effects.plot().data[0]
    np.testing.assert_allclose(np.array(heat.z), effects.mean().values)
    assert list(heat.x) == ["3", "4", "5"] and "<b>" not in effects.plot().layout.title.text
    with pytest.raises(InputError, match="two axes"):
        Effects(effects.values[:, 0]).plot()


def test_notebooks_get_a_static_escaped_table(effects):
    html = effects._repr_html_()
    assert "<script" not in html and "<b>" not in html and html.count("<tr>") == 7


def test_axes_and_items_that_do_not_fit_are_refused(effects):
    with pytest.raises(InputError, match="prompts first"):
        Effects(effects.values.transpose("layer", "prompt", "pos"))
    with pytest.raises(InputError, match="item names"):
        Effects(effects.values, ("a",))
