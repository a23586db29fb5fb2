"""Damaged, cut and foreign files: always one clear error of ours, never another exception, never a wrong model."""

from __future__ import annotations

import contextlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from interp.errors import CheckpointError, InterpError, StorageError, UnsupportedModelError
from interp.families import converted
from interp.families.gguf_file import GGUFFile
from interp.families.load import load


@pytest.fixture
def whole(tiny_llama, write_gguf) -> bytes:
    return write_gguf(tiny_llama()).read_bytes()


def data_starts(path: Path) -> int:
    return gguf.GGUFReader(path).data_offset


def test_a_gguf_file_cut_at_any_byte_is_a_checkpoint_error(whole, tmp_path):
    path = tmp_path / "cut.gguf"
    start = data_starts(tmp_path / "tiny.gguf")
    chooser = random.Random(0)
    header = {0, 1, 3, 4, 7, 8, 15, 16, 23, 24, start - 1, start, *chooser.sample(range(start), 250)}
    for size in sorted(header | set(chooser.sample(range(start, len(whole) - 32), 40))):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"cut\.gguf") as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_a_gguf_header_with_flipped_bytes_loads_or_is_refused_but_never_crashes(whole, tmp_path):
    path = tmp_path / "flipped.gguf"
    start = data_starts(tmp_path / "tiny.gguf")
    chooser = random.Random(1)
    refused = 0
    for _ in range(250):
        damaged = bytearray(whole)
        for _ in range(chooser.choice([1, 1, 4])):
            damaged[chooser.randrange(start)] = chooser.randrange(256)
        path.write_bytes(damaged)
        try:
            load(path)
        except InterpError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("size", [0, 2, 4])
def test_a_file_that_is_not_gguf_is_named_with_what_it_begins_with(size, tmp_path):
    path = tmp_path / "notes.gguf"
    path.write_bytes(b"Dear diary"[:size])
    with pytest.raises(CheckpointError, match=r"notes\.gguf is not a GGUF file"):
        load(path)


@pytest.mark.parametrize(
    ("version", "says"), [(1, "version 1"), (99, "version 99"), (struct.unpack(">I", b"\3\0\0\0")[0], "version")]
)
def test_other_versions_are_named(version, says, whole, tmp_path):
    path = tmp_path / "old.gguf"
    path.write_bytes(whole[:4] + struct.pack("<I", version) + whole[8:])
    with pytest.raises(UnsupportedModelError, match=says):
        load(path)


def test_a_big_endian_file_is_named(whole, tmp_path):
    path = tmp_path / "big.gguf"
    path.write_bytes(whole[:4] + struct.pack(">I", 3) + whole[8:])
    with pytest.raises(UnsupportedModelError, match="big-endian"):
        load(path)


def test_an_unsupported_architecture_is_named_with_those_that_are_supported(tiny_llama, write_gguf):
    path = write_gguf(tiny_llama(), arch="mamba")
    with pytest.raises(UnsupportedModelError, match=r"architecture 'mamba'.*Supported are .*llama"):
        load(path)


def test_a_quantisation_that_gguf_cannot_undo_is_named(tiny_llama, write_gguf):
    path = write_gguf(tiny_llama(), extra={"rope_freqs.weight": np.ones(8, np.int32)})
    with pytest.raises(UnsupportedModelError, match=r"rope_freqs\.weight as I32"):
        load(path)


def test_a_quantisation_that_gguf_does_not_know_is_named(tiny_llama, write_gguf):
    path = write_gguf(tiny_llama())
    field = gguf.GGUFReader(path).tensors[3].field
    at = field.offset + sum(part.nbytes for part in field.parts[:4])
    data = bytearray(path.read_bytes())
    data[at : at + 4] = struct.pack("<I", 777)
    path.write_bytes(data)
    with pytest.raises(UnsupportedModelError, match="quantisation type 777"):
        load(path)


def test_an_adapter_or_a_part_of_a_split_file_is_refused(tiny_llama, write_gguf):
    with pytest.raises(UnsupportedModelError, match="adapter"):
        load(write_gguf(tiny_llama(), edit=lambda writer: writer.add_type("adapter")))
    with pytest.raises(UnsupportedModelError, match="split"):
        load(write_gguf(tiny_llama(), edit=lambda writer: writer.add_uint16("split.count", 2)))


def test_sizes_that_contradict_the_tensors_are_a_checkpoint_error(tiny_llama, write_gguf):
    def lie(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0].pop("llama.feed_forward_length")
        writer.add_feed_forward_length(128)

    with pytest.raises(CheckpointError, match="mlp"):
        load(write_gguf(tiny_llama(), edit=lie))


def test_our_quick_reader_reads_what_the_library_reads(whole, tmp_path):
    path = tmp_path / "tiny.gguf"
    plain, ours = gguf.GGUFReader(path), GGUFFile(path)
    assert ours.metadata == {name: field.contents() for name, field in plain.fields.items()}
    assert list(ours.shapes) == [tensor.name for tensor in plain.tensors]
    for tensor in plain.tensors:
        assert np.array_equal(ours.tensor(tensor.name).numpy(), gguf.dequantize(tensor.data, tensor.tensor_type))


