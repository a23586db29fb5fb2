"""Runs leave and come back as one zip file; nothing else gets in, and nothing by halves."""

from __future__ import annotations

import errno
import json
import os
import stat
import zipfile
from pathlib import Path

import pytest

from interp.errors import InputError, StorageError
from interp.runs.store import RunStore

SPEC = {"model": "tiny"}


@pytest.fixture
def other(tmp_path) -> RunStore:
    return RunStore(tmp_path / "other")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def rewritten(source: Path, target: Path, change) -> Path:
    """The archive with its files (name -> bytes) changed by `change`."""
    with zipfile.ZipFile(source) as old:
        files = {name: old.read(name) for name in old.namelist()}
    change(files)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in files.items():
            new.writestr(name, data)
    return target


def test_several_runs_leave_as_one_file_and_are_the_same_where_they_come_in(store, scores, other, tmp_path):
    runs = [store.save(scores(i), spec=SPEC, tags={"n": str(i)}) for i in range(3)]
    path = store.export([run.id for run in runs], tmp_path)
    assert path == tmp_path / "runs.zip"
    assert other.import_archive(path) == {run.id: "added" for run in runs}
    assert contents(other.path) == contents(store.path) and other.list() == store.list() and other.check() == {}
    other.delete(runs[1].id)
    assert other.import_archive(path) == {run.id: "added" if run is runs[1] else "there" for run in runs}
    with pytest.raises(InputError, match="No run was named"):
        store.export([], path)


def test_an_id_with_other_contents_is_refused_and_nothing_of_the_archive_appears(store, scores, other, tmp_path):
    first, second = store.save(scores(1), spec=SPEC, id="mine"), store.save(scores(2), spec=SPEC)
    path = store.export([first.id, second.id], tmp_path / "a.zip")
    kept = other.save(scores(3), spec=SPEC, id="mine")
    before = contents(other.path)
    with pytest.raises(InputError, match="holds a run 'mine' with other contents"):
        other.import_archive(path)
    assert contents(other.path) == before and os.listdir(other.path) == [kept.id]


def harms(name: str) -> dict[str, tuple]:
    table = f"{name}/results/heads.parquet"

    def flip(files):
        files[table] = files[table][:-1] + bytes([files[table][-1] ^ 1])

    def manifest(**fields):
        def change(files):
            files[f"{name}/manifest.json"] = json.dumps(
                {**json.loads(files[f"{name}/manifest.json"]), **fields}
            ).encode()

        return change

    return {
        "changed": (flip, "is not what its manifest says"),
        "missing": (lambda files: files.pop(table), "heads.parquet is missing"),
        "foreign": (lambda files: files.update({f"{name}/results/run.sh": b"x"}), "does not name"),
        "beside": (lambda files: files.update({"run.sh": b"x"}), "no file inside a run"),
        "above": (lambda files: files.update({f"{name}/../../evil": b"x"}), "no file inside a run"),
        "absolute": (lambda files: files.update({"/etc/evil": b"x"}), "no file inside a run"),
        "backslash": (lambda files: files.update({f"{name}/a\\..\\b": b"x"}), "no file inside a run"),
        "drive": (lambda files: files.update({"C:/evil": b"x"}), "no file inside a run"),
        "hidden": (lambda files: files.update({".ssh/keys": b"x"}), "cannot be a run's id"),
        "no manifest": (lambda files: files.pop(f"{name}/manifest.json"), "has no manifest.json"),
        "cut manifest": (lambda files: files.update({f"{name}/manifest.json": b"{"}), "damaged manifest.json"),
        "newer": (manifest(schema=9), "newer version"),
        "outside": (manifest(files={"../../x": {"bytes": 1, "sha256": "0"}}), "does not name"),
        "empty": (lambda files: files.clear(), "holds no runs"),
    }


@pytest.mark.parametrize("harm", list(harms("x")))
def test_what_is_not_as_export_wrote_it_is_refused_whole(store, scores, other, tmp_path, harm):
    sound, run = store.save(scores(1), spec=SPEC), store.save(scores(2), spec=SPEC)
    change, message = harms(run.id)[harm]
    path = rewritten(store.export([sound.id, run.id], tmp_path / "a.zip"), tmp_path / "b.zip", change)
    with pytest.raises(InputError, match=message):
        other.import_archive(path)
    assert not other.path.exists() or os.listdir(other.path) == []
    assert sorted(os.listdir(tmp_path)) in (["a.zip", "b.zip", "runs"], ["a.zip", "b.zip", "other", "runs"])


def test_links_and_doubles_are_refused(store, scores, other, tmp_path):
    run = store.save(scores(), spec=SPEC)
    path = store.export(run.id, tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo(f"{run.id}/results/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="is a link"):
        other.import_archive(path)
    path = store.export(run.id, tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(f"{run.id}/manifest.json", "{}")
    with pytest.raises(InputError, match="twice"):
        other.import_archive(path)


def test_an_archive_that_is_larger_than_allowed_or_than_it_says_is_refused(store, scores, other, tmp_path):
    run = store.save(scores(), spec=SPEC)
    path = store.export(run.id, tmp_path / "a.zip")
    with pytest.raises(InputError, match="Raise the limit if you trust it"):
        other.import_archive(path, limit=1000)
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{run.id}/manifest.json", b"0" * 100_000_000)
    with pytest.raises(InputError, match=r"has no manifest\.json as a run has it"):
        other.import_archive(tmp_path / "b.zip")
    data = (tmp_path / "a.zip").read_bytes()
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(f"{run.id}/results/heads.parquet")
    size = entry.file_size.to_bytes(4, "little")
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(entry.filename.encode()))
    assert data[at + 24 : at + 28] == size
    (tmp_path / "c.zip").write_bytes(data[: at + 24] + (10).to_bytes(4, "little") + data[at + 28 :])
    with pytest.raises((InputError, StorageError)):
        other.import_archive(tmp_path / "c.zip")
    assert not other.path.exists() or os.listdir(other.path) == []


def test_what_is_no_archive_or_is_cut_is_a_storage_error(store, scores, other, tmp_path):
    run = store.save(scores(), spec=SPEC)
    whole = store.export(run.id, tmp_path / "a.zip").read_bytes()
    for data in (b"", b"text", whole[:-30], whole[: len(whole) // 2]):
        (tmp_path / "b.zip").write_bytes(data)
        with pytest.raises(StorageError, match=r"Cannot import .*Nothing of it was added"):
            other.import_archive(tmp_path / "b.zip")
    with pytest.raises(StorageError, match="No such file"):
        other.import_archive(tmp_path / "missing.zip")
    assert not other.path.exists() or os.listdir(other.path) == []


def test_a_full_disk_leaves_nothing_of_an_import(store, scores, other, tmp_path, monkeypatch):
    path = store.export([store.save(scores(i), spec=SPEC).id for i in range(2)], tmp_path / "a.zip")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"No space left on device\. Nothing of it was added"):
        other.import_archive(path)
    assert os.listdir(other.path) == []
