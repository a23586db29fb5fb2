"""A run's manifest: what it holds, how it is read without trusting it, and what a list shows of it."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from interp.errors import InputError
from interp.runs.kinds import known_kinds

__all__ = ["MANIFEST", "SCHEMA", "RunInfo", "Status", "checked_tags", "iso", "plain", "read_run"]

MANIFEST, SCHEMA = "manifest.json", 1
Status = Literal["ok", "damaged", "newer"]
_LARGEST = 16 << 20  # bytes; a manifest has some thousands
_TIME_IN_ID = re.compile(r"(\d{8}-\d{6}-\d{3})-[0-9a-f]+")
_TAG = re.compile(r"[a-z][a-z0-9_]{0,39}")
_LONGEST_TAG = 500  # characters
_FIELDS: dict[str, Any] = {"kind": str, "title": str, "created": str, "model": dict, "spec": dict, "files": dict}


@dataclass(frozen=True)
class RunInfo:
    """What a list shows of a run. `reason` says what is wrong with one whose status is not "ok"; what could not be
    read is None. `created` is in UTC, `bytes` the size of the results, `task` a tag or argument of that name."""

    id: str
    status: Status
    reason: str | None = None
    kind: str | None = None
    title: str | None = None
    model: str | None = None
    model_hash: str | None = None
    seed: int | None = None
    created: datetime | None = None
    bytes: int | None = None
    task: str | None = None
    tags: dict[str, str] = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**vars(self), "created": iso(self.created) if self.created else None}


class _DamagedError(Exception):
    """Why a manifest cannot be used."""


def iso(time: datetime) -> str:
    """ISO 8601 in UTC, to the microsecond."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def plain(value: Any, where: str) -> Any:
    """A copy as plain JSON data (paths and arrays' scalars included); `InputError` names what JSON has no word for."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):  # a file name that is no UTF-8 comes with lone surrogates
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{where} is {value}, which JSON cannot hold. Leave it out.")
        return value
    if isinstance(value, os.PathLike):
        return plain(os.fspath(value), where)
    if isinstance(value, Mapping):
        return {str(key): plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, f"{where}[{i}]") for i, inner in enumerate(value)]
    if callable(getattr(value, "item", None)) and getattr(value, "shape", None) == ():
        return plain(value.item(), where)
    raise InputError(
        f"{where} is a {type(value).__name__}, which JSON cannot hold. Give text, numbers, lists or dicts."
    )


def checked_tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    """Tags as a manifest keeps them, in the order of their names; `InputError` for what is no short text."""
    for name, text in (tags or {}).items():
        if not isinstance(name, str) or not _TAG.fullmatch(name):
            raise InputError(f"{name!r} cannot be a tag. Name it in small letters, digits and _, e.g. sweep.")
        if not isinstance(text, str) or len(text) > _LONGEST_TAG:
            raise InputError(f"Tag {name} is {text!r:.80}. Give a text of at most {_LONGEST_TAG} characters.")
    return {name: plain(text, f"tags.{name}") for name, text in sorted((tags or {}).items())}


def read_run(folder: Path) -> tuple[RunInfo, dict[str, Any]]:
    """What stands in a run's manifest, and whether its files are there in their full size. Never raises: a run that
    cannot be used comes back with the reason."""
    manifest: dict[str, Any] = {}
    try:
        manifest = _read(folder / MANIFEST)
        status, reason = _judge(folder, manifest)
    except _DamagedError as error:
        status, reason = "damaged", str(error)
    except (OSError, ValueError, RecursionError) as error:
        found = error.strerror if isinstance(error, OSError) else None
        status, reason = "damaged", f"{MANIFEST} cannot be read: {found or str(error) or type(error).__name__}"
    return _info(folder, manifest, status, reason), manifest


def _read(path: Path) -> dict[str, Any]:
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        raise _DamagedError(f"{MANIFEST} is missing") from None
    if not stat.S_ISREG(found.st_mode):
        raise _DamagedError(f"{MANIFEST} is no file")
    if found.st_size > _LARGEST:
        raise _DamagedError(f"{MANIFEST} has {found.st_size:,} bytes, which no manifest needs")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(manifest, dict):
        raise _DamagedError(f"{MANIFEST} holds no JSON object")
    return manifest


def _judge(folder: Path, manifest: dict[str, Any]) -> tuple[Status, str | None]:
    schema = manifest.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise _DamagedError(f"{MANIFEST} has no schema version")
    if schema > SCHEMA:
        return "newer", f"written by a newer version (schema {schema}; this one reads up to {SCHEMA}); update interp"
    for name, kind in _FIELDS.items():
        if not isinstance(manifest.get(name), kind):
            raise _DamagedError(f"{MANIFEST} has no valid {name!r}")
    if _time(manifest["created"]) is None:
        raise _DamagedError(f"{MANIFEST} has no valid 'created'")
    for name, facts in manifest["files"].items():
        _must_have_file(folder, name, facts)
    if manifest["kind"] not in known_kinds():
        known = ", ".join(known_kinds())
        return "newer", f"results of kind {manifest['kind']!r}; this version reads {known}; update interp"
    return "ok", None


def _must_have_file(folder: Path, name: str, facts: Any) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise _DamagedError(f"{MANIFEST} names {name!r}, which lies outside the run")
    if (
        not isinstance(facts, dict)
        or not isinstance(facts.get("bytes"), int)
        or not isinstance(facts.get("sha256"), str)
    ):
        raise _DamagedError(f"{MANIFEST} has no size and hash of {name!r}")
    try:
        found = (folder / name).stat(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        raise _DamagedError(f"{name} is missing") from None
    if not stat.S_ISREG(found.st_mode):
        raise _DamagedError(f"{name} is no file")
    if found.st_size != facts["bytes"]:
        raise _DamagedError(f"{name} has {found.st_size:,} bytes instead of {facts['bytes']:,}")


def _info(folder: Path, manifest: dict[str, Any], status: Status, reason: str | None) -> RunInfo:
    """Whatever of the manifest is of the right type, also where the rest is not."""
    model, files = _of(manifest, "model", dict), _of(manifest, "files", dict)
    sizes = [_of(facts, "bytes", int) for facts in (files or {}).values()]
    return RunInfo(
        id=folder.name,
        status=status,
        reason=reason,
        kind=_of(manifest, "kind", str),
        title=_of(manifest, "title", str),
        model=_of(model, "name", str),
        model_hash=_of(model, "hash", str),
        seed=_of(manifest, "seed", int),
        created=_time(manifest.get("created")) or _time_in(folder.name),
        bytes=None if files is None else sum(size or 0 for size in sizes),
        task=(tags := _tags(manifest.get("tags"))).get("task") or _of(manifest.get("spec"), "task", str),
        tags=tags,
    )


def _tags(table: Any) -> dict[str, str]:
    found = table if isinstance(table, dict) else {}
    return {name: text for name, text in found.items() if _TAG.fullmatch(name) and isinstance(text, str)}


def _of(table: Any, name: str, kind: type) -> Any:
    """A value of a table if it is of the right type."""
    value = table.get(name) if isinstance(table, dict) else None
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def _time(text: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else None
    except (TypeError, ValueError, OverflowError):
        return None


def _time_in(name: str) -> datetime | None:
    match = _TIME_IN_ID.fullmatch(name)
    try:
        return datetime.strptime(match[1] + "000", "%Y%m%d-%H%M%S-%f").replace(tzinfo=UTC) if match else None
    except ValueError:
        return None
