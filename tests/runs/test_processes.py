"""Several processes at one store, and processes that are killed in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from interp.errors import StorageError
from interp.runs.store import RunStore

ROOT = Path(__file__).resolve().parents[2]
MAKE = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.runs.sample import make_scores\n"
SAVE_MANY = MAKE + (
    "from interp.runs.store import RunStore\n"
    "store = RunStore(sys.argv[1])\n"
    "for i in range(20):\n"
    "    print(store.save(make_scores(int(sys.argv[2]) + i), spec={'i': i}).id, flush=True)\n"
)
STOP_INSIDE = MAKE + (
    "import time\n"
    "from interp.results import HeadScores\n"
    "from interp.runs.store import RunStore\n"
    "real = HeadScores.save\n"
    "def slow(self, path):\n"
    "    real(self, path); print('inside', flush=True); time.sleep(60)\n"
    "HeadScores.save = slow\n"
    "RunStore(sys.argv[1]).save(make_scores(), spec={})\n"
)


def test_two_processes_that_save_at_once_never_collide(store):
    writers = [
        subprocess.Popen([sys.executable, "-c", SAVE_MANY, store.path, str(100 * i)], stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    seen = 0
    while any(writer.poll() is None for writer in writers):  # a reader in between meets whole runs only
        found = store.list()
        assert {info.status for info in found} <= {"ok"} and len(found) >= seen
        seen = len(found)
        time.sleep(0.005)
    ids = [writer.communicate()[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sorted(ids[0] + ids[1]) == sorted(os.listdir(store.path)) and len(set(ids[0] + ids[1])) == 40
    assert store.check() == {}
    for start, names in zip((0, 100), ids, strict=True):
        assert [store.open(name).results().about["seed"] for name in names] == list(range(start, start + 20))


def test_threads_that_save_list_and_delete_at_once_never_fail(store, scores):
    def work(i: int) -> None:
        run = store.save(scores(i), spec={})
        assert store.open(run.id).info.seed == i
        assert all(info.status == "ok" for info in store.list())
        if i % 2:
            store.delete(run.id)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(40)))
    assert sorted(info.seed for info in store.list()) == list(range(0, 40, 2))
    assert store.check() == {} and len(os.listdir(store.path)) == 20


def stopped_inside(store: RunStore, with_signal: signal.Signals) -> int:
    writer = subprocess.Popen(
        [sys.executable, "-c", STOP_INSIDE, store.path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert writer.stdout is not None and writer.stdout.readline() == "inside\n"
    writer.send_signal(with_signal)
    writer.communicate()
    return writer.returncode


def test_a_writer_killed_in_the_middle_leaves_nothing_that_is_listed(store, scores):
    old = store.save(scores(), spec={})
    assert stopped_inside(store, signal.SIGKILL) == -signal.SIGKILL
    assert [info.id for info in store.list()] == [old.id] and store.check() == {}
    (left,) = set(os.listdir(store.path)) - {old.id}
    assert left.startswith(".") and left.endswith(".part")
    new = store.save(scores(1), spec={})
    assert [info.id for info in store.list()] == [new.id, old.id]


def test_what_a_killed_writer_left_is_removed_when_it_is_surely_dead(store, scores):
    stopped_inside(store, signal.SIGKILL)
    (left,) = os.listdir(store.path)
    others = [".config.old", ".vim.old", ".cache.part", ".20260101-000000-000-00000000.part"]
    for name in others:  # somebody else's, in a folder that is more than a store
        (store.path / name).mkdir()
    store.save(scores(), spec={})
    assert left in os.listdir(store.path), "it may still be writing"
    for name in (left, *others):
        os.utime(store.path / name, (time.time() - 2 * 24 * 3600,) * 2)
    store.save(scores(), spec={})
    assert left not in os.listdir(store.path) and set(others) < set(os.listdir(store.path))


def test_a_writer_that_is_interrupted_cleans_up_after_itself(store, scores):
    old = store.save(scores(), spec={})
    assert stopped_inside(store, signal.SIGINT) != 0
    assert os.listdir(store.path) == [old.id]


ASK_EAGERLY = MAKE + (
    "from interp.runs import compacted, index\n"
    "from interp.runs.store import RunStore\n"
    "index._WORTH, index._SETTLING, compacted._WORTH, compacted._MOST = 2, 0, 2, 2\n"
    "store = RunStore(sys.argv[1])\n"
)
ASK_MANY = ASK_EAGERLY + (
    "print('asking', flush=True)\n"
    "for i in range(int(sys.argv[2])):\n"
    "    found = store.frame('SELECT run, count(*) AS n FROM heads GROUP BY run')\n"
    "    assert set(found['n']) <= {12} and not found.attrs['left_out'], found\n"
)
STOP_COMPACTING = ASK_EAGERLY + (
    "import os, time\n"
    "real, n = os.replace, 0\n"
    "def slow(part, target):\n"
    "    global n\n"
    "    if n == int(sys.argv[2]):\n"
    "        print('inside', flush=True); time.sleep(60)\n"
    "    n += 1; real(part, target)\n"
    "os.replace = slow\n"
    "store.frame(kind='heads')\n"
)


def asked(store: RunStore) -> dict[str, int]:
    found = store.frame("SELECT run, count(*) AS n FROM heads GROUP BY run")
    return dict(zip(found["run"], found["n"], strict=True))


def test_writers_and_askers_that_compact_at_once_never_fail_each_other(store, scores):
    store.save(scores(), spec={})
    askers = [subprocess.Popen([sys.executable, "-c", ASK_MANY, store.path, "12"], text=True) for _ in range(2)]
    writer = subprocess.Popen(
        [sys.executable, "-c", SAVE_MANY, store.path, "0"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert writer.communicate()[1] == "" and [asker.wait() for asker in askers] == [0, 0]
    assert asked(store) == {info.id: 12 for info in store.list()} and len(store.list()) == 21
    assert store.check() == {}


def test_an_asker_killed_while_it_compacts_leaves_an_index_that_answers(store, scores):
    runs = [store.save(scores(i), spec={}) for i in range(4)]
    for step in range(3):  # before the list's index, a segment, a later segment
        asker = subprocess.Popen(
            [sys.executable, "-c", STOP_COMPACTING, store.path, str(step)], stdout=subprocess.PIPE, text=True
        )
        assert asker.stdout is not None and asker.stdout.readline() == "inside\n"
        asker.kill()
        asker.communicate()
        assert asked(store) == {run.id: 12 for run in runs} and store.check() == {}
        assert [info.status for info in store.list()] == ["ok"] * 4


def test_a_store_without_rights_is_a_storage_error_and_a_run_without_is_damaged(store, scores, monkeypatch):
    runs = [store.save(scores(i), spec={}) for i in range(2)]
    real = Path.read_text

    def refuse(self, *rest, **named):
        if self.parent.name == runs[0].id:  # root may read anywhere, so it is simulated
            raise PermissionError(13, "Permission denied")
        return real(self, *rest, **named)

    monkeypatch.setattr(Path, "read_text", refuse)
    (info,) = [one for one in store.list() if one.status != "ok"]
    assert info.id == runs[0].id and "Permission denied" in (info.reason or "")
    found = store.frame(kind="heads")
    assert set(found["run"]) == {runs[1].id} and "Permission denied" in found.attrs["left_out"][runs[0].id]

    def closed(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", closed)
    for ask in (store.list, store.check, lambda: store.frame(kind="heads")):
        with pytest.raises(StorageError, match="is no folder of runs: Permission denied"):
            ask()
