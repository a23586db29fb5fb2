"""How a sweep stands: what is done, what failed and why, who is at what, how fast it goes and how long it will take."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from interp.batch.cost import costs
from interp.batch.folder import Failure, SweepFolder
from interp.runs.manifest import MANIFEST

__all__ = ["Status", "status"]

_RECENT, _LULL = 50, 600.0  # jobs that the rate is taken over, and seconds without any after which there is none


@dataclass(frozen=True)
class Status:
    """`per_minute`: jobs, over the last 50; None where fewer than two were done lately. `seconds_left`: by the
    estimated cost of what waits, at the pace of what was done lately; None where nothing tells. `running`: key -> host
    and pid. `folder` is the sweep's."""

    folder: str
    total: int
    done: int
    failed: dict[str, Failure]
    running: dict[str, str]
    waiting: int
    per_minute: float | None
    seconds_left: float | None

    @property
    def ok(self) -> bool:
        """Whether every job is done."""
        return self.done == self.total

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; tracebacks stay in their files."""
        failed = {key: {"kind": one.kind, "message": one.message, "host": one.host} for key, one in self.failed.items()}
        kinds = dict(Counter(one.kind for one in self.failed.values()))
        return {**vars(self), "failed": failed, "n_failed": len(failed), "failed_by_kind": kinds, "ok": self.ok}

    def __str__(self) -> str:
        parts = [f"{self.done} of {self.total} jobs done"]
        if self.failed:
            kinds = Counter(one.kind for one in self.failed.values())
            parts.append(f"{len(self.failed)} failed ({', '.join(f'{n} {kind}' for kind, n in kinds.items())})")
        if self.running:
            parts.append(f"{len(self.running)} running")
        if self.waiting:
            parts.append(f"{self.waiting} waiting")
        if self.per_minute is not None and not self.ok:
            parts.append(f"{self.per_minute:.1f} a minute")
        if self.seconds_left is not None:
            parts.append(f"about {_words(self.seconds_left)} left")
        return ", ".join(parts)


def status(folder: SweepFolder) -> Status:
    """How a sweep stands now, from its folder alone: whoever runs it, and wherever. Raises `StorageError` for a store
    that cannot be read."""
    done, failed, running = folder.done(), folder.failures(), folder.running()
    over = {*done, *failed, *running}
    waiting = [key for key in folder.specs if key not in over]
    rate, left = _pace(folder, done, [*waiting, *running])
    return Status(
        str(folder.path), len(folder.specs), len(done), failed, running, len(waiting), rate, left if waiting else None
    )


def _pace(folder: SweepFolder, done: list[str], ahead: list[str]) -> tuple[float | None, float | None]:
    ends = []
    for key in done:
        try:
            ends.append(((folder.store.path / key / MANIFEST).stat().st_mtime, key))
        except OSError:
            continue
    recent = sorted(ends)[-_RECENT:]
    if len(recent) < 2 or time.time() - recent[-1][0] > _LULL:
        return None, None
    span = max(recent[-1][0] - recent[0][0], 1e-3)
    rate = 60 * (len(recent) - 1) / span
    if not ahead:
        return rate, 0.0
    known = costs(folder)
    pace = sum(known[key].seconds for _, key in recent[1:]) / span  # estimated seconds done in a second
    return rate, sum(known[key].seconds for key in ahead) / max(pace, 1e-9)


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
