"""Sweeps find what was planted and nothing else; what cannot be tested is refused in words."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.linear_model import RidgeClassifier

from interp.errors import InputError, StorageError
from probes.data import Place, ProbeDataset
from probes.results import ProbeResults
from probes.rows import COLUMNS, _corrected, _family_wise
from probes.sweep import sweep
from tests.model.conftest import unchecked
from tests.probes.planted import planted

__all__ = ["unchecked"]  # a fixture that holds here too
pytestmark = pytest.mark.usefixtures("one_thread")
HOLD_NUMBER = {"resid_pre.1", "resid_pre.2", "z.0.2"}


@pytest.fixture(scope="module")
def data() -> ProbeDataset:
    return planted(twin=True, numbers=True)


@pytest.fixture(scope="module")
def found(data) -> ProbeResults:
    return sweep(data)


def decodable(results: ProbeResults, target: str) -> set[str]:
    rows = results.frame
    return set(rows.loc[(rows["target"] == target) & (rows["verdict"] == "decodable"), "place"])


@pytest.mark.parametrize("estimator", ["ridge", "lda", "difference", "logistic"])
def test_planted_labels_are_found_where_they_are_and_nowhere_else(data, estimator) -> None:
    rows = sweep(data, estimator, targets=["number", "colour"]).frame
    assert len(rows) == 30
    for target, where in (("number", HOLD_NUMBER), ("colour", {"resid_pre.2"})):
        own = rows.loc[rows["target"] == target]
        there = own["place"].isin(where)
        assert (own.loc[there, "score"] > 0.95).all() and set(own.loc[there, "verdict"]) == {"decodable"}
        assert (own.loc[~there, "score"] < own["majority"].max() + 0.12).all()
        assert "decodable" not in set(own.loc[~there, "verdict"])
        assert (own["control"] < own["majority"].max() + 0.12).all()
        assert (own["random_init"] < own["majority"].max() + 0.12).all()


def test_networks_find_what_was_planted_too(data) -> None:
    some = {site: data.activations[site] for site in ("blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre")}
    rows = sweep(ProbeDataset(some, data.table, data.labels), "mlp").frame.set_index(["target", "place"])
    for target, least in (("number", 0.95), ("colour", 0.9), ("size", 0.6)):
        there, other = (rows.loc[(target, f"resid_pre.{i}")] for i in (2, 0))
        assert there["score"] > least and there["verdict"] == "decodable"
        assert other["score"] < other["majority"] + 0.12 and other["verdict"] != "decodable"


def test_numbers_are_scored_by_the_share_of_variance(found) -> None:
    assert decodable(found, "size") == {"resid_pre.1", "resid_pre.2"}
    rows = found.frame.loc[found.frame["target"] == "size"]
    assert set(rows["metric"]) == {"r2"} and (rows["majority"] == 0).all() and rows["balanced_accuracy"].isna().all()
    best = found.best("size")
    assert best.classes == ("below the median", "above the median") and best.spread > 0


def test_every_required_column_is_there(found) -> None:
    assert tuple(found.frame.columns) == COLUMNS
    rows = found.frame
    assert (rows["score_low"] <= rows["score"]).all() and (rows["score"] <= rows["score_high"]).all()
    assert (rows["selectivity"] == rows["score"] - rows["control"]).all()
    assert (rows["selectivity_low"] <= rows["selectivity"]).all()
    number = rows.loc[rows["target"] == "number"]
    assert set(number["balance"]) == {"plural 120, singular 120"} and set(number["n_groups"]) == {60}
    at_embedding = number.loc[number["place"] == "resid_pre.0", "score"].item()
    assert (number["embedding"] == at_embedding).all()


def test_a_sweep_gives_what_a_loop_over_places_gives(data, found) -> None:
    from probes.plan import Settings, plan

    more = {"rigor": "quick", "n_folds": 5, "seed": 0, "alpha": 0.05, "n_controls": 3, "n_permutations": 200}
    (one,) = plan(data, ["number", "colour", "size"], Settings.of("ridge", None, **more))
    alphas = Settings.of("ridge", None, **more).alphas
    y = one.tasks[0].values
    for place in (Place("blocks.1.hook_resid_pre"), Place("blocks.1.attn.hook_z", 3)):
        x, right = data.rows(place).astype(float), np.zeros(len(y), dtype=bool)

        def fitted(train, share, x=x):
            alpha = share * ((x[train] - x[train].mean(0)) ** 2).sum(0).mean()
            return RidgeClassifier(alpha=alpha).fit(x[train], y[train])

        for fold in range(5):
            train, test = one.of != fold, one.of == fold
            hits = [
                sum(
                    (fitted(train & (one.of != j), share).predict(x[one.of == j]) == y[one.of == j]).sum()
                    for j in range(5)
                    if j != fold
                )
                for share in alphas
            ]
            best = max(i for i, n in enumerate(hits) if n == max(hits))
            right[test] = fitted(train, alphas[best]).predict(x[test]) == y[test]
        assert found.at(place, "number").row["score"] == pytest.approx(right.mean(), abs=1e-12)


def test_a_random_split_leaks_words_and_a_grouped_one_does_not() -> None:
    """Hewitt & Liang's point: labels of words can be learnt by heart where words stand on both sides."""
    generator = np.random.default_rng(1)
    word = np.repeat(np.arange(40), 6)
    x = generator.normal(size=(40, 64))[word] + 0.05 * generator.normal(size=(240, 64))
    table = pd.DataFrame({"text": range(240), "pos": 0, "token": "t", "group": word, "type": [f"w{i}" for i in word]})
    labels = pd.DataFrame({"y": generator.choice(["a", "b"], 40)[word]})
    rows = sweep(ProbeDataset({"blocks.0.hook_resid_pre": x}, table, labels), alphas=[1e-4]).frame
    assert rows["control_shuffled"].item() > 0.9 and rows["control"].item() < 0.75


