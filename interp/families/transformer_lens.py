"""A bridge of TransformerLens: a transformers model whose submodules it has wrapped. Read by duck typing; nothing of
TransformerLens is imported, and the bridge is never changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import UnsupportedModelError
from interp.families.base import Checkpoint, family_for_hf
from interp.families.live import open_live

__all__ = ["is_bridge", "open_bridge", "refuse_wrapped"]

_INNER = "_original_component"  # where a wrapper keeps what it wraps


def is_bridge(model: Any) -> bool:
    """Whether an object is a model of TransformerLens, by the module that defines its class."""
    return any(kind.__module__.partition(".")[0] == "transformer_lens" for kind in type(model).__mro__)


def refuse_wrapped(model: Any) -> None:
    """Raise `UnsupportedModelError` for a transformers model whose submodules a bridge has replaced."""
    if isinstance(model, nn.Module) and any(_INNER in module._modules for module in model.modules()):
        raise UnsupportedModelError(
            f"TransformerLens has replaced the submodules of this {type(model).__name__} to build a bridge around it. "
            "Give the bridge, which knows whether it changed the weights."
        )


def open_bridge(bridge: Any, *, dtype: torch.dtype, device: torch.device, ignore: tuple[str, ...] = ()) -> Checkpoint:
    """The checkpoint inside a bridge, and its tokenizer: text becomes the same tokens, BOS included.

    Raises `UnsupportedModelError` where the bridge computes with other weights than the checkpoint's: folded and
    centred ones, or ones that were edited behind a split of a fused q/k/v.
    """
    inner = getattr(bridge, "original_model", None)
    if not isinstance(inner, nn.Module) or not hasattr(getattr(inner, "config", None), "to_dict"):
        raise UnsupportedModelError(
            f"A {type(bridge).__name__} of TransformerLens holds no transformers model, so its weights are not the "
            "checkpoint's own. Give a TransformerBridge, or the checkpoint itself: its hub id, folder or file."
        )
    if getattr(bridge, "_weights_processed", getattr(bridge, "compatibility_mode", False)):
        raise UnsupportedModelError(
            "The weights of this TransformerBridge are processed (folded, centred), and cannot be told from the "
            "checkpoint's own any more. Give a bridge without enable_compatibility_mode, or with "
            "no_processing=True; interp.fold_norms(model) then returns a folded copy."
        )
    _refuse_edited_splits(inner)
    unwrapped = _Unwrapped(inner, _without_added_bias(inner, ignore))
    checkpoint = open_live(unwrapped, dtype=dtype, device=device, ignore=ignore)
    return replace(checkpoint, tokenizer=_tokenizer(bridge))


class _Unwrapped:
    """A live model as it was before it was wrapped, as far as it is read."""

    def __init__(self, model: nn.Module, tensors: dict[str, Tensor]):
        self.config, self._tensors = model.config, tensors
        self.name_or_path = getattr(model, "name_or_path", "")

    def state_dict(self) -> dict[str, Tensor]:
        return self._tensors


def _original(module: nn.Module) -> nn.Module:
    while (inner := module._modules.get(_INNER)) is not None:
        module = inner
    return module


def _tensors(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Parameters and stored buffers under the names they had before the wrapping: of a wrapper only what it wraps is
    entered, since its other children are further names for parts of that."""
    module = _original(module)
    stored = {k: v for k, v in module._buffers.items() if k not in module._non_persistent_buffers_set}
    for name, tensor in {**module._parameters, **stored}.items():
        if tensor is not None:
            yield prefix + name, tensor
    for name, child in module._modules.items():
        if child is not None:
            yield from _tensors(child, f"{prefix}{name}.")


def _without_added_bias(model: Any, ignore: tuple[str, ...]) -> dict[str, Tensor]:
    """All tensors but the bias of zeros that a bridge gives to an unembedding whose checkpoints have none."""
    tensors = dict(_tensors(model))
    head = getattr(model, "get_output_embeddings", lambda: None)()
    bias = getattr(_original(head), "bias", None) if isinstance(head, nn.Module) else None
    if bias is None or bias.is_meta or bool(bias.any()):
        return tensors
    source, hf = f"the config of this {type(model).__name__}", model.config.to_dict()
    family = family_for_hf(hf, source)
    others = {name: x for name, x in tensors.items() if x is not bias}
    own = family.fitted(family.config_from_hf(hf, source=source, ignore=ignore), others).bias_unembed
    return {name: x for name, x in tensors.items() if x is not bias or (own and family.table.knows(name))}


def _refuse_edited_splits(model: nn.Module) -> None:
    """A fused q/k/v is computed from its parts; what is done to those alone would be lost in what is read here."""
    for name, module in model.named_modules():
        parts = [module._modules.get(part) for part in "qkv"]
        if _INNER not in module._modules or any(part is None for part in parts):
            continue
        whole, split = dict(_tensors(module)), [dict(_tensors(part)) for part in parts if part is not None]
        for kind in ("weight", "bias"):
            pieces = [part[kind].flatten() for part in split if kind in part]
            if pieces and not _made_of(whole, torch.cat(pieces), kind):
                raise UnsupportedModelError(
                    f"The q, k and v of {name.replace(f'.{_INNER}', '')} in this TransformerBridge are not those of "
                    "its fused weights any more: they were edited. Make the edit on the transformers model before the "
                    "bridge, or on the model that load returns."
                )


def _made_of(whole: dict[str, Tensor], pieces: Tensor, kind: str) -> bool:
    """Whether the fused tensor of this size holds the same numbers, in whatever order; True if there is none."""
    fused = (x for name, x in whole.items() if name.endswith(kind) and x.numel() == pieces.numel())
    found = next(fused, None)
    return found is None or found.is_meta or torch.equal(found.flatten().sort().values, pieces.to(found).sort().values)


def _tokenizer(bridge: Any) -> Any:
    from interp.text.hub import tokenizer_from_live

    theirs = getattr(bridge, "tokenizer", None)
    if theirs is None or getattr(theirs, "backend_tokenizer", None) is None:
        return None
    ours = tokenizer_from_live(theirs)
    ours.add_bos = bool(getattr(bridge.cfg, "default_prepend_bos", ours.add_bos)) and ours.bos_id is not None
    return ours
