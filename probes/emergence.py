"""Probe accuracy as a measure of checkpoints: what each layer lets a linear probe read while heads form."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from interp.dynamics import Examples
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from probes.estimators import Ridge

__all__ = ["probe_accuracy"]

_LEAST = 2  # examples that each label has on average where a probe is fitted


@torch.no_grad()
def probe_accuracy(model: HookedTransformer, examples: Examples) -> dict[str, Float[ndarray, " row"]]:
    """Accuracy of ridge probes on the residual behind each layer, per row, for two labels: `previous`, the token before
    the query (which a previous-token head brings), and `next`, the token to predict. `control`: the same probes of
    `next` on labels that are exchanged between rows.

    For `interp.emergence(…, measures="probe_accuracy")`. Queries are those that predict a scored token. Every other row
    fits, the rest are reported; a label with fewer than two examples a class, or one class, is left out. A linear probe
    says that something can be read there, not that it is used. Cost: one forward pass, and a fit per layer and label.
    """
    if examples.source is not None:
        raise InputError("probe_accuracy reads the residual of one stack; leave it out for an encoder-decoder.")
    asked = examples.all_scored[:, 1:]
    fits = torch.arange(len(asked)) % 2 == 0
    sites = [f"resid_post.{layer}" for layer in range(model.main.config.n_layers)]
    _, cache = model.run_with_cache(examples.tokens[:, :-1], sites)
    found: dict[str, ndarray] = {}
    for label, wanted, targets in _labels(examples, asked, fits):
        for layer, site in enumerate(sites):
            found[f"{label}, layer {layer}"] = _accuracy(cache[site], wanted, targets, fits)
    if not found:
        raise InputError("No label has two classes of two examples each on these rows. Give a larger n.")
    return found


def _labels(examples: Examples, asked: Tensor, fits: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, which queries have it, and its values `[row pos]`."""
    before, following = examples.tokens[:, :-1], examples.tokens[:, 1:]
    previous = torch.nn.functional.pad(before, (1, 0))[:, :-1]
    exchanged = torch.empty_like(following)
    for half in (fits, ~fits):
        exchanged[half] = following[half].roll(1, dims=0)
    for name, values in (("previous", previous), ("next", following), ("control", exchanged)):
        wanted = asked.clone()
        wanted[:, 0] &= name != "previous"
        seen = values[fits][wanted[fits]]
        classes = len(seen.unique())
        if classes > 1 and len(seen) >= _LEAST * classes:
            yield name, wanted, values


def _accuracy(resid: Tensor, wanted: Tensor, targets: Tensor, fits: Tensor) -> ndarray:
    """Per reported row that asks, the share of its queries that are read right."""
    learnt = wanted & fits[:, None]
    scale = resid[learnt].double().std().clamp(min=1e-12)
    probe = Ridge(alpha=1.0).fit((resid[learnt].double() / scale).numpy(), targets[learnt].numpy())
    rows = wanted & ~fits[:, None]
    right = np.zeros(rows.shape)
    right[rows.numpy()] = probe.predict((resid[rows].double() / scale).numpy()) == targets[rows].numpy()
    count = rows.sum(1).numpy()
    return right.sum(1)[count > 0] / count[count > 0]
