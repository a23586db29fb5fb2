"""Fitting everything together gives what fitting one at a time gives."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from interp.errors import InputError
from probes.controls import control_task, exchange_unit, permuted
from probes.description import _blocks, online_code, v_information
from probes.estimators import DifferenceOfMeans
from probes.fitting.closed import difference_of_means, lda, ridge
from probes.fitting.fit import fit_site, logistic_models
from probes.fitting.lbfgs import lbfgs
from probes.fitting.moments import moments
from probes.fitting.nested import excluded_folds
from probes.fitting.tasks import Columns, Task, task_of
from probes.splits import grouped_folds, leak_notes, random_folds

pytestmark = pytest.mark.usefixtures("one_thread")
N, HEADS, D = 90, 2, 7


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, HEADS, D)) * generator.uniform(0.1, 10, D) + 100
    x[:, :, 2] = 3.25
    return x


@pytest.fixture(scope="module")
def columns(rows) -> Columns:
    generator = np.random.default_rng(1)
    two = (rows[:, 0, 0] + generator.normal(size=N) > 100).astype(int)
    three = generator.integers(0, 3, N)
    three[rows[:, 1, 1] > 104] = 0
    size = rows[:, 0, 3] + generator.normal(size=N)
    return Columns((Task("two", two, ("a", "b")), Task("three", three, ("x", "y", "z")), Task("size", size)))


FOLDS = np.arange(N) % 4


def blocks(x: np.ndarray, size: int = 13):
    return [(slice(i, min(i + size, len(x))), x[i : i + size]) for i in range(0, len(x), size)]


# ---- statistics ----


def test_a_fold_is_removed_by_subtracting_its_sums(rows, columns) -> None:
    found = moments(blocks(rows), FOLDS, columns.y, n_folds=4)
    for out in ((), (2,), (0, 3)):
        keep = ~np.isin(FOLDS, out)
        x, y = torch.from_numpy(rows[keep]).movedim(0, 1), columns.y[keep]
        centred, data = x - x.mean(dim=1, keepdim=True), found.without(out)
        torch.testing.assert_close(data.mean, x.mean(dim=1))
        torch.testing.assert_close(data.gram, centred.mT @ centred, atol=1e-8, rtol=1e-10)
        torch.testing.assert_close(data.cross, centred.mT @ (y - y.mean(dim=0)), atol=1e-8, rtol=1e-10)
        assert (data.gram[:, 2] == 0).all() and data.n == keep.sum()


def test_the_size_of_blocks_and_rows_without_labels_change_nothing(rows, columns) -> None:
    some = FOLDS.copy()
    some[::5] = -1
    y = columns.y[some >= 0]
    whole = moments(blocks(rows[some >= 0], 1000), some[some >= 0], y, n_folds=4).without((1,))
    for size in (1, 7, 90):
        parts = moments(blocks(rows, size), some, y, n_folds=4).without((1,))
        torch.testing.assert_close(parts.gram, whole.gram, atol=1e-8, rtol=1e-10)
        torch.testing.assert_close(parts.cross, whole.cross, atol=1e-8, rtol=1e-10)


def test_large_means_cost_no_digits() -> None:
    x = np.random.default_rng(0).normal(size=(200, 1, 3))
    y = torch.ones(200, 1, dtype=torch.float64)
    near, far = (moments(blocks(x + at), np.zeros(200, dtype=int), y, n_folds=1).without() for at in (0, 1e6))
    torch.testing.assert_close(near.gram, far.gram, atol=1e-6, rtol=1e-8)


def test_no_labelled_row_is_refused(rows, columns) -> None:
    with pytest.raises(InputError, match="No row has a label"):
        moments(blocks(rows), np.full(N, -1), columns.y[:0], n_folds=2)


# ---- solvers ----


@pytest.mark.parametrize("n_alphas", [3, 12])
def test_ridge_of_all_labels_at_once_is_scikit_learns_of_each(rows, columns, n_alphas) -> None:
    alphas = np.logspace(-4, 1, n_alphas).tolist()
    data = moments(blocks(rows), FOLDS, columns.y, n_folds=4).without((1,))
    found, keep = ridge(data, columns, alphas), FOLDS != 1
    for head in range(HEADS):
        x = rows[keep, head]
        for a in (0, n_alphas - 1):
            alpha = alphas[a] * ((x - x.mean(0)) ** 2).sum(0).mean()
            for i, task in enumerate(columns.tasks[:2]):
                theirs = RidgeClassifier(alpha=alpha).fit(x, task.values[keep])
                ours = found.coef[a, head, :, columns.starts[i] : columns.starts[i + 1]].mT.numpy()
                assert np.abs(ours - theirs.coef_).max() < 1e-6


def test_lda_from_the_total_gram_is_lda_from_the_gram_within_classes(rows, columns) -> None:
    both, share = Columns(columns.tasks[:2]), 0.05
    data = moments(blocks(rows), FOLDS, both.y, n_folds=4).without((1,))
    found, keep = lda(data, both, [share]), FOLDS != 1
    for head in range(HEADS):
        x = rows[keep, head]
        for i, task in enumerate(both.tasks):
            y = task.values[keep]
            within = x - np.stack([x[y == k].mean(0) for k in range(task.n_classes)])[y]
            covariance = within.T @ within / len(x)
            ridge_of_it = share * ((x - x.mean(0)) ** 2).sum(0).mean() / len(x)
            # (1 − s) C + s v I is C + λ I up to a factor.
            s = ridge_of_it / (ridge_of_it + np.trace(covariance) / D)
            theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s).fit(x, y)
            at = slice(both.starts[i], both.starts[i + 1])
            scores = x @ found.coef[0, head, :, at].numpy() + found.intercept[0, head, at].numpy()
            wanted = theirs.decision_function(x)
            if task.n_classes > 2:
                scores, wanted = scores - scores[:, :1], wanted - wanted[:, :1]
                prior = np.log(np.bincount(y) / len(y))
            else:
                scores, prior = scores[:, 0], np.log(np.bincount(y) / len(y))
            # Scores without priors scale with the covariance, which shrinkage makes smaller by 1 − s.
            offset = prior[1] - prior[0] if task.n_classes == 2 else prior - prior[0]
            assert np.abs((scores - offset) * 1.0 - (wanted - offset) * (1 - s)).max() < 1e-6


def test_the_difference_of_means_is_the_estimators(rows, columns) -> None:
    both = Columns(columns.tasks[:2])
    found = difference_of_means(moments(blocks(rows), FOLDS, both.y, n_folds=4).without(), both)
    for i, task in enumerate(both.tasks):
        theirs = DifferenceOfMeans().fit(rows[:, 1], task.values).decision_function(rows[:, 1])
        at = slice(both.starts[i], both.starts[i + 1])
        ours = rows[:, 1] @ found.coef[0, 1, :, at].numpy() + found.intercept[0, 1, at].numpy()
        assert np.abs(ours.squeeze() - theirs).max() < 1e-6


def test_logistic_fits_of_folds_are_scikit_learns(rows, columns) -> None:
    both, x = Columns(columns.tasks[:2]), torch.from_numpy(rows)
    found = logistic_models(x, torch.from_numpy(FOLDS), both, [0.01, 1.0], [(), (2,)])
    keep = FOLDS != 2
    own = rows[keep, 1]
    for a, share in enumerate((0.01, 1.0)):
        alpha = share * ((own - own.mean(0)) ** 2).sum(0).mean()
        for i, task in enumerate(both.tasks):
            theirs = LogisticRegression(C=1 / alpha, solver="newton-cholesky", tol=1e-10).fit(own, task.values[keep])
            at = slice(both.starts[i], both.starts[i + 1])
            ours = found.by_out[(2,)].coef[a, 1, :, at].mT.numpy()
            assert np.abs(ours - theirs.coef_).max() < 2e-3 * np.abs(theirs.coef_).max()


def test_lbfgs_solves_problems_of_different_hardness_and_says_which_it_did_not() -> None:
    scales = torch.tensor([1.0, 100.0, 1e4], dtype=torch.float64)
    curve = torch.linspace(0, 1, 6, dtype=torch.float64) * (scales[:, None] - 1) + 1
    wanted = torch.arange(18, dtype=torch.float64).reshape(3, 6)

    def bowl(x, which):
        gap = x - wanted[which]
        return (curve[which] * gap**2).sum(dim=1) / 2, curve[which] * gap

    found, done, _ = lbfgs(bowl, torch.zeros_like(wanted), tol=1e-9)
    assert done.all() and (found - wanted).abs().max() < 1e-8
    _, done, taken = lbfgs(bowl, torch.zeros_like(wanted), tol=1e-9, max_iter=3)
    assert taken == 3 and not done[2]


def test_no_probe_has_seen_the_rows_it_is_tested_on(columns) -> None:
    """Labels that only a row's own fold could teach: held-out predictions stay at chance."""
    x = np.random.default_rng(3).normal(size=(N, 1, 200))
    y = Task("y", np.random.default_rng(4).integers(0, 2, N), ("a", "b"))
    for estimator in ("ridge", "lda", "difference", "logistic", "mlp"):
        alphas = [1e-3, 1e-1] if estimator in ("ridge", "lda", "logistic") else [1e-3]
        held, _ = fit_site(lambda: blocks(x), FOLDS, Columns((y,)), estimator, alphas, name="x")
        assert abs((held.predicted[0, 0] == y.values).mean() - 0.5) < 0.2, estimator


