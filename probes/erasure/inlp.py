"""INLP (Ravfogel 2020): fit a linear classifier, project its directions out, and again, until none beats a constant."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.linear_model import RidgeClassifier
from sklearn.utils.validation import check_is_fitted

from interp.errors import InputError
from probes.erasure.eraser import Eraser, as_rows, as_targets

__all__ = ["INLP"]


class INLP(TransformerMixin, BaseEstimator):
    """Iterative nullspace projection: orthogonal, and greedy where LEACE is exact.

    Each step fits `classifier` (with `coef_`; ridge unless given) on what is left and takes its directions out, about
    the mean of the data. It stops where the accuracy is no more than `margin` above that of always saying the most
    frequent class, measured on the share `holdout` of rows that is not fitted on (whole groups of them, where `fit` is
    given groups; 0: on the fitted rows themselves), after `max_steps`, or where nothing is left. `accuracy_` holds the
    accuracy before each step, the last of them what stopped it; `converged_` whether it stopped by itself.
    """

    def __init__(
        self,
        classifier: Any = None,
        max_steps: int = 100,
        margin: float = 0.0,
        holdout: float = 0.0,
        seed: int = 0,
    ):
        self.classifier = classifier
        self.max_steps = max_steps
        self.margin = margin
        self.holdout = holdout
        self.seed = seed

    def fit(self, X: Any, y: Any, groups: Any = None) -> INLP:
        """From activations `[row width]` and one class a row."""
        x = as_rows(X)
        labels, self.classes_ = as_targets(y, len(x))
        if self.classes_ is None:
            raise InputError("INLP erases classes, and these labels are floats. Use LEACE for numbers.")
        if not 0 <= self.holdout < 1 or self.max_steps < 1:
            raise InputError(
                f"holdout={self.holdout}, max_steps={self.max_steps}: give a share below 1, and 1 or more."
            )
        own = labels.argmax(axis=1)
        fitted, tested = self._split(len(x), groups)
        if len(np.unique(own[fitted])) < 2:
            raise InputError("The rows that are fitted on are of one class. Lower holdout=, or give more groups.")
        mean = x.mean(axis=0)
        centred = x - mean
        scale = max(float(np.abs(centred).max()), np.finfo(float).tiny)
        constant = np.bincount(own[fitted]).argmax()
        majority = float((own[tested] == constant).mean())
        basis = np.zeros((x.shape[1], 0))
        self.accuracy_: list[float] = []
        self.majority_, self.converged_ = majority, False
        for step in range(self.max_steps + 1):
            left = centred - (centred @ basis) @ basis.T
            model: Any = clone(self.classifier) if self.classifier is not None else RidgeClassifier()
            empty = float(np.abs(left[fitted]).max()) <= 1e-9 * scale
            said = (
                np.full(len(tested), constant) if empty else model.fit(left[fitted], own[fitted]).predict(left[tested])
            )
            self.accuracy_.append(float((said == own[tested]).mean()))
            self.converged_ = empty or self.accuracy_[-1] <= majority + self.margin
            if self.converged_ or step == self.max_steps:
                break
            more = _new_directions(np.atleast_2d(model.coef_), basis)
            if not more.shape[1]:
                break
            basis = np.linalg.qr(np.concatenate([basis, more], axis=1))[0]
        self.n_steps_ = len(self.accuracy_) - 1
        self.eraser_ = Eraser(basis, basis.T, mean)
        self.n_features_in_ = x.shape[1]
        return self

    def transform(self, X: Any) -> Any:
        """Activations with what the classifiers found projected out."""
        check_is_fitted(self, "eraser_")
        return self.eraser_(X)

    def _split(self, n: int, groups: Any) -> tuple[NDArray, NDArray]:
        """Rows that are fitted on and rows that say when to stop."""
        every = np.arange(n)
        if self.holdout == 0:
            return every, every
        names, index = np.unique(every if groups is None else np.asarray(groups).astype(str), return_inverse=True)
        if len(index) != n:
            raise InputError(f"There are {n} rows and {len(index)} groups. Give one for each row.")
        n_out = int(np.ceil(self.holdout * len(names)))
        if n_out >= len(names):
            raise InputError(f"holdout={self.holdout} leaves none of {len(names)} groups to fit on. Lower it.")
        out = np.random.default_rng([self.seed, *b"inlp"]).permutation(len(names))[:n_out]
        held = np.isin(index, out)
        return every[~held], every[held]


def _new_directions(coefficients: NDArray, basis: NDArray) -> NDArray:
    """What of a classifier's directions is not in the basis yet, orthonormal `[width direction]`."""
    rest = coefficients.T - basis @ (basis.T @ coefficients.T)
    left, sizes, _ = np.linalg.svd(rest, full_matrices=False)
    return left[:, sizes > 1e-8 * max(float(sizes.max(initial=0.0)), np.finfo(float).tiny)]