def test_directions_point_to_the_second_class_and_cut_between_them(data, found) -> None:
    probe = found.at("resid_pre.1", "number")
    x = data.rows(probe.place) @ probe.direction
    plural = (data.labels["number"] == probe.classes[0]).to_numpy()
    assert probe.classes == ("plural", "singular") and np.linalg.norm(probe.direction) == pytest.approx(1, abs=1e-6)
    assert ((x > probe.threshold) == ~plural).mean() > 0.98
    assert probe.spread == pytest.approx(x[~plural].mean() - x[plural].mean(), abs=1e-3)
    assert np.allclose(probe.means[0], data.rows(probe.place)[plural].mean(0), atol=1e-5)
    colours = found.at("resid_pre.2", "colour")
    assert colours.directions is not None and colours.directions.shape == (3, 20) and np.isnan(colours.threshold)
    assert probe.dataset is data and found.at(Place("blocks.0.attn.hook_z", 2), "number").row["score"] == 1
    site = "blocks.1.hook_resid_pre"
    alone = ProbeDataset({site: data.activations[site]}, data.table, data.labels)
    network = sweep(alone, "mlp", targets="number").at("resid_pre.1")
    assert abs(network.direction @ probe.direction) > 0.8


def test_full_rigor_adds_p_over_places_and_bits(data) -> None:
    some = replace(data, activations={k: data.activations[k] for k in list(data.activations)[:3]}, random_init=None)
    results = sweep(some, rigor="full", targets=["number", "size"], n_permutations=60)
    rows = results.frame.loc[results.frame["target"] == "number"].set_index("place")
    assert rows.loc["resid_pre.1", "p"] == pytest.approx(1 / 61) and rows.loc["resid_pre.0", "p"] > 0.1
    assert rows.loc["resid_pre.1", "mdl"] < 0.3 * rows.loc["resid_pre.1", "mdl_uniform"] == 0.3 * 240
    assert rows.loc["resid_pre.0", "compression"] < 1.05
    assert rows.loc["resid_pre.1", "v_information"] > 0.8 and rows.loc["resid_pre.0", "v_information"] < 0.1
    assert results.frame.loc[results.frame["target"] == "size", "mdl"].isna().all()
    assert "words of groups" in results.about["p"]


def test_under_the_null_p_is_rarely_small() -> None:
    small = 0
    for seed in range(10):
        generator = np.random.default_rng(seed)
        table = pd.DataFrame({"text": range(60), "pos": 0, "token": "t", "group": range(60), "type": range(60)})
        x = {f"blocks.{i}.hook_resid_pre": generator.normal(size=(60, 8)) for i in range(4)}
        labels = pd.DataFrame({"y": generator.permutation(["a", "b"] * 30)})
        rows = sweep(ProbeDataset(x, table, labels), "difference", rigor="full", n_permutations=39, n_controls=1).frame
        small += bool((rows["p"] <= 0.05).any())
    assert small <= 3  # of 10 at 5%: P(more) = 0.001


# ---- what is left out ----


