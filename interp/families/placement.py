"""Where the weights of a model go that does not fit: blocks in their order on devices, then memory, then disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from interp.errors import InputError
from interp.model.config import ModelConfig
from interp.model.placed import DISK
from interp.model.transformer import HookedTransformer

__all__ = ["Plan", "check_placement", "plan_placement"]

_GIVE = 'Give a place -> its limit, e.g. max_memory={0: "20GB", "cpu": "30GB"}: a number of a GPU, or "cpu".'


@dataclass(frozen=True)
class Plan:
    """Where each parameter lies (a device, or "disk"), and the device that computes."""

    where: Mapping[str, str]
    device: torch.device
    folder: Path | None

    @property
    def is_divided(self) -> bool:
        return set(self.where.values()) != {str(self.device)}


def check_placement(placement: object, max_memory: object, offload_folder: object, device: object) -> None:
    """Raise `InputError` for options that contradict each other, before anything is opened."""
    if placement is None:
        given = {"max_memory": max_memory, "offload_folder": offload_folder}
        for name, value in given.items():
            if value is not None:
                raise InputError(f'{name}={value!r} divides a model, which placement="auto" asks for. Pass that too.')
        return
    if placement != "auto":
        raise InputError(f'placement={placement!r} is not to be had. It is "auto", or left out.')
    if device is not None:
        raise InputError(
            f"placement and device={device!r} both say where the weights go. Leave device out: the first GPU of "
            "max_memory computes, or the CPU where there is none."
        )
    if offload_folder is not None and not isinstance(offload_folder, str | os.PathLike):
        raise InputError(f"offload_folder={offload_folder!r} is no path. Give the folder that weights may be put in.")
    if offload_folder is not None and Path(offload_folder).expanduser().is_file():
        raise InputError(f"offload_folder={str(offload_folder)!r} is a file. Give a folder.")
    if find_spec("accelerate") is None:
        raise InputError('placement="auto" needs the package accelerate. Install it with: pip install accelerate')


def plan_placement(
    cfg: ModelConfig, *, dtype: torch.dtype, max_memory: Mapping[Any, Any] | None, offload_folder: Any
) -> Plan:
    """Blocks in the order of the pass fill each place up to its limit; room for the largest block is left where
    others come to. Raises `InputError` for limits that cannot be, and where disk is needed and not named."""
    from accelerate import infer_auto_device_map

    limits = _limits(max_memory)
    skeleton = HookedTransformer(cfg, device="meta")
    kinds = sorted(
        {type(block).__name__ for stack in (skeleton.encoder, skeleton.decoder) if stack for block in stack.blocks}
    )
    chosen = infer_auto_device_map(skeleton, max_memory=dict(limits), no_split_module_classes=kinds, dtype=dtype)
    parameters = dict(skeleton.named_parameters())
    where = {name: _spelled(_of(name, chosen)) for name in parameters}
    size = {name: parameter.numel() * dtype.itemsize for name, parameter in parameters.items()}
    outside = sum(size[name] for name, place in where.items() if place == DISK)
    if outside and offload_folder is None:
        shown = ", ".join(f"{place}: {limit / 1e6:,.0f} MB" for place, limit in limits.items())
        raise InputError(
            f"{outside / 1e6:,.0f} of the {sum(size.values()) / 1e6:,.0f} MB of weights do not fit into the limits "
            f"({shown}; room for the largest block is left free). Name a folder with space: offload_folder=…"
        )
    folder = None if offload_folder is None else Path(offload_folder).expanduser()
    return Plan(where, torch.device(_spelled(next(iter(limits)))), folder)


def _limits(max_memory: Mapping[Any, Any] | None) -> dict[Any, Any]:
    """Bytes per place, the one that computes first. Without limits: what is free now."""
    from accelerate.utils import convert_file_size_to_int, get_max_memory

    if max_memory is None:
        return get_max_memory()
    if not isinstance(max_memory, Mapping) or not max_memory:
        raise InputError(f"max_memory={max_memory!r} limits nothing. {_GIVE}")
    n = torch.accelerator.device_count()
    found: dict[Any, Any] = {}
    for place, limit in max_memory.items():
        known = place in ("cpu", "mps") if isinstance(place, str) else type(place) is int and 0 <= place < n
        if not known or (place == "mps" and not torch.backends.mps.is_available()):
            raise InputError(f"max_memory names {place!r}; this machine has {n} GPUs and its CPU. {_GIVE}")
        try:
            found[place] = convert_file_size_to_int(limit) if isinstance(limit, str) else limit
        except ValueError as error:
            raise InputError(
                f"max_memory[{place!r}]={limit!r} is no size. Give bytes, or a text as '200MB'."
            ) from error
        if type(found[place]) is not int or found[place] < 0:
            raise InputError(f"max_memory[{place!r}]={limit!r} is no size. Give bytes, or a text as '200MB'.")
    return get_max_memory(found)


def _of(name: str, chosen: Mapping[str, Any]) -> Any:
    """The place of a parameter: that of the longest name of a module, or its own, that it stands under."""
    fitting = [module for module in chosen if not module or f"{name}.".startswith(f"{module}.")]
    return chosen[max(fitting, key=len)]


def _spelled(place: int | str) -> str:
    if isinstance(place, str):
        return place
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is not None
    return f"{accelerator.type}:{place}"
