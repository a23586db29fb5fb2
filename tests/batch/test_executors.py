"""The engines that run elsewhere, each on this machine: submitit's local executor, and a real Ray cluster."""

from __future__ import annotations

import builtins
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from interp import Sweep
from interp.batch import plan, run
from interp.batch.executors import Executor, executor, names
from interp.batch.executors.base import chunks
from interp.batch.executors.slurm import Chunk, _why
from interp.batch.job import Bench, do
from interp.errors import InputError
from tests.batch.conftest import begun, values

RAY = {"executor": "ray", "workers": 2}


def quick(n: int, *analyses: object, **more: object) -> Sweep:
    return Sweep(models=["planted:and", "planted:or"], analyses=[{"name": "quick", **more}, *analyses], seeds=range(n))


@pytest.fixture
def path_for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What workers of other engines import from: they inherit the environment and no more."""
    import sys

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(one or os.getcwd() for one in sys.path))


def test_every_executor_keeps_the_protocol_and_refuses_unknown_options() -> None:
    for name in names():
        assert isinstance(executor(name), Executor)
        with pytest.raises(InputError, match="Near it: workers"):
            executor(name, worker=2)
    with pytest.raises(InputError, match="Near it: local"):
        executor("lokal")


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("local", "workers", 0.5),
        ("local", "threads", 1.5),
        ("local", "timeout", -1),
        ("local", "retries", -1),
        ("slurm", "chunk", 0),
        ("slurm", "minutes", "ten"),
        ("ray", "workers", 0),
        ("ray", "share", "no"),
    ],
)
def test_options_that_count_are_whole_numbers(name: str, option: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{option} is .* Give"):
        executor(name, **{option: value})


def test_options_come_from_a_command_line_as_they_are_written_there() -> None:
    assert repr(vars(executor("local", memory=8e9))["memory"]) == "8000000000"  # a worker's argument must be whole
    assert vars(executor("slurm", account=7))["account"] == "7"


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_without_its_package_an_executor_says_what_to_install(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(wanted: str, *more: object) -> object:
        if wanted == package:
            raise ImportError(f"No module named {wanted!r}")
        return real(wanted, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError, match=rf"pip install 'interp\[{name}\]'"):
        run(quick(1), tmp_path / "sweep", executor=name)


# ---- slurm ----


def test_without_slurm_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: run `make setup`")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="Slurm cannot be used here"):
        run(quick(1), tmp_path / "sweep", executor="slurm")


def test_chunks_are_of_one_checkpoint_each(tmp_path: Path) -> None:
    folder = plan(quick(5), tmp_path / "sweep")
    parts = chunks(folder, folder.specs, 3)
    assert [len(one) for one in parts] == [3, 2, 3, 2]
    assert all(len({folder.specs[key].place for key in one}) == 1 for one in parts)


def test_a_preempted_chunk_is_submitted_again_and_goes_on_behind_what_is_done(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: run `make setup`")
    folder = plan(quick(2), tmp_path / "sweep")
    (keys, _) = chunks(folder, folder.specs, 2)
    do(folder, keys[0], Bench())
    again = Chunk(str(folder.path), keys, 1).checkpoint()
    assert again.function() == [(keys[0], "before"), (keys[1], "done")]
    assert again.function.keys == keys and set(begun(folder).values()) == {1}


@pytest.mark.parametrize(
    ("state", "kind"), [("OUT_OF_MEMORY", "memory"), ("TIMEOUT", "time"), ("NODE_FAIL", "killed"), ("", "killed")]
)
def test_the_states_of_slurm_are_named(state: str, kind: str) -> None:
    assert _why(state, RuntimeError("it ended"), True).kind == kind


@pytest.mark.slow
@pytest.mark.usefixtures("path_for_workers")
@pytest.mark.filterwarnings("ignore")  # of submitit's own processes and files
def test_submitit_runs_chunks_and_a_chunk_that_dies_is_named(tmp_path: Path) -> None:
    folder = plan(quick(3, "wrong"), tmp_path / "sweep")
    found = run(folder, executor="slurm", cluster="local", chunk=4)
    assert found.done == 6 and {one.kind for one in found.failed.values()} == {"error"} and len(found.failed) == 6
    assert set(begun(folder).values()) == {1} and len(values(folder)) == 6
    deadly = plan(Sweep(models=["planted:and"], analyses=["quick", "die", "big"]), tmp_path / "deadly")
    ended = run(deadly, executor="slurm", cluster="local", chunk=3)
    kinds = {deadly.specs[key].analysis: one.kind for key, one in ended.failed.items()}
    assert ended.done == 1 and kinds == {"die": "killed", "big": "killed"}


# ---- ray ----


@pytest.mark.slow
@pytest.mark.usefixtures("path_for_workers")
@pytest.mark.filterwarnings("ignore")  # of ray's own processes and sockets
def test_ray_runs_a_sweep_with_shared_weights_and_the_same_numbers(tmp_path: Path) -> None:
    analyses = ["evaluate", "patch", "wrong", "composition"]
    sweep = Sweep(models=["planted:backup", "planted:ioi"], tasks=[{"name": "planted", "n": 8}], analyses=analyses)
    here, there = plan(sweep, tmp_path / "here"), plan(sweep, tmp_path / "there")
    run(here, workers=1, threads=1)
    found = run(there, **RAY)
    assert found.done == 6 and {one.message for one in found.failed.values()} == {"ValueError: seed 0 is unlucky"}
    files = [{key: one.store.open(key).manifest["files"] for key in one.done()} for one in (here, there)]
    assert files[0] == files[1]
    hashes = [{info.id: info.model_hash for info in one.store.list()} for one in (here, there)]
    assert hashes[0] == hashes[1]


@pytest.mark.slow
@pytest.mark.usefixtures("path_for_workers")
@pytest.mark.filterwarnings("ignore")
def test_a_ray_worker_that_is_removed_in_mid_sweep_loses_nothing(tmp_path: Path) -> None:
    folder = plan(quick(10, seconds=0.3), tmp_path / "sweep")
    killed: list[int] = []

    def kill() -> None:
        while not folder.running() or len(folder.done()) < 3:
            time.sleep(0.05)
        pid = int(next(iter(folder.running().values())).split()[1])
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    found = run(folder, **RAY, retries=1)
    assert killed and found.ok and len(folder.store.list()) == 20 and folder.store.check() == {}
    assert sum(begun(folder).values()) <= 20 + 1
    deadly = run(Sweep(models=["planted:and"], analyses=["die"]), tmp_path / "deadly", **RAY, retries=0)
    assert {one.kind for one in deadly.failed.values()} == {"killed"}
