"""A text read along a probe's direction, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from interp.errors import InputError
from interp.model.transformer import HookedTransformer

if TYPE_CHECKING:
    from probes.results import FoundProbe

__all__ = ["Projection", "project"]


@dataclass(frozen=True)
class Projection:
    """Where each token of a text lies along a direction, in distances between the two class means: 0 is the probe's
    threshold (of numbers and of many classes: the middle between the means farthest apart), above it lies `above`."""

    tokens: tuple[str, ...]
    values: NDArray[np.floating]
    below: str
    above: str


def project(found: FoundProbe, model: HookedTransformer, text: str, *, prepend_bos: bool | None = None) -> Projection:
    """One pass over a text up to the probe's site. Raises `InputError` for a place that this model has not, or that
    has not one vector per token."""
    name = str(model.sites.resolve(found.place.site))
    tokens = model.to_tokens(text, prepend_bos=prepend_bos)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, [name])
    x = cache[name][0]
    x = x if found.place.head is None else x[:, found.place.head]
    direction = np.asarray(found.direction, dtype=float)
    if x.ndim != 2 or x.shape != (tokens.shape[1], len(direction)):
        raise InputError(
            f"The probe reads {len(direction)} numbers for each token at {found.place}; this model has there "
            f"{tuple(x.shape)}. Give the model that the probe was fitted on."
        )
    along = x.double().cpu().numpy() @ direction
    means = np.asarray(found.means, dtype=float) @ direction
    low, high = int(means.argmin()), int(means.argmax())
    middle = found.threshold if np.isfinite(found.threshold) else (means[low] + means[high]) / 2
    distance = means[high] - means[low]
    if not distance > 0:
        raise InputError(f"The class means of {found.target} at {found.place} do not lie apart along the direction.")
    strings = tuple(model.tokenizer.str_tokens(tokens[0].tolist()))
    return Projection(strings, (along - middle) / distance, str(found.classes[low]), str(found.classes[high]))