def test_rows_without_a_label_are_left_out_target_by_target(data) -> None:
    labels = data.labels.copy()
    labels.loc[:39, "number"] = None
    results = sweep(replace(data, labels=labels, random_init=None), targets=["number", "colour"])
    counts = results.frame.groupby("target")["n"].first()
    assert counts["number"] == 200 and counts["colour"] == 240
    assert results.at("resid_pre.1", "number").row["score"] > 0.95


def test_constant_features_and_more_features_than_rows_are_fine(data) -> None:
    x = data.activations["blocks.1.hook_resid_pre"]
    wide = np.concatenate([x, np.full((240, 5), 7.0), np.random.default_rng(0).normal(size=(240, 300))], axis=1)
    for estimator in ("ridge", "lda", "logistic"):
        some = ProbeDataset({"blocks.1.hook_resid_pre": wide.astype(np.float32)}, data.table, data.labels[["number"]])
        probe = sweep(some, estimator).best()
        assert probe.row["score"] > 0.85
        assert np.abs(probe.direction[20:25]).max() < 1e-6
    dead = ProbeDataset({"blocks.0.hook_resid_pre": np.ones((240, 4))}, data.table, data.labels[["number"]])
    assert sweep(dead).frame["verdict"].item() != "decodable"


def test_a_baseline_that_gives_as_much_is_said(data) -> None:
    everywhere = {f"blocks.{i}.hook_resid_pre": data.activations["blocks.1.hook_resid_pre"] for i in (0, 1)}
    twin = ProbeDataset(everywhere, data.table, data.labels)
    row = sweep(replace(twin, random_init=twin), targets="number").at("resid_pre.1").row
    assert row["verdict"] == "decodable"
    assert "embedding layer gives as much" in row["why"] and "randomly initialised model" in row["why"]


def test_too_few_words_for_a_control_cannot_tell(data) -> None:
    table = data.table.assign(type=np.where(data.labels["number"] == "plural", "are", "is"))
    results = sweep(replace(data, table=table, random_init=None), targets="number")
    row = results.at("resid_pre.1").row
    assert row["verdict"] == "cannot tell" and "word types" in row["why"] and np.isnan(row["control"])


def test_words_in_several_groups_are_said(data) -> None:
    table = data.table.assign(type="the", text=0)
    notes = sweep(replace(data, table=table, random_init=None), targets="number").about["leaks"]
    assert any("words stand in more than one group" in note and "'the'" in note for note in notes)
    assert any("texts stand in more than one group" in note for note in notes)


# ---- what is refused ----


def broken(data: ProbeDataset, **labels) -> ProbeDataset:
    return replace(data, labels=pd.DataFrame(labels), random_init=None)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a"] * 240, "one class .a."),
        (["a"] * 4 + ["b"] * 236, "'a' of 'y' is missing from the training rows of fold . its rows stand in 1 group"),
        ([None] * 240, "No row has a label"),
        (["a", "b", "a", "b"] + [None] * 236, "1 groups, too few for 5 folds"),
        ([1.5] * 240, "All numbers"),
        ([1.0] * 239 + [np.inf], "infinite in row 239"),
    ],
)
def test_labels_that_cannot_be_tested_are_refused(data, labels, words) -> None:
    with pytest.raises(InputError, match=words.replace("fold . its", "fold .: its")):
        sweep(broken(data, y=pd.Series(labels, dtype=object)))


def test_what_is_not_finite_is_named_by_place_and_row(data) -> None:
    for site, at, words in (
        ("blocks.1.hook_resid_pre", (17, 3), r"blocks.1.hook_resid_pre is nan in row 17, feature 3"),
        ("blocks.0.attn.hook_z", (100, 2, 1), r"blocks.0.attn.hook_z, head 2, is nan in row 100, feature 1"),
    ):
        x = data.activations[site].copy()
        x[at] = np.nan
        for estimator in ("ridge", "logistic"):
            some = replace(data, activations={site: x}, random_init=None)
            with pytest.raises(InputError, match=words):
                sweep(some, estimator, targets="number")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"estimator": "oracle"}, "no estimator 'oracle'"),
        ({"rigor": "some"}, "rigor is 'some'"),
        ({"alphas": [-1.0]}, "alphas are"),
        ({"alphas": []}, "alphas are"),
        ({"alpha": 2.0}, "alpha is 2.0"),
        ({"n_folds": 1}, "n_folds is 1"),
        ({"n_folds": 100}, "too few for 100 folds"),
        ({"targets": "shape"}, "no label 'shape'"),
        ({"targets": []}, "No target"),
        ({"estimator": "lda", "targets": "size"}, "needs classes"),
        ({"n_controls": 0}, "at least 1"),
    ],
)
def test_impossible_requests_are_refused(data, options, words) -> None:
    with pytest.raises(InputError, match=words):
        sweep(data, **options)


