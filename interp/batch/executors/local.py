"""Processes of this machine, each with its share of the cores and one model at a time."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp.batch.cost import cores, costs, free_memory
from interp.batch.executors.base import Event, Queue, must_be_whole, not_stored, oom_kills, why_it_ended
from interp.batch.folder import Failure, SweepFolder
from interp.batch.lease import let_go
from interp.errors import InputError, InterpError

__all__ = ["Local"]

_LOOK, _AGAIN = 0.2, 0.5  # seconds between looks at the workers, and before a job that another is at is tried again
# Workers that end before they begin, after which there is no use in more: by themselves, and by a signal.
_STILLBORN, _KILLED = 3, 10
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    answers: int
    read: bytes = b""
    ready: bool = False
    key: str | None = None
    place: Any = None
    since: float = 0.0
    held: int = 0


@dataclass
class Local:
    """`workers`: processes; as many as there are cores, jobs, and room in memory, if None. `threads` of each: its share
    of the cores. `memory`: bytes that a worker may take; a job that wants more fails as "memory". `timeout`: seconds
    for a job. A job whose process was killed is tried again `retries` times, one out of memory is not."""

    workers: int | None = None
    threads: int | None = None
    memory: int | None = None
    timeout: float | None = None
    retries: int = 1
    _crew: list[_Worker] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        must_be_whole(self, "workers", "threads", "memory")
        must_be_whole(self, "retries", least=0)
        if self.timeout is not None and not self.timeout > 0:
            raise InputError(f"timeout is {self.timeout!r}. Give seconds, above 0.")

    def run(self, folder: SweepFolder, keys: Sequence[str], hear: Callable[[Event], None]) -> None:
        """Run jobs until none is left. Raises `StorageError` where nothing can be stored: what is done stays."""
        if not keys:
            return
        _Round(self, folder, keys, hear).run()

    def sizes(self, folder: SweepFolder, keys: Sequence[str]) -> tuple[int, int]:
        """How many workers, and the threads of each."""
        workers = self.workers
        if workers is None:
            known = costs(folder)
            room = free_memory() * 0.8 // max(known[key].bytes for key in keys)
            workers = int(max(1, min(cores(), len(keys), room)))
        workers = min(workers, len(keys))
        return workers, self.threads or max(1, cores() // workers)


class _Round:
    """One call of `run`: its workers, the jobs that are left, and how often each was tried."""

    def __init__(self, how: Local, folder: SweepFolder, keys: Sequence[str], hear: Callable[[Event], None]):
        self.how, self.folder, self.hear = how, folder, hear
        self.n, self.threads = how.sizes(folder, keys)
        self.queue, self.later = Queue(folder, keys), list[tuple[float, str]]()
        self.crew: list[_Worker] = []
        self.tried: Counter[str] = Counter()
        self.stillborn, self.kills = 0.0, oom_kills()
        self.select = selectors.DefaultSelector()

    def run(self) -> None:
        try:
            while self.queue.groups or self.later or any(one.key for one in self.crew):
                self._call_back()
                wanted = min(self.n, len(self.queue) + len(self.later) + sum(one.key is not None for one in self.crew))
                while len(self.crew) < wanted:
                    self._start()
                for event, _ in self.select.select(_LOOK):
                    self._listen(event.data)
                self._look()
        finally:
            self._end()

    def _start(self) -> None:
        ours, theirs = os.pipe()
        command = [sys.executable, "-m", "interp.batch.worker", str(self.folder.path), "--answers", str(theirs)]
        command += ["--threads", str(self.threads), "--memory", str(self.how.memory or 0)]
        environment = {**os.environ, **dict.fromkeys(_THREADS, str(self.threads)), "TQDM_DISABLE": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(one or os.getcwd() for one in sys.path)
        with open(self.folder.path / "workers.log", "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=[theirs], env=environment
            )
        os.close(theirs)
        worker = _Worker(process, ours)
        self.crew.append(worker)
        self.select.register(ours, selectors.EVENT_READ, worker)

    def _listen(self, worker: _Worker) -> None:
        data = os.read(worker.answers, 1 << 16)
        if not data:
            self._bury(worker)
            return
        *lines, worker.read = (worker.read + data).split(b"\n")
        for line in lines:
            self._hear(worker, json.loads(line))

    def _hear(self, worker: _Worker, said: dict[str, Any]) -> None:
        if "ready" in said:
            worker.ready, self.stillborn = True, 0.0
        else:
            key, outcome, worker.key = said["key"], said["outcome"], None
            if outcome == "not stored":
                raise not_stored(said["message"])
            if outcome == "elsewhere":
                self.later.append((time.monotonic() + _AGAIN, key))
            else:
                self.hear(Event(key, outcome))
        self._give(worker)

    def _give(self, worker: _Worker) -> None:
        key = self.queue.next(worker.place, [one.place for one in self.crew if one is not worker])
        if key is None or worker.process.stdin is None:
            return
        worker.key, worker.place, worker.since = key, self.folder.specs[key].place, time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # its end is heard of by the other pipe
            worker.process.stdin.write(f"{key}\n".encode())
            worker.process.stdin.flush()

    def _call_back(self) -> None:
        """Jobs that another launcher was at, once more; and idle workers to what has come back."""
        now = time.monotonic()
        for one in [one for one in self.later if one[0] <= now]:
            self.later.remove(one)
            self.queue.put(one[1])
        for worker in self.crew:
            if worker.ready and worker.key is None and self.queue.groups:
                self._give(worker)

    def _look(self) -> None:
        """Note the memory of workers, and end those that take too long."""
        for worker in self.crew:
            worker.held = max(worker.held, _resident(worker.process.pid))
            if worker.key and self.how.timeout and time.monotonic() - worker.since > self.how.timeout:
                worker.process.kill()
                worker.process.wait()
                said = f"it took longer than {self.how.timeout:g} s"
                self._give_up(worker, Failure.now("time", said, seconds=time.monotonic() - worker.since))
                self._dismiss(worker)

    def _bury(self, worker: _Worker) -> None:
        """A worker that ended by itself: its job is tried again, or kept as failed with the reason."""
        code = worker.process.wait()
        kills, self.kills = oom_kills() - self.kills, oom_kills()
        if not worker.ready:
            self.stillborn += 1 / (_KILLED if code < 0 else _STILLBORN)
            if self.stillborn > 0.99:
                said = (self.folder.path / "workers.log").read_text(errors="replace").strip().splitlines()[-1:]
                raise InterpError(f"Workers end before they begin: {''.join(said)}. See workers.log in the sweep.")
        elif worker.key is not None:
            failure = why_it_ended(code, kills, worker.held, self.how.memory or _all_memory())
            let_go(self.folder.job(worker.key), worker.process.pid)
            self.tried[worker.key] += 1
            if failure.kind == "memory" or self.tried[worker.key] > self.how.retries:
                self._give_up(worker, failure)
            elif self.folder.is_done(worker.key):
                self.hear(Event(worker.key, "done"))
            else:
                self.folder.log(worker.key, "again", message=failure.message)
                self.queue.put(worker.key)
        self._dismiss(worker)

    def _give_up(self, worker: _Worker, failure: Failure) -> None:
        key = worker.key
        assert key is not None
        let_go(self.folder.job(key), worker.process.pid)
        if self.folder.is_done(key):
            self.hear(Event(key, "done"))
            return
        self.folder.fail(key, failure)
        self.folder.log(key, "failed", kind=failure.kind, message=failure.message)
        self.hear(Event(key, "failed"))

    def _dismiss(self, worker: _Worker) -> None:
        self.select.unregister(worker.answers)
        os.close(worker.answers)
        if worker.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                worker.process.stdin.close()
        self.crew.remove(worker)

    def _end(self) -> None:
        """Send everybody home; who is in the middle of a job is ended, and the job is as if it had not been begun."""
        for worker in list(self.crew):
            if worker.key is not None:
                worker.process.kill()
            self._dismiss(worker)
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(5.0)
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
            if worker.key is not None:
                let_go(self.folder.job(worker.key), worker.process.pid)
        self.select.close()


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _all_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
