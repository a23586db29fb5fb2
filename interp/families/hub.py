"""Checkpoints in hub layout: a local folder with `config.json` and safetensors, or a repository of the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.errors import CheckpointError, StorageError, UnknownModelError
from interp.families.base import Checkpoint, family_for_hf

__all__ = ["LOCAL_WAYS", "PICKLED", "download", "is_hub_id", "open_folder"]

# Never *.bin or *.py: pickle and remote code are not even fetched.
_WANTED = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.jinja",
]
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
LOCAL_WAYS = (
    'Without the network, give a packaged name ("smollm2-135m"), the path of a .gguf file, '
    "or a local folder with config.json and safetensors."
)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form `organisation/model`."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII) is not None


def download(repository: str, revision: str | None) -> Path:
    """The folder of a hub repository, downloaded or found in the hub's own cache.

    Raises `UnknownModelError` if it is neither.
    """
    import huggingface_hub
    from huggingface_hub import errors

    wanted = repository if revision is None else f"{repository} at revision {revision}"
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=_WANTED))
    except errors.GatedRepoError as error:
        raise UnknownModelError(
            f"{wanted} is gated on the hub. Accept its terms there and log in with: hf auth login"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UnknownModelError(f"The hub has no {wanted} that you can see. Check the name. {LOCAL_WAYS}") from error
    except Exception as error:  # several HTTP libraries' errors, by version
        raise UnknownModelError(
            f"{wanted} is not in the hub's cache on this machine and could not be downloaded "
            f"({type(error).__name__}). {LOCAL_WAYS}"
        ) from error


def open_folder(
    folder: Path, *, name: str | None = None, ignore: tuple[str, ...] = (), with_tokenizer: bool = True
) -> Checkpoint:
    """The checkpoint in a folder; its tensors are memory-mapped, not copied.

    Raises `CheckpointError` for a folder that is incomplete, damaged, or holds pickled weights only, and
    `UnsupportedModelError` for what its family refuses.
    """
    hf = _object(folder / "config.json", "It is no folder in hub layout; give one that has it.")
    source = str(folder / "config.json")
    family = family_for_hf(hf, source)
    config = family.config_from_hf(hf, source=source, ignore=ignore)
    tensors = _tensors(folder)
    config = family.fitted(config, tensors)
    weights = family.weights_from_hf(tensors, config, source=str(folder), ignore=ignore)
    tokenizer = _tokenizer(folder) if with_tokenizer else None
    return Checkpoint(replace(config, model_name=name or folder.resolve().name), weights, tokenizer)


def _tensors(folder: Path) -> dict[str, Tensor]:
    if (folder / _INDEX).is_file():
        return _sharded(folder)
    if (folder / _SINGLE).is_file():
        return _mapped(folder / _SINGLE)
    raise _without_safetensors(folder)


def _sharded(folder: Path) -> dict[str, Tensor]:
    index = _object(folder / _INDEX, "Download it again.").get("weight_map")
    if not isinstance(index, Mapping) or not all(isinstance(file, str) for file in index.values()):
        raise CheckpointError(f"{folder / _INDEX} has no weight_map from tensors to files. Download it again.")
    shards: dict[str, dict[str, Tensor]] = {}
    for file in sorted(set(index.values())):
        if file != Path(file).name or not file.endswith(".safetensors"):
            raise CheckpointError(f"{folder / _INDEX} points to {file!r}, which is not a safetensors file beside it.")
        if not (folder / file).is_file():
            raise CheckpointError(f"{folder} has no {file}, which its index names. Download it again.")
        shards[file] = _mapped(folder / file)
    missing = [name for name, file in index.items() if name not in shards[file]]
    if missing:
        raise CheckpointError(
            f"{folder / index[missing[0]]} has no tensor {missing[0]}, which the index puts there. Download it again."
        )
    return {name: shards[file][name] for name, file in index.items()}


def _mapped(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is damaged or cut short ({path.stat().st_size:,} bytes; {error}). Download it again."
        ) from error


def _without_safetensors(folder: Path) -> CheckpointError:
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if not pickled:
        return CheckpointError(f"{folder} has neither {_SINGLE} nor {_INDEX}. Give a folder that has its weights.")
    return CheckpointError(
        f"{folder} has its weights only as {pickled[0]}, a pickle, which can run any code and is not opened. If you "
        "trust it, convert it with transformers: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new)."
    )


def _tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; None if it has no file of one, so that a bare model can still be fed token ids."""
    from interp.text.hub import tokenizer_from_folder

    names = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt")
    if not any((folder / name).exists() for name in names):
        return None
    if (folder / "source.spm").exists() and not (folder / "tokenizer.json").exists():
        return None  # Marian's two SentencePiece models, one for each language, have no other form
    return tokenizer_from_folder(folder)


def _object(path: Path, advice: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} has no {path.name}. {advice}") from error
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}. Check its rights.") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}. Download it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}, not an object. Download it again.")
    return value
