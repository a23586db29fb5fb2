"""What a store remembers of its manifests, so that many runs are listed without reading them again.

`.index/runs.json` is never the truth and may be deleted at any time. An entry counts only while the manifest has the
size and times it had when it was read; every file of the run is looked at each time, so one that is missing or has
another size is noticed as without an index. Entries younger than the clocks of file systems can tell are not kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from interp.errors import StorageError
from interp.files import write_atomically
from interp.runs.kinds import known_kinds
from interp.runs.manifest import MANIFEST, RunInfo, read_run

__all__ = ["INDEX", "Seen", "index_problems", "look", "read_checked", "settled", "write_checked"]

INDEX = ".index"  # folder inside a store
_RUNS = "runs.json"
_FORMAT = 1
_WORTH = 200  # new runs; fewer are read faster than an index is written
_SETTLING = 2_000_000_000  # nanoseconds in which a file may change again without another time

Stamp = tuple[int, int, int]  # modified, changed, bytes


@dataclass(frozen=True)
class Seen:
    """A run as it stood when looked at; `stamps` of its manifest and files, None where one could not be had."""

    info: RunInfo
    files: Mapping[str, int]
    stamps: tuple[Stamp | None, ...]

    @property
    def mark(self) -> str:
        """Changes when any file does, as far as sizes and times tell."""
        return hashlib.blake2b(repr(self.stamps).encode(), digest_size=12).hexdigest()


def settled(seen: Seen) -> bool:
    """Whether its files are old enough for their times to tell the next change."""
    latest = time.time_ns() - _SETTLING
    return all(stamp is not None and max(stamp[:2]) < latest for stamp in seen.stamps)


def look(store: Path, names: Iterable[str]) -> list[Seen]:
    """The runs of these names; those deleted in the meantime are left out."""
    entries = _entries(store)
    kinds, found, new = set(known_kinds()), [], 0
    for name in names:
        seen = _remembered(os.path.join(store, name), name, entries.get(name), kinds)
        if seen is None:
            seen = _read(store / name)
            new += 1
        if seen is not None:
            found.append(seen)
    if new >= max(_WORTH, len(entries) // 10) or len(entries) > 2 * len(found) + _WORTH:
        _remember(store, found)
    return found


def index_problems(store: Path) -> list[str]:
    """Where the index contradicts manifests it claims to know."""
    path = store / INDEX / _RUNS
    if not path.exists():
        return []
    entries = _entries(store)
    if not entries:
        return [f"{_RUNS} is not as it was written"]
    wrong = []
    for name, entry in entries.items():
        seen = _remembered(os.path.join(store, name), name, entry, set(known_kinds()))
        if seen is not None and seen.info != read_run(store / name)[0]:
            wrong.append(f"{_RUNS} says something else of {name} than its manifest")
    return wrong


def write_checked(path: Path, value: Any) -> None:
    """JSON behind its own hash, so that a reader knows it is whole."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False).encode()
    digest = hashlib.sha256(text).hexdigest().encode()

    def write(part: Path) -> None:
        part.write_bytes(digest + b"\n" + text)

    write_atomically(path, write)


def read_checked(path: Path) -> Any:
    """What `write_checked` wrote; None if it is not there or not as it was written."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        digest, _, text = path.read_bytes().partition(b"\n")
        return json.loads(text) if hashlib.sha256(text).hexdigest().encode() == digest else None
    except (OSError, ValueError, RecursionError):
        return None


def _entries(store: Path) -> dict[str, Any]:
    saved = read_checked(store / INDEX / _RUNS)
    good = isinstance(saved, dict) and saved.get("format") == _FORMAT and isinstance(saved.get("runs"), dict)
    return saved["runs"] if good else {}


def _remember(store: Path, found: list[Seen]) -> None:
    entries = {
        seen.info.id: [seen.stamps[0], seen.info.to_dict(), dict(seen.files)]
        for seen in found
        if seen.info.status == "ok" and settled(seen)
    }
    try:
        write_checked(store / INDEX / _RUNS, {"format": _FORMAT, "runs": entries})
    except StorageError:
        return  # a store that cannot be written, or no room: it is read as it is


def _remembered(folder: str, name: str, entry: Any, kinds: set[str]) -> Seen | None:
    """The entry, if its manifest is still the one it was read from and every file is there in its size."""
    try:
        at, facts, files = entry
        first = _stamp(f"{folder}/{MANIFEST}")
        if first is None or list(first) != at or facts["id"] != name or facts["kind"] not in kinds:
            return None
        stamps = [first]
        for file, size in files.items():
            stamp = _stamp(f"{folder}/{file}")
            if stamp is None or stamp[2] != size:
                return None
            stamps.append(stamp)
        info = RunInfo(**{**facts, "created": datetime.fromisoformat(facts["created"])})
    except (TypeError, ValueError, LookupError, AttributeError):
        return None
    return Seen(info, files, tuple(stamps))


def _read(folder: Path) -> Seen | None:
    first = _stamp(f"{folder}/{MANIFEST}")  # before reading: what changes meanwhile has another time later
    info, manifest = read_run(folder)
    if info.status == "damaged" and not os.path.lexists(folder):
        return None
    files: dict[str, int] = {}
    if info.status == "ok":
        files = {name: facts["bytes"] for name, facts in manifest["files"].items()}
    return Seen(info, files, (first, *(_stamp(f"{folder}/{name}") for name in files)))


def _stamp(path: str) -> Stamp | None:
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else None
