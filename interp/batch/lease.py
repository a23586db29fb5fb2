"""Who is at a job: one small file that only one process can make, and that says by its age whether its maker lives.

A lease saves work; that nothing is there twice does not rest on it, but on the store, where a run of a job's name can
appear once only.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import StorageError

__all__ = ["BEAT", "STALE", "Holder", "held_by", "let_go", "take"]

BEAT, STALE = 5.0, 60.0  # seconds between signs of life; without one for how long a holder elsewhere is taken for dead
_LEASE = "lease"


@dataclass(frozen=True)
class Holder:
    """Who made a lease: `started` is the process's start on its host, since process ids come back."""

    host: str
    pid: int
    started: str
    token: str

    @classmethod
    def me(cls) -> Holder:
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()) or "", secrets.token_hex(8))

    def lives(self, age: float) -> bool:
        """Whether it may still be at work: on this host as the process table says, elsewhere by its last sign. One that
        stands still for long is taken for dead on any host."""
        if self.host == socket.gethostname() and _started(self.pid) != self.started:
            return False
        return age < STALE


@contextlib.contextmanager
def take(job: Path) -> Iterator[bool]:
    """Hold the lease of a job's folder for the block, if nobody who lives does; says whether. Gives signs of life."""
    me = Holder.me()
    if not _made(job, me):
        yield False
        return
    over = threading.Event()
    beat = threading.Thread(target=_beat, args=(job / _LEASE, over), daemon=True, name="interp-lease")
    beat.start()
    try:
        yield True
    finally:
        over.set()
        held = _read(job / _LEASE)
        if held is not None and held[0].token == me.token:
            (job / _LEASE).unlink(missing_ok=True)


def held_by(job: Path) -> Holder | None:
    """Who is at a job now; None if nobody, or nobody who lives."""
    found = _read(job / _LEASE)
    return found[0] if found is not None and found[0].lives(found[1]) else None


def let_go(job: Path, pid: int) -> None:
    """Remove the lease that a dead process of this host left."""
    found = _read(job / _LEASE)
    if found is not None and found[0].pid == pid and found[0].host == socket.gethostname():
        (job / _LEASE).unlink(missing_ok=True)


def _made(job: Path, me: Holder) -> bool:
    """Make the lease with all its words at once: written beside, then linked, which fails where one stands."""
    lease = job / _LEASE
    try:
        job.mkdir(parents=True, exist_ok=True)
        part = job / f".{_LEASE}.{me.token}"
        part.write_text(json.dumps(vars(me)), encoding="utf-8")
        try:
            for _ in range(2):
                try:
                    os.link(part, lease)
                    return True
                except FileExistsError:
                    if not _removed_dead(lease, me):
                        return False
            return False
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"Cannot make the lease {lease}: {error.strerror or error}. Make room there.") from error


def _removed_dead(lease: Path, me: Holder) -> bool:
    """Take away a lease whose holder is dead. By renaming, and with a look at what was got: another may have been first
    and have made its own."""
    found = _read(lease)
    if found is not None and found[0].lives(found[1]):
        return False
    if found is None and lease.exists() and _age(lease) < STALE:
        return False  # no words yet, or none that this version reads: somebody's
    aside = lease.with_name(f".{_LEASE}.{me.token}.dead")
    try:
        os.rename(lease, aside)
    except FileNotFoundError:
        return True
    got = _read(aside)
    if got is not None and found is not None and got[0].token != found[0].token:
        with contextlib.suppress(OSError):
            os.link(aside, lease)
        aside.unlink(missing_ok=True)
        return False
    aside.unlink(missing_ok=True)
    return True


def _read(lease: Path) -> tuple[Holder, float] | None:
    try:
        said: Any = json.loads(lease.read_text(encoding="utf-8"))
        return Holder(str(said["host"]), int(said["pid"]), str(said["started"]), str(said["token"])), _age(lease)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _age(file: Path) -> float:
    """Seconds since a file was touched, by the clock of its own file system."""
    probe = file.with_name(f".clock.{secrets.token_hex(4)}")
    try:
        probe.touch()
        return probe.stat().st_mtime - file.stat().st_mtime
    except OSError:
        return 0.0
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _beat(lease: Path, over: threading.Event) -> None:
    while not over.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(lease)


def _started(pid: int) -> str | None:
    """When a process of this host was started, in the kernel's words; None if there is none."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        fields = said.rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, IndexError):
        pass
    try:  # systems without /proc
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return ""
