"""The cache of converted weights: found again, memory-mapped, never trusted when damaged, never in the way."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch

from interp.families import converted, gguf_file
from interp.families.load import load

ROOT = Path(__file__).resolve().parents[2]
IDS = torch.tensor([[1, 2, 3, 4, 5]])


@pytest.fixture
def path(tiny_llama, write_gguf) -> Path:
    return write_gguf(tiny_llama())


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that had to be converted."""
    seen: list[Path] = []
    real = gguf_file._convert
    monkeypatch.setattr(gguf_file, "_convert", lambda file, *rest: seen.append(file.path) or real(file, *rest))
    return seen


def entry(cache: Path) -> Path:
    converted.wait_for_writes()
    (only,) = [folder for folder in (cache / "converted").iterdir() if not folder.name.startswith(".")]
    return only


def state(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_equal_states(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_second_load_converts_nothing_and_gives_the_same_model(path, own_cache, conversions):
    first = load(path)
    entry(own_cache)
    second = load(path)
    assert conversions == [path]
    assert_equal_states(state(first), state(second))
    assert first.cfg == second.cfg
    assert torch.equal(first(IDS), second(IDS))
    text = "ab abba <|end|> é"
    assert first.tokenizer.encode(text) == second.tokenizer.encode(text)
    assert torch.equal(
        load(path, dtype="bfloat16").decoder.embed.weight.float(), first.decoder.embed.weight.bfloat16().float()
    )
    assert conversions == [path]


def test_the_entry_is_found_by_content_not_by_name(path, own_cache, conversions, tmp_path):
    load(path)
    entry(own_cache)
    moved = tmp_path / "elsewhere.gguf"
    shutil.move(path, moved)
    load(moved)
    assert len(conversions) == 1
    with open(moved, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\1\2\3\4")
    load(moved)
    assert len(conversions) == 2


def test_editing_a_loaded_model_changes_neither_the_entry_nor_other_models(path, own_cache):
    first = load(path)  # the entry is being written while this model is edited
    with torch.no_grad():
        original = state(load(path))
        for parameter in first.parameters():
            parameter.zero_()
    entry(own_cache)
    second = load(path)
    assert_equal_states(state(second), original)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.zero_()
    assert_equal_states(state(load(path)), original)


def test_an_edit_before_the_writer_runs_does_not_reach_the_entry(path, own_cache, monkeypatch):
    waiting: list = []
    monkeypatch.setattr(converted, "write_later", lambda key, write: waiting.append(write))
    first = load(path)
    original = state(first)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.fill_(7)
    waiting[0]()
    assert_equal_states(state(load(path)), original)


@pytest.mark.parametrize("change", ["cut", "overwritten", "deleted"])
def test_a_file_that_changes_under_the_writer_leaves_no_entry_and_no_noise(change, path, own_cache, monkeypatch):
    waiting: list = []
    monkeypatch.setattr(gguf_file.converted, "write_later", lambda key, write: waiting.append(write))
    load(path)
    data = path.read_bytes()
    if change == "cut":
        os.truncate(path, 20_000)
    elif change == "overwritten":
        path.write_bytes(data[:-40_000] + bytes(40_000))
    else:
        path.unlink()
    waiting[0]()
    assert list((own_cache / "converted").iterdir()) == []


def test_any_flipped_byte_is_found_and_the_entry_rebuilt(path, own_cache, conversions):
    original = state(load(path))
    folder = entry(own_cache)
    for name in sorted(file.name for file in folder.iterdir()):
        size = (folder / name).stat().st_size
        for position in {0, size // 3, size // 2, size - 1}:
            file = folder / name
            data = bytearray(file.read_bytes())
            data[position] ^= 0x10
            file.write_bytes(data)
            before = len(conversions)
            assert_equal_states(state(load(path)), original)
            assert len(conversions) == before + 1, (name, position)
            assert entry(own_cache) == folder
            load(path)
            assert len(conversions) == before + 1, f"{name} was not rebuilt"


def test_a_cut_or_missing_file_is_found_and_the_entry_rebuilt(path, own_cache, conversions):
    original = state(load(path))
    folder = entry(own_cache)
    for name in sorted(file.name for file in folder.iterdir()):
        for spoil in (
            lambda file: os.truncate(file, file.stat().st_size // 2),
            lambda file: os.truncate(file, 0),
            Path.unlink,
        ):
            spoil(folder / name)
            before = len(conversions)
            assert_equal_states(state(load(path)), original)
            assert len(conversions) == before + 1, name
            entry(own_cache)
            load(path)
            assert len(conversions) == before + 1


def test_a_folder_left_by_a_killed_writer_is_never_used_and_later_removed(path, own_cache, conversions):
    load(path)
    folder = entry(own_cache)
    old, new = (folder.with_name(f".{folder.name}.{name}.part") for name in ("old", "new"))
    shutil.copytree(folder, new)
    folder.rename(old)
    os.truncate(old / "model.safetensors", 100)
    os.utime(old, (time.time() - 86400,) * 2)
    load(path)
    assert len(conversions) == 2
    converted.wait_for_writes()
    assert folder.is_dir() and new.is_dir() and not old.exists()


def load_with_warning(path: Path) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = load(path)
        assert torch.isfinite(model(IDS)).all()
        converted.wait_for_writes()
    assert len(caught) == 1, [str(warning.message) for warning in caught]
    return str(caught[0].message)


def test_a_full_disk_costs_a_warning_and_not_the_model(path, own_cache):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        message = load_with_warning(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in message and str(own_cache) in message and "INTERP_CACHE" in message
    assert list((own_cache / "converted").iterdir()) == []


def test_a_disk_that_is_full_at_the_last_moment_leaves_nothing_behind(path, own_cache, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in load_with_warning(path)
    assert list((own_cache / "converted").iterdir()) == []
    monkeypatch.undo()


def test_a_cache_folder_that_cannot_be_made_costs_a_warning(path, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "file" / "cache"))
    assert "Not a directory" in load_with_warning(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_folder_costs_a_warning(path, own_cache):
    own_cache.mkdir(mode=0o555)
    assert "Permission denied" in load_with_warning(path)


def test_threads_that_load_at_once_agree_and_write_once(path, own_cache):
    results: list = []
    threads = [threading.Thread(target=lambda: results.append(load(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in results:
        assert_equal_states(state(model), state(results[0]))
    only = entry(own_cache).name
    assert os.listdir(own_cache / "converted") == [only]


def run(code: str, *arguments: object, **environment: str) -> subprocess.Popen:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code, *map(str, arguments)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_that_convert_at_once_are_safe_and_wait_for_their_writers(path, own_cache, conversions):
    code = """
        from interp.families.load import load
        import torch
        print(float(load(sys.argv[1])(torch.tensor([[1, 2, 3]])).detach().double().sum()))
    """
    both = [run(code, path) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert all("not cached" not in error for _, error in outputs)
    assert outputs[0][0] == outputs[1][0] == f"{float(load(path)(IDS[:, :3]).detach().double().sum())}\n"
    assert conversions == []  # both have left a sound entry behind, and nothing else
    assert os.listdir(own_cache / "converted") == [entry(own_cache).name]
