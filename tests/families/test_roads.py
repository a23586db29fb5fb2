"""One Llama through every road: folder, shards, bfloat16, GGUF, quantised GGUF, live. Weights equal, logits near."""

from __future__ import annotations

import copy
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from interp.errors import CheckpointError, UnsupportedModelError
from interp.families import converted
from interp.families.load import load

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
VARIANTS = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "biased": {"attention_bias": True, "mlp_bias": True},
    "own head size": {"head_dim": 24},
    "one key head": {"num_key_value_heads": 1},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}},
    "llama3": {"rope_parameters": LLAMA3},
    "gelu": {"hidden_act": "gelu"},
}
variants = pytest.mark.parametrize("variant", VARIANTS)


def assert_same_logits(ours: Any, reference: Any) -> None:
    with torch.no_grad():
        difference = (ours(IDS) - reference(IDS).logits).abs().max()
    assert difference <= 1e-4


@variants
def test_a_folder_gives_the_references_weights_and_logits(variant, tiny_llama, hub_weight, tmp_path):
    reference = tiny_llama(**VARIANTS[variant])
    reference.save_pretrained(tmp_path / "model")
    ours = load(tmp_path / "model")
    for name, tensor in reference.state_dict().items():
        assert torch.equal(hub_weight(ours, name), tensor), name
    assert ours.tokenizer is None and ours.cfg.model_name == "model"
    assert_same_logits(ours, reference)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in ("linear", "llama3", "gelu")])
def test_a_gguf_file_gives_the_references_weights_and_logits(variant, tiny_llama, hub_weight, write_gguf):
    reference = tiny_llama(**VARIANTS[variant])
    ours = load(write_gguf(reference))
    for name, tensor in reference.state_dict().items():
        assert torch.equal(hub_weight(ours, name), tensor), name
    assert ours.cfg.model_name == "Tiny" and ours.cfg.eps == reference.config.rms_norm_eps
    assert_same_logits(ours, reference)


def test_a_gguf_file_with_linear_scaling_gives_the_references_logits(tiny_llama, write_gguf):
    reference = tiny_llama(**VARIANTS["linear"])

    def scale(writer):
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(2.0)

    assert_same_logits(load(write_gguf(reference, edit=scale)), reference)


def test_divisors_baked_for_llama_3_are_recognised(tiny_llama, write_gguf):
    wide = {**LLAMA3, "rope_theta": 500000.0}
    reference = tiny_llama(rope_parameters=wide)
    frequencies = 1 / 500000.0 ** (np.arange(0, 16, 2) / 16)
    wavelengths = 2 * np.pi / frequencies
    smooth = (8192 / wavelengths - 1) / 3
    blended = 1 / ((1 - smooth) / 8 + smooth)
    divisors = np.where(wavelengths < 2048, 1, np.where(wavelengths > 8192, 8, blended)).astype(np.float32)
    path = write_gguf(reference, extra={"rope_freqs.weight": divisors})
    ours = load(path)
    scaling = ours.cfg.decoder.blocks[0].attn.rotary.scaling
    assert (scaling.kind, scaling.factor, scaling.original_n_ctx) == ("llama3", 8.0, 8192)
    assert_same_logits(ours, reference)


def test_other_baked_divisors_are_refused_by_name(tiny_llama, write_gguf):
    for divisors in (np.linspace(1, 3, 8), np.full(8, 2.0), np.ones(3)):
        path = write_gguf(tiny_llama(), extra={"rope_freqs.weight": divisors.astype(np.float32)})
        with pytest.raises(UnsupportedModelError, match=r"rope_freqs\.weight"):
            load(path)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_1", "F16", "BF16"])
def test_quantised_tensors_are_what_the_gguf_library_makes_of_them(kind, tiny_llama, write_gguf):
    path = write_gguf(tiny_llama(), kind=gguf.GGMLQuantizationType[kind])
    ours = dict(load(path).named_parameters())
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, parameter in (
        ("token_embd.weight", "decoder.embed.weight"),
        ("blk.1.ffn_down.weight", "decoder.blocks.1.mlp.down.weight"),
        ("blk.0.attn_v.weight", "decoder.blocks.0.attn.v.weight"),
        ("output_norm.weight", "decoder.ln_final.w"),
    ):
        values = gguf.dequantize(stored[name].data, stored[name].tensor_type)
        assert np.array_equal(ours[parameter].detach().numpy(), values), name


def test_a_quantised_q_is_put_back_in_order_after_dequantising(tiny_llama, write_gguf):
    reference = tiny_llama()
    ours = dict(load(write_gguf(reference, kind=gguf.GGMLQuantizationType.Q8_0)).named_parameters())
    q = reference.state_dict()["model.layers.1.self_attn.q_proj.weight"]
    assert (ours["decoder.blocks.1.attn.q.weight"] - q).abs().max() < 0.02 * q.abs().max()


@variants
def test_a_live_model_is_copied_and_not_touched(variant, tiny_llama, hub_weight):
    reference = tiny_llama(**VARIANTS[variant])
    reference.train()
    reference.model.layers[0].register_forward_hook(lambda *_: None)
    reference(IDS, labels=IDS).loss.backward()
    before = snapshot(reference)
    ours = load(reference)
    assert ours(IDS).requires_grad
    ours(IDS).sum().backward()
    assert_unchanged(before, snapshot(reference))
    for name, tensor in reference.state_dict().items():
        copied = hub_weight(ours, name)
        assert torch.equal(copied, tensor) and copied.data_ptr() != tensor.data_ptr(), name
    reference.eval()
    assert_same_logits(ours, reference)
    with torch.no_grad():
        ours.decoder.embed.weight.zero_()
    assert reference.model.embed_tokens.weight.abs().sum() > 0


