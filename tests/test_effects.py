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


def test_maps_show_means_over_one_or_two_axes(effects):
    heat = effects.plot().data[0]
    np.testing.assert_allclose(np.array(heat.z), effects.mean().values)
    assert list(heat.x) == ["3", "4", "5"] and "<b>" not in effects.plot().layout.title.text
    row = Effects(effects.values[:, 0]).plot().data[0]
    np.testing.assert_allclose(np.array(row.z), effects.mean().values[:1])
    assert list(row.x) == ["3", "4", "5"]
    for wrong in (effects.values.expand_dims("head", axis=3), effects.values[:, 0, 0]):
        with pytest.raises(InputError, match="one or two axes"):
            Effects(wrong).plot()


def test_notebooks_get_a_static_escaped_table(effects):
    html = effects._repr_html_()
    assert "<script" not in html and "<b>" not in html and html.count("<tr>") == 7


def test_axes_and_items_that_do_not_fit_are_refused(effects):
    with pytest.raises(InputError, match="prompts first"):
        Effects(effects.values.transpose("layer", "prompt", "pos"))
    with pytest.raises(InputError, match="item names"):
        Effects(effects.values, ("a",))


@pytest.fixture
def copied(effects) -> Effects:
    """With the runs they came from; prompts differ in what there is to restore, one by its sign."""
    generator = np.random.default_rng(1)
    base, source = generator.normal(-1.0, 0.3, size=24), generator.normal(2.0, 1.0, size=24)
    source[3] = base[3] - 0.5
    about = {"metric": "logit_diff", "unit": "logits", "site": "z", "direction": "denoise", "exact": True}
    return Effects(effects.values, effects.items, about, base, source, tuple(f"template {i % 2}" for i in range(24)))


def test_the_patched_metric_is_the_base_runs_and_the_effect(copied):
    np.testing.assert_allclose(copied.patched.values, copied.values.values + copied.base[:, None, None])
    np.testing.assert_allclose((copied.patched - copied.values).values[:, 1, 2], copied.base)


def test_normalised_means_are_ratios_of_means_or_means_of_ratios(copied):
    gap, values = copied.source - copied.base, copied.values.values
    np.testing.assert_allclose(copied.mean(normalize="pooled").values, values.mean(0) / gap.mean())
    ratios = (values / gap[:, None, None]).mean(0)
    np.testing.assert_allclose(copied.mean(normalize="per_prompt").values, ratios)
    assert not np.allclose(ratios, values.mean(0) / gap.mean())
    np.testing.assert_array_equal(copied.mean().values, values.mean(0))


def test_shares_are_never_clamped_and_say_their_unit(copied):
    shares = copied.normalize("per_prompt")
    assert shares.values.max() > 1 and shares.values.min() < 0
    np.testing.assert_allclose(shares.values.values[3], copied.values.values[3] / (copied.source - copied.base)[3])
    assert shares.about["unit"] == "share of source − base" and shares.about["normalize"] == "per_prompt"
    np.testing.assert_allclose(shares.source - shares.base, 1.0)
    np.testing.assert_allclose(
        shares.patched.values, copied.patched.values / (copied.source - copied.base)[:, None, None]
    )
    assert copied.normalize(None) is copied


def test_pooled_intervals_resample_the_divisor_too(copied):
    items = np.array(copied.items)
    values = item_means(copied.values.values.reshape(24, -1), items)
    gap = item_means((copied.source - copied.base)[:, None], items)[:, 0]
    low, high = (x.values.ravel() for x in copied.ci(normalize="pooled", seed=3))
    expected = bootstrap_interval(values, divisor=gap, seed=3)
    np.testing.assert_allclose([low, high], expected)
    fixed = bootstrap_interval(values / gap.mean(), seed=3)
    assert not np.allclose([low, high], fixed)
    # By hand: the same items are drawn for the effects and for what they are divided by.
    generator = np.random.default_rng(0)
    draws = generator.integers(0, 12, size=(4_000, 12))
    by_hand = np.quantile(values[draws].mean(1) / gap[draws].mean(1)[:, None], [0.025, 0.975], axis=0)
    np.testing.assert_allclose([low, high], by_hand, atol=0.06)
    low, high = (x.values.ravel() for x in copied.ci(normalize="per_prompt"))
    shares = item_means(copied.normalize("per_prompt").values.values.reshape(24, -1), items)
    np.testing.assert_allclose([low, high], bootstrap_interval(shares))


def test_a_share_of_exactly_the_gap_has_an_interval_of_no_width(copied):
    gap = copied.source - copied.base
    values = copied.values.copy(data=np.broadcast_to(gap[:, None, None], copied.values.shape) * 0.5)
    half = Effects(values, copied.items, copied.about, copied.base, copied.source)
    for how in ("pooled", "per_prompt"):
        low, high = half.ci(normalize=how)
        np.testing.assert_allclose([low.values, high.values, half.mean(normalize=how).values], 0.5)


