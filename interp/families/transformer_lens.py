"""A bridge of TransformerLens: a transformers model whose submodules it has wrapped. Read by duck typing; nothing of
TransformerLens is imported, and the bridge is never changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import UnsupportedModelError
from interp.families.base import Checkpoint, Family, Tensors, family_for_hf
from interp.families.live import open_live
from interp.model.config import ModelConfig

__all__ = ["is_bridge", "open_bridge", "refuse_wrapped"]

_INNER = "_original_component"  # where a wrapper keeps what it wraps
_SPLITS = {  # what a bridge takes apart, and our names of its parts
    "q, k and v": {"q": "attn.q", "k": "attn.k", "v": "attn.v"},
    "gate and in": {"gate": "mlp.gate", "in": "mlp.up"},
}


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
    centred ones, or ones that were edited behind a split of a fused map.
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
    _refuse_edited_splits(inner, ignore)
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


def _refuse_edited_splits(model: Any, ignore: tuple[str, ...]) -> None:
    """A fused map is computed from its parts; what is done to those alone would be lost in what is read here."""
    hf, source = model.config.to_dict(), f"the config of this {type(model).__name__}"
    family = family_for_hf(hf, source)
    config = family.config_from_hf(hf, source=source, ignore=ignore)
    for name, module in model.named_modules():
        for words, places in _SPLITS.items():
            parts = [(ours, module._modules.get(theirs)) for theirs, ours in places.items()]
            if _INNER not in module._modules or any(part is None for _, part in parts):
                continue
            stem = name.replace(f".{_INNER}", "")
            split = {f"{ours}.{kind}": x for ours, part in parts if part is not None for kind, x in _tensors(part)}
            if not _made_of(dict(_tensors(module, f"{stem}.")), split, family, config):
                raise UnsupportedModelError(
                    f"The {words} of {stem} in this TransformerBridge are not those of its fused weights any more: "
                    "they were edited. Make the edit on the transformers model before the bridge, or on the model "
                    "that load returns."
                )


def _made_of(whole: Tensors, split: Tensors, family: Family, config: ModelConfig) -> bool:
    """Whether the parts are exactly what the family's own rule makes of the fused tensors; True if none is fused."""
    fused: dict[str, Tensor] = {}
    for name, tensor in whole.items():
        made = list(family.table.convert(name, tensor, config))
        if len(made) > 1:
            fused |= {".".join(target.split(".")[-3:]): part for target, part in made}
    places = {name.rpartition(".")[0] for name in split}
    fused = {name: x for name, x in fused.items() if name.rpartition(".")[0] in places}
    return not fused or all(_agree(fused.get(name), split.get(name)) for name in fused.keys() | split.keys())


def _agree(whole: Tensor | None, part: Tensor | None) -> bool:
    """Whether both are the same numbers; a bias that one of them lacks is one of zeros."""
    if whole is None or part is None:
        left = part if whole is None else whole
        return left is None or not bool(left.any())
    return whole.is_meta or part.is_meta or torch.equal(whole, part.to(whole))


def _tokenizer(bridge: Any) -> Any:
    from interp.text.hub import tokenizer_from_live

    theirs = getattr(bridge, "tokenizer", None)
    if theirs is None or getattr(theirs, "backend_tokenizer", None) is None:
        return None
    ours = tokenizer_from_live(theirs)
    ours.add_bos = bool(getattr(bridge.cfg, "default_prepend_bos", ours.add_bos)) and ours.bos_id is not None
    return ours