def snapshot(model: Any) -> dict[str, Any]:
    parameters = dict(model.named_parameters())
    return {
        "config": copy.deepcopy(model.config.to_dict()),
        "attention": model.config._attn_implementation,
        "values": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "places": {name: tensor.data_ptr() for name, tensor in model.state_dict().items()},
        "needs_grad": {name: tensor.requires_grad for name, tensor in parameters.items()},
        "grads": {name: tensor.grad.clone() for name, tensor in parameters.items()},
        "training": {name: module.training for name, module in model.named_modules()},
        "hooks": {
            name: (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
            for name, module in model.named_modules()
        },
        "classes": {name: (type(module), vars(module).get("forward")) for name, module in model.named_modules()},
    }


def assert_unchanged(before: dict[str, Any], after: dict[str, Any]) -> None:
    for part in before:
        if part in ("values", "grads"):
            assert all(torch.equal(before[part][name], after[part][name]) for name in before[part])
        else:
            assert before[part] == after[part], part


def test_a_live_models_hidden_dtype_becomes_the_asked_one(tiny_llama):
    assert {p.dtype for p in load(tiny_llama().bfloat16()).parameters()} == {torch.float32}
    assert {p.dtype for p in load(tiny_llama(), dtype="bfloat16").parameters()} == {torch.bfloat16}


def test_shards_are_joined(tiny_llama, hub_weight, tmp_path):
    reference = tiny_llama()
    reference.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    ours = load(str(tmp_path))
    assert all(torch.equal(hub_weight(ours, name), tensor) for name, tensor in reference.state_dict().items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_widened_exactly_or_kept_on_request(dtype, tiny_llama, hub_weight, tmp_path):
    reference = tiny_llama().to(getattr(torch, dtype))
    reference.save_pretrained(tmp_path)
    wide, kept = load(tmp_path), load(tmp_path, dtype=dtype)
    for name, tensor in reference.state_dict().items():
        assert torch.equal(hub_weight(wide, name), tensor.float())
        assert torch.equal(hub_weight(kept, name), tensor)


def test_a_bare_stack_without_its_head_loads_where_the_embedding_is_tied(tiny_llama, hub_weight, tmp_path):
    reference = tiny_llama(tie_word_embeddings=True)
    reference.model.save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert all(torch.equal(hub_weight(ours, name), tensor) for name, tensor in reference.state_dict().items())
    untied = tiny_llama()
    untied.model.save_pretrained(tmp_path / "untied")
    assert load(tmp_path / "untied").unembed is None  # its own unembedding is not there: no logits


def test_a_tied_head_that_differs_from_the_embedding_is_refused(tiny_llama, tmp_path):
    reference = tiny_llama()
    reference.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text().replace('tie_word_embeddings": false', 'tie_word_embeddings": true')
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match="tie_word_embeddings=true, yet its unembedding differs"):
        load(tmp_path)


def test_a_tensor_without_a_place_is_refused_by_name_and_can_be_ignored(tiny_llama, write_gguf, tmp_path):
    from safetensors.torch import load_file, save_file

    tiny_llama().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    harmless = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    save_file(tensors | harmless, tmp_path / "model.safetensors")
    load(tmp_path)
    save_file(tensors | {"model.layers.0.self_attn.q_norm.weight": torch.ones(16)}, tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match=r"model\.layers\.0\.self_attn\.q_norm\.weight"):
        load(tmp_path)
    load(tmp_path, ignore=("model.layers.0.self_attn.q_norm.weight",))

    path = write_gguf(tiny_llama(), extra={"blk.0.attn_q_norm.weight": np.ones(16, np.float32)})
    with pytest.raises(UnsupportedModelError, match=r"blk\.0\.attn_q_norm\.weight"):
        load(path)
    load(path, ignore=("blk.0.attn_q_norm.weight",))
    converted.wait_for_writes()
    with pytest.raises(UnsupportedModelError):  # what was waived once is not waived for ever
        load(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("expert_count", 8), ("attention.sliding_window", 4096), ("rope.dimension_count", 8), ("logit_scale", 2)],
)
def test_gguf_metadata_that_changes_the_mathematics_is_refused_by_name(key, value, tiny_llama, write_gguf):
    def add(writer):
        writer.kv_data[0].pop(f"llama.{key}", None)
        writer.add_uint32(f"llama.{key}", value)

    path = write_gguf(tiny_llama(), edit=add)
    with pytest.raises(UnsupportedModelError, match=f"{key}={value}"):
        load(path)
    if key == "logit_scale":
        load(path, ignore=(f"llama.{key}",))


def test_yarn_in_a_gguf_file_is_refused_by_name(tiny_llama, write_gguf):
    path = write_gguf(tiny_llama(), edit=lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN))
    with pytest.raises(UnsupportedModelError, match=r"rope\.scaling\.type='yarn'"):
        load(path)


def test_a_model_of_another_kind_is_refused_live_too():
    from transformers import MambaConfig, MambaModel

    model = MambaModel(MambaConfig(num_hidden_layers=1, hidden_size=8, vocab_size=20, state_size=4))
    with pytest.raises(UnsupportedModelError, match="model_type='mamba'"):
        load(model)
