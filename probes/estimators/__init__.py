"""Probes one at a time, on scikit-learn's conventions: hyperparameters in `__init__`, data in `fit`."""

from __future__ import annotations

from probes.estimators.difference import DifferenceOfMeans
from probes.estimators.lda import LDA
from probes.estimators.logistic import Logistic
from probes.estimators.mlp import MLP
from probes.estimators.ridge import Ridge, RidgeRegression
from probes.estimators.structural import StructuralProbe

__all__ = ["LDA", "MLP", "DifferenceOfMeans", "Logistic", "Ridge", "RidgeRegression", "StructuralProbe"]
