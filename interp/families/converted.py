"""The cache of converted weights: float32 safetensors that later loads memory-map instead of dequantising.

An entry is a folder named for the content of the file it was made from: `model.safetensors`, `config.json`, the
tokenizer's files, and `manifest.json` with each file's size and checksums. Every byte is checked before it is used
(CRC-32, several threads: 0.2 s for 0.5 GB, and the pages are then in memory for the forward pass).
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InterpError, StorageError
from interp.families.base import Checkpoint
from interp.files import atomic_folder
from interp.model.config import ModelConfig

__all__ = ["cache_folder", "cache_key", "open_entry", "wait_for_writes", "write_entry", "write_later"]

_CONVERTER = 1  # raise it when a conversion changes: entries of other versions are not found again
_SEGMENT = 16 << 20
_STALE = 3600.0  # seconds after which another process's unfinished folder counts as left behind
_MANIFEST, _WEIGHTS, _CONFIG = "manifest.json", "model.safetensors", "config.json"

_lock = threading.Lock()
_writers: dict[Path, threading.Thread] = {}


def cache_folder() -> Path:
    """Where converted weights lie: `$INTERP_CACHE`, or the user's cache folder."""
    chosen = os.environ.get("INTERP_CACHE")
    if chosen:
        return Path(chosen) / "converted"
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("interp")) / "converted"


def cache_key(content: str, ignore: Iterable[str] = ()) -> str:
    """An entry's name: what was converted, by which version, and which refusals were waived for it."""
    return hashlib.sha256(json.dumps([content, _CONVERTER, sorted(ignore)]).encode()).hexdigest()


def open_entry(key: str, *, with_tokenizer: bool = True) -> Checkpoint | None:
    """A stored entry with its weights memory-mapped; None if there is none, or if any byte of it is wrong."""
    folder = cache_folder() / key
    if not (folder / _MANIFEST).is_file():
        return None
    try:
        with ThreadPoolExecutor(thread_name_prefix="interp-cache") as pool:
            tokenizer = pool.submit(_load_tokenizer, folder) if with_tokenizer else None
            if not _is_sound(folder, pool):
                return None
            config = ModelConfig.from_dict(json.loads((folder / _CONFIG).read_text(encoding="utf-8")))
            return Checkpoint(config, _mapped(folder / _WEIGHTS), tokenizer.result() if tokenizer else None)
    except Exception:  # whatever an old or damaged entry provokes, converting again mends it
        return None


def write_entry(
    key: str,
    config: ModelConfig,
    shapes: Mapping[str, tuple[int, ...]],
    weights: Iterable[tuple[str, Float[Tensor, "..."]]],
    tokenizer: Any,
) -> None:
    """Write an entry and let it appear whole. `weights` come one by one, in the order of `shapes`."""
    root = cache_folder()
    _sweep(root, key)
    with atomic_folder(root / key) as part:
        _write_weights(part / _WEIGHTS, shapes, weights)
        (part / _CONFIG).write_text(json.dumps(config.to_dict()), encoding="utf-8")
        if tokenizer is not None:
            tokenizer.save(part)
        files = {file.name: _checksums(file) for file in sorted(part.iterdir())}
        (part / _MANIFEST).write_text(_sealed({"converter": _CONVERTER, "files": files}), encoding="utf-8")


def write_later(key: str, write: Callable[[], None]) -> None:
    """Run `write` in a thread that the process waits for at its end. If it fails, loading goes on: one warning."""
    target = cache_folder() / key

    def run() -> None:
        try:
            write()
        except Exception as error:
            if open_entry(key, with_tokenizer=False) is None:  # otherwise another process has written it meanwhile
                _warn_not_written(target, error)
        finally:
            with _lock:
                _writers.pop(target, None)

    with _lock:
        if target not in _writers:
            _writers[target] = thread = threading.Thread(target=run, name="interp-cache-writer", daemon=False)
            thread.start()


def wait_for_writes() -> None:
    """Return when no entry is being written by this process."""
    while True:
        with _lock:
            thread = next(iter(_writers.values()), None)
        if thread is None:
            return
        thread.join()


def _warn_not_written(target: Path, error: Exception) -> None:
    reason = str(error) if isinstance(error, InterpError) else f"Cannot write {target}: {type(error).__name__}: {error}"
    warnings.warn(
        f"The converted weights were not cached, so the next load takes as long as this one. {reason} "
        "The model itself is complete. INTERP_CACHE names another folder for the cache.",
        RuntimeWarning,
        stacklevel=2,
    )


def _write_weights(
    path: Path, shapes: Mapping[str, tuple[int, ...]], weights: Iterable[tuple[str, Float[Tensor, "..."]]]
) -> None:
    """A safetensors file, tensor by tensor: the library's own writer wants all of them in memory at once."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 64)  # so that the values are aligned for vector instructions
    expected = iter(shapes.items())
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in weights:
            assert (name, tuple(tensor.shape)) == next(expected), name
            file.write(memoryview(cast(Any, tensor.float().contiguous().numpy())).cast("B"))
    assert next(expected, None) is None


def _mapped(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, memory-mapped privately: nothing is copied, and an edit stays in this process."""
    from safetensors.torch import load_file

    return load_file(path)


def _load_tokenizer(folder: Path) -> Any:
    from interp.text.tokenizer import Tokenizer

    files = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["content"]["files"]
    return Tokenizer.load(folder) if set(files) - {_WEIGHTS, _CONFIG} else None


def _sealed(content: Mapping[str, Any]) -> str:
    """JSON that carries a checksum of itself."""
    return json.dumps({"content": content, "crc32": zlib.crc32(json.dumps(content).encode())})


def _is_sound(folder: Path, pool: ThreadPoolExecutor) -> bool:
    manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    content = manifest["content"]
    if manifest != json.loads(_sealed(content)) or content["converter"] != _CONVERTER:
        return False
    files = content["files"]
    if any(os.path.getsize(folder / name) != file["size"] for name, file in files.items()):
        return False
    checks = [(folder / name, file["crc32"]) for name, file in files.items()]
    return all(_crcs(path, pool) == expected for path, expected in checks)


def _checksums(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "crc32": _crcs(path)}


def _crcs(path: Path, pool: ThreadPoolExecutor | None = None) -> list[int]:
    """The CRC-32 of every segment of a file; without a pool in this thread, as a process that is ending must."""
    if path.stat().st_size == 0:
        return []
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        starts = range(0, len(data), _SEGMENT)
        with memoryview(data) as view:

            def crc(start: int) -> int:
                with view[start : start + _SEGMENT] as segment:
                    return zlib.crc32(segment)

            return list((pool.map if pool else map)(crc, starts))


def _sweep(root: Path, key: str) -> None:
    """Remove what writers of this entry left behind when they were killed."""
    try:
        leftovers = [path for path in root.glob(f".{key}.*") if time.time() - path.stat().st_mtime > _STALE]
    except OSError as error:
        raise StorageError(f"Cannot read {root}: {error.strerror or error}.") from error
    for path in leftovers:
        shutil.rmtree(path, ignore_errors=True)
