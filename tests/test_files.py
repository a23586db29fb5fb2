"""A reader sees the old file or the new one; what the system refuses becomes one clear error."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from interp.errors import InterpError, StorageError
from interp.files import atomic_folder, content_hash, read_json, write_atomically, write_json, write_text


def _fill(value: str) -> Callable[[Path], None]:
    def write(part: Path) -> None:
        part.write_text(value)

    return write


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _denied(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _folder(path: Path, **files: str) -> None:
    with atomic_folder(path) as part:
        for name, text in files.items():
            (part / name).write_text(text)


def _contents(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


# ---- files ----


def test_a_file_is_written_whole_and_leaves_no_neighbour(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.txt", _fill("one"))
    write_atomically(str(tmp_path / "a.txt"), _fill("two"))
    assert _contents(tmp_path) == {"a.txt": "two"}


def test_missing_parents_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "x" / "y" / "a.txt", "é")
    assert (tmp_path / "x" / "y" / "a.txt").read_bytes() == "é".encode()


def test_a_reader_meets_the_old_file_until_the_new_one_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write(part: Path) -> None:
        part.write_text("ne")
        assert target.read_text() == "old"
        part.write_text("new")
        assert target.read_text() == "old"

    write_atomically(target, write)
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), RuntimeError("stop")])
def test_a_writer_that_fails_midway_leaves_the_old_file_and_no_neighbour(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write(part: Path) -> None:
        part.write_text("half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(target, write)
    assert _contents(tmp_path) == {"a.txt": "old"}


@pytest.mark.parametrize("where", ["write", "fsync", "replace", "mkstemp"])
def test_a_full_disk_is_one_storage_error_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    write = _fill("new")
    if where == "write":
        write = _full
    elif where == "mkstemp":
        monkeypatch.setattr(tempfile, "mkstemp", lambda **_: _full())
    else:
        monkeypatch.setattr(os, where, _full)
    with pytest.raises(StorageError, match=r"Cannot write .*a\.txt: No space left on device") as caught:
        write_atomically(target, write)
    monkeypatch.undo()
    assert isinstance(caught.value, InterpError) and isinstance(caught.value, OSError)
    assert _contents(tmp_path) == {"a.txt": "old"}


def test_a_folder_without_rights_is_one_storage_error_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "mkstemp", _denied)  # root may write anywhere, so the refusal is simulated
    monkeypatch.setattr(tempfile, "mkdtemp", _denied)
    with pytest.raises(StorageError, match=r"Permission denied\. Choose a folder you can write to"):
        write_text(tmp_path / "a.txt", "x")
    with pytest.raises(StorageError, match=r"Permission denied\. Choose a folder"), atomic_folder(tmp_path / "f"):
        raise AssertionError("the block must not run")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="Choose a folder you can write to"):
            write_text(tmp_path / "a.txt", "x")
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_in_the_way_of_a_file_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kept").write_text("kept")
    with pytest.raises(StorageError, match="Cannot write"):
        write_text(tmp_path / "a", "x")
    assert _contents(tmp_path) == {"a/kept": "kept"}


def test_a_file_in_the_way_of_a_parent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("file")
    with pytest.raises(StorageError, match="Cannot write"):
        write_text(tmp_path / "a" / "b.txt", "x")
    with pytest.raises(StorageError, match="Cannot write"), atomic_folder(tmp_path / "a" / "b"):
        raise AssertionError("the block must not run")


def test_a_written_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    write_text(tmp_path / "atomic", "x")
    _folder(tmp_path / "made", a="x")
    (tmp_path / "plain_folder").mkdir()
    mode = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert mode["atomic"] == mode["plain"]
    assert mode["made"] == mode["plain_folder"]


def test_writing_in_threads_leaves_the_process_umask_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The umask belongs to all threads: one that sets it, however shortly, changes what the others create."""
    before = os.umask(0o022)
    os.umask(before)
    real, seen = os.umask, []

    def watched(mask: int) -> int:
        seen.append(mask)
        return real(mask)

    monkeypatch.setattr(os, "umask", watched)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: write_text(tmp_path / f"{i}.txt", "x"), range(300)))
    finally:
        sys.setswitchinterval(interval)
        after = real(before)
    assert after == before, "two writers raced and the process is left with another umask"
    assert not seen, "the umask of the whole process was changed while other threads ran"


def test_many_writers_of_one_file_leave_one_of_their_texts(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    texts = [str(i) * 20_000 for i in range(8)]
    bad: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            if target.exists() and (found := target.read_text()) not in texts:
                bad.append(found[:10])

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: write_text(target, texts[i % 8]), range(60)))
    stop.set()
    reader.join()
    assert not bad
    assert os.listdir(tmp_path) == ["a.txt"] and target.read_text() in texts


# ---- folders ----


