"""Running a sweep: what is left of it, on an executor; and how it stands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from interp.batch.executors import Event, executor
from interp.batch.folder import SweepFolder
from interp.batch.spec import Sweep, must_be_known
from interp.batch.status import Status, status
from interp.errors import InputError

__all__ = ["place_of", "plan", "retry", "run"]

Progress = Callable[[str, int, int], None]
_KINDS = ("error", "memory", "killed", "load", "time")


def run(
    sweep: Any,
    folder: str | os.PathLike[str] | None = None,
    *,
    executor: str = "local",
    progress: Progress | None = None,
    **options: Any,
) -> Status:
    """Do the jobs of a sweep that are neither done nor failed, and say how it stands then.

    `sweep`: a `Sweep`, its TOML file, or the folder of one that was begun. `folder`: where it is kept; for a file by
    default a folder beside it, of its name. `executor`: "local", "slurm" or "ray", whose own `options` follow
    (`workers`, `threads`, `memory`, …). Several launchers may run one sweep at once. Jobs that failed before are left:
    `retry` does them. `progress(stage, done, total)`.

    Raises `InputError` for what cannot be planned, `StorageError` where nothing can be stored; a job that fails does
    not stop the others.
    """
    there = plan(sweep, folder)
    keys = there.waiting()
    return _go(there, keys, executor, progress, options)


def retry(
    sweep: Any,
    folder: str | os.PathLike[str] | None = None,
    *,
    kinds: Sequence[str] = (),
    keys: Sequence[str] = (),
    executor: str = "local",
    progress: Progress | None = None,
    **options: Any,
) -> Status:
    """Do failed jobs again, and only those: all, those that failed in some way (`kinds`, as in `Failure`), or those
    named (by the beginning of their keys); and those whose stored runs are damaged, which are deleted first."""
    there = plan(sweep, folder)
    failed = there.failures()
    for kind in kinds:
        must_be_known(kind, _KINDS, "kind of failure")
    damaged = [] if kinds else _damaged(there)
    chosen = [key for key, one in failed.items() if not kinds or one.kind in kinds] + damaged
    for start in keys:
        if not any(key.startswith(start) for key in chosen):
            raise InputError(f"No failed job begins with {start!r}. `interp sweep status` lists those that failed.")
    chosen = [key for key in chosen if not keys or any(key.startswith(start) for start in keys)]
    for key in set(damaged) & set(chosen):
        there.store.delete(key)
    there.forget(chosen)
    return _go(there, chosen, executor, progress, options)


def plan(sweep: Any, folder: str | os.PathLike[str] | None = None) -> SweepFolder:
    """The folder of a sweep, with its jobs: written if it is not there, and anew where the sweep was changed."""
    if isinstance(sweep, SweepFolder):
        return sweep
    if isinstance(sweep, Sweep):
        if folder is None:
            raise InputError('A Sweep needs a folder to be kept in: interp.batch.run(sweep, "sweeps/mine").')
        return SweepFolder.make(folder, sweep)
    path = Path(sweep)
    if path.is_dir():
        return SweepFolder.open(path)
    return SweepFolder.make(folder or place_of(path), Sweep.from_toml(path))


def place_of(file: Path) -> Path:
    """The folder of the sweep in a file: beside it, without the ending."""
    return file.with_suffix("") if file.suffix else file.with_name(f"{file.name}-sweep")


def _go(
    there: SweepFolder, keys: Sequence[str], name: str, progress: Progress | None, options: dict[str, Any]
) -> Status:
    said = progress or (lambda stage, done, total: None)
    chosen = executor(name, **options)
    if not keys:
        return status(there)
    there.store.must_be_writable()
    over: list[str] = []

    def hear(event: Event) -> None:
        over.append(event.key)
        said("jobs", len(over), len(keys))

    said("jobs", 0, len(keys))
    chosen.run(there, keys, hear)
    return status(there)


def _damaged(there: SweepFolder) -> Iterable[str]:
    return [key for key in there.done() if there.store.info(key).status == "damaged"]
