"""Where activations go as they are read: into memory, or batch by batch into memory-mapped files of a folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from interp.errors import InputError, StorageError
from interp.files import content_hash, read_json, write_atomically, write_json
from probes.data import ProbeDataset

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["FolderSink", "MemorySink", "Sink", "as_objects", "fingerprint", "read_dataset", "write_tables"]

_FORMAT = 1
_ABOUT, _PROGRESS = "about.json", "progress.json"
_SECONDS = 3.0  # between two records of how far the files are


class Sink(Protocol):
    """Takes the activations of all rows, in order, from row `start` on."""

    start: int

    def write(self, site: str, rows: slice, x: NDArray) -> None: ...

    def done(self, rows: int) -> None: ...

    def close(self) -> dict[str, NDArray]: ...

    def discard(self) -> None: ...

    def stop(self) -> None: ...


class MemorySink:
    """One array for each site."""

    def __init__(self, n_rows: int) -> None:
        self.start, self._n_rows = 0, n_rows
        self._arrays: dict[str, NDArray] = {}

    def write(self, site: str, rows: slice, x: NDArray) -> None:
        if site not in self._arrays:
            self._arrays[site] = np.empty((self._n_rows, *x.shape[1:]), dtype=x.dtype)
        self._arrays[site][rows] = x

    def done(self, rows: int) -> None: ...

    def close(self) -> dict[str, NDArray]:
        return self._arrays

    def discard(self) -> None:
        self._arrays.clear()

    def stop(self) -> None:
        self._arrays.clear()


class FolderSink:
    """One .npy file for each site, written beside the folder and moved there when all rows are.

    `key` says what is read; a folder that holds just this is done, and files of an unfinished call with the same key
    are gone on with, from the last row that was recorded after the files had been flushed. Raises `InputError` for a
    folder that holds other activations, `StorageError` for one that holds other files.
    """

    def __init__(self, folder: str | os.PathLike[str], key: str, n_rows: int) -> None:
        self.folder, self._key, self._n_rows = Path(folder), key, n_rows
        self._part = self.folder.parent / f".{self.folder.name}.{key[:12]}.part"
        self._maps: dict[str, np.memmap] = {}
        self._recorded = time.monotonic()
        self._lock: _Lock | None = None
        self.start = n_rows
        if not _is_done(self.folder, key):
            self._lock = _Lock(self.folder)
            # Looked at once more: another process may just have finished.
            self.start = n_rows if _is_done(self.folder, key) else self._begun()

    def write(self, site: str, rows: slice, x: NDArray) -> None:
        if site not in self._maps:
            file = self._part / _file(site)
            if self.start:
                self._maps[site] = open_memmap(file, mode="r+")
            else:
                shape = (self._n_rows, *x.shape[1:])
                self._maps[site] = open_memmap(file, mode="w+", dtype=x.dtype, shape=shape)
        self._maps[site][rows] = x

    def done(self, rows: int) -> None:
        if time.monotonic() - self._recorded > _SECONDS:
            self._record(rows)

    def close(self) -> dict[str, NDArray]:
        """Move the finished files into place, and open them."""
        if not _is_done(self.folder, self._key):
            self._record(self._n_rows)
            self._maps.clear()
            self._move()
        self._unlock()
        about = read_json(self.folder / _ABOUT)
        return _opened(self.folder, about)

    def discard(self) -> None:
        """Throw away what was read of rows that cannot be kept."""
        self._maps.clear()
        shutil.rmtree(self._part, ignore_errors=True)
        self._unlock()

    def stop(self) -> None:
        """Leave what was read to a later call."""
        self._maps.clear()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
        self._lock = None

    def _record(self, rows: int) -> None:
        for one in self._maps.values():
            one.flush()
        self._recorded = time.monotonic()
        write_json(self._part / _PROGRESS, {"key": self._key, "rows": rows, "files": self._files()})

    def _files(self) -> dict[str, str]:
        known = read_json(self._part / _PROGRESS)["files"] if (self._part / _PROGRESS).is_file() else {}
        return {**known, **{site: _file(site) for site in self._maps}}

    def _begun(self) -> int:
        """How many rows an unfinished call left behind; else an empty folder to begin in."""
        try:
            known = read_json(self._part / _PROGRESS)
            if known["key"] == self._key and all((self._part / file).is_file() for file in known["files"].values()):
                return min(int(known["rows"]), self._n_rows)
        except (StorageError, KeyError, TypeError, ValueError):
            pass
        shutil.rmtree(self._part, ignore_errors=True)
        try:
            self._part.mkdir(parents=True)
        except OSError as error:
            raise StorageError(f"Cannot write {self.folder}: {error.strerror or error}. Choose another.") from error
        return 0

    def _move(self) -> None:
        files = self._files()
        for site, file in files.items():
            found = np.load(self._part / file, mmap_mode="r").shape
            if found[0] != self._n_rows:
                raise StorageError(f"{self._part / file} has {found[0]} rows of {site}, not {self._n_rows}. Delete it.")
        write_json(self._part / _ABOUT, {"format": _FORMAT, "key": self._key, "rows": self._n_rows, "files": files})
        (self._part / _PROGRESS).unlink()
        try:
            os.replace(self._part, self.folder)  # onto nothing, or onto an empty folder
        except OSError as error:
            raise StorageError(f"Cannot write {self.folder}: {error.strerror or error}.") from error


class _Lock:
    """One writer at a time, as far as the system has locks on files: they end with the process, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder.parent / f".{folder.name}.lock"
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_CREAT | os.O_RDWR)
        except OSError as error:
            raise StorageError(f"Cannot write {folder}: {error.strerror or error}. Choose another folder.") from error
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_held = os.fstat(self._file).st_ino == os.stat(self._path).st_ino  # not one that was just removed
        except OSError:
            is_held = False
        if not is_held:
            os.close(self._file)
            raise StorageError(f"Another process is writing {folder}. Wait for it, or choose another folder.")

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def fingerprint(**parts: Any) -> str:
    """SHA-256 over what decides the activations: arrays by their bytes, everything else as JSON."""
    digest = hashlib.sha256(f"format {_FORMAT}".encode())
    for name in sorted(parts):
        digest.update(name.encode() + b"\0")
        some = parts[name] if isinstance(parts[name], list | tuple) else [parts[name]]
        for one in some:
            if isinstance(one, np.ndarray):
                digest.update(f"{one.dtype}{one.shape}".encode() + np.ascontiguousarray(one).tobytes())
            else:
                digest.update(json.dumps(one).encode() + b"\0")
    return digest.hexdigest()


