"""What a sweep adds to its jobs: overhead per local job on tiny models, jobs per minute with 1 and 2 workers, and how
long looking takes when there are many jobs. Beside them, whether what was stored is right.

    python tests/benchmarks/bench_sweep.py [--jobs 100]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

import interp
from interp.batch import SweepFolder, plan, run, status
from interp.batch.job import Bench, do

MODEL, TASK = "planted:and", {"name": "planted", "n": 8}


def sweep(n: int, *models: str) -> interp.Sweep:
    return interp.Sweep(models=models or [MODEL], tasks=[TASK], analyses=["attribute"], seeds=range(n))


def itself(folder: SweepFolder, key: str) -> float:
    """Seconds of a job's analysis, prompts and numbers in brief included."""
    return float(json.loads((folder.store.path / key / "manifest.json").read_text())["timings"]["attribute"])


def in_process(place: Path, n: int) -> tuple[float, float]:
    """Median seconds of the analysis, and of what a job takes beyond it, in a process that has the model."""
    folder, bench, more = plan(sweep(n), place), Bench(), []
    for key in folder.specs:
        began = time.perf_counter()
        assert do(folder, key, bench) == "done"
        more.append(time.perf_counter() - began - itself(folder, key))
    return statistics.median(itself(folder, key) for key in folder.specs), statistics.median(more[1:])


def by_workers(place: Path, n: int, workers: int) -> tuple[float, float, float]:
    """Jobs per minute once every worker is at work; median seconds of a job beyond its analysis (of one worker: from
    the end of the job before to its own end, hearing and telling included); and seconds until the first was done."""
    folder, ends, began = plan(sweep(n), place), list[float](), time.perf_counter()
    found = run(
        folder, workers=workers, threads=1, progress=lambda stage, done, total: ends.append(time.perf_counter())
    )
    assert found.ok and sorted(info.id for info in folder.store.list()) == sorted(folder.specs)
    order = list(folder.specs)
    more = [b - a - itself(folder, key) for a, b, key in zip(ends[1:], ends[2:], order[1:], strict=False)]
    skip = n // 4  # a worker that starts later
    return 60 * (n - skip) / (ends[-1] - ends[skip]), statistics.median(more), ends[1] - began


def looking(place: Path, n: int) -> tuple[float, float]:
    """Seconds to plan `n` jobs, and to say how they stand."""
    began = time.perf_counter()
    folder = plan(sweep(n), place)
    planned = time.perf_counter() - began
    began = time.perf_counter()
    status(SweepFolder.open(folder.path))
    return planned, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=100)
    n = parser.parse_args().jobs
    torch.set_num_threads(1)
    print(f"# A sweep's overhead\n# {MODEL}, attribute on 8 pairs, {n} jobs, torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        analysis, more = in_process(root / "one", n)
        print(f"in this process: {1e3 * analysis:.1f} ms of analysis and {1e3 * more:.1f} ms more for each job")
        for workers in (1, 2):
            rate, more, first = by_workers(root / f"w{workers}", n, workers)
            each = f", {1e3 * more:.1f} ms more than the analysis for each job" if workers == 1 else ""
            print(f"workers {workers}: {rate:,.0f} jobs a minute{each}; the first done after {first:.1f} s")
        files = [
            {
                one.name: json.loads((one / "manifest.json").read_text())["files"]
                for one in (root / name / "store").iterdir()
            }
            for name in ("one", "w1", "w2")
        ]
        print(f"the same bytes of results in all three: {files[0] == files[1] == files[2]}")
        planned, stands = looking(root / "many", 10_000)
        print(f"10,000 jobs: planned and written in {planned:.2f} s, status in {stands:.2f} s")


if __name__ == "__main__":
    main()
