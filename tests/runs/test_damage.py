"""Damaged and newer runs are named and never crash the list; a disk that refuses leaves the store as it was."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from interp.errors import InputError, StorageError
from interp.runs.store import RunStore, must_be_writable

SPEC = {"model": "tiny"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def change(run, **fields) -> None:
    path = run.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest.update(fields)
    path.write_text(json.dumps({name: value for name, value in manifest.items() if value is not ...}))


def only(store: RunStore):
    (info,) = store.list()
    return info


# ---- damaged ----


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"schema": 1',
        b"\xff\xfe\x00",
        b"[1, 2]",
        b"null",
        b"{}",
        b'{"schema": true}',
        b'{"schema": "1"}',
        b'{"schema": -1}',
        b'{"schema": 1}',
        b'{"schema": 1e999}',
        b'{"schema": 1' + b"0" * 5000 + b"}",
        b"[" * 200_000,
    ],
)
def test_a_manifest_of_any_bytes_is_listed_as_damaged_and_not_opened(store, scores, data):
    sound, run = store.save(scores(1), spec=SPEC), store.save(scores(2), spec=SPEC)
    (run.folder / "manifest.json").write_bytes(data)
    found = {info.id: info for info in store.list()}
    assert found[sound.id].status == "ok"
    info = found[run.id]
    assert info.status == "damaged" and "manifest.json" in (info.reason or "")
    assert info.created is not None, "the id still tells the time"
    with pytest.raises(StorageError, match=f"Run {run.id} in .* cannot be opened: manifest.json"):
        store.open(run.id)
    assert set(store.check()) == {run.id}


def test_a_manifest_cut_anywhere_is_damaged(store, scores):
    run = store.save(scores(), spec=SPEC)
    whole = (run.folder / "manifest.json").read_bytes()
    for length in range(0, len(whole.rstrip()) - 1, 37):
        (run.folder / "manifest.json").write_bytes(whole[:length])
        assert only(store).status == "damaged", f"cut at {length}"
    (run.folder / "manifest.json").write_bytes(whole)
    assert only(store).status == "ok"


@pytest.mark.parametrize("name", ["kind", "title", "created", "model", "spec", "files"])
@pytest.mark.parametrize("value", [..., None, 7])
def test_a_manifest_without_a_field_is_damaged_by_its_name(store, scores, name, value):
    change(store.save(scores(), spec=SPEC), **{name: value})
    assert only(store).status == "damaged" and f"'{name}'" in only(store).reason


def test_a_missing_manifest_and_a_folder_in_its_place_are_damaged(store, scores):
    run = store.save(scores(), spec=SPEC)
    (run.folder / "manifest.json").unlink()
    assert (only(store).id, only(store).reason) == (run.id, "manifest.json is missing")
    (run.folder / "manifest.json").mkdir()
    assert only(store).reason == "manifest.json is no file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_named_pipe_in_place_of_a_manifest_does_not_hang_the_list(store, scores):
    run = store.save(scores(), spec=SPEC)
    (run.folder / "manifest.json").unlink()
    os.mkfifo(run.folder / "manifest.json")
    assert only(store).status == "damaged"


def test_a_deleted_table_is_damage_that_the_list_names(store, scores):
    run = store.save(scores(), spec=SPEC)
    (run.folder / "results" / "sets.parquet").unlink()
    assert (only(store).status, only(store).reason) == ("damaged", "results/sets.parquet is missing")
    with pytest.raises(StorageError, match=r"results/sets\.parquet is missing"):
        store.open(run.id)
    assert store.check() == {run.id: ["results/sets.parquet is missing"]}


def test_a_truncated_table_is_damage_that_the_list_names(store, scores):
    run = store.save(scores(), spec=SPEC)
    table = run.folder / "results" / "heads.parquet"
    table.write_bytes(table.read_bytes()[:-10])
    assert only(store).status == "damaged" and "results/heads.parquet has" in only(store).reason


def test_a_changed_byte_is_found_by_check_and_never_returned_as_a_result(store, scores):
    sound, run = store.save(scores(1), spec=SPEC), store.save(scores(2), spec=SPEC)
    table = run.folder / "results" / "heads.parquet"
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    assert {info.status for info in store.list()} == {"ok"}, "the list reads no tables"
    assert list(store.check()) == [run.id] and "heads.parquet was changed" in store.check()[run.id][0]
    assert store.check(sound.id) == {} and sound.check() == []
    with pytest.raises(StorageError, match=r"cannot be trusted: results/heads\.parquet was changed"):
        store.open(run.id).results()


def test_a_manifest_cannot_name_files_outside_its_run(store, scores, tmp_path):
    (tmp_path / "secret").write_text("s")
    for name in ("../../secret", str(tmp_path / "secret"), "results/../../../secret"):
        run = store.save(scores(), spec=SPEC)
        change(run, files={name: {"bytes": 1, "sha256": "0" * 64}})
        assert "outside the run" in store.info(run.id).reason
    run = store.save(scores(), spec=SPEC)
    os.symlink(tmp_path / "secret", run.folder / "results" / "link")
    change(run, files={"results/link": {"bytes": 1, "sha256": "0" * 64}})
    assert store.info(run.id).reason == "results/link is no file"


def test_results_that_cannot_be_read_are_one_storage_error(store, scores, monkeypatch):
    run = store.save(scores(), spec=SPEC)

    def broken(path):
        raise KeyError("column")

    monkeypatch.setattr("interp.results.HeadScores.load", broken)
    with pytest.raises(StorageError, match=r"Cannot read the heads results in .*column"):
        run.results()


# ---- newer ----


def test_a_run_of_a_newer_schema_is_named_and_not_opened(store, scores):
    run = store.save(scores(), spec=SPEC)
    change(run, schema=2, files=..., model=["some", "new", "shape"])
    info = only(store)
    assert info.status == "newer" and "schema 2; this one reads up to 1" in info.reason
    assert info.title == "heads of tiny" and info.model is None
    with pytest.raises(StorageError, match=r"newer version .* update interp"):
        store.open(run.id)


def test_an_unknown_kind_of_result_is_named_and_not_opened(store, scores):
    run = store.save(scores(), spec=SPEC)
    change(run, kind="dreams")
    assert only(store).status == "newer" and "'dreams'; this version reads heads" in only(store).reason
    with pytest.raises(StorageError, match="dreams"):
        store.open(run.id)


def test_damaged_and_newer_runs_can_be_exported_and_deleted(store, scores, tmp_path):
    damaged, newer = store.save(scores(), spec=SPEC), store.save(scores(), spec=SPEC)
    (damaged.folder / "manifest.json").write_text("{")
    change(newer, schema=9)
    assert store.export(damaged.id, tmp_path / "a.zip").stat().st_size > 1000
    store.delete(damaged.id)
    store.delete(newer.id)
    assert os.listdir(store.path) == []


def test_what_is_not_ours_in_the_folder_is_passed_over(store, scores, tmp_path):
    run = store.save(scores(), spec=SPEC)
    (store.path / "notes").mkdir()
    (store.path / "notes" / "a.txt").write_text("mine")
    (store.path / "README").write_text("mine")
    (store.path / ".hidden").mkdir()
    os.symlink(run.folder, store.path / "link")
    os.symlink(tmp_path / "nowhere", store.path / "20260101-000000-000-00000000")
    assert only(store).id == run.id


# ---- places that refuse ----


def test_a_store_path_that_is_a_file_is_refused_and_the_file_stays(tmp_path, scores):
    (tmp_path / "runs").write_text("mine")
    for path in (tmp_path / "runs", tmp_path / "runs" / "deeper"):
        store = RunStore(path)
        with pytest.raises(StorageError, match=r"is no folder. Choose a folder you can write to"):
            store.must_be_writable()
        with pytest.raises(StorageError, match="is no folder"):
            store.save(scores(), spec=SPEC)
        with pytest.raises(StorageError, match="is no folder of runs: it is a file"):
            store.list()
    assert (tmp_path / "runs").read_text() == "mine"


@pytest.mark.parametrize("path", ["", "  ", "a\0b"])
def test_a_path_that_cannot_be_one_is_refused(path):
    with pytest.raises(InputError, match="cannot be a folder of runs"):
        RunStore(path)


def test_a_name_too_long_for_the_system_is_refused_as_storage(tmp_path):
    with pytest.raises(StorageError, match="too long"):
        RunStore(tmp_path / ("x" * 300)).must_be_writable()


def test_a_folder_that_refuses_is_said_before_any_work(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, "Read-only file system")  # root may write anywhere else, so it is simulated

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(StorageError, match=r"Read-only file system\. Choose a folder you can write to"):
        RunStore(tmp_path / "runs").must_be_writable()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_without_rights_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="Permission denied"):
            RunStore(tmp_path / "runs").must_be_writable()
    finally:
        tmp_path.chmod(0o700)


def test_asking_whether_a_place_is_writable_leaves_nothing_there(tmp_path):
    RunStore(tmp_path / "a" / "b").must_be_writable()
    must_be_writable(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("where", ["os.fsync", "os.rename"])
def test_a_full_disk_leaves_the_old_runs_and_nothing_else(store, scores, monkeypatch, where):
    old = store.save(scores(1), spec=SPEC)
    before = contents(store.path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(where, full)
    with pytest.raises(StorageError, match=r"Cannot store the run in .*: No space left on device\. The store is as it"):
        store.save(scores(2), spec=SPEC)
    monkeypatch.undo()
    assert os.listdir(store.path) == [old.id] and contents(store.path) == before
    assert store.check() == {}


def test_a_disk_that_fills_while_a_table_is_written_leaves_the_old_runs(store, scores):
    """The limit on a file's size is the system's own refusal, met in the middle of a real write."""
    old = store.save(scores(1), spec=SPEC)
    before = contents(store.path)
    code = (
        "import resource, signal, sys, numpy as np, pandas as pd\n"
        "from interp.errors import StorageError\n"
        "from interp.results import HeadScores\n"
        "from interp.runs.store import RunStore\n"
        "frame = pd.DataFrame({'kind': 'x', 'score': np.random.default_rng(0).random(500_000)})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    RunStore(sys.argv[1]).save(HeadScores(frame, frame.head(1), {'model': 'm'}), spec={})\n"
        "except StorageError as error:\n"
        "    print(error); sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, store.path], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert "Cannot store the run" in done.stdout and "too large" in done.stdout
    assert os.listdir(store.path) == [old.id] and contents(store.path) == before
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000
