"""A model whose weights do not lie together: some on its device, the others on further devices or on disk.

Every tensor of a pass lies on `model.device`, and so do edits, caches and keys: a weight comes there when it is read
and goes when nobody holds it any more. All code reads weights as attributes of three kinds of modules, so that is the
one place where they are brought (`_Brought`). Nothing else of the model differs, and nothing hangs on it.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import InputError, StorageError
from interp.model.config import ModelConfig
from interp.model.core import check_weights
from interp.model.norms import Norm
from interp.model.stack import Embedding
from interp.model.transformer import HookedTransformer

__all__ = ["DISK", "PlacedTransformer", "place"]

DISK = "disk"
_READ_ONLY = (
    "The weights of a placed model are read-only: a weight that is brought from elsewhere is a copy. Edit activations "
    "instead (run_with_hooks, ablate, steer), or load the model without placement."
)


class PlacedTransformer(HookedTransformer):
    """A `HookedTransformer` whose weights come to `device` when they are read. Made by `interp.load(placement=…)`.

    Weights are read-only and by no means parameters: what asks for parameters (training, `to`, `state_dict`,
    `fold_norms`, `to_hf_state_dict`, copying, pickling) is refused. A single weight is read as on any model
    (`model.blocks[3].attn.W_O`); those stacked over layers (`model.W_O`) are all in memory together.
    """

    placement: Mapping[str, str]  # parameter -> the device where it lies, or "disk"

    def stored_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Each weight under its name, one after the other; a tied one once."""
        for name in self.placement:
            owner, _, leaf = name.rpartition(".")
            yield name, getattr(self.get_submodule(owner), leaf)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise InputError(
            "This model's weights are placed on several devices or on disk, so they cannot be listed as parameters, "
            "moved, trained, folded, copied or saved. Load it without placement where it fits."
        )

    named_parameters = state_dict = load_state_dict = requires_grad_ = _apply = __reduce_ex__ = _refuse


@dataclass
class _Desk:
    """What all weights of a model share: where they come to, and the last one that was brought from elsewhere."""

    device: torch.device
    last: tuple[_Weight, Tensor, int] | None = None

    def bring(self, weight: _Weight) -> Tensor:
        """A copy on the device. The one before is kept until then: to be given again, and to see edits of it."""
        last = self.last
        if last is not None:
            owner, tensor, version = last
            if tensor._version != version:
                self.last = None
                raise InputError(f"{owner.name} was edited in place. {_READ_ONLY}")
            if owner is weight:
                return tensor
        self.last = None  # before the next one is read, so that two are not held at once
        tensor = weight.fetch().to(self.device)
        self.last = (weight, tensor, tensor._version)
        return tensor


@dataclass(frozen=True, eq=False)
class _Weight:
    """One weight: the tensor on its device, or the file that holds its bytes."""

    name: str
    shape: torch.Size
    dtype: torch.dtype
    desk: _Desk
    held: Tensor | Path = field(repr=False)

    def get(self) -> Tensor:
        if isinstance(self.held, Tensor) and self.held.device == self.desk.device:
            return self.held
        return self.desk.bring(self)

    def fetch(self) -> Tensor:
        return self.held if isinstance(self.held, Tensor) else _read(self.held, self.shape, self.dtype)


