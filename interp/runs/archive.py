"""Runs as one zip file: written for others, and taken in only if every byte is what its manifest says."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from interp.errors import InputError, StorageError
from interp.files import content_hash, write_atomically
from interp.runs.manifest import MANIFEST, read_run
from interp.runs.placing import TakenError, must_be_id, new_folder

__all__ = ["files_of", "read_archive", "write_archive"]

_ENTRIES = 1_000_000
_CHUNK = 1 << 20
_UNSAFE = re.compile(r"[\\:\x00-\x1f]")  # what another system reads as a drive, a folder or an end
_BROKEN = (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def files_of(folder: Path) -> list[Path]:
    """The plain files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def write_archive(store: Path, names: Sequence[str], target: Path) -> None:
    """Write runs, whatever their status, as one zip file; only a zip file is overwritten."""
    if target.exists() and not zipfile.is_zipfile(target):
        raise StorageError(f"{target} exists and is no zip file, so it is not overwritten. Choose another name.")

    def write(part: Path) -> None:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
            for name in names:
                for file in files_of(store / name):
                    archive.write(file, Path(name) / file.relative_to(store / name))

    write_atomically(target, write)


def read_archive(path: Path, store: Path, limit: int) -> dict[str, Literal["added", "there"]]:
    """Take in the runs of a zip file; none appears before all of them were verified.

    `limit` is the largest size in bytes that they may have unpacked. Raises `InputError` for whatever is no run as
    `write_archive` writes them, and for an id that the store has with other contents.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            runs = _grouped(archive, limit)
            manifests = {name: _manifest(archive, name, files) for name, files in runs.items()}
            there = {name for name, data in manifests.items() if _is_there(store / name, data)}
            with ExitStack() as placed:
                for name in runs.keys() - there:
                    part = placed.enter_context(new_folder(store / name))
                    _unpack(archive, name, runs[name], manifests[name], part)
    except (InputError, StorageError):
        raise
    except TakenError as error:
        raise InputError(f"A run {error} appeared in {store} in the meantime. Import again.") from error
    except _BROKEN as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise StorageError(f"Cannot import {path} into {store}: {reason}. Nothing of it was added.") from error
    return {name: "there" if name in there else "added" for name in sorted(runs)}


def _grouped(archive: zipfile.ZipFile, limit: int) -> dict[str, dict[str, zipfile.ZipInfo]]:
    """run -> file inside it -> entry; refuses whatever is not a file inside a run."""
    entries = [one for one in archive.infolist() if not one.is_dir()]
    if len(entries) > _ENTRIES or sum(one.file_size for one in entries) > limit:
        size = sum(one.file_size for one in entries)
        raise InputError(
            f"The archive has {len(entries):,} files of {size:,} bytes unpacked; at most {_ENTRIES:,} files and "
            f"{limit:,} bytes are taken. Raise the limit if you trust it."
        )
    runs: dict[str, dict[str, zipfile.ZipInfo]] = {}
    for one in entries:
        parts = one.filename.split("/")
        if len(parts) < 2 or _UNSAFE.search(one.orig_filename) or any(part in ("", ".", "..") for part in parts):
            raise InputError(f"The archive holds {one.filename!r}, which is no file inside a run. Nothing was added.")
        if stat.S_IFMT(one.external_attr >> 16) not in (0, stat.S_IFREG) or one.flag_bits & 1:
            raise InputError(f"{one.filename!r} in the archive is a link or encrypted. Nothing was added.")
        files = runs.setdefault(must_be_id(parts[0]), {})
        if files.setdefault("/".join(parts[1:]), one) is not one:
            raise InputError(f"The archive holds {one.filename!r} twice. Nothing was added.")
    if not runs:
        raise InputError("The archive holds no runs. Give one that `interp runs export` wrote.")
    return runs


def _manifest(archive: zipfile.ZipFile, name: str, files: Mapping[str, zipfile.ZipInfo]) -> bytes:
    if MANIFEST not in files or files[MANIFEST].file_size > 16 << 20:
        raise InputError(f"{name} in the archive has no {MANIFEST} as a run has it. Nothing was added.")
    return b"".join(_chunks(archive, files[MANIFEST]))


def _is_there(folder: Path, manifest: bytes) -> bool:
    """Whether the store has this run; `InputError` if it has another of this name."""
    if not os.path.lexists(folder):
        return False
    info, facts = read_run(folder)
    same = info.status == "ok" and (folder / MANIFEST).read_bytes() == manifest
    if not same or any(content_hash(folder / name) != one["sha256"] for name, one in facts["files"].items()):
        raise InputError(
            f"{folder.parent} holds a run {folder.name!r} with other contents. Delete it or import into another store."
        )
    return True


def _unpack(
    archive: zipfile.ZipFile, name: str, files: Mapping[str, zipfile.ZipInfo], manifest: bytes, part: Path
) -> None:
    try:
        said = json.loads(manifest)["files"]
        known = {file: (facts["bytes"], facts["sha256"]) for file, facts in said.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{name} in the archive has a damaged {MANIFEST}. Nothing was added.") from error
    if foreign := sorted(files.keys() - known.keys() - {MANIFEST}):
        raise InputError(f"{name} in the archive has {foreign[0]!r}, which its manifest does not name.")
    (part / MANIFEST).write_bytes(manifest)
    for file in files.keys() - {MANIFEST}:
        target = part / file
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with open(target, "xb") as out:
            for chunk in _chunks(archive, files[file]):
                size += len(chunk)
                digest.update(chunk)
                out.write(chunk)
        if (size, digest.hexdigest()) != known[file]:
            raise InputError(f"{name}/{file} in the archive is not what its manifest says. Nothing was added.")
    info, _ = read_run(part)
    if info.status != "ok":
        raise InputError(f"{name} in the archive cannot be used: {info.reason}. Nothing was added.")


def _chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterable[Any]:
    """The bytes of an entry, never more than its header says."""
    left = entry.file_size
    with archive.open(entry) as file:
        while chunk := file.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise InputError(f"{entry.filename!r} in the archive is larger than it says. Nothing was added.")
            yield chunk
