"""What jobs will cost: estimated by the sizes of model and task, then by jobs that are done."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from interp.batch.analyses import analyses
from interp.batch.folder import SweepFolder
from interp.batch.sources import n_parameters
from interp.batch.spec import RunSpec
from interp.errors import StorageError
from interp.files import read_json
from interp.runs.manifest import MANIFEST

__all__ = ["Cost", "cores", "costs", "free_memory"]

# One thread of a laptop's core on float32 products of tens of rows; SmolLM2-135M on 2 threads makes 49 to 250 GFLOP/s.
_FLOPS = 3e10
_TOKENS, _FILE_PROMPTS, _OVERHEAD = 20, 200, 0.02  # tokens of a prompt, prompts of a file, seconds of a job
_READ = 5e8  # bytes of weights read in a second
_ALONE, _WORKSPACE = 500 << 20, 256 << 20  # bytes: python with torch, and activations
_AT_MOST = 200  # finished jobs that are looked at


@dataclass(frozen=True)
class Cost:
    """`seconds` on one thread; `by` says whether they come from the "same" jobs, "like" ones, or from "sizes" alone.
    `bytes` of memory, the process included."""

    seconds: float
    by: str
    bytes: int


def costs(folder: SweepFolder) -> dict[str, Cost]:
    """The cost of each job. Sizes give the order of magnitude; finished jobs correct it."""
    sizes = {place: _size(*place, folder.sweep.root) for place in {spec.place for spec in folder.specs.values()}}
    raw = {key: _seconds(spec, sizes[spec.place]) for key, spec in folder.specs.items()}
    same: dict[Any, list[float]] = defaultdict(list)
    like: dict[str, list[float]] = defaultdict(list)
    for key in folder.done()[:_AT_MOST]:
        spec = folder.specs[key]
        if (taken := _measured(folder, key)) is not None:
            same[_kind(spec, sizes)].append(taken)
            like[spec.analysis].append(taken / raw[key])
    found = {}
    for key, spec in folder.specs.items():
        size = 4 * sizes[spec.place]
        memory = _ALONE + _WORKSPACE + size + size // 4
        if measured := same.get(_kind(spec, sizes)):
            found[key] = Cost(median(measured), "same", memory)
        elif measured := like.get(spec.analysis):
            found[key] = Cost(raw[key] * median(measured), "like", memory)
        else:
            found[key] = Cost(raw[key], "sizes", memory)
    return found


def cores() -> int:
    """Processor cores that this process may use: by its affinity and its control group's quota."""
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return known if quota == "max" else max(1, min(known, int(quota) // int(period)))
    except (OSError, ValueError):
        return known


def free_memory() -> int:
    """Bytes that can be taken now; a great number where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
        most = Path("/sys/fs/cgroup/memory.max")
        if most.exists() and (text := most.read_text().strip()) != "max":
            free = min(free, int(text) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
        return max(free, 0)
    except (OSError, ValueError, StopIteration):
        return 1 << 50


@lru_cache(maxsize=10_000)
def _size(model: str, revision: str | int | None, root: Path) -> int:
    return n_parameters(model, revision, root)


def _seconds(spec: RunSpec, size: int) -> float:
    one = analyses()[spec.analysis]
    prompts = 1 if spec.task is None else int(spec.task.get("n", _FILE_PROMPTS))
    n = spec.options.get("n")
    if spec.task is None and isinstance(n, int) and n:
        prompts = n
    return _OVERHEAD + one.passes * prompts * _TOKENS * 2 * size / _FLOPS + 4 * size / _READ / 10


def _kind(spec: RunSpec, sizes: Mapping[Any, int]) -> Any:
    """Jobs that should take equally long."""
    task = None if spec.task is None else tuple(sorted((name, str(value)) for name, value in spec.task.items()))
    options = tuple(sorted((name, str(value)) for name, value in spec.options.items()))
    return spec.analysis, options, task, sizes[spec.place]


def _measured(folder: SweepFolder, key: str) -> float | None:
    try:
        timings = read_json(folder.store.path / key / MANIFEST)["timings"]
        return float(timings[folder.specs[key].analysis]) + float(timings.get("load", 0.0))
    except (StorageError, LookupError, TypeError, ValueError):
        return None
