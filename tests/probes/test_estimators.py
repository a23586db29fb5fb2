"""Estimators keep scikit-learn's contract, and the convex ones find scikit-learn's solutions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from interp.errors import InputError
from probes.estimators import LDA, MLP, DifferenceOfMeans, Logistic, Ridge, RidgeRegression, StructuralProbe

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = [
    DifferenceOfMeans(),
    LDA(),
    LDA(shrinkage=0.1),
    Ridge(),
    RidgeRegression(),
    Logistic(),
    MLP(hidden=16, steps=100),
    StructuralProbe(steps=50),
]


@parametrize_with_checks(ALL)
def test_every_estimator_keeps_the_contract_of_scikit_learn(estimator, check) -> None:
    check(estimator)


def rows(n_classes: int, n: int = 120, d: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    y = generator.integers(0, n_classes, n)
    x = generator.normal(size=(n, d)) * generator.uniform(0.2, 3, d) + 5
    x += generator.normal(size=(n_classes, d))[y]
    x[:, 3] = 2.5  # a constant feature
    return x, np.array(["a", "b", "c", "d"])[y]


def close(ours, theirs) -> None:
    assert np.abs(np.asarray(ours) - np.asarray(theirs)).max() < 1e-4


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("shape", [(120, 12), (40, 60)], ids=["more rows", "more features"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Ridge(alpha=0.5), RidgeClassifier(alpha=0.5)),
        (Logistic(alpha=0.5), LogisticRegression(C=2.0, solver="newton-cholesky", tol=1e-12)),
        (LDA(shrinkage=0.2), LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2)),
        (LDA(shrinkage="auto"), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
    ],
    ids=["ridge", "logistic", "lda", "lda auto"],
)
def test_convex_probes_agree_with_scikit_learn(ours, theirs, shape, n_classes) -> None:
    x, y = rows(n_classes, *shape)
    ours, theirs = clone(ours).fit(x, y), clone(theirs).fit(x, y)
    close(ours.coef_, theirs.coef_)
    close(ours.intercept_, theirs.intercept_)
    close(ours.decision_function(x), theirs.decision_function(x))
    assert (ours.predict(x) == theirs.predict(x)).all()
    assert np.abs(ours.coef_[:, 3]).max() < 1e-9 or isinstance(ours, LDA)
    if hasattr(theirs, "predict_proba"):
        close(ours.predict_proba(x), theirs.predict_proba(x))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_lda_without_shrinkage_agrees_with_scikit_learn(n_classes) -> None:
    x, y = rows(n_classes)
    x = np.delete(x, 3, axis=1)
    ours, theirs = LDA().fit(x, y), LinearDiscriminantAnalysis(solver="lsqr").fit(x, y)
    close(ours.coef_, theirs.coef_)
    close(ours.predict_proba(x), theirs.predict_proba(x))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_difference_of_means_is_the_nearest_mean(n_classes) -> None:
    x, y = rows(n_classes)
    x = np.delete(x, 3, axis=1)  # NearestCentroid warns of constant features
    assert (DifferenceOfMeans().fit(x, y).predict(x) == NearestCentroid().fit(x, y).predict(x)).all()


def test_ridge_on_numbers_agrees_with_scikit_learn() -> None:
    x, _ = rows(2)
    y = x @ np.arange(12.0) + 3
    ours, theirs = RidgeRegression(alpha=2).fit(x, y), SklearnRidge(alpha=2).fit(x, y)
    close(ours.coef_, theirs.coef_)
    close(ours.predict(x), theirs.predict(x))
    exact = RidgeRegression(alpha=0).fit(x, y)
    close(exact.predict(x), y)


def test_estimators_stand_in_pipelines_and_can_be_cloned() -> None:
    x, y = rows(3)
    for one in (Ridge(alpha=0.1), Logistic(alpha=0.1), MLP(steps=20), LDA(shrinkage=0.1), DifferenceOfMeans()):
        pipeline = clone(make_pipeline(StandardScaler(), one)).fit(x, y)
        assert pipeline.score(x, y) > 0.5
        assert set(pipeline[-1].get_params()) == set(one.get_params())


def test_the_network_finds_what_no_line_can() -> None:
    x = np.random.default_rng(0).normal(size=(400, 4))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    assert Logistic().fit(x[:300], y[:300]).score(x[300:], y[300:]) < 0.7
    network = MLP(random_state=3).fit(x[:300], y[:300])
    assert network.score(x[300:], y[300:]) > 0.8
    again = MLP(random_state=3).fit(x[:300], y[:300])
    assert (network.decision_function(x) == again.decision_function(x)).all()


@pytest.mark.parametrize(
    ("estimator", "words"),
    [
        (Ridge(alpha=-1), "alpha is -1"),
        (Logistic(alpha=float("nan")), "alpha is nan"),
        (LDA(shrinkage=2), "shrinkage is 2"),
        (MLP(hidden=0), "hidden is 0"),
        (StructuralProbe(task="nonsense"), "nonsense"),
        (StructuralProbe(rank=0), "rank is 0"),
    ],
)
def test_impossible_settings_are_refused(estimator, words) -> None:
    x, y = rows(2)
    with pytest.raises(InputError, match=words):
        estimator.fit(x, (y == "a").astype(int))


@pytest.mark.parametrize("estimator", [Ridge(), LDA(), Logistic(), DifferenceOfMeans(), MLP()])
def test_one_class_is_refused(estimator) -> None:
    with pytest.raises(InputError, match="one class"):
        estimator.fit(np.ones((4, 2)), ["a"] * 4)
