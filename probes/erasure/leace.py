"""LEACE (Belrose 2023): the smallest affine change after which no linear probe beats a constant on the fitting data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from interp.errors import InputError
from probes.erasure.eraser import Eraser, as_rows, as_targets

__all__ = ["LEACE"]

Rows = NDArray[np.floating]


class LEACE(TransformerMixin, BaseEstimator):
    """The eraser r(x) = x − W⁺ P W (x − μ), W = Σxx^(−1/2) and P the orthogonal projection onto what W Σxz spans.

    After it Cov(r(x), z) = 0, so that no affine predictor of z beats the best constant in any convex loss, on the data
    of the moments (Theorem 3.1 there); and of all affine maps of which that holds it has the smallest mean square
    change, whatever the norm (Theorem 4.3). Fitted by `fit`, by `partial_fit` block after block, or by `fit_moments`;
    `eraser_` is the frozen result. Directions in which Σxx is below `tol` of its largest eigenvalue are taken to be
    empty: nothing varies there, so that nothing can be read there.
    """

    def __init__(self, tol: float = 1e-10):
        self.tol = tol

    def fit(self, X: Any, y: Any) -> LEACE:
        """From activations `[row width]` and labels: classes, or floats `[row]` or `[row target]` as they are."""
        x = as_rows(X)
        z, self.classes_ = as_targets(y, len(x))
        if len(x) < 2:
            raise InputError("A covariance needs at least 2 rows.")
        mean = x.mean(axis=0)
        centred, targets = x - mean, z - z.mean(axis=0)
        return self._from_covariance(mean, centred.T @ centred / len(x), centred.T @ targets / len(x))

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> LEACE:
        """Add one block; `classes` are all that will come, needed with the first block unless labels are floats."""
        first = not hasattr(self, "_moments")
        x = as_rows(X, None if first else len(self._moments[1]))
        if first:
            self._names = None if classes is None else np.asarray(classes)
            kind = getattr(getattr(y, "dtype", np.asarray(y).dtype), "kind", "f")
            if classes is None and kind != "f" and "float" not in str(getattr(y, "dtype", "")):
                raise InputError("The first block has to say which classes will come: partial_fit(X, y, classes=…).")
        z, self.classes_ = as_targets(y, len(x), self._names)
        if first:
            width, n_z = x.shape[1], z.shape[1]
            # Sums are taken about the first block's mean: far from the origin squares would drown what varies.
            self._origin = x.mean(axis=0)
            self._moments = [0, np.zeros(width), np.zeros(n_z), np.zeros((width, width)), np.zeros((width, n_z))]
        moved = x - self._origin
        for i, more in enumerate((len(x), moved.sum(0), z.sum(0), moved.T @ moved, moved.T @ z)):
            self._moments[i] = self._moments[i] + more
        if self._moments[0] < 2:
            return self
        self.fit_moments(*self._moments)
        old = self.eraser_
        self.eraser_ = Eraser(old.left, old.right, old.mean + self._origin)
        return self

    def fit_moments(self, n: int, x: Rows, z: Rows, xx: Rows, xz: Rows) -> LEACE:
        """From sums over `n` rows: of x `[width]`, of z `[target]`, of x xᵀ and of x zᵀ."""
        x, z, xx, xz = (np.asarray(one, dtype=float) for one in (x, z, xx, xz))
        if x.ndim != 1 or z.ndim != 1 or xx.shape != (len(x), len(x)) or xz.shape != (len(x), len(z)):
            raise InputError(
                f"The sums have shapes {x.shape}, {z.shape}, {xx.shape} and {xz.shape}. "
                "Give [width], [target], [width width] and [width target]."
            )
        if n < 2:
            raise InputError(f"The sums are over {n} rows; a covariance needs at least 2.")
        mean, mean_z = x / n, z / n
        return self._from_covariance(mean, xx / n - np.outer(mean, mean), xz / n - np.outer(mean, mean_z))

    def transform(self, X: Any) -> Any:
        """Activations with the concept erased."""
        check_is_fitted(self, "eraser_")
        return self.eraser_(X)

    def _from_covariance(self, mean: Rows, xx: Rows, xz: Rows) -> LEACE:
        if not all(np.isfinite(one).all() for one in (mean, xx, xz)):
            raise InputError("The moments hold NaN or infinities. Leave such rows out.")
        values, vectors = np.linalg.eigh((xx + xx.T) / 2)
        there = values > self.tol * max(float(values[-1]), np.finfo(float).tiny)
        scale, basis = np.sqrt(values[there]), vectors[:, there]
        whitened = (basis.T @ xz) / scale[:, None]
        left, sizes, _ = np.linalg.svd(whitened, full_matrices=False)
        # Whitened, a column is a correlation times the spread of its target: what is smaller than rounding is none.
        spread = max(float(np.abs(whitened).max(initial=0.0)), np.finfo(float).tiny)
        kept = left[:, sizes > 1e-9 * spread] if sizes.size and sizes[0] > 1e-12 else left[:, :0]
        self.eraser_ = Eraser(basis @ (scale[:, None] * kept), kept.T @ (basis / scale).T, mean)
        self.n_features_in_ = len(mean)
        return self
