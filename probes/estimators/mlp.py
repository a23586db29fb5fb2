"""A network with one hidden layer: what is there, but not along one direction."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from interp.errors import InputError
from probes.estimators.base import Classifier, check_alpha
from probes.fitting.mlp import fit_networks

__all__ = ["MLP"]


class MLP(Classifier):
    """One hidden layer of `hidden` rectified units on standardised features, cross-entropy plus `alpha`/2 ‖w‖², `steps`
    steps of Adam on all rows. The same `random_state` gives the same network. Learned: `networks_`."""

    def __init__(self, hidden: Any = 64, alpha: Any = 1e-3, steps: Any = 200, random_state: Any = 0) -> None:
        self.hidden, self.alpha, self.steps, self.random_state = hidden, alpha, steps, random_state

    def fit(self, X: Any, y: Any) -> MLP:
        check_alpha(self.alpha)
        for name in ("hidden", "steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)!r}. Give a number of at least 1.")
        rows, codes = self._taken(X, y)
        self.networks_ = fit_networks(
            torch.tensor(rows)[:, None],
            torch.tensor(codes)[None],
            torch.ones(1, len(codes), dtype=torch.float64),
            torch.tensor([float(self.alpha)]),
            n_classes=len(self.classes_),
            hidden=self.hidden,
            steps=self.steps,
            seed=int(self.random_state or 0),
            dtype=torch.float64,
        )
        return self

    def _scores(self, x: NDArray) -> NDArray:
        scores = self.networks_.scores(torch.tensor(x)[:, None])[0, 0].numpy()
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict_proba(self, X: Any) -> NDArray:
        """Probabilities `[row class]`."""
        return self._probabilities(X)
