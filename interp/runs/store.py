"""`RunStore`: a folder of runs, each written whole or not at all, listed and reopened without loading a model."""

from __future__ import annotations

import difflib
import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from interp.errors import InputError, StorageError
from interp.files import content_hash, write_json
from interp.runs.archive import files_of, read_archive, write_archive
from interp.runs.compacted import compacted_problems
from interp.runs.index import INDEX, index_problems, look
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
from interp.runs.query import tidy_frame
from interp.runs.search import Asked, asked_time

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Run", "RunStore", "must_be_writable"]

Runs = list[RunInfo]  # inside the class, `list` is its method
_RESULTS = "results"  # folder inside a run
_LARGEST_ARCHIVE = 16 << 30  # bytes, unpacked


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

    def list(
        self,
        *,
        kind: str | None = None,
        model: str | None = None,
        task: str | None = None,
        since: str | date | datetime | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Runs:
        """All runs, newest first, from their manifests and file sizes alone. Damaged and newer ones are among them,
        with the reason; a store that does not exist yet is empty.

        `model` and `task` are parts of names, `since` is a time in UTC. Manifests of many runs are kept in `.index/`
        while their sizes and times stay; the files of every run are looked at each time.
        """
        asked = Asked(kind, model, task, asked_time(since), tags or {})
        found = [seen.info for seen in look(self.path, self._names()) if asked.fits(seen.info)]
        return sorted(found, key=lambda info: (info.created is not None, info.created or 0, info.id), reverse=True)

    def frame(self, query: str | None = None, *, kind: str | None = None) -> pd.DataFrame:
        """One table over all runs: rows of a kind's main table, or what one SELECT (DuckDB's SQL) answers.

        A view named by kind holds its main table (`heads`), `kind_table` the others (`heads_sets`), `runs` one row a
        run. Each row begins with its run: `run`, `run_kind`, `title`, `model`, `model_hash`, `seed`, `created` (UTC),
        `task`, `tag_…`; where a table has such a column itself, the run's is `run_…`. Columns are united by name. With
        `kind`, only runs of that kind are read. `attrs["left_out"]` says which runs could not be used, and why. The
        query can read nothing else and write nothing; a bad one raises `InputError` with the tables and columns.
        """
        return tidy_frame(self.path, look(self.path, self._names()), query, kind)

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
        Reads every byte. Without an id, `.index` is looked at as well, which may be deleted without loss."""
        names = self._names() if id is None else [self._resolve(id)]
        found: dict[str, Sequence[str]] = {name: wrong for name in names if (wrong := _problems(self.path / name))}
        if id is None and (wrong := index_problems(self.path) + compacted_problems(self.path)):
            found[INDEX] = [*wrong, "delete this folder: it is made anew"]
        return found

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

    def export(self, ids: str | Sequence[str], path: str | os.PathLike[str]) -> Path:
        """Write a zip file of one or more runs, whatever their status; unpacked in a store, they are runs again. A
        folder as `path` gets a file named by the id (`runs.zip` for several). Only a zip file is overwritten."""
        names = [self._resolve(one) for one in ([ids] if isinstance(ids, str) else dict.fromkeys(ids))]
        if not names:
            raise InputError("No run was named to export. Give its id; `interp runs list` shows them.")
        target = Path(path).expanduser()
        if target.is_dir():
            target /= f"{names[0]}.zip" if len(names) == 1 else "runs.zip"
        write_archive(self.path, list(dict.fromkeys(names)), target)
        return target

    def import_archive(
        self, path: str | os.PathLike[str], *, limit: int = _LARGEST_ARCHIVE
    ) -> dict[str, Literal["added", "there"]]:
        """Take in the runs of a zip file that `export` wrote: id -> whether it was added or stood here already.

        No run appears before all were found whole, by their hashes. Raises `InputError` for an archive with anything
        else in it, more than `limit` bytes unpacked, or an id that stands here with other contents.
        """
        self.must_be_writable()
        return read_archive(Path(path).expanduser(), self.path, limit)

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
        return sorted(name for name in folders if RUN_ID.fullmatch(name) or os.path.exists(self.path / name / MANIFEST))

    def _resolve(self, id: str) -> str:
        """The one run that an id or its beginning names. Only names in the store are considered, so no id leads out."""
        if not id or id.startswith(".") or any(mark in id for mark in "/\\\0"):
            raise InputError(f"{id!r} cannot be a run's id. `interp runs list` shows them.")
        if RUN_ID.fullmatch(id) and (self.path / id).is_dir() and not (self.path / id).is_symlink():
            return id
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


def _fingerprints(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": content_hash(file)}
        for file in files_of(folder)
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
