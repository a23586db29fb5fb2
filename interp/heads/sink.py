"""Sink heads: they rest on the first token and write little (Xiao 2023)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from interp.circuits.ov import written_norms
from interp.heads.base import Finder, Writing
from interp.heads.data import TEXT, text_windows
from interp.heads.patterns import first_token
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer

__all__ = ["FINDER", "norm_over_median"]


def norm_over_median(model: HookedTransformer, batch: Batch) -> Float[Tensor, "layer head"]:
    """How much a head writes, over the median of its layer."""
    norms = written_norms(model, batch)
    return norms / norms.nanmedian(dim=1, keepdim=True).values


FINDER = Finder(
    name="sink",
    definition="mean attention from each token but the first to the first",
    rule=first_token,
    make_data=text_windows,
    data=TEXT,
    score_cutoff=0.5,
    writing=Writing("norm written, over the layer's median", norm_over_median, "<", 1.0),
    cause="repeated_tokens",
    effect_cutoff=None,  # what resting heads do to the loss is reported, not asked for
    applies_to=frozenset({"decoder"}),
)
