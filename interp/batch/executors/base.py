"""The protocol of executors, and what they share: who gets which job next, and what a process's end means."""

from __future__ import annotations

import errno
import signal
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, get_args, get_type_hints, runtime_checkable

from interp.batch.folder import Failure, SweepFolder
from interp.batch.spec import must_be_known
from interp.errors import InputError, StorageError

__all__ = [
    "Event",
    "Executor",
    "Queue",
    "chunks",
    "executor",
    "missing",
    "must_be_whole",
    "names",
    "not_stored",
    "oom_kills",
    "why_it_ended",
]

_EXECUTORS = {"local": "Local", "slurm": "Slurm", "ray": "Ray"}


@dataclass(frozen=True)
class Event:
    """What became of a job: "done", "failed", "before" (it was done already) or "elsewhere" (another is at it)."""

    key: str
    outcome: str


@runtime_checkable
class Executor(Protocol):
    """A way to run jobs. `run` returns when each has been told of, and tells nothing twice. What was found, and what
    failed, stands in the folder: jobs that nobody told of are jobs that are still to be done."""

    def run(self, folder: SweepFolder, keys: Sequence[str], hear: Callable[[Event], None]) -> None: ...


def names() -> tuple[str, ...]:
    """The executors there are."""
    return tuple(_EXECUTORS)


def executor(name: str, **options: Any) -> Executor:
    """An executor by name, with its own options. Raises `InputError` for an unknown one, and for a missing package."""
    must_be_known(name, names(), "executor")
    kind = getattr(import_module(f"interp.batch.executors.{name}"), _EXECUTORS[name])
    known = [one for one in kind.__dataclass_fields__ if not one.startswith("_")]
    for option in options:
        must_be_known(option, known, f"option of the executor {name}")
    hints = get_type_hints(kind)
    return kind(**{option: _of_type(option, value, hints[option]) for option, value in options.items()})


def not_stored(said: str) -> StorageError:
    """What ends a sweep whose folder takes nothing more: the machine's trouble, not a mistake in what was asked."""
    error = StorageError(f"{said} The sweep stopped; what is done is kept, and `run` goes on.")
    error.__cause__ = OSError(errno.EIO, "a worker could not write into the sweep's folder")
    return error


def must_be_whole(how: Any, *names: str, least: int = 1) -> None:
    """Options of an executor that count something; None is left. `InputError` for what counts nothing."""
    for name in names:
        value = getattr(how, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise InputError(f"{name} is {value!r}. Give a whole number, {least} or more.")


def _of_type(name: str, value: Any, hint: Any) -> Any:
    """An option as its executor takes it, also where a command line or a file said 8e9, or 7 for a name."""
    allowed = get_args(hint) or (hint,)
    if isinstance(value, float) and value.is_integer() and int in allowed and float not in allowed:
        value = int(value)
    if type(value) is int and int not in allowed:
        value = float(value) if float in allowed else str(value) if str in allowed else value
    if type(value) not in allowed:
        said = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise InputError(f"{name} is {value!r}. Give {' or '.join(said[one] for one in allowed if one in said)}.")
    return value


def missing(package: str, extra: str, error: ImportError) -> InputError:
    """What to say where an executor's package is not installed."""
    return InputError(
        f"The executor {extra} needs the package {package}, which cannot be imported ({error}). Install it: "
        f"pip install 'interp[{extra}]'"
    )


def chunks(folder: SweepFolder, keys: Iterable[str], size: int) -> list[list[str]]:
    """Jobs of one checkpoint together, at most `size` in a chunk."""
    groups: dict[Any, list[str]] = {}
    for key in keys:
        groups.setdefault(folder.specs[key].place, []).append(key)
    return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]


class Queue:
    """Jobs still to be given out. Who has a checkpoint loaded gets the next job of it; else one that nobody is at; and
    at the end a job from whoever has most left."""

    def __init__(self, folder: SweepFolder, keys: Iterable[str]):
        self.specs = folder.specs
        self.groups: dict[Any, deque[str]] = {}
        for key in keys:
            self.put(key)

    def put(self, key: str) -> None:
        """Give a job back."""
        self.groups.setdefault(self.specs[key].place, deque()).append(key)

    def next(self, place: Any, taken: Iterable[Any]) -> str | None:
        """A job for who has `place` loaded, where the others have `taken`; None if none is left."""
        if self.groups.get(place):
            return self._pop(place)
        free = [one for one in self.groups if one not in set(taken)]
        left = free[:1] or sorted(self.groups, key=lambda one: -len(self.groups[one]))[:1]
        return self._pop(left[0]) if left else None

    def __len__(self) -> int:
        return sum(map(len, self.groups.values()))

    def _pop(self, place: Any) -> str:
        key = self.groups[place].popleft()
        if not self.groups[place]:
            del self.groups[place]
        return key


def oom_kills() -> int:
    """How many processes of this control group the kernel has killed for want of memory; 0 where it does not say."""
    for name in ("memory.events", "memory/memory.oom_control"):
        try:
            lines = (Path("/sys/fs/cgroup") / name).read_text().splitlines()
        except OSError:
            continue
        counts = dict(line.split()[:2] for line in lines if " " in line)
        return int(counts.get("oom_kill", 0))
    return 0


def why_it_ended(code: int | None, kills: int, held: int, limit: int) -> Failure:
    """Why a process ended in the middle of a job: `code` is its exit code, `kills` how many the kernel killed for want
    of memory meanwhile, `held` the most memory it was seen with, and `limit` what there was."""
    gigabytes = f"it was last seen with {held / 1e9:.1f} GB"
    if kills:
        return Failure.now("memory", f"out of memory: the kernel killed its process ({gigabytes})")
    if code == -signal.SIGKILL and held > 0.8 * limit:
        return Failure.now("memory", f"out of memory, as it seems: its process was killed ({gigabytes})")
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in {int(one) for one in signal.Signals} else "an unknown signal"
        return Failure.now("killed", f"its process was ended by {name} (signal {-code}; {gigabytes})")
    return Failure.now("killed", f"its process ended with code {code} and without a word ({gigabytes})")
