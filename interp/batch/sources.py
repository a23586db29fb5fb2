"""Checkpoints as a sweep names them: opened, listed by revision, and told apart by their files without loading them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import InputError, InterpError, StorageError, UnknownModelError

if TYPE_CHECKING:
    from interp.model.transformer import HookedTransformer

__all__ = ["n_parameters", "open_model", "revisions_of", "weights_of"]

PLANTED = "planted:"
ALL = "all"
_WHOLE = 256 << 20  # bytes up to which a file is hashed whole; of a larger one, its head and samples of it
_SAMPLES, _SAMPLE = 64, 64 << 10
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def open_model(model: str, revision: str | int | None, root: Path) -> HookedTransformer:
    """The model of a job. Raises what `interp.load` raises."""
    from interp.families.load import load

    if model.startswith(PLANTED):
        from interp.planted import make

        return make(model.removeprefix(PLANTED), n=4).model
    if (training := _training(model, root)) is not None:
        assert isinstance(revision, int)
        return _checkpoint(training, revision).load()
    found = _local(model, root)
    loaded = load(model if found is None else found, revision=None if revision is None else str(revision))
    return loaded


def revisions_of(model: str, asked: Sequence[str | int], root: Path) -> Sequence[str | int | None]:
    """The revisions of a model that a sweep comes to. Raises `InputError` for those that there are not."""
    training = _training(model, root)
    if training is not None:
        steps = _steps(training)
        if not asked:
            return steps[-1:]
        found = [step for one in asked for step in (steps if one == ALL else [_checkpoint(training, one).step])]
        return list(dict.fromkeys(found))
    if not asked:
        return [None]
    if model.startswith(PLANTED) or _local(model, root) is not None or _packaged(model) is not None:
        raise InputError(
            f"{model} has no revisions: they are branches, tags or commits of hub ids, and steps of trainings. Put it "
            "into a sweep of its own, without revisions."
        )
    if ALL in asked:
        raise InputError(f'revisions = ["all"] is for trainings. Name the branches, tags or commits of {model}.')
    return [str(one) for one in dict.fromkeys(asked)]


def weights_of(model: str, revision: str | int | None, root: Path) -> str:
    """A hash that tells a checkpoint from others by its files: their content, the hub's own hashes of it where they are
    the names of files, and of files above 256 MB their size, head and samples. `RunSpec` counts it."""
    if model.startswith(PLANTED):
        from interp.planted import names

        name = model.removeprefix(PLANTED)
        if name not in names():
            raise UnknownModelError(f"There is no planted circuit {name!r}. Known are {', '.join(names())}.")
        return model
    if (training := _training(model, root)) is not None:
        return _digest([_checkpoint(training, revision).sha256])
    return _digest([f"{file.name} {_mark(file)}" for file in _files(model, revision, root)])


def n_parameters(model: str, revision: str | int | None, root: Path) -> int:
    """How many numbers a checkpoint holds, from the heads of its files; 0 where they do not say."""
    try:
        if model.startswith(PLANTED):
            return sum(one.numel() for one in open_model(model, revision, root).parameters())
        training = _training(model, root)
        files = (
            [_checkpoint(training, revision).folder / "model.safetensors"]
            if training is not None
            else _files(model, revision, root)
        )
        return sum(_in_file(file) for file in files)
    except (InterpError, OSError, ValueError, LookupError):
        return 0


def _local(model: str, root: Path) -> Path | None:
    """The file or folder that a model's name leads to."""
    if _packaged(model) is not None:
        return None
    path = root / Path(model).expanduser()
    return path if path.exists() else None


def _packaged(model: str) -> Any:
    from interp.families.packaged import find_packaged

    return find_packaged(model)


def _training(model: str, root: Path) -> Path | None:
    """The folder of a training, if the model is one."""
    from interp.dynamics.folder import ASKED

    path = None if model.startswith(PLANTED) else _local(model, root)
    return path if path is not None and (path / ASKED).is_file() else None


def _steps(training: Path) -> list[int]:
    steps = list(_opened(training).steps)
    if not steps:
        raise InputError(f"{training} holds no checkpoint yet. Wait for the first, or train again.")
    return steps


def _checkpoint(training: Path, step: Any) -> Any:
    if isinstance(step, str) and step.isdecimal():
        step = int(step)
    if not isinstance(step, int):
        raise InputError(f'{step!r} is no step of {training}. Give whole numbers, or "all".')
    return _opened(training).at(step)


@lru_cache(maxsize=64)
def _read(training: Path, mark: int) -> Any:
    from interp.dynamics.folder import checkpoints

    return checkpoints(training)


def _opened(training: Path) -> Any:
    """The checkpoints of a training, read once for as long as none is added."""
    from interp.dynamics.folder import STEPS

    folder = training / STEPS
    return _read(training, folder.stat().st_mtime_ns if folder.exists() else 0)


def _files(model: str, revision: str | int | None, root: Path) -> list[Path]:
    """The files that decide what a model computes."""
    from interp.families.hub import download, is_hub_id
    from interp.families.load import load
    from interp.families.packaged import packaged_path

    if (packaged := _packaged(model)) is not None:
        file = packaged_path(packaged)
        return _in_folder(file.parent) if file.name == "config.json" else [file]
    if (path := _local(model, root)) is not None:
        return _in_folder(path) if path.is_dir() else [path]
    if is_hub_id(model) and not model.startswith((".", "~", "/")):
        return _in_folder(download(model, None if revision is None else str(revision)))
    load(model)  # says what is near
    raise UnknownModelError(f"{model!r} is no model that load knows.")


def _in_folder(folder: Path) -> list[Path]:
    ends = (".safetensors", ".json", ".txt", ".jinja", ".model")
    return sorted(file for file in folder.iterdir() if file.suffix in ends and file.is_file())


def _mark(file: Path) -> str:
    """A file's content in a word. In the hub's cache a file is a link whose target is named by its hash."""
    real = file.resolve()
    if real.parent.name == "blobs" and _BLOB.fullmatch(real.name):
        return real.name
    found = real.stat()
    return _hashed(real, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _hashed(file: Path, size: int, changed: int) -> str:
    from interp.files import content_hash

    try:
        if size <= _WHOLE:
            return content_hash(file)
        parts = hashlib.sha256(str(size).encode())
        with open(file, "rb") as opened:
            for i in range(_SAMPLES):
                opened.seek(i * (size - _SAMPLE) // (_SAMPLES - 1))
                parts.update(opened.read(_SAMPLE))
        return f"sampled-{parts.hexdigest()}"
    except OSError as error:
        raise StorageError(f"Cannot read {file}: {error.strerror or error}. Check its rights.") from error


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _in_file(file: Path) -> int:
    if file.suffix == ".safetensors":
        with open(file, "rb") as opened:
            head = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        shapes = [one["shape"] for name, one in head.items() if name != "__metadata__"]
        return sum(_product(shape) for shape in shapes)
    if file.suffix == ".gguf":
        return int(os.path.getsize(file) * 8 / 4.85)  # of the common 4-bit layouts; others have fewer
    return 0


def _product(shape: Sequence[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
