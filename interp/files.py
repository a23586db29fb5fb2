"""Atomic writes and content hashes: a reader sees the old file or the new one, never half of either."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interp.errors import StorageError

__all__ = ["atomic_folder", "content_hash", "read_json", "write_atomically", "write_json", "write_text"]

_CHUNK = 1 << 20
_SWAP_TRIES = 20
_UMASK = os.umask(0)  # asking means setting, so it is asked once, before there are threads
os.umask(_UMASK)


def content_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], None]) -> None:
    """Call `write` on a temporary neighbour of `path`, then rename it into place.

    If `write` fails, the neighbour is removed and what stood at `path` stays. Raises `StorageError`
    for what the operating system refuses (full disk, missing rights).
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except OSError as error:
        raise StorageError(
            f"Cannot write {target}: {error.strerror or error}. Choose a folder you can write to."
        ) from error
    os.close(handle)
    part = Path(name)
    try:
        write(part)
        _flush_to_disk(part)
        os.chmod(part, 0o666 & ~_UMASK)
        os.replace(part, target)
    except OSError as error:
        raise StorageError(f"Cannot write {target}: {error.strerror or error}. Nothing was changed there.") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, marker: str | None = None) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends without an error.

    A folder that already stands at `path` is replaced; on an error it stays as it was. With `marker`, only an empty
    folder or one that holds a file of this name is replaced, so that nobody's other files are lost.
    """
    target = Path(path)
    if target.is_dir() and marker is not None and any(target.iterdir()) and not (target / marker).is_file():
        raise StorageError(f"Cannot write {target}: it holds other files. Choose a new folder.")
    if target.is_file():  # one look: between two, another writer may have moved a folder aside
        raise StorageError(f"Cannot write {target}: a file stands there. Choose a folder.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    except OSError as error:
        raise StorageError(
            f"Cannot write {target}: {error.strerror or error}. Choose a folder you can write to."
        ) from error
    try:
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                _flush_to_disk(file)
        os.chmod(part, 0o777 & ~_UMASK)
        _swap_in(part, target)
    except OSError as error:
        raise StorageError(f"Cannot write {target}: {error.strerror or error}. Nothing was changed there.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically."""

    def write(part: Path) -> None:
        part.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON document atomically; NaN and infinities are refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON document; a damaged one raises `StorageError` naming the file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"Cannot read {path}: {error}") from error


def _swap_in(part: Path, target: Path) -> None:
    for _ in range(_SWAP_TRIES):
        try:
            if target.exists():
                _replace_folder(part, target)
            else:
                os.rename(part, target)
            return
        except OSError as error:  # another writer stepped in between: look again
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST) or not part.exists():
                raise
    raise OSError(errno.EBUSY, "other writers keep replacing it")


def _replace_folder(part: Path, target: Path) -> None:
    """Put `part` where `target` stands; if that fails, `target` comes back."""
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    spare = True  # whether what lies aside may be thrown away
    try:
        os.rename(target, aside / "was")
        spare = False
        try:
            os.rename(part, target)
            spare = True
        except OSError:
            spare = target.exists()  # another writer's: then neither ours nor the old one is needed
            if not spare:
                os.rename(aside / "was", target)
                spare = True
            raise
    finally:
        if spare:
            shutil.rmtree(aside, ignore_errors=True)


def _flush_to_disk(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
