"""`RunStore`: a folder of runs, each written whole or not at all, listed and reopened without loading a model."""

from __future__ import annotations

import difflib
import errno
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interp.errors import InputError, StorageError
from interp.files import content_hash, write_atomically, write_json
from interp.runs.kinds import kind_of, load_results
from interp.runs.manifest import MANIFEST, SCHEMA, RunInfo, checked_tags, iso, plain, read_run
from interp.runs.placing import (
    RUN_ID,
    TakenError,
    hidden,
    is_folder,
    must_be_id,
    must_be_writable,
    new_folder,
    new_id,
    sweep,
)
from interp.runs.provenance import provenance

__all__ = ["Run", "RunStore", "must_be_writable"]

Runs = list[RunInfo]  # inside the class, `list` is its method
_RESULTS = "results"  # folder inside a run


@dataclass(frozen=True)
class Run:
    """One stored run: `info` as the list shows it, the whole `manifest`, and its `results()`."""

    folder: Path
    info: RunInfo
    manifest: Mapping[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        return self.info.id

    def results(self) -> Any:
        """What the analysis returned, read anew. Raises `StorageError` if a file is not as it was written."""
        if problems := self.check():
            raise StorageError(f"Run {self.id} cannot be trusted: {'; '.join(problems)}. Run the analysis again.")
        return load_results(self.manifest["kind"], self.folder / _RESULTS)

    def check(self) -> list[str]:
        """What differs from the manifest's sizes and hashes, one phrase a file; an empty list if nothing does."""
        return _problems(self.folder)


class RunStore:
    """A folder that holds one folder per run: `manifest.json` and the result's own tables and arrays in `results/`.

    Making a `RunStore` touches nothing; the folder is made when the first run is saved. Several processes may save,
    list and delete at once. A run's id is the name of its folder: time in UTC and 8 random digits, or as it was chosen.
    Methods that take an id take any beginning of it that only one run has, except `delete`.
    """

    def __init__(self, path: str | os.PathLike[str]):
        text = os.fspath(path)
        if not text.strip() or "\0" in text:
            raise InputError(f"{text!r} cannot be a folder of runs. Give a path, e.g. runs.")
        self.path = Path(text).expanduser()

    def __repr__(self) -> str:
        return f"RunStore({str(self.path)!r})"

    def must_be_writable(self) -> None:
        """Raise `StorageError` if no run could be saved here. Leaves nothing behind; call it before the analysis."""
        must_be_writable(self.path)

    def save(
        self,
        results: Any,
        *,
        spec: Any,
        model_hash: str | None = None,
        seed: int | None = None,
        timings: Mapping[str, float] | None = None,
        title: str | None = None,
        tags: Mapping[str, str] | None = None,
        id: str | None = None,
    ) -> Run:
        """Store results with how they were made: `spec` are the analysis' arguments, `timings` seconds by stage, `tags`
        short texts to find it by. With an `id` of one's own, `InputError` if a run has it: of two writers, one wins.

        The run appears when all of it is written. On a full disk, `StorageError`, and the store is as it was.
        """
        kind = kind_of(results)
        if not isinstance(spec, Mapping):
            raise InputError(f"spec is a {type(spec).__name__}. Give the analysis' arguments as a dict.")
        made = getattr(results, "about", {})
        name = str(made.get("model") or spec.get("model") or "unnamed model")
        seed = made.get("seed") if seed is None else seed
        manifest = {
            "schema": SCHEMA,
            "kind": kind,
            "title": plain(title or f"{kind} of {name}", "title"),
            "model": {"name": plain(name, "model"), "hash": model_hash},
            "spec": plain(spec, "spec"),
            "seed": plain(seed, "seed"),
            "timings": plain(timings or {}, "timings"),
            "provenance": provenance(),
            "tags": checked_tags(tags),
        }
        chosen = None if id is None else must_be_id(id)
        self.must_be_writable()
        sweep(self.path)
        folder = self.path / (chosen or new_id(self.path))
        try:
            with new_folder(folder) as part:
                results.save(part / _RESULTS)
                manifest |= {"id": folder.name, "created": iso(datetime.now(UTC)), "files": _fingerprints(part)}
                write_json(part / MANIFEST, manifest)
        except TakenError as error:
            raise InputError(
                f"{self.path} holds a run {folder.name!r} already. Open it, or choose another id."
            ) from error
        except OSError as error:
            raise StorageError(
                f"Cannot store the run in {self.path}: {_reason(error)}. The store is as it was; make room there, or "
                "choose another folder."
            ) from error
        return self.open(folder.name)

    def list(self) -> Runs:
        """All runs, newest first, from their manifests and file sizes alone. Damaged and newer ones are among them,
        with the reason; a store that does not exist yet is empty."""
        found = [info for name in self._names() if (info := self._info(name))]
        return sorted(found, key=lambda info: (info.created is not None, info.created or 0, info.id), reverse=True)

    def info(self, id: str) -> RunInfo:
        """One run as the list shows it, whatever its status."""
        return read_run(self.path / self._resolve(id))[0]

    def open(self, id: str) -> Run:
        """A run by its id or a beginning of it. Raises `StorageError` for a damaged or newer one, with the reason."""
        folder = self.path / self._resolve(id)
        info, manifest = read_run(folder)
        if info.status != "ok":
            advice = " Its other files are untouched." if info.status == "damaged" else ""
            raise StorageError(f"Run {info.id} in {self.path} cannot be opened: {info.reason}.{advice}")
        return Run(folder, info, manifest)

    def check(self, id: str | None = None) -> dict[str, Sequence[str]]:
        """Every run (or one) whose files are not what its manifest says, by sizes and hashes: id -> what differs.
        Reads every byte."""
        names = self._names() if id is None else [self._resolve(id)]
        return {name: problems for name in names if (problems := _problems(self.path / name))}

    def delete(self, id: str) -> None:
        """Remove a run, whatever its status. Takes the whole id only."""
        name = self._resolve(id)
        if name != id:
            raise InputError(f"{id!r} is only the beginning of an id. To delete that run, give the whole id: {name}.")
        try:
            grave = hidden(self.path, name, "old")
            try:
                os.rename(self.path / name, grave / name)  # gone at once, however long the rest takes
            finally:
                shutil.rmtree(grave)
        except FileNotFoundError as error:
            raise InputError(f"Run {name} was deleted by someone else in the meantime.") from error
        except OSError as error:
            raise StorageError(f"Cannot delete run {name} in {self.path}: {error.strerror or error}.") from error

    def export(self, id: str, path: str | os.PathLike[str]) -> Path:
        """Write a zip file of a run, whatever its status; unpacked in a store, it is a run again. A folder as `path`
        gets a file named by the id. Only a zip file is overwritten."""
        name, target = self._resolve(id), Path(path).expanduser()
        target = target / f"{name}.zip" if target.is_dir() else target
        if target.exists() and not zipfile.is_zipfile(target):
            raise StorageError(f"{target} exists and is no zip file, so it is not overwritten. Choose another name.")

        def write(part: Path) -> None:
            with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
                for file in _files(self.path / name):
                    archive.write(file, Path(name) / file.relative_to(self.path / name))

        write_atomically(target, write)
        return target

    def _names(self) -> Sequence[str]:
        """Folders that are runs, or were: named like one, or with a manifest. Others' folders are passed over."""
        try:
            with os.scandir(self.path) as entries:
                folders = [one.name for one in entries if not one.name.startswith(".") and is_folder(one)]
        except FileNotFoundError:
            return []
        except OSError as error:
            reason = "it is a file" if error.errno == errno.ENOTDIR else error.strerror or str(error)
            raise StorageError(
                f"{self.path} is no folder of runs: {reason}. Give the folder runs were saved in."
            ) from error
        return sorted(name for name in folders if RUN_ID.fullmatch(name) or (self.path / name / MANIFEST).exists())

    def _info(self, name: str) -> RunInfo | None:
        info = read_run(self.path / name)[0]
        gone = info.status == "damaged" and not (self.path / name).exists()  # deleted while the list was made
        return None if gone else info

    def _resolve(self, id: str) -> str:
        """The one run that an id or its beginning names. Only names in the store are considered, so no id leads out."""
        if not id or id.startswith(".") or any(mark in id for mark in "/\\\0"):
            raise InputError(f"{id!r} cannot be a run's id. `interp runs list` shows them.")
        names = self._names()
        found = [id] if id in names else [name for name in names if name.startswith(id)]
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(found[-3:]) + (", …" if len(found) > 3 else "")
            raise InputError(f"{len(found)} runs in {self.path} begin with {id!r}: {some}. Give more of the id.")
        near = difflib.get_close_matches(id, names, n=3, cutoff=0.5) or names[-1:]
        hint = f"Near it: {', '.join(near)}." if near else "It holds no runs."
        raise InputError(f"There is no run {id!r} in {self.path}. {hint}")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _fingerprints(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": content_hash(file)}
        for file in _files(folder)
    }


def _problems(folder: Path) -> list[str]:
    info, manifest = read_run(folder)
    if info.status != "ok":
        return [str(info.reason)]
    problems = []
    for name, facts in manifest["files"].items():
        try:
            changed = content_hash(folder / name) != facts["sha256"]
        except OSError as error:
            problems.append(f"{name} cannot be read: {error.strerror or error}")
            continue
        if changed:
            problems.append(f"{name} was changed: its hash is not the one it was written with")
    return problems


def _reason(error: BaseException) -> str:
    """What the system said first, below all that was said about it since."""
    while isinstance(error.__cause__, OSError):
        error = error.__cause__
    return getattr(error, "strerror", None) or str(error)
