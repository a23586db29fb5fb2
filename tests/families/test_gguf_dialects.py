"""GGUF files of every layout but Llama's: written as llama.cpp's converter does, with names from the gguf library's own
mapping, and compared with the live model they were written from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

import interp
from interp.errors import CheckpointError, UnsupportedModelError
from interp.families.base import family_for_gguf
from interp.families.fields import Fields, read_rotary
from interp.families.gguf_layouts import read_gguf_rotary
from tests.families.parity import TOLERANCE, Row, sample_tokens

VOCABULARY = 71
LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
HEADS = {**LLAMA, "head_dim": 24}
GEMMA = {**HEADS, "query_pre_attn_scalar": 24, "num_hidden_layers": 7}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 40}
PHI = {**LLAMA, "num_key_value_heads": 4}
LINEAR = {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0}


@dataclass(frozen=True)
class Layout:
    """A layout: llama.cpp's name of it, the live model, and the metadata beyond the sizes."""

    arch: str
    row: Row
    extra: dict[str, Any] = field(default_factory=dict)
    fused: bool = False


def _gemma3(**values: Any) -> Row:
    return Row("Gemma3Text", {**GEMMA, "sliding_window": 4, **values})


LAYOUTS = {
    "qwen2": Layout("qwen2", Row("Qwen2", LLAMA), {"rope.freq_base": 10_000.0}),
    "qwen2-tied": Layout(
        "qwen2",
        Row("Qwen2", {**LLAMA, "tie_word_embeddings": True, "rope_parameters": LINEAR}),
        {"rope.freq_base": 500.0, "rope.scaling.type": "linear", "rope.scaling.factor": 3.0},
    ),
    "qwen3": Layout("qwen3", Row("Qwen3", HEADS), {"rope.freq_base": 10_000.0}),
    "qwen3-biased": Layout("qwen3", Row("Qwen3", {**HEADS, "attention_bias": True, "tie_word_embeddings": True})),
    "gemma": Layout("gemma", Row("Gemma", {**HEADS, "tie_word_embeddings": True})),
    "gemma2": Layout(
        "gemma2",
        Row("Gemma2", {**GEMMA, "sliding_window": 4, "attn_logit_softcapping": 2.5, "final_logit_softcapping": 3.3}),
        {"attention.sliding_window": 4, "attn_logit_softcapping": 2.5, "final_logit_softcapping": 3.3},
    ),
    "gemma3": Layout("gemma3", _gemma3(), {"attention.sliding_window": 4, "rope.freq_base": 1_000_000.0}),
    "gemma3-pattern": Layout(
        "gemma3",
        _gemma3(sliding_window_pattern=3, final_logit_softcapping=3.0),
        {
            "attention.sliding_window": 4,
            "attention.sliding_window_pattern": 3,
            "rope.freq_base": 1_000_000.0,
            "rope.freq_base_swa": 10_000.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3-linear": Layout(
        "gemma3",
        _gemma3(rope_parameters={"full_attention": LINEAR, "sliding_attention": {"rope_theta": 10_000.0}}),
        {
            "attention.sliding_window": 4,
            "rope.freq_base": 500.0,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 3.0,
        },
    ),
    "gemma3-full": Layout("gemma3", _gemma3(layer_types=["full_attention"] * 7), {"rope.freq_base": 1_000_000.0}),
    "gpt2": Layout("gpt2", Row("GPT2", GPT2, "LMHeadModel")),
    "gpt2-untied": Layout("gpt2", Row("GPT2", {**GPT2, "tie_word_embeddings": False}, "LMHeadModel")),
    "phi2": Layout("phi2", Row("Phi", {**PHI, "partial_rotary_factor": 0.4}), {"rope.dimension_count": 6}),
    "phi2-fused": Layout("phi2", Row("Phi", PHI), {"rope.dimension_count": 8}, fused=True),
    "phi3": Layout(
        "phi3",
        Row("Phi3", {**LLAMA, "sliding_window": 4, "pad_token_id": 0}),
        {"rope.dimension_count": 16, "attention.sliding_window": 4, "rope.scaling.original_context_length": 64},
    ),
    "phi3-everywhere": Layout(
        "phi3", Row("Phi3", {**LLAMA, "pad_token_id": 0}), {"rope.dimension_count": 16, "attention.sliding_window": 0}
    ),
}
LAYOUT = pytest.mark.parametrize("name", LAYOUTS)
PLAIN = [name for name in LAYOUTS if "-" not in name]


def metadata(config: Any, layout: Layout) -> dict[str, Any]:
    rms = getattr(config, "rms_norm_eps", None)
    layer = getattr(config, "layer_norm_epsilon", None) or getattr(config, "layer_norm_eps", None)
    found = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": getattr(config, "intermediate_size", 4 * config.hidden_size),
        "attention.head_count": config.num_attention_heads,
        "attention.layer_norm_rms_epsilon" if rms else "attention.layer_norm_epsilon": rms or layer,
    }
    if layout.arch != "gpt2":
        found["attention.head_count_kv"] = config.num_key_value_heads
    if layout.arch.startswith(("gemma", "qwen3")):
        found |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
    return found | layout.extra


