"""Probes: what a representation holds, and whether the model uses it. Built on interp, never imported by it.

`dataset` reads activations with labels, `sweep` fits probes at every place, `test_use` says whether the model uses what
they decode. Names are imported when first used, so `import probes` stays light.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.beside import Beside as Beside
    from probes.beside import beside_causes as beside_causes
    from probes.data import Place as Place
    from probes.data import ProbeDataset as ProbeDataset
    from probes.demonstration import Demonstration as Demonstration
    from probes.demonstration import demonstrate as demonstrate
    from probes.erasure import INLP as INLP
    from probes.erasure import LEACE as LEACE
    from probes.estimators import LDA as LDA
    from probes.estimators import MLP as MLP
    from probes.estimators import DifferenceOfMeans as DifferenceOfMeans
    from probes.estimators import Logistic as Logistic
    from probes.estimators import Ridge as Ridge
    from probes.estimators import StructuralProbe as StructuralProbe
    from probes.gather import dataset as dataset
    from probes.labels import label_sets as label_sets
    from probes.results import FoundProbe as FoundProbe
    from probes.results import ProbeResults as ProbeResults
    from probes.sweep import sweep as sweep
    from probes.used import Use as Use
    from probes.used import test_use as test_use

_HOMES = {
    "Beside": "probes.beside",
    "Demonstration": "probes.demonstration",
    "DifferenceOfMeans": "probes.estimators",
    "FoundProbe": "probes.results",
    "INLP": "probes.erasure",
    "LDA": "probes.estimators",
    "LEACE": "probes.erasure",
    "Logistic": "probes.estimators",
    "MLP": "probes.estimators",
    "Place": "probes.data",
    "ProbeDataset": "probes.data",
    "ProbeResults": "probes.results",
    "Ridge": "probes.estimators",
    "StructuralProbe": "probes.estimators",
    "Use": "probes.used",
    "beside_causes": "probes.beside",
    "dataset": "probes.gather",
    "demonstrate": "probes.demonstration",
    "label_sets": "probes.labels",
    "sweep": "probes.sweep",
    "test_use": "probes.used",
}
__all__ = [
    "INLP",
    "LDA",
    "LEACE",
    "MLP",
    "Beside",
    "Demonstration",
    "DifferenceOfMeans",
    "FoundProbe",
    "Logistic",
    "Place",
    "ProbeDataset",
    "ProbeResults",
    "Ridge",
    "StructuralProbe",
    "Use",
    "beside_causes",
    "dataset",
    "demonstrate",
    "label_sets",
    "sweep",
    "test_use",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'probes' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


class _Package(ModuleType):
    """`probes.sweep` is the function, also where its module of the same name was imported first."""

    def __setattr__(self, name: str, value: Any) -> None:
        is_module = isinstance(value, ModuleType) and name in _HOMES
        super().__setattr__(name, getattr(value, name) if is_module else value)


sys.modules[__name__].__class__ = _Package
