"""What classifiers with one linear score per class share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from interp.errors import InputError
from probes.fitting.moments import Centred, moments
from probes.fitting.tasks import Columns, Task

__all__ = ["Classifier", "LinearClassifier", "check_alpha", "seen", "statistics", "taken"]


class Classifier(ClassifierMixin, BaseEstimator):
    """Checks of input. A subclass gives `_scores(x)`, `[row class]`, or `[row]` for two classes. Constructors keep what
    they are given, as scikit-learn asks; `fit` checks it."""

    def _taken(self, X: Any, y: Any) -> tuple[NDArray, NDArray]:
        """Rows in float64 and codes of classes; sets `classes_` and `n_features_in_`."""
        rows, labels = taken(self, X, y)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(
                f"All labels are of one class, {self.classes_[0]!r}: there is nothing to tell apart. Give rows of "
                "another class."
            )
        return rows, codes

    def _scores(self, x: NDArray) -> NDArray:
        raise NotImplementedError

    def decision_function(self, X: Any) -> NDArray:
        """Scores `[row class]`; of two classes `[row]`, above 0 for the second."""
        check_is_fitted(self)
        return self._scores(seen(self, X))

    def predict(self, X: Any) -> NDArray:
        """The class with the highest score."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)]

    def _probabilities(self, X: Any) -> NDArray:
        scores = torch.tensor(self.decision_function(X))
        if scores.ndim == 1:
            return torch.stack([torch.sigmoid(-scores), torch.sigmoid(scores)], dim=1).numpy()
        return scores.softmax(dim=1).numpy()


class LinearClassifier(Classifier):
    """Learned: `coef_ [class feature]`, `intercept_ [class]` (of two classes one line, towards `classes_[1]`)."""

    coef_: NDArray
    intercept_: NDArray

    def _scores(self, x: NDArray) -> NDArray:
        scores = x @ self.coef_.T + self.intercept_
        return scores[:, 0] if scores.shape[1] == 1 else scores


def taken(estimator: BaseEstimator, X: Any, y: Any, **more: Any) -> tuple[NDArray, NDArray]:
    """Checked rows and labels of `fit`."""
    found: Any = validate_data(estimator, X, y, dtype=np.float64, **more)
    return found


def seen(estimator: BaseEstimator, X: Any) -> NDArray:
    """Checked rows, as wide as those of `fit`."""
    found: Any = validate_data(estimator, X, dtype=np.float64, reset=False)
    return found


def statistics(rows: NDArray, values: NDArray, n_classes: int = 0) -> tuple[Centred, Columns]:
    """Sufficient statistics of rows and codes (or numbers, where there are no classes)."""
    columns = Columns((Task("y", values, tuple(map(str, range(n_classes)))),))
    found = moments([(slice(0, len(rows)), rows)], np.zeros(len(rows), dtype=int), columns.y, n_folds=1)
    return found.without(), columns


def check_alpha(alpha: float | int) -> None:
    if not np.isfinite(alpha) or alpha < 0:
        raise InputError(f"alpha is {alpha!r}. Give the weight of ‖w‖², a number ≥ 0.")
