"""Memory-mapped datasets: the same numbers, found again, gone on with, never half of a file, flat in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.errors import InputError, StorageError
from probes.data import ProbeDataset
from probes.gather import dataset
from probes.storage import read_dataset
from tests.probes.test_dataset import counted, model_of, odd, ragged

ROWS = ragged((5, 17, 8, 8, 30, 2, 8) * 4)
N = sum(map(len, ROWS))


def stored(folder: Path, **options: Any) -> ProbeDataset:
    return dataset(model_of("llama"), ROWS, odd(ROWS), sites=["resid", "z"], storage=folder, **options)


@pytest.fixture
def in_memory() -> ProbeDataset:
    return dataset(model_of("llama"), ROWS, odd(ROWS), sites=["resid", "z"], random_init=True)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many passes, each of which is recorded."""
    monkeypatch.setattr("probes.reading._TOKENS", 40)
    monkeypatch.setattr("probes.storage._SECONDS", -1.0)


def same(one: ProbeDataset, other: ProbeDataset, *, exactly: bool = True) -> None:
    assert list(one.activations) == list(other.activations)
    for name, x in one.activations.items():
        np.testing.assert_allclose(x, other.activations[name], rtol=0 if exactly else 1e-4, atol=0 if exactly else 1e-5)
    assert one.table.equals(other.table) and one.labels.equals(other.labels)


def test_a_folder_holds_what_memory_would(tmp_path: Path, in_memory: ProbeDataset) -> None:
    found = stored(tmp_path / "set", random_init=True)
    assert all(isinstance(x, np.memmap) for x in found.activations.values())
    same(found, in_memory)
    assert found.random_init is not None and in_memory.random_init is not None
    same(found.random_init, in_memory.random_init)
    assert list(tmp_path.iterdir()) == [tmp_path / "set"], "nothing is left beside it"


def test_what_was_written_is_read_back_without_the_model(tmp_path: Path, in_memory: ProbeDataset) -> None:
    about = stored(tmp_path / "set", random_init=True).about
    found = read_dataset(tmp_path / "set")
    same(found, in_memory)
    assert found.about == about and found.random_init is not None and in_memory.random_init is not None
    same(found.random_init, in_memory.random_init)


def test_the_same_call_again_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stored(tmp_path / "set")
    with counted(monkeypatch) as seen:
        second = stored(tmp_path / "set")
    assert not seen
    same(second, first)


def test_other_labels_of_the_same_rows_are_kept_without_reading_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path / "set")
    with counted(monkeypatch) as seen:
        other = {"low": [["low" if token < 20 else "high" for token in row] for row in ROWS]}
        dataset(model_of("llama"), ROWS, other, sites=["resid", "z"], storage=tmp_path / "set")
    assert not seen and read_dataset(tmp_path / "set").targets == ("low",)


def test_the_twin_is_added_to_a_folder_that_has_none(tmp_path: Path, in_memory: ProbeDataset) -> None:
    stored(tmp_path / "set")
    found = stored(tmp_path / "set", random_init=True).random_init
    assert found is not None and in_memory.random_init is not None
    same(found, in_memory.random_init)


class Killed(Exception):
    pass


def killed_at(rows: int) -> Any:
    def progress(stage: str, done: int, total: int) -> None:
        if done >= rows:
            raise Killed

    return progress


