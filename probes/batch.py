"""Probes as an analysis of a sweep: `{name = "probes", estimator = "ridge"}` with tasks, or with `labels`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.batch import Analysis, Ask
from interp.errors import InputError

__all__ = ["ANALYSIS"]

_OPTIONS = {"labels": None, "sites": "resid", "estimator": "ridge", "rigor": "quick", "n": None}
_CHOICES = {"estimator": ("ridge", "lda", "difference", "logistic", "mlp"), "rigor": ("quick", "full")}


def _probes(ask: Ask) -> Any:
    import probes

    asked = ask.options
    name = asked["labels"]
    if ask.drawn is not None:
        if ask.drawn.task is None:
            raise InputError(f"probes need labels, and {ask.drawn.name} has none. Give a task, or labels = NAME.")
        name = ask.drawn.task.name
    if name is None:
        raise InputError("probes need labels. Give the sweep a task, or the analysis labels = NAME.")
    drawn: dict[str, Any] = {"sites": asked["sites"], "n": asked["n"], "seed": ask.seed, "progress": ask.progress}
    data = probes.dataset(ask.model, name, random_init=True, **drawn)
    return probes.sweep(data, asked["estimator"], rigor=asked["rigor"], seed=ask.seed, progress=ask.progress)


def _found(results: Any) -> Mapping[str, float]:
    """The best score of each target over its places."""
    frame = results.to_frame()
    column = "score" if "score" in frame else frame.select_dtypes("number").columns[0]
    return {f"best {name} {column}": float(rows[column].max()) for name, rows in frame.groupby("target", sort=False)}


ANALYSIS = Analysis(
    "probes",
    "what can be decoded, layer by layer",
    _probes,
    "may",
    _OPTIONS,
    _CHOICES,
    alone=("labels",),
    passes=60.0,
    found=_found,
)
