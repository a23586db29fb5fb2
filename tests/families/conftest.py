"""Tiny Llama checkpoints on every road, written by the transformers and gguf libraries, not by ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from interp.families import converted

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 260,
    "max_position_embeddings": 64,
}

# llama.cpp's names, written down apart from the package's table.
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder for this test alone; the writers are done before it goes."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("INTERP_CACHE", str(folder))
    yield folder
    converted.wait_for_writes()


@pytest.fixture
def tiny_llama() -> Callable[..., Any]:
    """Makes a random `LlamaForCausalLM`; biases and gains are random too, so that none can be lost unseen."""

    def make(**config: Any) -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**{**SMALL, **config})).eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data.normal_(1.0, 0.3)
            else:
                parameter.data.mul_(5)  # so that attention is far from uniform
        return model

    return make


def _permuted(tensor: np.ndarray, n_heads: int) -> np.ndarray:
    """What llama.cpp's convert_hf_to_gguf.py does to q and k."""
    rows = tensor.shape[0]
    halves = tensor.reshape(n_heads, 2, rows // n_heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def _gguf_name(name: str) -> str:
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem, kind = name.rsplit(".", 1)
    if stem in whole:
        return f"{whole[stem]}.{kind}"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[inner]}.{kind}"


def _byte_alphabet() -> list[str]:
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(extra)) for byte in range(256)]


def _add_vocabulary(writer: gguf.GGUFWriter, n_tokens: int) -> None:
    tokens = [*_byte_alphabet(), "ab", "<|end|>"]
    tokens += [f"<unused{index}>" for index in range(n_tokens - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 257 + [3] * (n_tokens - 257))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(257)
    writer.add_add_bos_token(False)


@pytest.fixture
def write_gguf(tmp_path: Path) -> Callable[..., Path]:
    """Writes a live Llama as GGUF, as llama.cpp's converter would. `edit(writer)` may add to the metadata, `without`
    leaves keys out, `kind` quantises the matrices, `extra` adds tensors."""

    def write(
        model: Any,
        *,
        name: str = "tiny.gguf",
        kind: gguf.GGMLQuantizationType | None = None,
        arch: str = "llama",
        edit: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
        extra: dict[str, np.ndarray] | None = None,
        vocabulary: bool = True,
    ) -> Path:
        config, path = model.config, tmp_path / name
        writer = gguf.GGUFWriter(path, arch)
        writer.add_name("Tiny")
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_rope_dimension_count(config.head_dim)
        if config.head_dim != config.hidden_size // config.num_attention_heads:
            writer.add_key_length(config.head_dim)
            writer.add_value_length(config.head_dim)
        if vocabulary:
            _add_vocabulary(writer, config.vocab_size)
        edit(writer)
        for hub_name, tensor in model.state_dict().items():
            if hub_name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            values = tensor.float().numpy()
            if "q_proj" in hub_name or "k_proj" in hub_name:
                heads = config.num_attention_heads if "q_proj" in hub_name else config.num_key_value_heads
                values = _permuted(values, heads)
            if kind is None or values.ndim == 1:
                writer.add_tensor(_gguf_name(hub_name), np.ascontiguousarray(values))
            else:
                writer.add_tensor(_gguf_name(hub_name), gguf.quantize(values, kind), raw_dtype=kind)
        for tensor_name, values in (extra or {}).items():
            writer.add_tensor(tensor_name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


@pytest.fixture
def hub_weight() -> Callable[[Any, str], torch.Tensor]:
    """The parameter of a loaded model that stands for a tensor of the hub, by a table written down apart."""
    inner = {
        "self_attn.q_proj": "attn.q",
        "self_attn.k_proj": "attn.k",
        "self_attn.v_proj": "attn.v",
        "self_attn.o_proj": "attn.o",
        "mlp.gate_proj": "mlp.gate",
        "mlp.up_proj": "mlp.up",
        "mlp.down_proj": "mlp.down",
    }
    norms = {"input_layernorm.weight": "ln1.w", "post_attention_layernorm.weight": "ln2.w"}

    def find(model: Any, name: str) -> torch.Tensor:
        ours = dict(model.named_parameters())
        if name == "model.embed_tokens.weight":
            return ours["decoder.embed.weight"]
        if name == "model.norm.weight":
            return ours["decoder.ln_final.w"]
        if name == "lm_head.weight":
            return ours.get("unembed.weight", ours["decoder.embed.weight"])
        _, _, layer, rest = name.split(".", 3)
        stem, kind = rest.rsplit(".", 1)
        tail = norms.get(rest) or f"{inner[stem]}.{kind}"
        return ours[f"decoder.blocks.{layer}.{tail}"]

    return find
