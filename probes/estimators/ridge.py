"""Ridge regression, on classes as −1 and 1 and on numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from probes.estimators.base import LinearClassifier, check_alpha, seen, statistics, taken
from probes.fitting.closed import ridge
from probes.fitting.moments import Centred
from probes.fitting.tasks import Columns

__all__ = ["Ridge", "RidgeRegression"]


class Ridge(LinearClassifier):
    """Least squares on −1 and 1 (a column for each class, of two classes one) with `alpha` ‖w‖² added; the intercept
    is free. What scikit-learn calls RidgeClassifier."""

    def __init__(self, alpha: Any = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: Any, y: Any) -> Ridge:
        check_alpha(self.alpha)
        rows, codes = self._taken(X, y)
        coef, intercept = _solve(*statistics(rows, codes, len(self.classes_)), self.alpha)
        self.coef_, self.intercept_ = coef.T, intercept
        return self


class RidgeRegression(RegressorMixin, BaseEstimator):
    """Least squares on numbers with `alpha` ‖w‖² added; the intercept is free. Learned: `coef_ [feature]`,
    `intercept_`."""

    coef_: NDArray
    intercept_: float

    def __init__(self, alpha: Any = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: Any, y: Any) -> RidgeRegression:
        check_alpha(self.alpha)
        rows, values = taken(self, X, y, y_numeric=True)
        coef, intercept = _solve(*statistics(rows, np.asarray(values, dtype=float)), self.alpha)
        self.coef_, self.intercept_ = coef[:, 0], float(intercept[0])
        return self

    def predict(self, X: Any) -> NDArray:
        """Predicted numbers `[row]`."""
        check_is_fitted(self)
        return seen(self, X) @ self.coef_ + self.intercept_


def _solve(data: Centred, columns: Columns, alpha: float | int) -> tuple[NDArray, NDArray]:
    """Coefficients `[feature column]` and intercepts; without α the shortest least-squares solution."""
    if alpha == 0:
        coef = (torch.linalg.pinv(data.gram[0], hermitian=True, rtol=1e-12) @ data.cross[0]).numpy()
        return coef, (data.y_mean.numpy() - data.mean[0].numpy() @ coef)
    found = ridge(data, columns, [alpha / float(data.scale[0])])
    return found.coef[0, 0].numpy(), found.intercept[0, 0].numpy()
