"""Logistic regression with an L2 penalty, of two or more classes."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from probes.estimators.base import LinearClassifier, check_alpha
from probes.fitting.logistic import fit_logistic, turned

__all__ = ["Logistic"]


class Logistic(LinearClassifier):
    """The minimum of Σ cross-entropy (nats) + `alpha`/2 ‖w‖², the intercept free; more than two classes by softmax.
    `alpha` is 1/C of scikit-learn's LogisticRegression. Solved by our own L-BFGS in float64."""

    def __init__(self, alpha: Any = 1.0, tol: Any = 1e-8, max_iter: Any = 1000) -> None:
        self.alpha, self.tol, self.max_iter = alpha, tol, max_iter

    def fit(self, X: Any, y: Any) -> Logistic:
        check_alpha(self.alpha)
        rows, codes = self._taken(X, y)
        found = fit_logistic(
            turned(torch.tensor(rows)),
            torch.tensor(codes)[None],
            torch.tensor([float(self.alpha)], dtype=torch.float64),
            torch.ones(1, len(codes), dtype=torch.float64),
            len(self.classes_),
            tol=self.tol,
            max_iter=self.max_iter,
        )
        if not found.converged.all():
            warnings.warn(
                f"The fit did not settle within {self.max_iter} steps. Give a larger alpha or max_iter.",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.coef_, self.intercept_ = found.coef[0].mT.numpy(), found.intercept[0].numpy()
        self.n_iter_ = max(1, found.n_iter)
        return self

    def predict_proba(self, X: Any) -> NDArray:
        """Probabilities `[row class]`."""
        return self._probabilities(X)
