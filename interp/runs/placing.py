"""Folders that appear whole and once: what is being written has a hidden name, and what stands is never replaced."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from interp.errors import InputError, StorageError

__all__ = [
    "RUN_ID",
    "TakenError",
    "hidden",
    "is_folder",
    "must_be_id",
    "must_be_writable",
    "new_folder",
    "new_id",
    "sweep",
]

RUN_ID = re.compile(r"\d{8}-\d{6}-\d{3}-[0-9a-f]{8}")
_CHOSEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_LEFTOVER = re.compile(rf"\.({RUN_ID.pattern}|run-{_CHOSEN.pattern})\.\w+\.(part|old)")  # as `hidden` names them
_STALE = 24 * 3600  # seconds after which what a killed writer left is removed
_UMASK = os.umask(0)  # asking means setting, so it is asked once, before there are threads
os.umask(_UMASK)


class TakenError(Exception):
    """Something stands where a new folder was to appear."""


def new_id(store: Path) -> str:
    """Time in UTC and 8 random digits, as no run of the store is named."""
    while True:
        now = datetime.now(UTC)
        name = f"{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}-{secrets.token_hex(4)}"
        if not (store / name).exists():
            return name


def must_be_id(name: str) -> str:
    """The name, if a run may be called so on every system."""
    if not _CHOSEN.fullmatch(name):
        raise InputError(f"{name!r:.120} cannot be a run's id. Give up to 100 letters, digits, - and _.")
    return name


def hidden(store: Path, name: str, end: str) -> Path:
    """A new hidden folder beside a run, that `sweep` knows as ours. `end` is "part" or "old"."""
    mark = "" if RUN_ID.fullmatch(name) else "run-"
    return Path(tempfile.mkdtemp(prefix=f".{mark}{name}.", suffix=f".{end}", dir=store))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A hidden folder that becomes `path` when the block ends without an error, all of it on the disk.

    Raises `TakenError` where something stands already, looked for before the block and again by the rename itself, so
    that of two writers one is refused. An empty folder counts as nothing.
    """
    if _exists(path):
        raise TakenError(path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = hidden(path.parent, path.name, "part")
    try:
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                with open(file, "rb+") as handle:
                    os.fsync(handle.fileno())
        os.chmod(part, 0o777 & ~_UMASK)
        try:
            os.rename(part, path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise TakenError(path.name) from error
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sweep(store: Path) -> None:
    """Remove what killed writers left behind long ago."""
    try:
        with os.scandir(store) as entries:
            left = [one for one in entries if _LEFTOVER.fullmatch(one.name) and is_folder(one)]
    except OSError:
        return
    for one in left:
        try:
            stale = time.time() - one.stat(follow_symlinks=False).st_mtime > _STALE
        except OSError:
            continue
        if stale:
            shutil.rmtree(one.path, ignore_errors=True)


def must_be_writable(folder: Path) -> None:
    """Raise `StorageError` unless files can be made in a folder, or the folder itself can be; leaves nothing behind."""
    place = folder
    try:
        while not _exists(place) and place != place.parent:
            place = place.parent
        if not place.is_dir():
            raise StorageError(f"Cannot write in {folder}: {place} is no folder. Choose a folder you can write to.")
        os.rmdir(tempfile.mkdtemp(prefix=".", suffix=".part", dir=place))
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"Cannot write in {folder}: {error.strerror or error}. Choose a folder you can write to."
        ) from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is a folder itself, and no link to one."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