def converted_tensors(live: Any, layout: Layout) -> dict[str, Tensor]:
    """What llama.cpp's converter makes of a model's tensors."""
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == layout.arch)
    names = gguf.get_tensor_name_map(arch, live.config.num_hidden_layers)
    found = {}
    tensors = dict(live.state_dict())
    if layout.fused:
        for layer in range(live.config.num_hidden_layers):
            for kind in ("weight", "bias"):
                stem = f"model.layers.{layer}.self_attn"
                parts = [tensors.pop(f"{stem}.{x}_proj.{kind}") for x in "qkv"]
                found[f"blk.{layer}.attn_qkv.{kind}"] = torch.cat(parts)
    for name, tensor in tensors.items():
        if name == "lm_head.weight" and live.config.tie_word_embeddings:
            continue
        if layout.arch.startswith("gemma") and name.endswith("norm.weight"):
            tensor = tensor + 1
        if layout.arch == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            tensor = tensor.T
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        found[stored] = tensor
    return found


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def make(live: Any, layout: Layout, kind: Any = None, leave: str = "", **changes: Any) -> Path:
        path = tmp_path / "tiny.gguf"
        writer = gguf.GGUFWriter(path, layout.arch)
        writer.add_name("Tiny")
        for key, value in {**metadata(live.config, layout), **changes}.items():
            kinds = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool}
            if key != leave:
                kinds[type(value)](f"{layout.arch}.{key}", value)
        for name, tensor in converted_tensors(live, layout).items():
            values = np.ascontiguousarray(tensor.float().numpy())
            if kind is None or values.ndim == 1:
                writer.add_tensor(name, values)
            else:
                writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make


@torch.no_grad()
@LAYOUT
def test_a_file_gives_the_live_models_logits(name: str, write: Callable[..., Path]) -> None:
    layout = LAYOUTS[name]
    live = layout.row.live()
    ours, tokens = interp.load(write(live, layout)), sample_tokens(3, VOCABULARY)
    assert float((ours(tokens) - live(tokens).logits).abs().max()) <= TOLERANCE
    assert ours.cfg.model_name == "Tiny"


