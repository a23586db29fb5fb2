"""What decoder families refuse by name, and configs as older versions of the transformers library wrote them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import interp
from interp.errors import CheckpointError, UnsupportedModelError
from interp.families.base import family_for_hf
from interp.families.layouts import grouped_qkv, halves, stacked_qkv
from interp.model.config import ModelConfig
from tests.families.parity import Row, sample_tokens
from tests.families.test_parity import ROWS, VOCABULARY

LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 10_000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10_000.0}
SINGLE_ROTARY = ("gpt_neox", "mistral", "qwen2", "qwen3", "phi", "phi3", "gemma", "gemma2", "olmo2", "granite")
SINGLE_ROTARY += ("stablelm", "starcoder2", "falcon", "llama")

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    *((family, {"rope_parameters": YARN}, "rope_type='yarn'") for family in SINGLE_ROTARY),
    *((family, {"rope_parameters": LONGROPE}, "rope_type='longrope'") for family in SINGLE_ROTARY),
    *((family, {"new_trick": 3}, "new_trick=3") for family in ROWS),
    *((family, {"quantization_config": {"quant_method": "gptq"}}, "quantization_config") for family in ROWS),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention=True"),
    ("gpt2", {"activation_function": "gelu_10"}, "activation_function='gelu_10'"),
    ("gpt_neo", {"attention_layers": ["global", "sparse", "local", "local"]}, "attention_layers="),
    ("gpt_neo", {"attention_layers": ["global"]}, "attention_layers="),
    ("gptj", {"rotary_dim": 5}, "rotary_dim=5"),
    ("gptj", {"rotary_dim": None}, "rotary_dim=None"),
    ("gptj", {"rotary_dim": 8}, "rotary_dim=8"),
    ("opt", {"word_embed_proj_dim": 16}, "word_embed_proj_dim=16"),
    ("opt", {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine=False"),
    ("bloom", {"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm=True"),
    ("bloom", {"n_inner": 100}, "n_inner=100"),
    ("falcon", {"alibi": True}, "alibi=True"),
    ("falcon", {"new_decoder_architecture": True, "parallel_attn": False}, "parallel_attn=False"),
    ("falcon", {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn=2"),
    ("falcon", {"multi_query": False, "num_kv_heads": 2}, "num_kv_heads=2"),
    ("mistral", {"layer_types": ["full_attention"] * 3}, "layer_types="),
    ("qwen2", {"use_mrope": True}, "use_mrope=True"),
    ("qwen2", {"layer_types": ["full_attention", "linear_attention", "full_attention"]}, "linear_attention"),
    ("qwen2", {"layer_types": ["full_attention"]}, "layer_types="),
    ("qwen2", {"layer_types": ["sliding_attention"] * 3}, "sliding_window"),
    ("qwen2", {"dual_chunk_attention_config": {"chunk_size": 4}}, "dual_chunk_attention_config"),
    ("stablelm", {"qk_layernorm": True}, "qk_layernorm=True"),
    ("phi", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.5}}, "partial_rotary_factor=1.5"),
    ("mistral", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
    ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
    ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
    ("gemma3_text", {"attn_logit_softcapping": 30.0}, "attn_logit_softcapping=30.0"),
    ("gemma3_text", {"rope_parameters": {"full_attention": YARN, "sliding_attention": {}}}, "rope_type='yarn'"),
    ("gemma3_text", {"rope_parameters": {"full_attention": {}, "third_attention": {}}}, "third_attention"),
]


def _hf(family: str) -> dict[str, Any]:
    import transformers

    row: Row = ROWS[family][0]
    return getattr(transformers, f"{row.kind}Config")(**row.values).to_dict()


def _read(hf: dict[str, Any]) -> ModelConfig:
    return family_for_hf(hf, "config.json").config_from_hf(hf)


@pytest.mark.parametrize(("family", "values", "named"), REFUSED, ids=[f"{row[0]}-{row[2][:30]}" for row in REFUSED])
def test_a_field_that_changes_the_mathematics_is_refused_by_name(family: str, values: Any, named: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        _read({**_hf(family), **values})
    message = str(caught.value)
    unknown = "does not understand" in message  # only that may turn out to be harmless
    assert named in message and ("load with ignore=" in message) == unknown
    assert ("results would be another model's" in message) != unknown


OLDER: list[tuple[str, dict[str, Any], dict[str, Any]]] = [  # what is written otherwise: as it was, as it is
    ("gpt_neox", {"rotary_pct": 0.5, "rotary_emb_base": 600}, {"rope_theta": 600.0, "partial_rotary_factor": 0.5}),
    ("phi", {"rope_theta": 700.0, "partial_rotary_factor": 0.25}, {"rope_theta": 700.0, "partial_rotary_factor": 0.25}),
    ("stablelm", {"rope_theta": 700, "partial_rotary_factor": 0.5}, {"rope_theta": 700, "partial_rotary_factor": 0.5}),
    ("mistral", {"rope_theta": 1e6}, {"rope_theta": 1e6}),
    (
        "qwen2",
        {"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_theta": 1e6, "rope_type": "linear", "factor": 2.0},
    ),
    ("falcon", {}, {"rope_theta": 10_000.0}),
]


@pytest.mark.parametrize(("family", "old", "new"), OLDER)
def test_rotary_positions_as_transformers_4_wrote_them_are_read_alike(family: str, old: Any, new: Any) -> None:
    hf = _hf(family)
    without = {name: value for name, value in hf.items() if name != "rope_parameters"}
    assert _read({**without, **old}) == _read({**hf, "rope_parameters": new})


def test_the_two_bases_of_gemma_3_are_read_from_old_configs() -> None:
    hf = _hf("gemma3_text")
    del hf["rope_parameters"]
    scaling = {"rope_type": "linear", "factor": 8.0}
    config = _read({**hf, "rope_theta": 1e6, "rope_local_base_freq": 300.0, "rope_scaling": scaling})
    assert config.decoder is not None
    near, _, far = (block.attn for block in config.decoder.blocks)
    assert near.window == 4 and near.rotary is not None and near.rotary.base == 300.0 and near.rotary.scaling is None
    assert far.window is None and far.rotary is not None and far.rotary.base == 1e6
    assert far.rotary.scaling is not None and far.rotary.scaling.factor == 8.0


def test_an_absent_field_means_the_familys_default_and_null_switches_off() -> None:
    """The library's configs have a window and softcaps by default; null is how a file says that there are none."""
    for family, name, default in (("mistral", "sliding_window", 4096), ("gemma2", "final_logit_softcapping", 30.0)):
        hf = _hf(family)
        absent = {key: value for key, value in hf.items() if key != name}
        configs = [_read(absent), _read({**hf, name: None})]
        found = [config.window_size if family == "mistral" else config.logit_softcap for config in configs]
        assert found == [default, None]


