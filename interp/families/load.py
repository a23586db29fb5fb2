"""`interp.load`: one door for every kind of checkpoint."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from interp.errors import CheckpointError, InputError, UnknownModelError
from interp.families.base import Checkpoint, Family, families
from interp.families.gguf_file import is_gguf, open_gguf
from interp.families.hub import PICKLED, download, is_hub_id, open_folder
from interp.families.live import is_live_model, open_live
from interp.families.packaged import PACKAGED, find_packaged, packaged_path
from interp.families.transformer_lens import is_bridge, open_bridge, refuse_wrapped

if TYPE_CHECKING:
    from interp.model.transformer import HookedTransformer

__all__ = ["ModelListing", "load", "models", "supported"]

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
_GIVE = (
    'Give a packaged name ("smollm2-135m"), the path of a .gguf file, a local folder with config.json and '
    'safetensors, a hub id ("organisation/model"), a live transformers model, or a TransformerBridge.'
)


def load(
    model: Any,
    *,
    tokenizer: Any = None,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str | None = None,
    revision: str | None = None,
    ignore: Iterable[str] = (),
    placement: str | None = None,
    max_memory: Mapping[Any, Any] | None = None,
    offload_folder: Any = None,
) -> HookedTransformer:
    """A model with every tensor at a site, from a packaged name, a `.gguf` file, a folder or id in the hub's layout,
    a live transformers model, or a TransformerBridge of TransformerLens (which are copied, never changed).

    `tokenizer` replaces the checkpoint's own: ours, a live fast tokenizer of transformers, or a folder with
    `tokenizer.json`. `revision` is a branch, tag or commit of a hub id. `ignore` names config fields, metadata keys or
    tensors that are then treated as absent: the way out where one is refused that you know to be harmless.

    `placement="auto"` divides a model that is larger than one device: its blocks fill the places that `max_memory`
    names ({0: "20GB", "cpu": "30GB"}; None: what is free now) and then files in `offload_folder`, and each weight comes
    to the device that computes when it is read (docs/placement.md).

    Raises `UnknownModelError` if nothing is found, `CheckpointError` for damaged files, `UnsupportedModelError` for
    mathematics that is not implemented (the field or tensor is named), `InputError` for a bad argument.
    """
    from interp.families.placement import check_placement, plan_placement
    from interp.model.placed import place as placed
    from interp.model.transformer import HookedTransformer

    check_placement(placement, max_memory, offload_folder, device)
    kind, place, waived = _dtype(dtype), _device("cpu" if device is None else device), _names(ignore)
    if revision is not None and not (isinstance(model, str) and _is_remote(model)):
        raise InputError(f"revision={revision!r} applies to hub ids only. Leave it out for {_shown(model)}.")
    given = _tokenizer(tokenizer)
    checkpoint = _open(model, kind, place, revision, waived, with_tokenizer=given is None)
    chosen = given or checkpoint.tokenizer
    config = replace(checkpoint.config, default_prepend_bos=bool(chosen is not None and chosen.add_bos))
    plan = None
    if placement is not None:
        plan = plan_placement(config, dtype=kind, max_memory=max_memory, offload_folder=offload_folder)
        place = plan.device
    if plan is not None and plan.is_divided:
        made = placed(
            config, checkpoint.weights, chosen, where=plan.where, dtype=kind, device=place, folder=plan.folder
        )
    else:
        made = HookedTransformer.from_weights(config, checkpoint.weights, chosen, dtype=kind, device=place)
    if checkpoint.afterwards:
        checkpoint.afterwards()
    return made


@dataclass(frozen=True)
class ModelListing:
    """A model that `load` knows by name."""

    name: str
    about: str
    installed: bool
    install: str


def models() -> tuple[ModelListing, ...]:
    """The models that `load` knows by name, and how to install those that are absent."""
    return tuple(
        ModelListing(model.name, model.about, _installed(model.distribution), model.install)
        for model in PACKAGED.values()
    )


def supported() -> tuple[Family, ...]:
    """The checkpoint families: their hub `model_type`s, their GGUF architectures, and what they refuse."""
    return families()


def _open(
    model: Any,
    dtype: torch.dtype,
    device: torch.device,
    revision: str | None,
    ignore: tuple[str, ...],
    *,
    with_tokenizer: bool,
) -> Checkpoint:
    options: dict[str, Any] = {"ignore": ignore, "with_tokenizer": with_tokenizer}
    if is_bridge(model):
        return open_bridge(model, dtype=dtype, device=device, ignore=ignore)
    if is_live_model(model):
        refuse_wrapped(model)
        return open_live(model, dtype=dtype, device=device, ignore=ignore)
    if not isinstance(model, str | os.PathLike) or not str(model).strip():
        raise UnknownModelError(f"load cannot take {_shown(model)}. {_GIVE}")
    if isinstance(model, str) and (packaged := find_packaged(model)):
        file = packaged_path(packaged)
        in_folder = file.name == "config.json"
        checkpoint = open_folder(file.parent, **options) if in_folder else open_gguf(file, **options)
        return replace(checkpoint, config=replace(checkpoint.config, model_name=packaged.name))
    path = Path(model).expanduser()
    if path.is_dir():
        return open_folder(path, **options)
    if path.is_file():
        return _open_file(path, **options)
    if isinstance(model, str) and _is_remote(model):
        return open_folder(download(model, revision), name=model, **options)
    raise _unknown(model)


def _open_file(path: Path, **options: Any) -> Checkpoint:
    if path.suffix.lower() in PICKLED:
        raise CheckpointError(
            f"{path} is a pickle by its name, which can run any code and is not opened. Give a folder with safetensors."
        )
    if path.suffix.lower() in (".safetensors", ".json") and not is_gguf(path):
        raise CheckpointError(f"{path} is one file of a checkpoint. Give the folder that holds it: {path.parent}")
    return open_gguf(path, **options)


def _is_remote(model: str) -> bool:
    """Whether a string can only be meant as a hub id: nothing lies there, and it does not look like a file."""
    looks_local = model.startswith((".", "~", "/")) or model.lower().endswith((".gguf", ".safetensors", *PICKLED))
    return is_hub_id(model) and not looks_local and not find_packaged(model) and not Path(model).exists()


def _unknown(model: Any) -> UnknownModelError:
    text = str(model)
    if isinstance(model, os.PathLike) or "/" in text or "\\" in text or text.lower().endswith(".gguf"):
        return UnknownModelError(f"There is no file or folder at {text}. {_GIVE}")
    near = difflib.get_close_matches(text.lower(), PACKAGED, n=3, cutoff=0.4)
    hint = f"The nearest name is {', '.join(near)}." if near else f"Known names: {', '.join(PACKAGED)}."
    return UnknownModelError(f"{text!r} is no model that load knows. {hint} {_GIVE}")


def _tokenizer(given: Any) -> Any:
    from interp.text.hub import tokenizer_from_folder, tokenizer_from_live
    from interp.text.tokenizer import Tokenizer

    if given is None or isinstance(given, Tokenizer):
        return given
    return tokenizer_from_folder(Path(given)) if isinstance(given, str | os.PathLike) else tokenizer_from_live(given)


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    found = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in _DTYPES.values():
        raise InputError(f"dtype={dtype!r} is not a kind of weights. Choose one of {', '.join(_DTYPES)}.")
    return found


def _device(device: torch.device | str) -> torch.device:
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f'device={device!r} cannot be used here ({reason}). "cpu" always can.') from error
    return place


def _names(ignore: Iterable[str]) -> tuple[str, ...]:
    names = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    if not all(isinstance(name, str) for name in names):
        raise InputError(f'ignore={ignore!r} must be names of fields or tensors, e.g. ignore=("rope_scaling",).')
    return names


def _installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _shown(model: Any) -> str:
    text = repr(model)
    return text if len(text) <= 80 else f"a {type(model).__name__}"
