"""The folder of a sweep: what was asked, who is at which job, what failed, and a store with what was found.

`sweep.json` says what was asked and the jobs it comes to. `store/` is a `RunStore` with one run for each finished job,
whose id is the job's key: a job is done if its run is there, and nothing else says so. `jobs/<key>/` holds the lease of
who is at it, `failed.json` with the traceback, and `log.jsonl`.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from interp.batch.lease import held_by
from interp.batch.spec import RunSpec, Sweep
from interp.errors import InputError, StorageError
from interp.files import read_json, write_json
from interp.runs.manifest import MANIFEST
from interp.runs.store import RunStore

__all__ = ["ASKED", "Failure", "FailureKind", "SweepFolder"]

ASKED, SCHEMA = "sweep.json", 1
FailureKind = Literal["error", "memory", "killed", "load", "time"]
_FAILED, _LOG = "failed.json", "log.jsonl"


@dataclass(frozen=True)
class Failure:
    """Why a job is not done. `kind`: "memory" (it ran out), "killed" (its process ended without a word), "load" (the
    model), "time" (it took longer than allowed), "error" (everything else)."""

    kind: FailureKind
    message: str
    traceback: str = ""
    seconds: float = 0.0
    host: str = ""
    when: float = 0.0

    @classmethod
    def now(cls, kind: FailureKind, message: str, *, traceback: str = "", seconds: float = 0.0) -> Failure:
        return cls(kind, message, traceback, round(seconds, 3), socket.gethostname(), round(time.time(), 3))


class SweepFolder:
    """One sweep on disk. Several processes may work on it at once. `open` reads one, `make` writes what is asked."""

    def __init__(self, path: str | os.PathLike[str], sweep: Sweep, specs: Mapping[str, RunSpec]):
        self.path, self.sweep, self.specs = Path(path), sweep, dict(specs)
        self.store = RunStore(self.path / "store")

    @classmethod
    def make(cls, path: str | os.PathLike[str], sweep: Sweep) -> SweepFolder:
        """Write what is asked, or find it there. What an earlier sweep of this folder asked and this one does not stays
        in the store and is not counted. Raises `InputError` for a folder that holds other files."""
        folder = Path(path)
        if folder.exists() and not folder.is_dir():
            raise StorageError(f"{folder} is a file. Give a folder for the sweep.")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / ASKED).is_file():
            raise InputError(f"{folder} holds other files, and no {ASKED}. Give a new folder.")
        specs = {spec.key(): spec for spec in sweep.jobs()}
        asked = {"schema": SCHEMA, "sweep": sweep.to_dict(), "root": str(sweep.root)}
        asked["jobs"] = {key: spec.to_dict() for key, spec in specs.items()}
        if not (folder / ASKED).is_file() or read_json(folder / ASKED) != asked:
            write_json(folder / ASKED, asked)
        return cls(folder, sweep, specs)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> SweepFolder:
        """A sweep that was made. Raises `InputError` where there is none, `StorageError` for one that is damaged."""
        folder = Path(path)
        if not (folder / ASKED).is_file():
            raise InputError(f"{folder} is no folder of a sweep: it has no {ASKED}. Make one: interp sweep run FILE.")
        held = read_json(folder / ASKED)
        if not isinstance(held, dict) or held.get("schema") != SCHEMA:
            raise StorageError(
                f"{folder / ASKED} is of another version; this one reads schema {SCHEMA}. Update interp."
            )
        try:
            specs = {key: RunSpec.from_dict(one) for key, one in held["jobs"].items()}
            return cls(folder, Sweep.from_dict(held["sweep"], Path(held["root"])), specs)
        except (LookupError, TypeError, AttributeError) as error:
            raise StorageError(
                f"{folder / ASKED} is damaged ({error}). Write it anew: interp sweep run FILE."
            ) from error

    def job(self, key: str) -> Path:
        """The folder of a job's lease, log and failure."""
        return self.path / "jobs" / key

    def is_done(self, key: str) -> bool:
        """Whether a job's run is in the store."""
        return (self.store.path / key / MANIFEST).is_file()

    def done(self) -> list[str]:
        """The jobs whose runs are in the store. Raises `StorageError` for a store that cannot be read."""
        try:
            with os.scandir(self.store.path) as entries:
                there = {one.name for one in entries}
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(
                f"The store of this sweep, {self.store.path}, cannot be read: {error.strerror or error}. Nothing was "
                "run. Check its rights, or put the folder back."
            ) from error
        return [key for key in self.specs if key in there and self.is_done(key)]

    def failures(self) -> dict[str, Failure]:
        """Why jobs failed that are not done."""
        found = {key: failure for key in self._jobs() if (failure := self._failure(key)) is not None}
        return {key: failure for key, failure in found.items() if not self.is_done(key)}

    def running(self) -> dict[str, str]:
        """The jobs that somebody is at: key -> "host pid"."""
        holders = {key: held_by(self.job(key)) for key in self._jobs()}
        return {
            key: f"{one.host} {one.pid}" for key, one in holders.items() if one is not None and not self.is_done(key)
        }

    def waiting(self, keys: Iterable[str] | None = None) -> list[str]:
        """Jobs that are neither done nor failed."""
        over = {*self.done(), *self.failures()}
        return [key for key in (self.specs if keys is None else keys) if key not in over]

    def fail(self, key: str, failure: Failure) -> None:
        """Keep why a job failed."""
        write_json(self.job(key) / _FAILED, asdict(failure))

    def forget(self, keys: Iterable[str]) -> None:
        """Let failed jobs be tried again."""
        for key in keys:
            (self.job(key) / _FAILED).unlink(missing_ok=True)

    def log(self, key: str, event: str, **said: Any) -> None:
        """Add a line to a job's log; one that cannot be written is left out, since the work goes on."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, "job": key, **said}, default=str) + "\n"
        try:
            self.job(key).mkdir(parents=True, exist_ok=True)
            with open(self.job(key) / _LOG, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError:
            return

    def _jobs(self) -> list[str]:
        try:
            there = set(os.listdir(self.path / "jobs"))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"Cannot read {self.path / 'jobs'}: {error.strerror or error}.") from error
        return [key for key in self.specs if key in there]

    def _failure(self, key: str) -> Failure | None:
        path = self.job(key) / _FAILED
        if not path.exists():
            return None
        try:
            held = read_json(path)
            return Failure(**{one.name: held[one.name] for one in fields(Failure) if one.name in held})
        except (StorageError, TypeError):
            return Failure("error", f"{path} cannot be read; the job failed for a reason that is lost")
