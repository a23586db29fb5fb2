"""Slurm, by submitit: each submitted job takes a chunk of one checkpoint's jobs, and is requeued when preempted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from interp.batch.executors.base import Event, chunks, missing, must_be_whole, not_stored
from interp.batch.folder import Failure, SweepFolder
from interp.batch.lease import STALE
from interp.errors import InputError

__all__ = ["Chunk", "Slurm"]

_LOOK, _WAIT = 1.0, 2.0  # seconds between looks at the cluster, and while another launcher is at a job


class Chunk:
    """Does some jobs of a sweep, one after the other, in a process of its own on a node. What was done stands in the
    sweep's folder, so a chunk that is begun again goes on behind it."""

    def __init__(self, folder: str, keys: Sequence[str], threads: int):
        self.folder, self.keys, self.threads = folder, list(keys), threads

    def __call__(self) -> list[tuple[str, str]]:
        import torch

        from interp.batch.job import Bench, do

        torch.set_num_threads(self.threads)
        folder, bench = SweepFolder.open(self.folder), Bench()
        said = []
        for key in self.keys:
            until = time.monotonic() + 2 * STALE
            while (outcome := do(folder, key, bench)) == "elsewhere" and time.monotonic() < until:
                time.sleep(_WAIT)  # the lease of who was preempted grows old
            said.append((key, outcome))
        return said

    def checkpoint(self) -> Any:
        """What submitit submits again when the job is preempted or out of time: the same chunk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Chunk(self.folder, self.keys, self.threads))


@dataclass
class Slurm:
    """`workers`: jobs of the cluster at once. `chunk`: jobs of the sweep in one of them, all of one checkpoint, so that
    it is loaded once. `threads` and `memory` (bytes) of each; `minutes`: its time; `partition` and `account` as the
    cluster has them. `requeues`: how often a preempted job is submitted again. `cluster`: "slurm", or "local" for
    processes of this machine, by which this file is tested. Python and its packages have to be on the nodes, and the
    sweep's folder on a file system that they share."""

    workers: int = 100
    chunk: int = 20
    threads: int = 1
    memory: int | None = None
    minutes: int = 60
    partition: str | None = None
    account: str | None = None
    requeues: int = 3
    cluster: str = "slurm"
    _seen: set[str] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        must_be_whole(self, "workers", "chunk", "threads", "memory", "minutes")
        must_be_whole(self, "requeues", least=0)

    def run(self, folder: SweepFolder, keys: Sequence[str], hear: Callable[[Event], None]) -> None:
        """Submit chunks and wait for them. Ctrl-C cancels what is submitted; a launcher that is killed leaves it to
        run, and the next one finds what is done."""
        asked = chunks(folder, keys, self.chunk)
        if not asked:
            return
        with_submitit = self._executor(folder)
        path = str(folder.path.resolve())
        with with_submitit.batch():
            jobs = [with_submitit.submit(Chunk(path, one, self.threads)) for one in asked]
        self._seen = set()
        waiting = dict(zip(range(len(jobs)), jobs, strict=True))
        try:
            while waiting:
                for i in [i for i, job in waiting.items() if job.done()]:
                    self._over(folder, asked[i], waiting.pop(i), hear)
                self._tell(folder, [key for i in waiting for key in asked[i]], hear)
                time.sleep(_LOOK if waiting else 0)
        except BaseException:
            for job in waiting.values():
                job.cancel()
            raise

    def _executor(self, folder: SweepFolder) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise missing("submitit", "slurm", error) from error
        try:
            made = submitit.AutoExecutor(
                folder.path / "submitted", cluster=self.cluster, slurm_max_num_timeout=self.requeues
            )
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"Slurm cannot be used here: {error}. Run this where sbatch is, or use --executor local."
            ) from error
        more: dict[str, Any] = {"timeout_min": self.minutes, "cpus_per_task": self.threads}
        more |= {"slurm_array_parallelism": self.workers, "name": f"interp-{folder.path.resolve().name}"[:60]}
        if self.memory is not None:
            more["mem_gb"] = self.memory / 1e9
        for name, value in (("slurm_partition", self.partition), ("slurm_account", self.account)):
            if value is not None:
                more[name] = value
        made.update_parameters(**more)
        return made

    def _over(self, folder: SweepFolder, keys: Sequence[str], job: Any, hear: Callable[[Event], None]) -> None:
        """A chunk that ended: what it said of its jobs, or why it ended without a word."""
        error = job.exception()
        said = {} if error is not None else dict(job.result())
        stopped = None if error is None or "StorageError" not in str(error) else str(error).strip().splitlines()[-1]
        if stopped is not None:
            raise not_stored(stopped)
        state = str(getattr(job, "state", "") or "")
        for key in keys:
            if key in self._seen:
                continue
            outcome = said.get(key) or ("done" if folder.is_done(key) else "failed")
            if outcome == "elsewhere":
                outcome = "done" if folder.is_done(key) else "elsewhere"
            if outcome == "failed" and key not in folder.failures():
                folder.fail(key, _why(state, error, _was_begun(folder, key)))
            self._seen.add(key)
            hear(Event(key, outcome))

    def _tell(self, folder: SweepFolder, keys: Sequence[str], hear: Callable[[Event], None]) -> None:
        """What is done already of chunks that are still at work."""
        done = set(folder.done())
        for key in keys:
            if key in done and key not in self._seen:
                self._seen.add(key)
                hear(Event(key, "done"))


def _was_begun(folder: SweepFolder, key: str) -> bool:
    return (folder.job(key) / "log.jsonl").exists()


def _why(state: str, error: BaseException | None, begun: bool) -> Failure:
    said = str(error).strip().splitlines()
    last = said[-1][:300] if said else "no word"
    if "OUT_OF_ME" in state:
        return Failure.now("memory", f"out of memory: the cluster ended its job ({state})", traceback=str(error))
    if "TIMEOUT" in state:
        return Failure.now("time", f"the cluster ended its job for its time ({state})", traceback=str(error))
    what = "its job of the cluster ended" if begun else "its job of the cluster ended before this one was begun"
    return Failure.now("killed", f"{what} ({state or 'no state'}; {last})", traceback=str(error))