@pytest.mark.usefixtures("small_steps")
def test_a_call_that_was_stopped_is_gone_on_with(
    tmp_path: Path, in_memory: ProbeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        stored(tmp_path / "set", progress=killed_at(N // 2))
    assert not (tmp_path / "set").exists(), "half a dataset is none"
    with counted(monkeypatch) as seen:
        found = stored(tmp_path / "set")
    read = sum(n for address, n in seen if address == "blocks.0.")
    assert 0 < read <= N - N // 2
    same(found, in_memory, exactly=False)


@pytest.mark.usefixtures("small_steps")
def test_an_unfinished_folder_whose_record_is_damaged_is_begun_anew(tmp_path: Path, in_memory: ProbeDataset) -> None:
    with pytest.raises(Killed):
        stored(tmp_path / "set", progress=killed_at(N // 2))
    (part,) = tmp_path.glob(".*.part")
    (part / "progress.json").write_text("{")
    for file in part.glob("*.npy"):
        file.write_bytes(b"half a file")
    same(stored(tmp_path / "set"), in_memory, exactly=False)


@pytest.mark.usefixtures("small_steps")
def test_a_process_that_is_killed_outright_leaves_no_half_rows(tmp_path: Path, in_memory: ProbeDataset) -> None:
    code = (
        "import os, probes.reading, probes.storage\n"
        "from pathlib import Path\n"
        "probes.reading._TOKENS, probes.storage._SECONDS = 40, -1.0\n"
        "from tests.probes.test_dataset_storage import N, stored\n"
        "def stop(stage, done, total):\n"
        "    if done >= N // 2: os.kill(os.getpid(), 9)\n"
        f"stored(Path({str(tmp_path / 'set')!r}), progress=stop)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode == -9 and not (tmp_path / "set").exists()
    same(stored(tmp_path / "set"), in_memory, exactly=False)


def test_two_writers_of_one_folder_do_not_meet(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="this system has no locks on files")
    errors = []

    def progress(stage: str, done: int, total: int) -> None:
        with pytest.raises(StorageError, match="Another process is writing") as caught:
            stored(tmp_path / "set")
        errors.append(caught.value)

    stored(tmp_path / "set", progress=progress)
    assert errors and list(tmp_path.iterdir()) == [tmp_path / "set"]
    with pytest.raises(Killed):
        stored(tmp_path / "other", progress=killed_at(1))
    stored(tmp_path / "other")


def test_a_folder_of_other_activations_is_refused(tmp_path: Path) -> None:
    stored(tmp_path / "set")
    moved = [[(token + 1) % 50 for token in row] for row in ROWS]
    for rows, sites in ((moved, ["resid", "z"]), (ROWS, "resid")):
        with pytest.raises(InputError, match="another model, other rows or other sites"):
            dataset(model_of("llama"), rows, odd(rows), sites=sites, storage=tmp_path / "set")
    other = model_of("llama")
    other.W_E.data[0, 0] += 1
    with pytest.raises(InputError, match="another model, other rows or other sites"):
        dataset(other, ROWS, odd(ROWS), sites=["resid", "z"], storage=tmp_path / "set")
    with pytest.raises(InputError, match="another model, other rows or other sites"):
        dataset(model_of("gpt2"), ROWS, odd(ROWS), storage=tmp_path / "set")
    with pytest.raises(InputError, match="another model, other rows or other sites"):
        dataset(model_of("llama"), ROWS[1:], odd(ROWS[1:]), sites=["resid", "z"], storage=tmp_path / "set")


def test_a_folder_with_other_files_is_refused_and_an_empty_one_taken(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(StorageError, match="holds other files"):
        stored(tmp_path / "notes")
    (tmp_path / "empty").mkdir()
    stored(tmp_path / "empty")
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"


def test_a_damaged_folder_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        read_dataset(tmp_path / "nowhere")
    stored(tmp_path / "set")
    file = tmp_path / "set" / "blocks.0.hook_resid_pre.npy"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(StorageError, match="damaged"):
        read_dataset(tmp_path / "set")


def test_tables_of_two_calls_are_not_mixed(tmp_path: Path) -> None:
    stored(tmp_path / "set")
    about = json.loads((tmp_path / "set" / "dataset.json").read_text())
    about["hashes"]["labels"] = "0" * 64
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(StorageError, match=r"labels\.parquet is not the one"):
        read_dataset(tmp_path / "set")


def test_rows_that_are_not_finite_leave_no_files(tmp_path: Path) -> None:
    model = model_of("llama")
    model.W_E.data[ROWS[3][0]] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        dataset(model, ROWS, odd(ROWS), storage=tmp_path / "set")
    assert not list(tmp_path.iterdir())


PEAK = """
import sys, threading, time
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
from interp.model.transformer import HookedTransformer
from tests.model.conftest import LLAMA, ATTN, ROTARY, ZOO, _stack
from probes.gather import dataset

block = replace(LLAMA, attn=replace(ATTN, n_heads=4, d_head=32, scale=32**-0.5, rotary=replace(ROTARY, dim=32)))
cfg = replace(ZOO["llama"], d_model=128, decoder=_stack(*[block] * 4))
model = HookedTransformer(cfg)
n = int(sys.argv[1])
rows = torch.randint(0, 50, (n // 10, 10), generator=torch.Generator().manual_seed(0)).tolist()
labels = {"odd": [["odd" if t % 2 else "even" for t in row] for row in rows]}

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

dataset(model, rows[:50], {"odd": labels["odd"][:50]})  # what a first pass sets up is not the rows'
before, peak, on = anonymous(), [0.0], [True]
def watch():
    while on[0]:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.005)
thread = threading.Thread(target=watch)
thread.start()
found = dataset(model, rows, labels, storage="memory" if sys.argv[2] == "memory" else Path(sys.argv[2]))
on[0] = False
thread.join()
size = sum(x.nbytes for x in found.activations.values()) / 2**20
print(len(found), round(size, 1), round(peak[0] - before, 1))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads /proc")
def test_memory_is_flat_from_1k_to_100k_rows(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]

    def measured(n: int, storage: str) -> tuple[float, float]:
        command = [sys.executable, "-c", PEAK, str(n), storage]
        freed = {f"MALLOC_{name}_THRESHOLD_": "65536" for name in ("TRIM", "MMAP")}  # else what is freed counts too
        env = {**os.environ, "PYTHONPATH": str(root), "MALLOC_ARENA_MAX": "1", **freed}
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=True)
        rows, size, added = map(float, done.stdout.split())
        print(f"{int(rows)} rows, {size} MB of activations, {storage[-8:]}: {added} MB added at the peak")
        return size, added

    (_, small), (size, large) = measured(1_000, str(tmp_path / "small")), measured(100_000, str(tmp_path / "large"))
    _, held = measured(100_000, "memory")
    assert held > size, "the measurement would see activations that are held"
    assert large - small < 0.25 * size, "no more than the table of rows"