def write_tables(folder: Path, table: pd.DataFrame, labels: pd.DataFrame, about: Mapping[str, Any]) -> None:
    """Write what is known of the rows beside their activations, each file whole or not at all."""
    for name, frame in (("table", table), ("labels", labels)):
        write_atomically(folder / f"{name}.parquet", lambda part, frame=frame: frame.to_parquet(part))
    hashes = {name: content_hash(folder / f"{name}.parquet") for name in ("table", "labels")}
    write_json(folder / "dataset.json", {"about": dict(about), "hashes": hashes})


def read_dataset(folder: str | os.PathLike[str]) -> ProbeDataset:
    """A dataset that `dataset(…, storage=FOLDER)` wrote, its activations memory-mapped. Raises `StorageError` for a
    folder that holds none, or an unfinished one."""
    path = Path(folder)
    files, dataset = read_json(path / _ABOUT), read_json(path / "dataset.json")
    try:
        about = dataset["about"]
        for name, known in dataset["hashes"].items():
            if content_hash(path / f"{name}.parquet") != known:
                raise ValueError(f"{name}.parquet is not the one that was written with the rest")
        table, labels = (as_objects(pd.read_parquet(path / f"{name}.parquet")) for name in ("table", "labels"))
        random_init = None
        if about["random_init"]:
            twin = path / "random_init"
            random_init = ProbeDataset(_opened(twin, read_json(twin / _ABOUT)), table, labels, about)
        return ProbeDataset(_opened(path, files), table, labels, about, random_init)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise StorageError(f"{path} is damaged: {error}. Delete it, and make it again.") from error


def as_objects(frame: pd.DataFrame) -> pd.DataFrame:
    """The same with texts as objects and None where there is none, whatever pandas made of them."""
    texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    return frame.assign(**{name: frame[name].astype(object).where(frame[name].notna(), None) for name in texts})


def _file(site: str) -> str:
    return f"{site}.npy"


def _opened(folder: Path, about: Mapping[str, Any]) -> dict[str, NDArray]:
    return {site: np.load(folder / file, mmap_mode="r") for site, file in about["files"].items()}


def _is_done(folder: Path, key: str) -> bool:
    """Whether a folder holds these activations."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / _ABOUT).is_file():
        raise StorageError(f"{folder} holds other files. Choose a new folder.")
    about = read_json(folder / _ABOUT)
    if not isinstance(about, dict) or about.get("format") != _FORMAT:
        raise StorageError(f"{folder} holds no activations of format {_FORMAT}. Choose a new folder.")
    if about["key"] != key:
        raise InputError(
            f"{folder} holds activations of another model, other rows or other sites. Choose another folder, or "
            "delete this one."
        )
    return True
