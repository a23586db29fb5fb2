"""Jobs run once each, whatever is killed; the same spec gives the same numbers; failures are named and stop nobody."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from interp import Sweep
from interp.batch import Failure, SweepFolder, plan, retry, run, status
from interp.batch.executors.base import Queue, why_it_ended
from interp.batch.job import Bench, do
from interp.batch.lease import Holder, held_by, take
from interp.errors import InputError, StorageError
from interp.runs.store import RunStore
from tests.batch.conftest import begun, values


def quick(n: int, **more: object) -> Sweep:
    return Sweep(models=["planted:and"], analyses=[{"name": "quick", **more}], seeds=range(n))


@pytest.fixture
def in_here(tmp_path: Path) -> SweepFolder:
    return plan(quick(3), tmp_path / "sweep")


# ---- one job ----


def test_a_job_leaves_a_run_of_its_name_and_is_not_done_again(in_here: SweepFolder) -> None:
    key = next(iter(in_here.specs))
    assert do(in_here, key, Bench()) == "done" and do(in_here, key, Bench()) == "before"
    (info,) = in_here.store.list()
    assert info.id == key and info.status == "ok" and info.tags["analysis"] == "quick"
    assert in_here.done() == [key] and not in_here.running() and len(in_here.waiting()) == 2


def test_a_job_that_somebody_is_at_is_left_to_them(in_here: SweepFolder) -> None:
    key = next(iter(in_here.specs))
    with take(in_here.job(key)) as mine:
        assert mine and do(in_here, key, Bench()) == "elsewhere"
        assert list(in_here.running()) == [key]
    assert not in_here.running() and do(in_here, key, Bench()) == "done"


@pytest.mark.parametrize("left", ["dead process", "reused id", "other host", "half a word"])
def test_a_lease_whose_holder_is_dead_is_taken_over(in_here: SweepFolder, left: str) -> None:
    key = next(iter(in_here.specs))
    job, me = in_here.job(key), Holder.me()
    job.mkdir(parents=True)
    holder = {
        "dead process": {**vars(me), "pid": 2**22 + 1},
        "reused id": {**vars(me), "started": "1"},
        "other host": {**vars(me), "host": "elsewhere"},
        "half a word": {},
    }[left]
    (job / "lease").write_text(json.dumps(holder) if holder else '{"host": "')
    if left in ("other host", "half a word"):
        assert do(in_here, key, Bench()) == "elsewhere"  # it may yet live
        os.utime(job / "lease", (time.time() - 3600,) * 2)
    assert held_by(job) is None and do(in_here, key, Bench()) == "done"
    assert not (job / "lease").exists()


def test_a_lease_that_was_taken_over_meanwhile_is_left_to_its_new_holder(in_here: SweepFolder) -> None:
    job, other = in_here.job(next(iter(in_here.specs))), json.dumps(vars(Holder.me()))
    with take(job) as mine:
        assert mine
        (job / "lease").write_text(other)
    assert (job / "lease").read_text() == other


def test_of_two_that_find_one_dead_lease_the_slower_leaves_the_new_one(
    in_here: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, real, other = in_here.job(next(iter(in_here.specs))), os.rename, json.dumps(vars(Holder.me()))
    job.mkdir(parents=True)
    (job / "lease").write_text(json.dumps({**vars(Holder.me()), "pid": 2**22 + 1}))

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", real)
        (job / "lease").write_text(other)  # the quicker one has taken it
        real(source, target)

    monkeypatch.setattr(os, "rename", late)
    with take(job) as mine:
        assert not mine
    assert (job / "lease").read_text() == other


def test_a_job_that_was_done_while_its_lease_was_taken_is_not_done_again(
    in_here: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter([False, True])
    monkeypatch.setattr(SweepFolder, "is_done", lambda self, key: next(said))
    assert do(in_here, next(iter(in_here.specs)), Bench()) == "before" and not sum(begun(in_here).values())


def test_a_holder_at_work_gives_signs_of_life(in_here: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.batch.lease.BEAT", 0.01)
    job = in_here.job(next(iter(in_here.specs)))
    with take(job):
        os.utime(job / "lease", (0, 0))
        until = time.monotonic() + 30
        while not (job / "lease").stat().st_mtime and time.monotonic() < until:
            time.sleep(0.01)
        assert held_by(job) is not None


class Here:
    """An executor in this very process."""

    def run(self, folder: SweepFolder, keys: list[str], hear: object) -> None:
        for key in keys:
            do(folder, key, Bench())


def test_a_run_that_is_damaged_is_made_anew_by_retry_and_a_folder_without_a_manifest_is_no_run(
    in_here: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["interp.batch.run"], "executor", lambda name, **options: Here())
    first, second, _ = in_here.specs
    assert run(in_here).ok
    before = in_here.store.open(first).manifest["files"]
    next((in_here.store.path / first / "results").glob("*.parquet")).write_bytes(b"")
    assert retry(in_here).ok and in_here.store.open(first).manifest["files"] == before
    (in_here.store.path / second / "manifest.json").unlink()
    assert second not in in_here.done() and second in in_here.waiting()


def test_a_job_that_is_done_has_not_failed(in_here: SweepFolder) -> None:
    key, failure = next(iter(in_here.specs)), Failure.now("killed", "once")
    in_here.fail(key, failure)
    assert do(in_here, key, Bench()) == "done" and not (in_here.job(key) / "failed.json").exists()
    in_here.fail(key, failure)  # by a launcher that heard late
    assert not in_here.failures()


def test_of_two_that_finish_one_job_one_run_is_kept(in_here: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    key, real = next(iter(in_here.specs)), RunStore.save
    other = SweepFolder.open(in_here.path)

    def slow(self: RunStore, *args: object, **options: object) -> object:
        monkeypatch.setattr(RunStore, "save", real)
        (in_here.job(key) / "lease").unlink()  # as if taken for dead
        assert do(other, key, Bench()) == "done"
        return real(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(RunStore, "save", slow)
    assert do(in_here, key, Bench()) == "done"
    assert [info.id for info in in_here.store.list()] == [key] and in_here.store.check() == {}


def test_a_failure_keeps_its_traceback_and_a_success_forgets_it(tmp_path: Path) -> None:
    folder = plan(Sweep(models=["planted:and"], analyses=["wrong"]), tmp_path / "sweep")
    (key,) = folder.specs
    assert do(folder, key, Bench()) == "failed"
    failure = folder.failures()[key]
    assert failure.kind == "error" and failure.message == "ValueError: seed 0 is unlucky"
    assert "in wrong" in failure.traceback and not folder.waiting()


def test_where_nothing_can_be_stored_the_job_is_as_if_not_begun(
    in_here: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RunStore, *args: object, **options: object) -> None:
        raise StorageError(f"Cannot store the run in {self.path}: No space left on device.")

    monkeypatch.setattr(RunStore, "save", full)
    key = next(iter(in_here.specs))
    with pytest.raises(StorageError, match="No space"):
        do(in_here, key, Bench())
    assert not in_here.failures() and not in_here.running() and key in in_here.waiting()


def test_weights_that_changed_since_the_plan_fail_their_jobs(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(b"no weights")
    (tmp_path / "model" / "config.json").write_text("{}")
    folder = plan(Sweep(models=["model"], analyses=["quick"], root=tmp_path), tmp_path / "sweep")
    (key,) = folder.specs
    assert do(folder, key, Bench()) == "failed"  # the config names no family
    assert folder.failures()[key].kind == "load"
    weights.write_bytes(b"other weights")
    assert do(folder, key, Bench()) == "failed"
    assert "have changed since" in folder.failures()[key].message


# ---- folders ----


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no sweep\.json"):
        SweepFolder.open(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        SweepFolder.make(tmp_path, quick(1))
    (tmp_path / "sweep.json").write_text('{"schema": 1, "jobs": 3}')
    with pytest.raises(StorageError, match="damaged"):
        SweepFolder.open(tmp_path)
    (tmp_path / "sweep.json").write_text('{"schema": 99}')
    with pytest.raises(StorageError, match="Update"):
        SweepFolder.open(tmp_path)
    with pytest.raises(InputError, match="needs a folder"):
        plan(quick(1))


def test_a_store_that_cannot_be_read_stops_the_sweep_before_it_starts(in_here: SweepFolder) -> None:
    (in_here.path / "store").write_text("no folder")
    with pytest.raises(StorageError, match="cannot be read"):
        run(in_here)
    with pytest.raises(StorageError, match="cannot be read"):
        status(in_here)


def test_a_sweep_that_grows_keeps_what_is_done(tmp_path: Path) -> None:
    small = plan(quick(1), tmp_path / "sweep")
    do(small, next(iter(small.specs)), Bench())
    large = plan(quick(3), tmp_path / "sweep")
    assert len(large.done()) == 1 and len(large.waiting()) == 2


def test_jobs_of_one_checkpoint_stay_with_who_has_loaded_it(tmp_path: Path) -> None:
    sweep = Sweep(models=["planted:and", "planted:or"], analyses=["quick"], seeds=range(3))
    folder = plan(sweep, tmp_path / "sweep")
    queue, places = Queue(folder, folder.specs), {key: one.place for key, one in folder.specs.items()}
    a, b = ("planted:and", None), ("planted:or", None)
    first, second = queue.next(None, []), queue.next(None, [a])
    assert (places[str(first)], places[str(second)]) == (a, b)
    assert [places[str(queue.next(b, [a]))] for _ in range(2)] == [b, b]
    assert places[str(queue.next(b, [a]))] == a and len(queue) == 1  # nothing of its own is left: help


@pytest.mark.parametrize(
    ("code", "kills", "held", "kind", "said"),
    [
        (-9, 1, 0, "memory", "the kernel killed"),
        (-9, 0, 90, "memory", "as it seems"),
        (-9, 0, 10, "killed", "SIGKILL"),
        (-11, 0, 90, "killed", "SIGSEGV"),
        (3, 0, 10, "killed", "code 3"),
    ],
)
def test_the_end_of_a_process_is_named(code: int, kills: int, held: int, kind: str, said: str) -> None:
    failure = why_it_ended(code, kills, held, 100)
    assert failure.kind == kind and said in failure.message


# ---- many jobs ----


def test_every_fault_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text("{")
    (damaged / "model.safetensors").write_bytes(b"")
    asked = ["quick", "wrong", "die", "hog", "tensor_hog"]
    folder = plan(Sweep(models=["planted:and", "damaged"], analyses=asked, root=tmp_path), tmp_path / "sweep")
    found = run(folder, workers=2, memory=4 << 30)
    named = {str(folder.specs[key]).split(",")[0]: one.kind for key, one in found.failed.items()}
    assert named == {
        "wrong on planted:and": "error",
        "die on planted:and": "killed",
        "hog on planted:and": "memory",
        "tensor_hog on planted:and": "memory",
        **{f"{one} on damaged": "load" for one in asked},
    }
    assert found.done == 1 and not found.ok and not found.waiting and not found.running
    tries = {
        str(folder.specs[key]).split()[0]: n
        for key, n in begun(folder).items()
        if "damaged" not in str(folder.specs[key])
    }
    assert tries == {"quick": 1, "wrong": 1, "die": 2, "hog": 1, "tensor_hog": 1}


def test_two_launchers_share_the_jobs_and_do_none_twice(tmp_path: Path) -> None:
    folder = plan(quick(12, seconds=0.05), tmp_path / "sweep")
    found: list[object] = []
    launchers = [threading.Thread(target=lambda: found.append(run(folder.path, workers=1))) for _ in range(2)]
    [one.start() for one in launchers]
    [one.join() for one in launchers]
    assert [one.ok for one in found] == [True, True]  # type: ignore[attr-defined]
    assert begun(folder) == dict.fromkeys(folder.specs, 1)
    assert sorted(info.id for info in folder.store.list()) == sorted(folder.specs)


@pytest.mark.slow
def test_a_job_that_takes_too_long_is_ended_and_can_be_retried_alone(tmp_path: Path) -> None:
    folder = plan(Sweep(models=["planted:and"], analyses=["quick", {"name": "quick", "seconds": 60.0}]), tmp_path / "s")
    found = run(folder, workers=1, timeout=2.0)
    (failed,) = found.failed
    assert found.failed[failed].kind == "time" and found.done == 1
    with pytest.raises(InputError, match="No failed job"):
        retry(folder, keys=["zz"])
    assert retry(folder, kinds=["memory"], workers=1).failed == found.failed
    assert begun(folder)[failed] == 1
    retry(folder, keys=[failed[:6]], workers=1, timeout=0.5)
    assert begun(folder)[failed] == 2 and sum(begun(folder).values()) == 3


# ---- kills ----

LAUNCH = "import sys; from interp.batch import run; run(sys.argv[1], workers=2)"


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def with_kills(folder: SweepFolder, n_workers: int, n_launchers: int, seed: int) -> int:
    """Run the sweep by launchers in processes of their own, killing them and their workers at random moments."""
    draw, killed = random.Random(seed), 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    plans = ["launcher"] * n_launchers + ["worker"] * n_workers
    draw.shuffle(plans)
    process = None
    while plans and folder.waiting():
        if process is None or process.poll() is not None:
            process = subprocess.Popen([sys.executable, "-c", LAUNCH, str(folder.path)], env=environment)
            before = len(folder.done())
            until = time.monotonic() + 60
            while len(folder.done()) == before and time.monotonic() < until and process.poll() is None:
                time.sleep(0.01)
        time.sleep(draw.random() * 0.3)
        victims = [process.pid] if plans[-1] == "launcher" else children(process.pid)
        if victims and process.poll() is None:
            os.kill(draw.choice(victims), signal.SIGKILL)
            plans.pop()
            killed += 1
            if victims == [process.pid]:
                process.wait()
    if process is not None:
        process.wait(300)
    return killed


def killing_workers(n: int, seed: int, over: threading.Event) -> None:
    """Kill workers of this very process at random moments."""
    draw = random.Random(seed)
    while n and not over.wait(0.2 + draw.random() * 0.5):
        if victims := children(os.getpid()):
            os.kill(draw.choice(victims), signal.SIGKILL)
            n -= 1


def must_be_whole(folder: SweepFolder, kills: int) -> None:
    """Each job is there once, sound, with the numbers that it would have had; few were begun again."""
    infos = folder.store.list()
    assert sorted(info.id for info in infos) == sorted(folder.specs) and {info.status for info in infos} == {"ok"}
    assert folder.store.check() == {}
    expected = {key: np.random.default_rng(spec.seed).random(5).tolist() for key, spec in folder.specs.items()}
    assert values(folder) == expected
    assert sum(begun(folder).values()) - len(folder.specs) <= kills


def test_kills_of_workers_and_launchers_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    folder = plan(quick(40, seconds=0.1), tmp_path / "sweep")
    assert with_kills(folder, 0, 1, seed=0) == 1 and folder.waiting()
    over = threading.Event()
    killer = threading.Thread(target=killing_workers, args=(4, 1, over))
    killer.start()
    found = run(folder, workers=2, retries=4)
    over.set()
    killer.join()
    assert found.ok
    must_be_whole(folder, kills=4 + 2)


@pytest.mark.slow
def test_fifty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    folder = plan(quick(500, seconds=0.15), tmp_path / "sweep")
    assert with_kills(folder, 38, 14, seed=0) == 52
    found = run(folder, workers=2)
    while found.failed:  # whose process was killed twice
        assert {one.kind for one in found.failed.values()} == {"killed"}
        found = retry(folder, workers=2)
    assert found.ok
    must_be_whole(folder, kills=38 + 2 * 14)


def test_on_a_full_disk_the_sweep_stops_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    folder = plan(Sweep(models=["planted:and"], analyses=["quick", "big"], seeds=[0, 1]), tmp_path / "sweep")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))  # of files that workers write, too
    try:
        with pytest.raises(StorageError, match=r"Cannot store the run .* goes on") as stopped:
            run(folder, workers=1)
        assert isinstance(stopped.value.__cause__, OSError)  # the command exits with 1: nobody's mistake
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not folder.failures() and not folder.running() and folder.waiting()
    assert {folder.specs[key].analysis for key in folder.done()} <= {"quick"} and folder.store.check() == {}
    assert run(folder, workers=1).ok and folder.store.check() == {}


# ---- numbers ----


def numbers(n: int) -> Sweep:
    analyses = ["evaluate", "patch", "attribute", "composition", "lens", "logit_attribution"]
    return Sweep(models=["planted:ioi"], tasks=[{"name": "planted", "n": 12}], analyses=analyses, seeds=range(n))


@pytest.mark.usefixtures("one_thread")
def test_the_same_spec_gives_the_same_numbers_to_the_bit(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        folder, bench = plan(numbers(1), tmp_path / name), Bench()
        assert {do(folder, key, bench) for key in folder.specs} == {"done"}
        files.append({key: folder.store.open(key).manifest["files"] for key in folder.done()})
    assert files[0] == files[1] and len(files[0]) == 6


@pytest.mark.slow
def test_the_number_of_workers_changes_no_bit(tmp_path: Path) -> None:
    files = []
    for name, workers in (("a", 1), ("b", 2)):
        folder = plan(numbers(2), tmp_path / name)
        assert run(folder, workers=workers, threads=1).ok
        files.append({key: folder.store.open(key).manifest["files"] for key in folder.done()})
    assert files[0] == files[1] and len(files[0]) == 12
