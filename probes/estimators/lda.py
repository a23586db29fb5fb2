"""Linear discriminant analysis with a shrunk covariance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.errors import InputError
from probes.estimators.base import LinearClassifier

__all__ = ["LDA"]

_NULL = 1e-10  # of the largest eigenvalue


class LDA(LinearClassifier):
    """Gaussian classes with one covariance C: `coef_` is C⁻¹μ of each class (of two classes their difference), scores
    are log-odds.

    `shrinkage` s mixes the pooled covariance within classes with its mean variance: (1 − s) C + s tr(C)/d I; "auto" is
    Ledoit & Wolf's choice, class by class on standardised features; None inverts C as it is, in the directions in
    which it is not 0. As scikit-learn's LinearDiscriminantAnalysis with solver "lsqr".
    """

    def __init__(self, shrinkage: Any = None) -> None:
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any) -> LDA:
        shrunk = self.shrinkage
        if shrunk not in (None, "auto") and not (isinstance(shrunk, int | float) and 0 <= shrunk <= 1):
            raise InputError(f'shrinkage is {shrunk!r}. Give a number from 0 to 1, "auto" or None.')
        rows, codes = self._taken(X, y)
        n_classes = len(self.classes_)
        self.means_ = np.stack([rows[codes == k].mean(axis=0) for k in range(n_classes)])
        self.priors_ = np.bincount(codes, minlength=n_classes) / len(codes)
        coef = self.means_ @ _inverse(self._covariance(rows, codes))
        intercept = -np.einsum("kd,kd->k", self.means_, coef) / 2 + np.log(self.priors_)
        two = n_classes == 2
        self.coef_ = coef[1:] - coef[:1] if two else coef
        self.intercept_ = intercept[1:] - intercept[:1] if two else intercept
        return self

    def predict_proba(self, X: Any) -> NDArray:
        """Probabilities `[row class]`."""
        return self._probabilities(X)

    def _covariance(self, rows: NDArray, codes: NDArray) -> NDArray:
        if self.shrinkage == "auto":
            parts = (_ledoit_wolf(rows[codes == k]) for k in range(len(self.classes_)))
            return np.sum([p * c for p, c in zip(self.priors_, parts, strict=True)], axis=0)
        within = rows - self.means_[codes]
        c = within.T @ within / len(rows)
        s = float(self.shrinkage or 0.0)  # type: ignore[arg-type]
        return (1 - s) * c + s * np.trace(c) / len(c) * np.eye(len(c))


def _ledoit_wolf(rows: NDArray) -> NDArray:
    from sklearn.covariance import ledoit_wolf

    std = rows.std(axis=0)
    std = np.where(std > 0, std, 1.0)
    if len(rows) == 1:
        return np.zeros((rows.shape[1], rows.shape[1]))
    return std[:, None] * ledoit_wolf((rows - rows.mean(axis=0)) / std, assume_centered=True)[0] * std


def _inverse(covariance: NDArray) -> NDArray:
    return np.linalg.pinv(covariance, rcond=_NULL, hermitian=True)
