"""Decoder families against the transformers library: logits, every layer's residual and patterns, padding, stored keys,
and the way through a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp.model.config import BlockConfig, ModelConfig
from interp.model.transformer import HookedTransformer
from tests.families.parity import (
    LEFT,
    RIGHT,
    TOLERANCE,
    Row,
    differences,
    folder_apart,
    sample_tokens,
    steps_apart,
)

VOCABULARY = 71
LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = {**LLAMA, "num_key_value_heads": 2}
ROOMY = {**LLAMA, "hidden_size": 64}  # so that a quarter of a head is more than one pair
WIDE = {**GROUPED, "head_dim": 12}
LINEAR = {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0}}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 30, "n_layer": 3, "n_head": 5, "n_positions": 40}
GPT_NEO = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_layers": 4,
    "num_heads": 4,
    "max_position_embeddings": 40,
    "attention_types": [[["global", "local"], 2]],
}
OPT = {**LLAMA, "ffn_dim": 40}
OPT.pop("intermediate_size")
BLOOM = {"vocab_size": VOCABULARY, "hidden_size": 48, "n_layer": 2, "n_head": 6}
FALCON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GEMMA = {**GROUPED, "head_dim": 12, "query_pre_attn_scalar": 10}
GEMMA1 = {**GROUPED, "head_dim": 12}

# The first row of each family is run always, the others with -m parity_all.
ROWS: dict[str, list[Row]] = {
    "gpt2": [
        Row("GPT2", GPT2, "LMHeadModel"),
        Row(
            "GPT2", {**GPT2, "n_inner": 50, "activation_function": "relu", "tie_word_embeddings": False}, "LMHeadModel"
        ),
        Row("GPT2", {**GPT2, "scale_attn_by_inverse_layer_idx": True, "layer_norm_epsilon": 1e-3}, "LMHeadModel"),
        Row("GPT2", {**GPT2, "scale_attn_weights": False, "reorder_and_upcast_attn": True}, "LMHeadModel"),
    ],
    "gpt_neo": [
        Row("GPTNeo", {**GPT_NEO, "window_size": 4}),
        Row("GPTNeo", {**GPT_NEO, "window_size": 64, "intermediate_size": 50, "tie_word_embeddings": False}),
    ],
    "gpt_neox": [
        Row("GPTNeoX", ROOMY),
        Row("GPTNeoX", {**ROOMY, "use_parallel_residual": False, "attention_bias": False, "hidden_act": "gelu_new"}),
        Row("GPTNeoX", {**LLAMA, "tie_word_embeddings": True, "rotary_pct": 1.0, "rotary_emb_base": 600}),
    ],
    "gptj": [
        Row("GPTJ", {**GPT2, "rotary_dim": 4}),
        Row("GPTJ", {**GPT2, "rotary_dim": 6, "n_inner": 50, "tie_word_embeddings": True}),
    ],
    "opt": [
        Row("OPT", OPT),
        Row("OPT", {**OPT, "do_layer_norm_before": False}),
        Row("OPT", {**OPT, "enable_bias": False, "tie_word_embeddings": False, "activation_function": "gelu"}),
        Row("OPT", {**OPT, "_remove_final_layer_norm": True}),
    ],
    "bloom": [
        Row("Bloom", BLOOM),
        Row("Bloom", {**BLOOM, "n_head": 8, "tie_word_embeddings": False}),
        Row("Bloom", {**BLOOM, "hidden_size": 36, "n_head": 12}),
    ],
    "falcon": [
        Row("Falcon", FALCON),
        Row("Falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
        Row("Falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}),
        Row("Falcon", {**FALCON, "multi_query": False, "bias": True, "tie_word_embeddings": False}),
        Row("Falcon", {**FALCON, "parallel_attn": False, "ffn_hidden_size": 50, "bias": True}),
    ],
    "llama": [Row("Llama", {**GROUPED, "attention_bias": True}), Row("Llama", {**WIDE, "mlp_bias": True, **LINEAR})],
    "mistral": [
        Row("Mistral", {**GROUPED, "sliding_window": 4}),
        Row("Mistral", {**WIDE, "sliding_window": None, "tie_word_embeddings": True}),
        Row("Mistral", {**LLAMA, "num_key_value_heads": 1, **LINEAR}),
    ],
    "qwen2": [
        Row("Qwen2", GROUPED),
        Row(
            "Qwen2",
            {**GROUPED, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1, "head_dim": 12},
        ),
        Row("Qwen2", {**LLAMA, "num_key_value_heads": 4, "tie_word_embeddings": True, **LINEAR}),
    ],
    "qwen3": [
        Row("Qwen3", {**WIDE, "tie_word_embeddings": True}),
        Row("Qwen3", {**GROUPED, "head_dim": 6, "attention_bias": True}),
        Row("Qwen3", {**WIDE, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0}),
    ],
    "phi": [
        Row("Phi", LLAMA),
        Row(
            "Phi",
            {
                **ROOMY,
                "num_key_value_heads": 2,
                "qk_layernorm": True,
                "partial_rotary_factor": 0.25,
                "tie_word_embeddings": True,
            },
        ),
    ],
    "phi3": [
        Row("Phi3", {**GROUPED, "sliding_window": 4, "pad_token_id": 0}),
        Row("Phi3", {**LLAMA, "partial_rotary_factor": 0.75, "pad_token_id": None, "tie_word_embeddings": True}),
    ],
    "gemma": [
        Row("Gemma", GEMMA1),
        Row("Gemma", {**LLAMA, "head_dim": 8, "num_key_value_heads": 1, "hidden_act": "gelu", "attention_bias": True}),
    ],
    "gemma2": [
        Row("Gemma2", {**GEMMA, "sliding_window": 4, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
        Row("Gemma2", {**GEMMA, "sliding_window": 40, "attn_logit_softcapping": None, "final_logit_softcapping": None}),
        Row("Gemma2", {**GEMMA, "sliding_window": 3, "attention_bias": True, "tie_word_embeddings": False}),
    ],
    "gemma3_text": [
        Row("Gemma3Text", {**GEMMA, "sliding_window": 4, "sliding_window_pattern": 3}),
        Row("Gemma3Text", {**GEMMA, "sliding_window": 3, "num_hidden_layers": 7, "final_logit_softcapping": 3.0}),
        Row(
            "Gemma3Text",
            {**GEMMA, "sliding_window": 3, "layer_types": ["full_attention", "sliding_attention", "full_attention"]},
        ),
    ],
    "olmo2": [
        Row("Olmo2", GROUPED),
        Row("Olmo2", {**LLAMA, "attention_bias": True, "tie_word_embeddings": True, **LINEAR}),
    ],
    "granite": [
        Row(
            "Granite",
            {
                **GROUPED,
                "embedding_multiplier": 3.0,
                "attention_multiplier": 0.2,
                "residual_multiplier": 0.4,
                "logits_scaling": 1.7,
            },
        ),
        Row("Granite", {**GROUPED, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ],
    "stablelm": [
        Row("StableLm", {**ROOMY, "num_key_value_heads": 2}),
        Row("StableLm", {**GROUPED, "use_parallel_residual": True, "use_qkv_bias": True, "partial_rotary_factor": 0.5}),
        Row("StableLm", {**ROOMY, "num_key_value_heads": 4, "tie_word_embeddings": True, "layer_norm_eps": 1e-3}),
    ],
    "starcoder2": [
        Row("Starcoder2", {**GROUPED, "sliding_window": 4}),
        Row("Starcoder2", {**GROUPED, "use_bias": False, "tie_word_embeddings": False}),
    ],
}
CASES = [
    pytest.param(row, id=f"{family}-{n}", marks=[pytest.mark.parity_all] if n else [])
    for family, rows in ROWS.items()
    for n, row in enumerate(rows)
]
PADDINGS = {"single": None, "batch": None, "left": LEFT, "right": RIGHT}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


_MADE: dict[int, tuple[Any, HookedTransformer]] = {}


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest) -> tuple[Any, HookedTransformer]:
    """A live model of the library, and what `load` makes of it."""
    row = request.param
    if id(row) not in _MADE:
        live = row.live()
        _MADE[id(row)] = (live, interp.load(live))
    return _MADE[id(row)]


@pytest.mark.parametrize("padding", PADDINGS)
def test_logits_residuals_and_patterns_are_the_librarys(pair: Any, padding: str) -> None:
    live, model = pair
    tokens = sample_tokens(1 if padding == "single" else 3, VOCABULARY)
    found = differences(live, model, tokens, PADDINGS[padding])
    assert max(found.values()) <= TOLERANCE, {name: apart for name, apart in found.items() if apart > TOLERANCE}


@pytest.mark.parametrize("mask", [None, LEFT, RIGHT], ids=["whole", "left", "right"])
def test_a_text_in_pieces_over_stored_keys_gives_the_same_logits(pair: Any, mask: Any) -> None:
    assert steps_apart(pair[1], sample_tokens(3, VOCABULARY), mask) <= TOLERANCE


def test_a_saved_folder_loads_as_the_live_model_does(pair: Any, tmp_path: Path) -> None:
    assert folder_apart(*pair, sample_tokens(2, VOCABULARY), tmp_path) == 0.0


# ---- what parity would notice ----


def _changed(config: ModelConfig, change: Any) -> ModelConfig:
    assert config.decoder is not None
    blocks = tuple(change(block) for block in config.decoder.blocks)
    return replace(config, decoder=replace(config.decoder, blocks=blocks))


def _in_attention(config: ModelConfig, **values: Any) -> ModelConfig:
    return _changed(config, lambda block: replace(block, attn=replace(block.attn, **values)))


def _in_rotary(config: ModelConfig, change: Any) -> ModelConfig:
    def turned(block: BlockConfig) -> BlockConfig:
        return replace(block, attn=replace(block.attn, rotary=change(block.attn.rotary)))

    return _changed(config, turned)


def _mutants(config: ModelConfig) -> Iterator[tuple[str, ModelConfig]]:
    """The same model with one value of its config not as it should be, for each that it has."""
    assert config.decoder is not None
    attn, norm = config.decoder.blocks[0].attn, config.decoder.blocks[0].norm
    yield (
        "scale",
        _changed(config, lambda block: replace(block, attn=replace(block.attn, scale=1.1 * block.attn.scale))),
    )
    yield "act_fn", _changed(config, lambda block: replace(block, mlp=replace(block.mlp, act_fn="quick_gelu")))
    yield "eps", _changed(config, lambda block: replace(block, norm=replace(norm, eps=norm.eps + 0.1)))
    yield "residual_scale", _changed(config, lambda block: replace(block, residual_scale=1.05 * block.residual_scale))
    yield "logit_scale", replace(config, logit_scale=1.01 * config.logit_scale)
    if config.decoder.embed_norm is None:
        scale = 1.05 * config.decoder.embed_scale
        yield "embed_scale", replace(config, decoder=replace(config.decoder, embed_scale=scale))
    if any(block.attn.window for block in config.decoder.blocks):
        yield (
            "window",
            _changed(
                config,
                lambda block: replace(
                    block, attn=replace(block.attn, window=block.attn.window and block.attn.window + 1)
                ),
            ),
        )
    if attn.softcap or attn.alibi:
        yield "softcap", _in_attention(config, softcap=None, alibi=None)
    if attn.rotary:
        yield "base", _in_rotary(config, lambda rotary: replace(rotary, base=1.5 * rotary.base))
        yield "interleaved", _in_rotary(config, lambda rotary: replace(rotary, interleaved=not rotary.interleaved))
    if attn.rotary and attn.rotary.scaling:
        yield "scaling", _in_rotary(config, lambda rotary: replace(rotary, scaling=None))
    if config.logit_softcap:
        yield "logit_softcap", replace(config, logit_softcap=None)
    if norm.gain_offset:
        yield "gain_offset", _changed(config, lambda block: replace(block, norm=replace(norm, gain_offset=0.9)))


@pytest.mark.parity_all
@pytest.mark.parametrize("family", ROWS)
def test_another_value_anywhere_in_the_config_would_be_noticed(family: str) -> None:
    live = ROWS[family][0].live()
    model = interp.load(live)
    weights = dict(model.named_parameters())
    tokens = sample_tokens(3, VOCABULARY)
    for name, config in _mutants(model.cfg):
        own = {key: x for key, x in weights.items() if key != "unembed.weight" or not config.tie_word_embeddings}
        other = HookedTransformer.from_weights(config, own)
        assert max(differences(live, other, tokens).values()) > 10 * TOLERANCE, name


@torch.no_grad()
@pytest.mark.parametrize("family", [name for name in ROWS if name.startswith(("gemma", "granite", "llama", "gpt2"))])
def test_in_bfloat16_embeddings_are_the_librarys_bit_for_bit_and_logits_near(family: str) -> None:
    """Gemma rounds the factor of its embeddings, and adds one to its gains in float32."""
    live = ROWS[family][0].live().bfloat16()
    tokens = sample_tokens(3, VOCABULARY)
    model = interp.load(live, dtype="bfloat16")
    theirs = live(tokens, output_hidden_states=True)
    logits, cache = model.run_with_cache(tokens)
    assert torch.equal(theirs.hidden_states[0], cache["resid_pre", 0])
    apart = (theirs.logits.float() - logits.float()).abs().mean() / theirs.logits.float().abs().mean()
    assert float(apart) < 0.02
