"""A model that already stands in memory, made by the transformers library: read by duck typing, never changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from interp.errors import CheckpointError
from interp.families.base import Checkpoint, family_for_hf

__all__ = ["is_live_model", "open_live"]


def is_live_model(model: Any) -> bool:
    """Whether an object has the two methods that are read: `.config.to_dict()` and `.state_dict()`."""
    return hasattr(getattr(model, "config", None), "to_dict") and callable(getattr(model, "state_dict", None))


def open_live(model: Any, *, dtype: torch.dtype, device: torch.device, ignore: tuple[str, ...] = ()) -> Checkpoint:
    """The checkpoint that a live model amounts to now. Weights are copied: later changes on either side stay there.

    Raises `CheckpointError` for weights that are not in memory, `UnsupportedModelError` for what its family refuses.
    """
    hf = model.config.to_dict()
    source = f"the config of this {type(model).__name__}"
    family = family_for_hf(hf, source)
    config = family.config_from_hf(hf, source=source, ignore=ignore)
    stored = model.state_dict()
    absent = next((name for name, tensor in stored.items() if tensor.is_meta), None)
    if absent:
        raise CheckpointError(f"{absent} of this {type(model).__name__} is not in memory (meta device). Load it whole.")
    config = family.fitted(config, stored)
    weights = family.weights_from_hf(stored, config, source=f"this {type(model).__name__}", ignore=ignore)
    places = {_place(tensor): tensor for tensor in weights.values()}  # what is tied there stays one tensor
    apart = {place: tensor.detach().to(device, dtype, copy=True) for place, tensor in places.items()}
    copies = {name: apart[_place(tensor)] for name, tensor in weights.items()}
    name = str(hf.get("_name_or_path") or getattr(model, "name_or_path", "") or type(model).__name__)
    return Checkpoint(replace(config, model_name=name), copies)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Where a tensor lies: two that agree in this are views of the same numbers."""
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
