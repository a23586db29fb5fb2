"""One job from its spec to its run in the store, and what becomes of what goes wrong."""

from __future__ import annotations

import errno
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from interp.batch.folder import Failure, FailureKind, SweepFolder
from interp.batch.lease import take
from interp.batch.spec import RunSpec
from interp.errors import InputError, InterpError, StorageError

__all__ = ["Bench", "Outcome", "do"]

Outcome = Literal["done", "failed", "elsewhere", "before"]
_SAID = ("can't allocate memory", "cannot allocate memory", "out of memory", "bad_alloc", "unable to allocate")
_EVERY = 5.0  # seconds between lines of a log on how far a job is


@dataclass
class Bench:
    """What a process keeps from one job to the next: the model loaded last, and its hash."""

    place: Any = None
    model: Any = None
    hash: str = ""
    seconds: float = field(default=0.0)  # that loading took
    given: dict[Any, Any] = field(default_factory=dict)  # models that were made elsewhere, by place

    def load(self, spec: RunSpec, root: Path) -> Any:
        """The job's model, loaded only if it is another than the last one's."""
        if self.place == (spec.place, spec.weights):
            self.seconds = 0.0
            return self.model
        from interp.batch.sources import open_model, weights_of
        from interp.model.identity import model_hash

        self.place = self.model = None  # its memory, before the next one's is taken
        start = time.perf_counter()
        if (made := self.given.get(spec.place)) is not None:
            model = made
        else:
            if weights_of(spec.model, spec.revision, root) != spec.weights:
                raise InputError(f"The files of {spec.model} have changed since the sweep was planned. Plan it again.")
            model = open_model(spec.model, spec.revision, root)
        self.model, self.hash = model, model_hash(model)
        self.place, self.seconds = (spec.place, spec.weights), time.perf_counter() - start
        return model


def do(folder: SweepFolder, key: str, bench: Bench) -> Outcome:
    """Run one job, unless it is done ("before") or somebody is at it ("elsewhere").

    A failure is kept in the job's folder. Raises `StorageError` where nothing can be stored: then the job is as if it
    had not been begun, and there is no use in going on.
    """
    if folder.is_done(key):
        return "before"
    with take(folder.job(key)) as mine:
        if not mine:
            return "elsewhere"
        if folder.is_done(key):  # by who held it before
            return "before"
        return _run(folder, key, bench)


def _run(folder: SweepFolder, key: str, bench: Bench) -> Outcome:
    spec, start = folder.specs[key], time.perf_counter()
    folder.log(key, "begun", spec=spec.to_dict())
    kind: FailureKind = "load"
    try:
        model = bench.load(spec, folder.sweep.root)
        kind = "error"
        began = time.perf_counter()
        result = _ask(folder, key, spec, model)
        found = _found(spec, result)
        timings = {"load": round(bench.seconds, 3), spec.analysis: round(time.perf_counter() - began, 3)}
        _store(folder, key, spec, result, found, timings, bench.hash)
    except StorageError as error:
        if _is_of(folder, error):
            folder.log(key, "not stored", message=str(error))
            raise
        return _failed(folder, key, kind, error, start)
    except Exception as error:
        if kind == "load" or _is_memory(error):
            bench.place = bench.model = None
        return _failed(folder, key, kind, error, start)
    folder.forget([key])
    folder.log(key, "done", seconds=round(time.perf_counter() - start, 3), found=found, **timings)
    return "done"


def _ask(folder: SweepFolder, key: str, spec: RunSpec, model: Any) -> Any:
    import torch

    from interp.batch.analyses import Ask, analyses
    from interp.batch.material import draw

    said = [time.monotonic()]

    def progress(stage: str, done: int, total: int) -> None:
        if time.monotonic() - said[0] >= _EVERY:
            said[0] = time.monotonic()
            folder.log(key, "at", stage=stage, done=done, total=total)

    with torch.no_grad():
        drawn = draw(spec.task, model, spec.model, spec.seed, folder.sweep.root)
        return analyses()[spec.analysis].run(Ask(model, drawn, spec.options, spec.seed, progress))


def _found(spec: RunSpec, result: Any) -> dict[str, float]:
    """A result's numbers in brief; a number that is none is left out."""
    from math import isfinite

    from interp.batch.analyses import analyses

    brief = analyses()[spec.analysis].found
    return {} if brief is None else {name: one for name, one in brief(result).items() if isfinite(one)}


def _store(
    folder: SweepFolder, key: str, spec: RunSpec, result: Any, found: dict[str, float], timings: Any, model_hash: str
) -> None:
    """The run appears whole and once. Where another process has stored it meanwhile, its run is as good."""
    tags = {"sweep": folder.path.resolve().name, "job": key, "task": spec.task_name, "analysis": spec.analysis}
    tags |= {"revision": "" if spec.revision is None else str(spec.revision), "checkpoint": spec.model[-400:]}
    title = f"{str(spec)[:300]}"
    given = {"analysis": spec.analysis, **spec.to_dict(), "found": found}
    more = {"seed": spec.seed, "timings": timings, "title": title, "tags": tags, "id": key}
    try:
        folder.store.save(result, spec=given, model_hash=model_hash, **more)
    except InputError:
        if not folder.is_done(key):
            raise


def _failed(folder: SweepFolder, key: str, kind: FailureKind, error: Exception, start: float) -> Outcome:
    if _is_memory(error):
        kind = "memory"
    message = str(error) if isinstance(error, InterpError) else f"{type(error).__name__}: {error}"
    if kind == "memory":
        message = f"out of memory: {message}"
    lines = "".join(traceback.format_exception(error))
    failure = Failure.now(kind, message, traceback=lines, seconds=time.perf_counter() - start)
    folder.fail(key, failure)
    folder.log(key, "failed", kind=kind, message=message)
    return "failed"


def _is_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if isinstance(error, RuntimeError) and any(one in str(error).lower() for one in _SAID):
            return True
        error = error.__cause__
    return False


def _is_of(folder: SweepFolder, error: StorageError) -> bool:
    """Whether it is the sweep's own folder that refuses, rather than a file that the analysis reads."""
    return str(folder.path) in str(error)