def test_arrays_of_every_element_kind_are_read_as_the_library_does(tiny_llama, write_gguf):
    kinds = gguf.GGUFValueType
    arrays: dict[str, tuple[list[Any], Any]] = {
        "general.a": ([1, 255], kinds.UINT8),
        "general.b": ([-1, 7], kinds.INT8),
        "general.c": ([1.5, -2.5], kinds.FLOAT32),
        "general.d": ([True, False], kinds.BOOL),
        "general.e": ([2**40], kinds.UINT64),
        "general.f": (["", "é", "🙂"], kinds.STRING),
        "general.g": ([0.1], kinds.FLOAT64),
    }

    def add(writer: gguf.GGUFWriter) -> None:
        for key, (values, kind) in arrays.items():
            writer.add_key_value(key, values, kinds.ARRAY, sub_type=kind)

    path = write_gguf(tiny_llama(), edit=add)
    ours = GGUFFile(path).metadata
    assert ours == {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}
    assert ours["general.f"] == ["", "é", "🙂"]


# ---- folders ----


@pytest.fixture
def folder(tiny_llama, tmp_path) -> Path:
    tiny_llama().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_safetensors_cut_at_any_byte_are_a_checkpoint_error(folder):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    chooser = random.Random(0)
    for size in sorted({0, 1, 7, 8, 9, *chooser.sample(range(len(data)), 60), len(data) - 1}):
        file.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or cut short"):
            load(folder)


def test_a_damaged_safetensors_header_is_an_error_of_ours(folder):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    length = 8 + struct.unpack("<Q", data[:8])[0]
    chooser = random.Random(0)
    for _ in range(100):
        damaged = bytearray(data)
        damaged[chooser.randrange(length)] = chooser.randrange(256)
        file.write_bytes(damaged)
        with contextlib.suppress(InterpError):
            load(folder)


def test_a_damaged_config_is_a_checkpoint_error(folder):
    file = folder / "config.json"
    text = file.read_text()
    for broken in ("", "{", text[: len(text) // 2], "[]", "null", "\x00" + text):
        file.write_text(broken)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            load(folder)


def test_a_folder_without_a_config_or_without_weights_says_what_is_missing(folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "kept")
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load(folder)


def test_pickled_weights_are_never_opened(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/interp-was-here'\ntR.")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin, a pickle.*save_pretrained"):
        load(folder)
    with pytest.raises(CheckpointError, match="pickle"):
        load(folder / "pytorch_model.bin")
    assert not Path("/tmp/interp-was-here").exists()


def test_a_single_safetensors_file_points_to_its_folder(folder):
    with pytest.raises(CheckpointError, match="Give the folder that holds it"):
        load(folder / "model.safetensors")


@pytest.mark.parametrize("wrong", ["missing file", "outside", "missing tensor", "no map"])
def test_a_wrong_index_of_shards_is_named(wrong, tiny_llama, tmp_path):
    tiny_llama().save_pretrained(tmp_path, max_shard_size="60KB")
    file = tmp_path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    first = index["weight_map"]["model.norm.weight"]
    if wrong == "missing file":
        (tmp_path / first).unlink()
    elif wrong == "outside":
        index["weight_map"]["model.norm.weight"] = "../../etc/model.safetensors"
    elif wrong == "missing tensor":
        index["weight_map"]["model.nowhere.weight"] = first
    else:
        index.pop("weight_map")
    file.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"Download it again|beside it"):
        load(tmp_path)


def test_a_missing_or_misshapen_tensor_is_a_checkpoint_error(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    norm = tensors.pop("model.norm.weight")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="ln_final"):
        load(folder)
    save_file(tensors | {"model.norm.weight": norm[:-1].clone()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="ln_final"):
        load(folder)


def test_quantised_safetensors_are_refused_by_kind(folder):
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    name = "model.layers.0.mlp.up_proj.weight"
    for kind in (torch.float8_e4m3fn, torch.int8):
        save_file(tensors | {name: tensors[name].to(kind)}, folder / "model.safetensors")
        with pytest.raises(UnsupportedModelError, match=f"{name} as {str(kind)[6:]}"):
            load(folder)


def test_a_live_model_on_the_meta_device_is_refused(tiny_llama):
    with pytest.raises(CheckpointError, match="not in memory"):
        load(tiny_llama().to("meta"))


def test_a_file_that_may_not_be_read_is_a_storage_error(whole, tmp_path, monkeypatch):
    import builtins

    real = builtins.open

    def closed(path: Any, *args: Any, **kwargs: Any) -> Any:
        if str(path).endswith("tiny.gguf"):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", closed)
    with pytest.raises(StorageError, match=r"Cannot read .*tiny\.gguf: Permission denied"):
        load(tmp_path / "tiny.gguf")
    converted.wait_for_writes()
