"""The difference of class means: the direction that needs no fitting (Marks & Tegmark 2023)."""

from __future__ import annotations

from typing import Any

from probes.estimators.base import LinearClassifier, statistics
from probes.fitting.closed import difference_of_means

__all__ = ["DifferenceOfMeans"]


class DifferenceOfMeans(LinearClassifier):
    """The class whose mean is nearest. Of two classes, `coef_` is μ₁ − μ₀ and the cut lies half-way."""

    def fit(self, X: Any, y: Any) -> DifferenceOfMeans:
        rows, codes = self._taken(X, y)
        found = difference_of_means(*statistics(rows, codes, len(self.classes_)))
        self.coef_, self.intercept_ = found.coef[0, 0].mT.numpy(), found.intercept[0, 0].numpy()
        return self