LEAN = {  # what llama.cpp takes for granted where a file does not say it
    "gemma2-caps": Layout(
        "gemma2",
        Row("Gemma2", {**GEMMA, "sliding_window": 4, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}),
        {"attention.sliding_window": 4},
    ),
    "gemma3-base": Layout(
        "gemma3",
        _gemma3(
            rope_parameters={"full_attention": {"rope_theta": 10_000.0}, "sliding_attention": {"rope_theta": 10_000.0}}
        ),
        {"attention.sliding_window": 4},
    ),
    "factor-alone": Layout(
        "qwen2",
        Row("Qwen2", {**LLAMA, "rope_parameters": LINEAR}),
        {"rope.freq_base": 500.0, "rope.scaling.factor": 3.0},
    ),
    "old-factor-alone": Layout(
        "qwen2",
        Row("Qwen2", {**LLAMA, "rope_parameters": LINEAR}),
        {"rope.freq_base": 500.0, "rope.scale_linear": 3.0},
    ),
    "factor-switched-off": Layout(
        "qwen2", Row("Qwen2", LLAMA), {"rope.scaling.type": "none", "rope.scaling.factor": 3.0}
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("name", LEAN)
def test_what_a_file_does_not_say_is_what_llama_cpp_takes_for_granted(name: str, write: Callable[..., Path]) -> None:
    layout = LEAN[name]
    live = layout.row.live()
    for key, parameter in live.named_parameters():
        if "q_proj" in key or key in ("model.embed_tokens.weight", "model.norm.weight"):
            parameter.mul_(6)  # so that caps of 50 and 30 are felt
    ours, tokens = interp.load(write(live, layout)), sample_tokens(3, VOCABULARY)
    wanted = live(tokens).logits
    assert float((ours(tokens) - wanted).abs().max()) <= TOLERANCE * max(1.0, float(wanted.abs().max()))
    if name == "gemma2-caps":
        config = ours.cfg
        assert (config.decoder.blocks[0].attn.softcap, config.logit_softcap) == (50.0, 30.0)


def test_gemma_2_has_a_window_of_4096_where_the_file_names_none(write: Callable[..., Path]) -> None:
    layout = Layout("gemma2", LAYOUTS["gemma2"].row)
    blocks = interp.load(write(layout.row.live(), layout)).cfg.decoder.blocks
    assert [block.attn.window for block in blocks[:4]] == [4096, None, 4096, None]


def test_gemma_3_has_no_caps_where_the_file_names_none(write: Callable[..., Path]) -> None:
    config = interp.load(write(LAYOUTS["gemma3"].row.live(), LAYOUTS["gemma3"])).cfg
    assert config.logit_softcap is None and config.decoder.blocks[0].attn.softcap is None


def test_as_many_dimensions_are_turned_as_the_file_says() -> None:
    """The library's part of a head is a fraction, rounded down again when it is read."""

    class Nothing:
        shapes: ClassVar = {}

        def tensor(self, name: str) -> Tensor:
            raise AssertionError(name)

    for d_head in range(2, 257, 2):
        for dim in range(2, d_head + 1, 2):
            given = Fields({"rope.dimension_count": dim}, "it", "phi")
            written = {"rope_parameters": read_gguf_rotary(given, Nothing(), d_head, partial=True)}
            assert read_rotary(Fields(written, "it", "phi"), d_head, 64, default_part=0.5).dim == dim


@torch.no_grad()
@pytest.mark.parametrize("name", PLAIN)
def test_a_file_gives_the_weights_and_config_that_the_live_model_gives(name: str, write: Callable[..., Path]) -> None:
    layout = LAYOUTS[name]
    live = layout.row.live()
    ours, direct = interp.load(write(live, layout)), interp.load(live)
    assert ours.cfg.family == direct.cfg.family
    for (key, ours_now), wanted in zip(ours.named_parameters(), direct.parameters(), strict=True):
        assert torch.allclose(ours_now, wanted, atol=1e-6), key


@torch.no_grad()
@pytest.mark.parametrize("name", ["qwen3", "gemma3", "gpt2", "phi2-fused"])
def test_a_quantised_file_is_near(name: str, write: Callable[..., Path]) -> None:
    layout = LAYOUTS[name]
    values = {**layout.row.values, "head_dim": 32, "query_pre_attn_scalar": 32}
    row = Row(layout.row.kind, values) if "head_dim" in layout.row.values else layout.row
    live = row.live()
    ours = interp.load(write(live, layout, gguf.GGMLQuantizationType.Q8_0))
    tokens = sample_tokens(3, VOCABULARY)
    wanted = live(tokens).logits
    apart = (ours(tokens) - wanted).abs().mean() / wanted.abs().mean()
    assert 0 < float(apart) < 0.05


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(("key", "value"), [("a_new_idea", 3), ("expert_count", 8), ("rope.scaling.type", "yarn")])
def test_metadata_that_is_not_understood_is_refused_by_name(
    name: str, key: str, value: Any, write: Callable[..., Path]
) -> None:
    layout = LAYOUTS[name]
    live = layout.row.live()
    with pytest.raises(UnsupportedModelError, match=f"{key}={value!r}"):
        interp.load(write(live, layout, **{key: value}))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("qwen2", "attention.sliding_window", 4),
        ("qwen3", "rope.dimension_count", 12),
        ("qwen3", "attention.causal", False),
        ("gemma", "attention.sliding_window", 4),
        ("gpt2", "attention.head_count_kv", 2),
        ("gpt2", "rope.freq_base", 500.0),
        ("phi2", "rope.dimension_count", 18),
        ("phi2", "attention.key_length", 8),
        ("phi3", "rope.scaling.attn_factor", 1.5),
    ],
)
def test_metadata_with_another_mathematics_is_refused_by_name(
    name: str, key: str, value: Any, write: Callable[..., Path]
) -> None:
    layout = LAYOUTS[name]
    changes = {key: value, "attention.value_length": value} if key == "attention.key_length" else {key: value}
    with pytest.raises(UnsupportedModelError, match=f"{key}={value}"):
        interp.load(write(layout.row.live(), layout, **changes))


def test_a_missing_size_is_named(write: Callable[..., Path]) -> None:
    layout = LAYOUTS["qwen3"]
    with pytest.raises(CheckpointError, match="has no block_count"):
        interp.load(write(layout.row.live(), layout, leave="block_count"))


@pytest.mark.parametrize(
    ("architecture", "n_layers", "scalar"), [("gemma2", 46, 144.0), ("gemma2", 42, 128), ("gemma3", 62, 144.0)]
)
def test_the_largest_gemmas_scale_their_scores_as_llama_cpp_knows_them_to(
    architecture: str, n_layers: int, scalar: float
) -> None:
    class Tensors:
        shapes: ClassVar = {"token_embd.weight": (VOCABULARY, 4608)}

        def tensor(self, name: str) -> Tensor:
            raise AssertionError(name)

    sizes = {
        "embedding_length": 4608,
        "attention.head_count": 32,
        "attention.head_count_kv": 16,
        "attention.key_length": 128,
        "attention.value_length": 128,
        "block_count": n_layers,
        "feed_forward_length": 64,
        "context_length": 64,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }
    _, dialect = family_for_gguf(architecture, "it")
    made = dialect.to_hf_config(Fields(sizes, "it", "gemma"), Tensors())
    assert made["query_pre_attn_scalar"] == scalar