class _Brought:
    """An attribute of a module that brings its weight when it is read."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, module: Any, owner: type | None = None) -> Any:
        if module is None:
            return self
        weight = module.brought.get(self.name)
        return None if weight is None else weight.get()

    def __set__(self, module: Any, value: object) -> NoReturn:
        raise InputError(_READ_ONLY)


class _ReadOnly:
    """What placed modules share. `brought` holds their weights by name."""

    brought: dict[str, _Weight | None]

    def register_parameter(self, name: str, param: nn.Parameter | None) -> NoReturn:
        raise InputError(_READ_ONLY)


class _Linear(_ReadOnly, nn.Linear):
    weight = _Brought("weight")  # pyright: ignore[reportAssignmentType]
    bias = _Brought("bias")  # pyright: ignore[reportAssignmentType]


class _Norm(_ReadOnly, Norm):
    w = _Brought("w")
    b = _Brought("b")


class _Embedding(_ReadOnly, Embedding):
    weight = _Brought("weight")

    @property
    def device(self) -> torch.device:
        return self._table.desk.device

    @property
    def dtype(self) -> torch.dtype:
        return self._table.dtype

    @property
    def _table(self) -> _Weight:
        weight = self.brought["weight"]
        assert weight is not None
        return weight


_KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: _Linear, Norm: _Norm, Embedding: _Embedding}


def place(
    cfg: ModelConfig,
    weights: Mapping[str, Float[Tensor, "..."]],
    tokenizer: Any = None,
    *,
    where: Mapping[str, str],
    dtype: torch.dtype,
    device: torch.device,
    folder: Path | None = None,
) -> PlacedTransformer:
    """A model over given tensors, each copied to the device that `where` names for its parameter, or to a file.

    Files lie in a folder of their own inside `folder`, in the model's dtype, and go when the model goes.
    """
    model = PlacedTransformer(cfg, tokenizer, device="meta")
    meta = dict(HookedTransformer.named_parameters(model))  # a tied one once
    check_weights(meta, weights)
    own = _own_folder(model, folder, sum(p.numel() * dtype.itemsize for name, p in meta.items() if where[name] == DISK))
    desk, made, stored = _Desk(device), {}, {}
    for name, parameter in meta.items():
        key = (id(weights[name]), where[name])  # layers may share one tensor
        if key not in stored:
            stored[key] = _stored(weights[name].detach().to(dtype), where[name], own, len(stored))
        made[id(parameter)] = _Weight(name, parameter.shape, dtype, desk, stored[key])
    for module in model.modules():
        if module._parameters:
            brought = {leaf: None if p is None else made[id(p)] for leaf, p in module._parameters.items()}
            module._parameters.clear()
            module.__class__ = _KINDS[type(module)]
            module.__dict__["brought"] = brought
    model.placement = {name: where[name] for name in meta}
    return model


def _stored(tensor: Tensor, place: str, folder: Path | None, number: int) -> Tensor | Path:
    if place != DISK:
        moved = tensor.to(place)
        return moved.clone() if moved.data_ptr() == tensor.data_ptr() else moved  # lets a mapped checkpoint go
    assert folder is not None
    path = folder / f"{number}.bin"
    try:
        tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tofile(path)
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {error.strerror or error}. Name another offload_folder.") from error
    return path


def _read(path: Path, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """A weight from its file. Read, not memory-mapped: mapped pages would stay in memory after their use."""
    tensor = torch.empty(shape, dtype=dtype)
    left = memoryview(cast(Any, tensor.reshape(-1).view(torch.uint8).numpy()))
    try:
        with open(path, "rb", buffering=0) as file:
            while len(left):
                n = file.readinto(left)
                if not n:
                    raise StorageError(f"{path} was cut short, so its weight is lost. Load the model again.")
                left = left[n:]
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"{path}, which holds a weight of this model, cannot be read: {error.strerror or error}. Load it again."
        ) from error
    return tensor


def _own_folder(model: PlacedTransformer, folder: Path | None, size: int) -> Path | None:
    """A new folder for `size` bytes that is removed with the model, or at the end of the process."""
    if not size:
        return None
    assert folder is not None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < size:
            raise StorageError(f"{folder} has {free / 1e6:,.0f} MB free; {size / 1e6:,.0f} MB of weights go there.")
        own = Path(tempfile.mkdtemp(prefix="interp-weights-", dir=folder))
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"Cannot use offload_folder {folder}: {error.strerror or error}. Name another.") from error
    weakref.finalize(model, shutil.rmtree, own, ignore_errors=True)
    return own
