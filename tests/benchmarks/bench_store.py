"""10,000 small runs: listing them, and one question over all of their tables; cold, and with what is remembered."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interp.results import HeadScores
from interp.runs.store import RunStore

N = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
QUERY = "SELECT model, layer, head, avg(score) AS score, count(*) AS n FROM heads GROUP BY ALL ORDER BY ALL"


def scores(seed: int) -> HeadScores:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"kind": "induction", "layer": np.repeat(np.arange(3), 4), "head": np.tile(np.arange(4), 3)}
    ).assign(score=rng.random(12), verdict="")
    return HeadScores(frame, pd.DataFrame({"kind": ["induction"], "effect": [1.0]}), {"model": f"m{seed}"})


def fill(store: RunStore) -> list[HeadScores]:
    """N runs: ten that were saved, and copies of them by links."""
    made = [scores(seed) for seed in range(10)]
    saved = [store.save(one, spec={}, seed=i, tags={"sweep": "bench"}) for i, one in enumerate(made)]
    for i in range(10, N):
        run, folder = saved[i % 10], store.path / f"20200101-{i // 1000:06d}-{i % 1000:03d}-{i:08x}"
        (folder / "results").mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({**run.manifest, "id": folder.name}))
        for file in (run.folder / "results").iterdir():
            os.link(file, folder / "results" / file.name)
    return made


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = run()
    return time.perf_counter() - began, found


def expected(made: list[HeadScores]) -> pd.DataFrame:
    """The same answer, by pandas from what was saved."""
    rows = pd.concat([one.frame.assign(model=one.about["model"]) for one in made])
    n = [len(range(i, N, 10)) for i in range(10)]
    rows["n"] = rows["model"].map({f"m{i}": n[i] for i in range(10)})
    return rows[["model", "layer", "head", "score", "n"]].sort_values(["model", "layer", "head"], ignore_index=True)


def check(label: str, figure: float, bound: float) -> None:
    print(f"{label}: {figure:.2f} s (must be ≤ {bound:g} s) {'ok' if figure <= bound else 'MISSED'}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="interp-bench-") as place:
        store = RunStore(Path(place) / "runs")
        seconds, made = timed(lambda: fill(store))
        print(f"# {N:,} runs of heads, 4 files each; made in {seconds:.1f} s; {os.cpu_count()} cores", flush=True)
        time.sleep(2.5)  # what is younger is not remembered yet
        seconds, first = timed(store.list)
        print(f"list, nothing remembered: {seconds:.2f} s", flush=True)
        again = [timed(store.list) for _ in range(5)]
        assert all(one == first for _, one in again) and len(first) == N
        check("list, remembered, median of 5", sorted(one for one, _ in again)[2], 1)
        seconds, frame = timed(lambda: store.frame(QUERY))
        print(f"query, nothing compacted: {seconds:.2f} s", flush=True)
        times = []
        for _ in range(5):
            seconds, frame = timed(lambda: store.frame(QUERY))
            times.append(seconds)
            pd.testing.assert_frame_equal(frame, expected(made), check_dtype=False)
        check("query, compacted, median of 5", sorted(times)[2], 2)
        seconds, frame = timed(lambda: store.frame(kind="heads"))
        assert len(frame) == 12 * N and frame["run"].nunique() == N
        print(f"every row of the main table ({len(frame):,}): {seconds:.2f} s", flush=True)
        (store.path / first[0].id / "results" / "sets.parquet").unlink()
        assert [one.status for one in store.list()].count("damaged") == 1
        assert list(store.frame(QUERY).attrs["left_out"]) == [first[0].id]
        size = sum(file.stat().st_size for file in (store.path / ".index").iterdir())
        print(f".index: {size / 1e6:.1f} MB; one damaged run was noticed by both", flush=True)


if __name__ == "__main__":
    main()
