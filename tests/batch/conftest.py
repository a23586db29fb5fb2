"""A package of faulty analyses, found by its entry points as any other would be, also by workers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from interp.batch import SweepFolder, analyses
from interp.batch.executors import local
from tests.batch import faults

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _faulty(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    home = tmp_path_factory.mktemp("site")
    info = home / "faults-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faults\nVersion: 1.0\n")
    lines = [f"{name} = tests.batch.faults:{name.upper()}" for name in faults.ALL]
    (info / "entry_points.txt").write_text("\n".join(["[interp.analyses]", *lines, ""]))
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(local, "cores", lambda: 1)  # one thread a worker: the models are tiny
    analyses.cache_clear()
    yield
    analyses.cache_clear()


def begun(folder: SweepFolder) -> Counter[str]:
    """How often each job was begun, by its log."""
    counts: Counter[str] = Counter()
    for log in (folder.path / "jobs").glob("*/log.jsonl"):
        events = [json.loads(line) for line in log.read_text().splitlines()]
        counts[log.parent.name] = sum(event["event"] == "begun" for event in events)
    return counts


def values(folder: SweepFolder) -> dict[str, list[float]]:
    """The numbers of each run of `quick`."""
    return {key: folder.store.open(key).results().frame["value"].tolist() for key in folder.done()}