# ---- kept, saved, drawn ----


def test_finished_sites_are_taken_up_again(data, tmp_path) -> None:
    seen: list[tuple[str, int, int]] = []

    def stop(stage: str, done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(data, targets="number", keep=tmp_path, progress=stop)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert len(files) == 4
    next(iter(files)).write_bytes(b"damaged")
    kept = sweep(data, targets="number", keep=tmp_path, progress=lambda *at: seen.append(at))
    assert seen[0] == ("sites", 0, 6) and ("random_init", 6, 6) in seen
    assert sum(file.stat().st_mtime_ns == at for file, at in files.items()) == 3
    pd.testing.assert_frame_equal(kept.frame, sweep(data, targets="number").frame)
    other = sweep(data, targets="number", keep=tmp_path, seed=1)
    assert not other.frame.equals(kept.frame)
    turned = {site: x[::-1].copy() for site, x in data.activations.items()}
    assert not sweep(replace(data, activations=turned), targets="number", keep=tmp_path).frame.equals(kept.frame)
    with pytest.raises(InputError, match="is a file"):
        sweep(data, keep=next(iter(files)))


def test_results_come_back_from_a_folder(data, found, tmp_path) -> None:
    back = ProbeResults.load(found.save(tmp_path / "probes"))
    pd.testing.assert_frame_equal(back.frame, found.frame)
    ours, theirs = found.at("resid_pre.1", "number"), back.at("resid_pre.1", "number")
    assert (ours.direction == theirs.direction).all() and ours.threshold == theirs.threshold
    assert theirs.dataset is None and back.with_dataset(data).at("z.0.2", "number").dataset is data
    assert str(back) == str(found)
    with pytest.raises(InputError, match="have no"):
        back.with_dataset(ProbeDataset({"hook_embed": np.ones((240, 2))}, data.table, data.labels))


@pytest.mark.parametrize("what", ["about.json", "probes.parquet", "probes.safetensors"])
def test_a_damaged_folder_is_said(found, tmp_path, what) -> None:
    folder = found.save(tmp_path / "probes")
    (folder / what).write_bytes(b"{")
    with pytest.raises(StorageError):
        ProbeResults.load(folder)
    (folder / what).unlink()
    with pytest.raises(StorageError):
        ProbeResults.load(folder)


def test_a_folder_of_another_kind_is_said(found, tmp_path) -> None:
    folder = found.save(tmp_path / "probes")
    for change in ({"format": 99}, {"kind": "lens"}, {"about": 3}):
        saved = json.loads((folder / "about.json").read_text()) | change
        (tmp_path / "other").mkdir(exist_ok=True)
        for file in folder.iterdir():
            (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
        (tmp_path / "other" / "about.json").write_text(json.dumps(saved))
        with pytest.raises(StorageError, match="holds no probes"):
            ProbeResults.load(tmp_path / "other")


def test_results_say_what_can_be_decoded_and_never_that_it_is_used(found) -> None:
    for text in (str(found), found.to_markdown()):
        assert "Decodable is not used" in text and "resid_pre.1" in text.replace("\\_", "_")
    assert "used" not in set(found.frame["verdict"]) and "R²" in str(found) and "3 targets" in repr(found)
    assert str(found.best("number")).startswith("number at z.0.2: decodable.")
    with pytest.raises(InputError, match="There are 3 targets"):
        found.best()
    with pytest.raises(InputError, match=r"no probe at 'resid_pre\.9'"):
        found.at("resid_pre.9", "number")
    with pytest.raises(InputError, match="no probes of 'shape'"):
        found.at("resid_pre.1", "shape")


def test_hostile_names_stay_text(data, tmp_path) -> None:
    evil = "<script>alert(1)</script>"
    labels = pd.DataFrame({evil: data.labels["number"].replace({"plural": evil})})
    results = sweep(replace(data, labels=labels, random_init=None, about={"model": evil}))
    assert "<script>" not in results._repr_html_()
    assert "<script>" not in results.to_markdown()
    page = results.to_html(tmp_path / "page.html").read_text()
    assert "<script>alert" not in page and "resid_pre.1" in page


# ---- few groups, rare classes, ties ----


def noise(n_groups: int, *, per_group: int = 1, share: float = 0.5, layers: int = 31, seed: int = 0) -> ProbeDataset:
    """Rows that hold nothing of the label, which varies within groups and words."""
    generator = np.random.default_rng(seed)
    n = n_groups * per_group
    table = pd.DataFrame({"text": range(n), "pos": 0, "token": "t", "group": np.arange(n) // per_group})
    table["type"] = [f"w{i % 5}" for i in range(n)]
    x = {f"blocks.{i}.hook_resid_pre": generator.normal(size=(n, 8)) for i in range(layers)}
    y = np.where(np.arange(n) < share * n, "a", "b")[generator.permutation(n)]
    return ProbeDataset(x, table, pd.DataFrame({"y": y}))


def test_few_groups_show_neither_that_a_label_is_there_nor_that_it_is_not() -> None:
    for seed in range(6):
        rows = sweep(noise(8, seed=seed), "difference", n_folds=4, n_controls=1).frame
        assert "decodable" not in set(rows["verdict"])
        open_ = rows["score_high"] >= rows["majority"] + 0.05
        assert open_.sum() > 15 and set(rows.loc[open_, "verdict"]) == {"cannot tell"}


def test_where_all_rows_are_right_the_interval_is_the_exact_binomial_one(found) -> None:
    row = found.at("z.0.2", "number").row
    assert row["score"] == row["score_high"] == 1
    assert row["score_low"] == pytest.approx(binomtest(60, 60).proportion_ci().low, abs=1e-6)


def test_a_rare_class_is_not_found_by_permuting_it_away() -> None:
    """Where classes are exchanged within groups, permuted labels are of other frequencies: a constant is then right
    less often than of the labels themselves."""
    results = sweep(
        noise(30, per_group=20, share=0.1, layers=3), rigor="full", n_permutations=39, n_controls=1, n_folds=3
    )
    assert "classes within groups" in results.about["p"]
    assert (results.frame["score"] > 0.85).all() and (results.frame["p"] > 0.1).all()


def test_p_counts_ties_and_the_labels_themselves() -> None:
    permuted = np.array([[0.5, 0.9], [0.7, 0.6], [0.6, 0.8], [0.7, 0.6]])
    sites = {"blocks.0.attn.hook_z": {"y.permuted": permuted, "y.observed": np.array([0.8, 0.95])}}
    places = [Place("blocks.0.attn.hook_z", head) for head in (0, 1)]
    # The best of both heads: .9, .7, .8, .7; the first head's .8 is reached by .9 and .8.
    assert _family_wise(sites, places, "y") == pytest.approx([3 / 5, 1 / 5])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alphas": 1.0}, "alphas are 1.0"),
        ({"alphas": "few"}, "alphas are 'few'"),
        ({"n_folds": 2.5}, "n_folds is 2.5"),
        ({"seed": -1}, "seed is -1"),
        ({"n_permutations": 3.5}, "n_permutations is 3.5"),
    ],
)
def test_what_is_no_number_is_refused_in_words(data, unchecked, options, words) -> None:
    with pytest.raises(InputError, match=words):
        sweep(data, **options)


def test_what_is_no_dataset_and_a_weight_too_small_are_refused(data, unchecked) -> None:
    with pytest.raises(InputError, match="not on a ndarray"):
        sweep(data.rows(data.places[0]))
    wide = np.random.default_rng(0).normal(size=(240, 300))
    for estimator in ("ridge", "lda"):
        some = ProbeDataset({"blocks.1.hook_resid_pre": wide}, data.table, data.labels[["number"]])
        with pytest.raises(InputError, match="1e-18 is too small"):
            sweep(some, estimator, alphas=[1e-18])


@pytest.mark.parametrize(
    ("shape", "names", "words"),
    [
        ((240,), ["y"], "has the shape"),
        ((240, 0), ["y"], "has the shape"),
        ((240, 4), ["y", "y"], "a name of its own"),
        ((240, 4), [3], "a name of its own"),
    ],
)
def test_rows_of_no_shape_and_labels_of_no_name_are_refused(data, shape, names, words) -> None:
    labels = pd.DataFrame([["a"] * len(names)] * 240, columns=names)
    with pytest.raises(InputError, match=words):
        ProbeDataset({"hook_embed": np.ones(shape)}, data.table, labels)


def test_a_dataset_is_shown_in_one_line(data) -> None:
    assert repr(data) == "ProbeDataset(240 rows, number, colour, size, 15 places)"


def test_of_few_groups_a_corrected_bound_is_students() -> None:
    row = {"score": 0.9, "score_low": 0.8, "n_groups": 9}
    # t of 8 degrees of freedom at 97.5% is 2.306; a bootstrap's spread is √(8/9) of the standard error.
    assert _corrected(row, 0.025) == pytest.approx(0.9 - 0.1 * 2.306 / 1.96 * (9 / 8) ** 0.5, abs=1e-4)