def test_the_weight_is_chosen_by_the_other_folds_alone_and_of_equals_the_largest() -> None:
    generator = np.random.default_rng(6)
    x = generator.normal(size=(N, 1, 25)) * np.geomspace(0.1, 3, 25)
    y = (x[:, 0, 20] + 3 * generator.normal(size=N) > 0).astype(int)
    alphas = [1e-3, 1e-1, 1.0, 30.0]
    held, _ = fit_site(lambda: blocks(x), FOLDS, Columns((Task("y", y, ("a", "b")),)), "ridge", alphas, name="x")

    def hits(share: float, left_out: tuple[int, ...], tested: int) -> int:
        train, test = ~np.isin(FOLDS, left_out), tested == FOLDS
        rows = x[train, 0]
        alpha = share * ((rows - rows.mean(0)) ** 2).sum(0).mean()
        return int((RidgeClassifier(alpha=alpha).fit(rows, y[train]).predict(x[test, 0]) == y[test]).sum())

    inner = np.array([[sum(hits(a, (i, j), j) for j in range(4) if j != i) for a in alphas] for i in range(4)])
    best = [max(np.flatnonzero(one == one.max())) for one in inner]
    assert held.alpha[:, 0, 0].tolist() == best and len(set(best)) > 1
    whole = inner.sum(axis=0)
    assert held.whole[0, 0] == max(np.flatnonzero(whole == whole.max()))