def test_gelu_of_the_first_gemma_configs_is_its_tanh_form() -> None:
    assert _read({**_hf("gemma"), "hidden_act": "gelu"}).act_fn == "gelu_pytorch_tanh"
    assert _read({**_hf("gemma"), "hidden_act": "gelu", "hidden_activation": "silu"}).act_fn == "silu"


BLOOM_560M = {  # as the hub has it, smaller
    "apply_residual_connection_post_layernorm": False,
    "attention_dropout": 0.0,
    "attention_softmax_in_fp32": True,
    "bias_dropout_fusion": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_dropout": 0.0,
    "masked_softmax_fusion": True,
    "model_type": "bloom",
    "n_embed": 32,
    "n_inner": None,
    "n_layer": 2,
    "num_attention_heads": 4,
    "offset_alibi": 100,
    "pretraining_tp": 1,
    "seq_length": 48,
    "skip_bias_add": True,
    "skip_bias_add_qkv": False,
    "unk_token_id": 0,
    "use_cache": True,
    "vocab_size": VOCABULARY,
}


def test_the_hubs_spelling_of_blooms_sizes_is_read() -> None:
    config = _read(BLOOM_560M)
    assert (config.d_model, config.n_layers, config.n_heads, config.n_ctx) == (32, 2, 4, 48)
    assert config.tie_word_embeddings


def test_fused_tensors_of_another_size_are_refused() -> None:
    config = _read(_hf("falcon"))  # 4 heads of 10 over one key/value head
    for split in (grouped_qkv, stacked_qkv):
        with pytest.raises(CheckpointError, match="61 rows, but 4 heads over 1 key/value heads of 10 need 60"):
            split(torch.zeros(61, 40), config)
    with pytest.raises(CheckpointError, match="61 rows is no pair"):
        halves(torch.zeros(61, 40), config)


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "bloom", "opt", "gpt_neox"])
def test_a_bare_stack_without_its_prefix_loads_with_tied_logits(family: str) -> None:
    """Many repositories of the hub hold the bare model, whose names lack `transformer.` or `model.`"""
    row: Row = ROWS[family][0]
    live = Row(row.kind, {**row.values, "tie_word_embeddings": True}, row.head).live()
    tokens, whole = sample_tokens(2, VOCABULARY), interp.load(live)
    bare = live.base_model
    assert all(not name.startswith(("transformer.", "model.", "gpt_neox.")) for name in bare.state_dict())
    assert torch.equal(interp.load(bare)(tokens), whole(tokens))