def test_a_folder_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "f"
    with atomic_folder(target) as part:
        (part / "a").write_text("1")
        (part / "deep").mkdir()
        (part / "deep" / "b").write_text("2")
        assert not target.exists()
    assert _contents(target) == {"a": "1", "deep/b": "2"}
    assert os.listdir(target.parent) == ["f"]


def test_a_folder_that_stands_there_is_replaced_as_a_whole(tmp_path: Path) -> None:
    _folder(tmp_path / "f", a="1", b="2")
    _folder(tmp_path / "f", a="3")
    assert _contents(tmp_path) == {"f/a": "3"}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_a_block_that_fails_leaves_the_old_folder_and_no_neighbour(tmp_path: Path, error: BaseException) -> None:
    _folder(tmp_path / "f", a="old")
    expected = StorageError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), atomic_folder(tmp_path / "f") as part:
        (part / "a").write_text("half")
        raise error
    assert _contents(tmp_path) == {"f/a": "old"}


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("where", ["fsync", "rename"])
def test_a_full_disk_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, exists: bool
) -> None:
    if exists:
        _folder(tmp_path / "f", a="old")
    monkeypatch.setattr(os, where, _full)
    with pytest.raises(StorageError, match=r"Cannot write .*No space left on device"):
        _folder(tmp_path / "f", a="new")
    monkeypatch.undo()
    assert _contents(tmp_path) == ({"f/a": "old"} if exists else {})
    assert os.listdir(tmp_path) == (["f"] if exists else [])


def test_when_the_second_rename_fails_the_old_folder_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _folder(tmp_path / "f", a="old")
    real, calls = os.rename, []

    def second_fails(old: Path, new: Path) -> None:
        calls.append(new)
        if len(calls) == 2:
            _full()
        real(old, new)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(StorageError):
        _folder(tmp_path / "f", a="new")
    monkeypatch.undo()
    assert len(calls) == 3, "out of the way, in its place (fails), and back"
    assert _contents(tmp_path) == {"f/a": "old"}


def test_a_file_in_the_way_of_a_folder_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a file of the user's")
    with pytest.raises(StorageError, match="Cannot write"):
        _folder(tmp_path / "f", a="new")
    assert _contents(tmp_path) == {"f": "a file of the user's"}


def test_many_writers_of_one_folder_leave_one_of_their_contents_and_none_fails(tmp_path: Path) -> None:
    """Two processes that convert the same checkpoint write the same folder at once."""
    target = tmp_path / "f"
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda i: _folder(target, a=str(i), b=str(i)), range(120)))
    finally:
        sys.setswitchinterval(interval)
    contents = _contents(target)
    assert set(contents) == {"a", "b"} and contents["a"] == contents["b"]
    assert os.listdir(tmp_path) == ["f"]


def test_a_writer_that_loses_the_race_for_a_new_folder_still_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, real, raced = tmp_path / "f", os.rename, []

    def other_first(old: Path, new: Path) -> None:
        if Path(new) == target and not raced:
            raced.append(True)
            target.mkdir()
            (target / "a").write_text("the other's")
        real(old, new)

    monkeypatch.setattr(os, "rename", other_first)
    _folder(target, a="mine", b="mine")
    monkeypatch.undo()
    assert _contents(tmp_path) == {"f/a": "mine", "f/b": "mine"}


def test_a_writer_that_loses_the_race_for_an_old_folder_still_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other writer moves the old folder away after this one has seen it standing."""
    _folder(tmp_path / "f", a="old")
    target, real, raced = tmp_path / "f", os.rename, []

    def other_first(old: Path, new: Path) -> None:
        if Path(old) == target and not raced:
            raced.append(True)
            real(target, tmp_path / "gone")
        real(old, new)

    monkeypatch.setattr(os, "rename", other_first)
    _folder(target, a="mine")
    monkeypatch.undo()
    assert _contents(target) == {"a": "mine"}


# ---- hashes and JSON ----


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_the_content_hash_is_sha256_of_the_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(i * 7 % 251 for i in range(min(size, 5000))) * (size // 5000 + 1)
    (tmp_path / "f").write_bytes(data[:size])
    assert content_hash(tmp_path / "f") == hashlib.sha256(data[:size]).hexdigest()


def test_json_comes_back_as_it_went(tmp_path: Path) -> None:
    value = {"text": "é\n😀", "list": [1, 2.5, None, True], "nested": {"a": {}}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")], {"a": float("nan")}])
def test_json_has_no_nan_and_none_is_written(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "a.json", "old")
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", value)
    assert _contents(tmp_path) == {"a.json": '"old"\n'}


@pytest.mark.parametrize("data", [b"", b"{", b'{"a": 1', b"\xff\xfe\x00", b"nope", b"[" * 100_000])
def test_damaged_json_is_a_storage_error_that_names_the_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(StorageError, match=r"Cannot read .*a\.json"):
        read_json(tmp_path / "a.json")


def test_a_missing_file_is_a_storage_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"gone\.json"):
        read_json(tmp_path / "gone.json")
    with pytest.raises(StorageError):
        read_json(tmp_path)  # a folder
