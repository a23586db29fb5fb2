"""LEACE and INLP: linear adversaries learn before and cannot after, and no more is changed than has to be."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interp.errors import InputError
from probes.erasure import INLP, LEACE, Eraser


def planted(
    n: int = 400, width: int = 20, k: int = 2, seed: int = 0, shift: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    """Correlated Gaussians with another mean for each class, of unequal sizes."""
    generator = np.random.default_rng(seed)
    y = generator.choice(k, size=n, p=np.arange(2, k + 2) / np.arange(2, k + 2).sum())
    means = generator.normal(size=(k, width)) * shift
    mixing = generator.normal(size=(width, width)) * generator.uniform(0.1, 3, size=width)
    return generator.normal(size=(n, width)) @ mixing + means[y] @ mixing * 0.5 + 7.0, y


def constant_accuracy(y: np.ndarray) -> float:
    return float(np.bincount(y).max() / len(y))


def constant_loss(y: np.ndarray) -> float:
    share = np.bincount(y) / len(y)
    return float(-(share * np.log(share)).sum())


def adversaries() -> list:
    free = LogisticRegression(C=1e6, max_iter=5000, tol=1e-10)
    return [make_pipeline(StandardScaler(), free), RidgeClassifier(alpha=1e-3), LogisticRegression(max_iter=2000)]


@pytest.mark.parametrize("k", [2, 3, 5])
def test_after_leace_no_linear_adversary_beats_a_constant_on_the_fitting_data(k: int) -> None:
    x, y = planted(k=k)
    erased = LEACE().fit(x, y).transform(x)
    for adversary in adversaries():
        before = clone(adversary).fit(x, y).score(x, y)
        after = clone(adversary).fit(erased, y).score(erased, y)
        assert before > constant_accuracy(y) + 0.15
        assert after <= constant_accuracy(y) + 1e-9
    best = make_pipeline(StandardScaler(), LogisticRegression(C=1e6, max_iter=5000, tol=1e-12)).fit(erased, y)
    assert log_loss(y, best.predict_proba(erased)) >= constant_loss(y) - 1e-7


def test_after_leace_no_regression_explains_any_of_a_number() -> None:
    generator = np.random.default_rng(3)
    x = generator.normal(size=(300, 12)) @ generator.normal(size=(12, 12))
    y = x @ generator.normal(size=(12, 2)) + 0.1 * generator.normal(size=(300, 2))
    erased = LEACE().fit(x, y).transform(x)
    assert LinearRegression().fit(x, y).score(x, y) > 0.9
    assert LinearRegression().fit(erased, y).score(erased, y) < 1e-9


def test_leace_leaves_no_covariance_and_keeps_the_mean_and_the_rank_it_must() -> None:
    x, y = planted(k=3)
    fitted = LEACE().fit(x, y)
    erased = fitted.transform(x)
    onehot = np.eye(3)[y]
    covariance = (erased - erased.mean(0)).T @ (onehot - onehot.mean(0)) / len(x)
    assert np.abs(covariance).max() < 1e-9
    assert np.allclose(erased.mean(0), x.mean(0))
    assert fitted.eraser_.rank == 2  # three classes have two independent differences
    projection = fitted.eraser_.matrix
    assert np.allclose(projection @ projection, projection)


@pytest.mark.parametrize("k", [2, 4])
def test_leace_moves_less_than_inlp_and_than_the_orthogonal_projection(k: int) -> None:
    x, y = planted(k=k)
    onehot = np.eye(k)[y]
    means = (x - x.mean(0)).T @ (onehot - onehot.mean(0))
    basis = np.linalg.svd(means)[0][:, : k - 1]
    orthogonal = Eraser(basis, basis.T, x.mean(0))
    distances = {
        name: np.square(eraser(x) - x).sum(1).mean()
        for name, eraser in {
            "leace": LEACE().fit(x, y).eraser_,
            "orthogonal": orthogonal,
            "inlp": INLP().fit(x, y).eraser_,
        }.items()
    }
    assert 0 < distances["leace"] < min(distances["orthogonal"], distances["inlp"])
    # Other maps that erase: what is taken out has to hold all of Cov(x, z), along any right side that reads it whole.
    own = LEACE().fit(x, y).eraser_
    for seed in range(5):
        right = own.right + 0.02 * np.random.default_rng(seed).normal(size=own.right.shape) * np.abs(own.right).mean()
        other = Eraser(own.left @ np.linalg.inv(right @ own.left), right, own.mean)
        assert np.abs((other(x) - x.mean(0)).T @ (onehot - onehot.mean(0))).max() < 1e-6 * len(x)
        assert np.square(other(x) - x).sum(1).mean() > distances["leace"]


def test_blocks_and_moments_give_the_eraser_of_all_rows() -> None:
    x, y = planted(n=350, k=3)
    whole = LEACE().fit(x, y).eraser_
    streamed = LEACE()
    for start in range(0, 350, 64):
        streamed.partial_fit(x[start : start + 64], y[start : start + 64], classes=[0, 1, 2])
    z = np.eye(3)[y]
    summed = LEACE().fit_moments(len(x), x.sum(0), z.sum(0), x.T @ x, x.T @ z)
    for other in (streamed.eraser_, summed.eraser_):
        assert other.rank == whole.rank
        assert np.allclose(other(x), whole(x), atol=1e-7)
    numbers = x[:, 0] * 2.0
    in_blocks = LEACE().partial_fit(x[:100], numbers[:100]).partial_fit(x[100:], numbers[100:])
    assert np.allclose(in_blocks.eraser_(x), LEACE().fit(x, numbers).eraser_(x), atol=1e-7)


def test_constant_features_and_more_features_than_rows_are_erased_too() -> None:
    x, y = planted(n=60, width=20)
    x = np.concatenate([x, np.full((60, 3), 4.0), x[:, :2] + x[:, 3:5]], axis=1)  # constant and dependent columns
    erased = LEACE().fit(x, y).transform(x)
    assert np.allclose(erased[:, 20:23], 4.0)
    assert LogisticRegression(max_iter=5000).fit(erased, y).score(erased, y) <= constant_accuracy(y) + 1e-9
    wide = np.random.default_rng(1).normal(size=(30, 80))
    labels = np.repeat([0, 1, 2], [14, 10, 6])
    assert RidgeClassifier().fit(wide, labels).score(wide, labels) == 1.0
    gone = LEACE().fit(wide, labels).transform(wide)
    assert np.isfinite(gone).all()
    assert RidgeClassifier().fit(gone, labels).score(gone, labels) <= 14 / 30 + 1e-9
    # 30 rows span 29 dimensions, and INLP ends though it has to take nearly all of them
    assert INLP().fit(wide, labels).eraser_.rank <= 29


def test_where_nothing_is_to_be_found_nothing_is_erased() -> None:
    generator = np.random.default_rng(0)
    half = generator.normal(size=(100, 5))
    x, y = np.concatenate([half, half]), np.repeat([0, 1], 100)  # the same activations under both labels
    assert LEACE().fit(x, y).eraser_.rank == 0
    assert INLP().fit(x, y).eraser_.rank == 0
    assert np.array_equal(LEACE().fit(x, y).transform(x), x)


@pytest.mark.parametrize("k", [2, 3])
def test_inlp_stops_where_its_classifier_says_the_most_frequent_class(k: int) -> None:
    x, y = planted(n=600, width=10, k=k)
    fitted = INLP().fit(x, y)
    erased = fitted.transform(x)
    assert fitted.converged_ and fitted.accuracy_[0] > constant_accuracy(y) + 0.15
    assert fitted.accuracy_[-1] <= constant_accuracy(y)
    assert len(fitted.accuracy_) == fitted.n_steps_ + 1
    assert RidgeClassifier().fit(erased, y).score(erased, y) <= constant_accuracy(y)
    assert np.allclose(fitted.eraser_.left, fitted.eraser_.right.T)  # orthogonal
    one = INLP(max_steps=1).fit(x, y)
    assert one.n_steps_ == 1 and 1 <= one.eraser_.rank < k


def test_inlp_takes_any_linear_classifier_and_stops_by_rows_of_other_groups() -> None:
    x, y = planted(n=300, width=8)
    logistic = INLP(LogisticRegression(max_iter=2000)).fit(x, y)
    assert logistic.accuracy_[0] > constant_accuracy(y) + 0.15 and logistic.converged_
    noise = np.random.default_rng(2).normal(size=(120, 100))
    labels, groups = np.arange(120) % 2, np.arange(120) // 4
    here = INLP(max_steps=30).fit(noise, labels)
    elsewhere = INLP(max_steps=30, margin=0.1, holdout=0.4).fit(noise, labels, groups)
    assert here.accuracy_[0] > 0.9 and here.eraser_.rank > 3  # noise is learned by heart where it is judged
    assert elsewhere.eraser_.rank < here.eraser_.rank


def test_an_eraser_is_frozen_and_takes_arrays_and_tensors_of_any_shape() -> None:
    x, y = planted(width=6)
    eraser = LEACE().fit(torch.tensor(x), torch.tensor(y)).eraser_
    batch = torch.tensor(x[:12], dtype=torch.float32).reshape(3, 4, 6)
    erased = eraser(batch)
    assert erased.shape == batch.shape and erased.dtype == torch.float32
    assert np.allclose(erased.reshape(12, 6).numpy(), eraser(x[:12]), atol=1e-4)
    assert torch.allclose(eraser(batch[0, 0]), erased[0, 0], atol=1e-5)
    with pytest.raises(FrozenInstanceError):
        eraser.mean = np.zeros(6)  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        eraser.mean[0] = 1.0
    with pytest.raises(InputError, match=r"shape \(2, 5\).*\[..., 6\]"):
        eraser(np.zeros((2, 5)))


def test_both_are_estimators_that_clone_and_stand_in_pipelines() -> None:
    x, y = planted(k=3)
    for estimator in (LEACE(tol=1e-8), INLP(max_steps=7, margin=0.1)):
        assert clone(estimator).get_params() == estimator.get_params()
        chain = make_pipeline(clone(estimator), RidgeClassifier()).fit(x, y)
        assert chain.score(x, y) <= constant_accuracy(y) + 0.15
        assert estimator.fit(x, y) is estimator


@pytest.mark.parametrize("make", [LEACE, INLP])
def test_bad_input_is_refused_in_one_sentence(make: type) -> None:
    x, y = planted(n=20, width=4)
    with pytest.raises(InputError, match="one class, 1"):
        make().fit(x, np.ones(20, dtype=int))
    with pytest.raises(InputError, match="20 rows and 19 labels"):
        make().fit(x, y[:-1])
    bad = x.copy()
    bad[3, 1] = np.nan
    with pytest.raises(InputError, match="Row 3"):
        make().fit(bad, y)
    with pytest.raises(InputError, match="missing"):
        make().fit(x, np.array([None, *map(str, y[1:])], dtype=object))
    with pytest.raises(InputError, match=r"\[row width\]"):
        make().fit(x[0], y)


def test_bad_use_of_one_of_them_is_refused() -> None:
    x, y = planted(n=20, width=4)
    with pytest.raises(InputError, match="Use LEACE for numbers"):
        INLP().fit(x, y.astype(float))
    with pytest.raises(InputError, match="holdout=1"):
        INLP(holdout=1.0).fit(x, y)
    with pytest.raises(InputError, match="classes=…"):
        LEACE().partial_fit(x, y)
    with pytest.raises(InputError, match="label 2; the classes"):
        LEACE().partial_fit(x, y + 1, classes=[0, 1])
    with pytest.raises(InputError, match="5 wide"):
        LEACE().partial_fit(x, y, classes=[0, 1]).partial_fit(np.zeros((3, 5)), np.array([0, 1, 1]))
    with pytest.raises(InputError, match="Give \\[width\\]"):
        LEACE().fit_moments(5, np.zeros(3), np.zeros(2), np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(InputError, match="at least 2"):
        LEACE().fit_moments(1, np.zeros(3), np.zeros(2), np.zeros((3, 3)), np.zeros((3, 2)))