def test_intervals_are_over_items_and_not_over_prompts(copied):
    """Copies of one prompt under its item's name add nothing to what is known."""
    thrice = Effects(
        xr.concat([copied.values] * 3, "prompt").assign_coords(prompt=range(72)),
        copied.items * 3,
        copied.about,
        np.tile(copied.base, 3),
        np.tile(copied.source, 3),
    )
    for how in (None, "pooled", "per_prompt"):
        for ours, theirs in zip(thrice.ci(normalize=how), copied.ci(normalize=how), strict=True):
            np.testing.assert_allclose(ours.values, theirs.values)
    for ours, theirs in zip(thrice.pvalues(), copied.pvalues(), strict=True):
        np.testing.assert_allclose(ours.values, theirs.values)
    alone = Effects(thrice.values, (), copied.about)
    width = [float((high - low).mean()) for low, high in (alone.ci(), copied.ci())]
    assert width[0] < width[1]


def test_nothing_to_divide_by_raises(copied):
    same = Effects(copied.values, copied.items, copied.about, copied.base, copied.base)
    for how in ("pooled", "per_prompt"):
        for asked in (same.mean, same.ci, same.plot, same.to_frame):
            with pytest.raises(InputError, match="Both runs give the same metric"):
                asked(normalize=how)
    source = copied.source.copy()
    source[7] = copied.base[7]
    one = Effects(copied.values, copied.items, copied.about, copied.base, source)
    with pytest.raises(InputError, match="on prompt 7"):
        one.normalize("per_prompt")
    assert np.isfinite(one.mean(normalize="pooled").values).all()
    without = Effects(copied.values, copied.items, copied.about, copied.base)
    with pytest.raises(InputError, match="no source run"):
        without.mean(normalize="pooled")
    with pytest.raises(InputError, match="do not say"):
        _ = Effects(copied.values).patched


def test_unknown_ways_to_normalise_are_refused(copied, monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match="normalize is 'clamped'"):
        copied.normalize("clamped")


def test_cells_that_some_prompts_do_not_have_count_only_where_they_are(copied):
    values = copied.values.copy()
    values[:5, 0, 1] = np.nan
    values[:, 1, 0] = np.nan
    some = Effects(values, copied.items, copied.about, copied.base, copied.source)
    assert float(some.mean()[0, 1]) == pytest.approx(float(copied.values[5:, 0, 1].mean()))
    assert np.isnan(some.mean()[1, 0]) and np.isnan(some.patched[0, 0, 1])
    low, high = some.ci()
    by_item = item_means(values.values.reshape(24, -1), np.array(copied.items))
    known = bootstrap_interval(by_item[:, :4][:, [0, 1, 2]])
    np.testing.assert_allclose([low.values[0], high.values[0]], known)
    assert np.isnan(low[1, 0]) and np.isnan(high[1, 0])
    p, corrected = some.pvalues()
    assert np.isnan(p[0, 1]) and np.isnan(p[1, 0]) and np.isfinite(p[1, 2]) and np.isfinite(corrected[1, 2])
    gap = copied.source - copied.base
    assert float(some.mean(normalize="pooled")[0, 1]) == pytest.approx(float(values[5:, 0, 1].mean()) / gap.mean())
    assert some.plot().data[0].z is not None


def test_everything_that_was_measured_comes_back_from_a_folder(copied, tmp_path):
    values = copied.values.copy()
    values[2, 1, 1] = np.nan
    full = Effects(values, copied.items, copied.about, copied.base, copied.source, copied.templates)
    back = Effects.load(full.save(tmp_path / "run"))
    xr.testing.assert_identical(back.values, full.values)
    np.testing.assert_array_equal(back.base, full.base)
    np.testing.assert_array_equal(back.source, full.source)
    assert back.templates == full.templates and back.about == full.about and back.items == full.items
    bare = Effects.load(Effects(copied.values[:, 0, 0].drop_vars(["layer", "pos"])).save(tmp_path / "bare"))
    assert bare.base is None and bare.source is None and bare.templates == () and bare.grid == ()


@pytest.mark.parametrize("change", ["coordinates", "items", "templates", "format", "values", "runs", "json"])
def test_every_kind_of_damage_is_a_storage_error(copied, tmp_path, change):
    folder = copied.save(tmp_path / "run")
    about = json.loads((folder / "about.json").read_text())
    if change in ("values", "runs"):
        (folder / f"{change}.parquet").write_bytes(b"PAR1 nothing")
    elif change == "json":
        (folder / "about.json").write_text("{")
    else:
        (folder / "about.json").write_text(json.dumps({**about, change: 5}))
    with pytest.raises(StorageError, match="run"):
        Effects.load(folder)
    (folder / "about.json").write_text(json.dumps({key: x for key, x in about.items() if key != "templates"}))
    with pytest.raises(StorageError, match="run"):
        Effects.load(folder)


def test_the_short_form_says_what_was_measured(copied):
    assert repr(copied) == "Effects(24 prompt × 2 layer × 3 pos, site z, direction denoise, metric logit_diff, exact)"
    guess = Effects(copied.values, about={"exact": False, "partial": True})
    assert repr(guess) == "Effects(24 prompt × 2 layer × 3 pos, approximate, partial)"


def test_runs_and_templates_that_do_not_fit_are_refused(copied):
    with pytest.raises(InputError, match="There are 2 templates for 24 prompts"):
        Effects(copied.values, templates=("a", "b"))
    with pytest.raises(InputError, match=r"base has shape \(3,\)"):
        Effects(copied.values, base=np.zeros(3))