def test_what_is_left_out_is_every_fold_and_every_pair_of_folds() -> None:
    assert excluded_folds(3, 6) == [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
    assert excluded_folds(3, 1) == [(), (0,), (1,), (2,)] and excluded_folds(2, 6) == [(), (0,), (1,)]


def test_two_folds_take_the_middle_weight(rows, columns) -> None:
    held, _ = fit_site(lambda: blocks(rows), FOLDS % 2, columns, "ridge", [0.1, 1.0, 10.0], name="x")
    assert (held.alpha == 1).all() and (held.whole == 1).all()


# ---- splits ----


def test_groups_stay_together_and_classes_are_spread() -> None:
    groups = np.repeat(np.arange(30), 4)
    labels = np.where(groups % 3 == 0, "rare", "common")
    folds = grouped_folds(groups, labels, n_folds=5)
    assert all(len(set(folds[groups == g])) == 1 for g in range(30))
    assert {int((labels[folds == f] == "rare").sum()) for f in range(5)} == {8}
    assert (grouped_folds(groups, labels, seed=1) != folds).any()
    assert (grouped_folds(groups, labels) == folds).all()
    numbers = grouped_folds(groups, None, n_folds=5)
    assert sorted(set(numbers)) == [0, 1, 2, 3, 4]


def test_a_row_without_a_group_is_refused() -> None:
    with pytest.raises(InputError, match="Row 2 has no group"):
        grouped_folds(np.array(["a", "b", None, "c"], dtype=object), np.array([0, 1, 0, 1]), n_folds=2)


def test_a_class_in_two_groups_can_be_tested() -> None:
    groups = np.arange(20)
    labels = np.array(["a", "a"] + ["b"] * 18)
    folds = grouped_folds(groups, labels, n_folds=5)
    assert folds[0] != folds[1]


def test_random_folds_split_groups() -> None:
    folds = random_folds(np.arange(40) % 2, 40)
    assert np.bincount(folds).tolist() == [8] * 5 and len(random_folds(None, 7, n_folds=3)) == 7


def test_clean_groups_have_no_notes() -> None:
    table = pd.DataFrame({"text": [0, 1], "type": ["a", "b"], "group": [0, 1]})
    assert leak_notes(table) == []


# ---- controls, permutations, labels ----


def test_control_labels_belong_to_words_and_are_as_frequent() -> None:
    types = np.repeat([f"w{i}" for i in range(100)], 3)
    task = Task("y", np.repeat(np.arange(3), [150, 100, 50]), ("a", "b", "c"))
    control = control_task(task, types, seed=0)
    assert control is not None
    assert pd.Series(control.values).groupby(types).nunique().max() == 1
    assert np.abs(np.bincount(control.values) - [150, 100, 50]).max() <= 3
    assert (control.values != control_task(task, types, seed=1).values).any()
    assert control_task(task, np.repeat(["is", "are"], 150), seed=0) is None


def test_labels_are_exchanged_between_the_largest_units_that_share_one() -> None:
    groups, types = np.repeat(np.arange(6), 4), np.array(["x", "y"] * 12)
    for values, name in ((groups % 2, "groups"), ((types == "y").astype(int), "words of groups")):
        found = exchange_unit(values, groups, types)
        assert found[0] == name
        made = permuted(Task("v", values, ("a", "b")), found, n=3, seed=0)
        assert any((one.values != values).any() for one in made)
        for one in made:
            assert pd.Series(one.values).groupby(found[1]).nunique().max() == 1
            assert (np.bincount(one.values) == np.bincount(values)).all()


def test_labels_that_vary_within_words_change_sides_group_by_group() -> None:
    groups = np.repeat(np.arange(50), 6)
    for values, classes in ((np.arange(300) % 3, ("a", "b", "c")), (np.random.default_rng(0).normal(size=300), ())):
        found = exchange_unit(values, groups, np.full(300, "the"))
        assert found[0] == "classes within groups"
        first, second = permuted(Task("v", values, classes), found, n=2, seed=0)
        assert (first.values != values).any() and (first.values != second.values).any()
        for g in range(50):  # what was alike in a group stays alike
            own, was = first.values[groups == g], values[groups == g]
            alike = np.isclose(own[:, None], own) == np.isclose(was[:, None], was)
            assert alike.all()


def test_kinds_of_labels_are_told_by_their_values() -> None:
    every = np.arange(4)
    assert task_of(pd.Series([1, 2, 3, 4], name="n"), every).classes == ()
    assert task_of(pd.Series([1, None, 3.5, 4], dtype=object, name="n"), every[[0, 2, 3]]).classes == ()
    assert task_of(pd.Series([True, False, True, True], name="n"), every).classes == ("False", "True")
    assert task_of(pd.Series(["1", "2", "1", "1"], name="n"), every).classes == ("1", "2")


# ---- bits ----


def test_a_perfect_label_is_cheap_to_send_and_a_random_one_is_not() -> None:
    generator = np.random.default_rng(0)
    groups, y = np.repeat(np.arange(100), 2), np.tile([0, 1], 100)
    x = generator.normal(size=(200, 6))
    x[:, 0] += 8 * y
    task, folds = Task("y", y, ("a", "b")), grouped_folds(groups, y)
    code = online_code(torch.from_numpy(x), task, groups, [1e-3, 1e-1])
    assert code.uniform == 200 and code.bits < 40 and code.compression > 5
    assert code.blocks[-1] == 200 and all(end % 2 == 0 for end in code.blocks)
    known, whole = v_information(torch.from_numpy(x), task, folds, [1e-3, 1e-1])
    assert whole == pytest.approx(1, abs=1e-6) and known > 0.9
    noise = torch.from_numpy(generator.normal(size=(200, 6)))
    assert online_code(noise, task, groups, [1e-3, 1.0]).bits > 190
    assert v_information(noise, task, folds, [1e-3, 1.0])[0] < 0.05


def test_bits_need_classes_and_groups() -> None:
    x, numbers = torch.randn(40, 3, dtype=torch.float64), Task("size", np.arange(40.0))
    for refused in (
        lambda: online_code(x, numbers, np.arange(40), [0.1]),
        lambda: v_information(x, numbers, np.arange(40) % 5, [0.1]),
        lambda: online_code(x, Task("y", np.arange(40) % 2, ("a", "b")), np.zeros(40), [0.1]),
    ):
        with pytest.raises(InputError, match=r"classes|groups"):
            refused()


def test_the_code_is_as_long_as_summed_by_hand() -> None:
    """t₁ log2 K − Σ log2 p(block | before) by scikit-learn's fits, for the λ of the shortest code, and log2 of how many
    λ there are."""
    generator = np.random.default_rng(8)
    y = generator.integers(0, 3, 160)
    x = generator.normal(size=(160, 4))
    x[:, 0] += 2 * y
    groups, alphas = np.arange(160), [1e-2, 1e-1, 1.0, 10.0]
    code = online_code(torch.from_numpy(x), Task("y", y, ("a", "b", "c")), groups, alphas)
    order, ends = _blocks(groups, 3, 0)
    assert tuple(ends) == code.blocks == (10, 20, 40, 80, 160)
    x, y, lengths = x[order], y[order], []
    for share in alphas:
        bits = 10 * np.log2(3)
        for start, end in pairwise(ends):
            seen = x[:start]
            alpha = share * ((seen - seen.mean(0)) ** 2).sum(0).mean()
            model = LogisticRegression(C=1 / alpha, solver="newton-cholesky", tol=1e-10).fit(seen, y[:start])
            assert len(model.classes_) == 3
            p = model.predict_proba(x[start:end])[np.arange(end - start), y[start:end]]
            bits -= np.log2((start * p + 1) / (start + 3)).sum()
        lengths.append(bits)
    assert code.bits == pytest.approx(min(lengths) + 2, abs=0.05) and code.uniform == pytest.approx(160 * np.log2(3))


def test_v_information_is_what_held_out_rows_say_by_hand() -> None:
    generator = np.random.default_rng(9)
    y = (np.arange(90) % 3 == 0).astype(int)
    x = generator.normal(size=(90, 3))
    x[:, 0] += y
    folds = np.arange(90) % 5
    given = blind = 0.0
    for fold in range(5):
        train, test = folds != fold, folds == fold
        rows = x[train]
        alpha = 0.1 * ((rows - rows.mean(0)) ** 2).sum(0).mean()
        model = LogisticRegression(C=1 / alpha, solver="newton-cholesky", tol=1e-10).fit(rows, y[train])
        given -= np.log2(model.predict_proba(x[test])[np.arange(test.sum()), y[test]]).sum()
        blind -= np.log2(np.bincount(y[train])[y[test]] / train.sum()).sum()
    found = v_information(torch.from_numpy(x), Task("y", y, ("a", "b")), folds, [0.1])
    assert found == pytest.approx(((blind - given) / 90, blind / 90), abs=1e-3)
