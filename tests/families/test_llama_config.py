"""The config of a Llama checkpoint: understood, or refused by the name of the field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from interp.errors import CheckpointError, UnsupportedModelError
from interp.families.base import families, family_for_hf
from interp.families.fields import BOOKKEEPING
from interp.model.config import ModelConfig, RotaryScaling

MINIMAL: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


def read(ignore: tuple[str, ...] = (), **fields: Any) -> ModelConfig:
    hf = MINIMAL | fields
    return family_for_hf(hf, "config.json").config_from_hf(hf, ignore=ignore)


def test_every_family_has_a_name_and_a_way_in():
    assert [family.name for family in families()] == sorted({family.name for family in families()})
    assert all(family.hf_model_types for family in families())


def test_a_config_of_transformers_5_is_understood_whole():
    from transformers import LlamaConfig

    config = LlamaConfig(num_key_value_heads=8, tie_word_embeddings=True).to_dict()
    ours = family_for_hf(config, "config.json").config_from_hf(json.loads(json.dumps(config)))
    assert (ours.n_layers, ours.n_heads, ours.n_key_value_heads, ours.d_head) == (32, 32, 8, 128)
    assert (ours.d_model, ours.d_mlp, ours.d_vocab, ours.n_ctx, ours.eps) == (4096, 11008, 32000, 2048, 1e-6)
    assert ours.tie_word_embeddings and ours.rotary_base == 10_000 and ours.act_fn == "silu"


def test_a_config_of_transformers_4_is_understood_whole():
    config = read(
        rope_theta=100000, rope_scaling=None, rope_interleaved=False, is_llama_config=True, pretraining_tp=1,
        torch_dtype="bfloat16", max_position_embeddings=8192, num_key_value_heads=1, bos_token_id=1,
        eos_token_id=2, hidden_act="silu", initializer_range=0.04, rms_norm_eps=1e-5, attention_bias=False,
        attention_dropout=0.0, mlp_bias=False, use_cache=True, transformers_version="4.42.3", sliding_window=None,
        architectures=["LlamaForCausalLM"], pad_token_id=2, **{"transformers.js_config": {"kv_cache_dtype": {}}},
    )  # fmt: skip
    assert config.rotary_base == 100000 and config.n_ctx == 8192 and config.n_key_value_heads == 1


def test_absent_sizes_take_the_defaults_of_the_reference():
    from transformers import LlamaConfig

    reference, ours = LlamaConfig(**{k: v for k, v in MINIMAL.items() if k != "model_type"}), read()
    assert ours.n_ctx == reference.max_position_embeddings and ours.eps == reference.rms_norm_eps
    assert ours.rotary_base == reference.rope_parameters["rope_theta"]
    assert ours.n_key_value_heads == reference.num_key_value_heads and ours.d_head == reference.head_dim
    assert ours.tie_word_embeddings == reference.tie_word_embeddings


@pytest.mark.parametrize(
    ("spelling", "scaling"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, RotaryScaling("linear", 2.0)),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4}}, RotaryScaling("linear", 4.0)),
        ({"rope_scaling": LLAMA3}, RotaryScaling("llama3", 8.0, 1.0, 4.0, 8192)),
        ({"rope_parameters": LLAMA3 | {"rope_theta": 5e5}}, RotaryScaling("llama3", 8.0, 1.0, 4.0, 8192)),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, None),
    ],
)
def test_each_kind_of_rotary_scaling_is_read_in_both_spellings(spelling, scaling):
    rotary = read(**spelling).decoder.blocks[0].attn.rotary
    assert rotary.scaling == scaling
    assert rotary.base == (5e5 if "rope_parameters" in spelling else 1e4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pretraining_tp", 2),
        ("hidden_act", "snake"),
        ("sliding_window", 4096),
        ("partial_rotary_factor", 0.5),
        ("rope_interleaved", True),
        ("is_encoder_decoder", True),
        ("pruned_heads", {"0": [1]}),
        ("quantization_config", {"quant_method": "gptq", "bits": 4}),
        ("attn_logit_softcapping", 50.0),
        ("logit_scale", 0.5),
        ("a_field_from_the_future", False),
    ],
)
def test_a_field_that_changes_the_mathematics_is_refused_by_name_and_value(field, value):
    with pytest.raises(UnsupportedModelError) as refusal:
        read(**{field: value})
    message = str(refusal.value)
    assert message.startswith(f"config.json has {field}=")
    # only what is not understood may turn out to be harmless
    unknown = "does not understand" in message
    assert (f"ignore=('{field}',)" in message) == unknown and ("results would be another model's" in message) != unknown
    shown = value["quant_method"] if field == "quantization_config" else value
    assert repr(shown) in message


@pytest.mark.parametrize("field", ["pretraining_tp", "sliding_window", "logit_scale", "quantization_config"])
def test_a_refused_field_can_be_ignored(field):
    assert read(ignore=(field,), **{field: 7}) == read()


@pytest.mark.parametrize("kind", ["yarn", "dynamic", "longrope", "mrope"])
def test_other_rotary_scalings_are_refused_by_name(kind):
    for spelling in ("rope_type", "type"):
        with pytest.raises(
            UnsupportedModelError, match=f"rope_scaling has rope_type='{kind}'.*default, linear, llama3"
        ):
            read(rope_scaling={spelling: kind, "factor": 2.0})


def test_an_unknown_part_of_the_rotary_scaling_is_refused_and_can_be_ignored():
    scaling = {"rope_type": "linear", "factor": 2.0, "attention_factor": 1.2}
    with pytest.raises(UnsupportedModelError, match=r"rope_scaling has attention_factor=1\.2"):
        read(rope_scaling=scaling)
    assert read(ignore=("rope_scaling.attention_factor",), rope_scaling=scaling).rotary_base == 1e4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", "64"),
        ("hidden_size", 0),
        ("num_hidden_layers", -2),
        ("num_attention_heads", True),
        ("num_hidden_layers", 10**9),
        ("intermediate_size", 10**18),
        ("rms_norm_eps", float("nan")),
        ("attention_bias", "no"),
        ("rope_scaling", "linear"),
        ("hidden_act", 3),
    ],
)
def test_a_senseless_value_is_named(field, value):
    with pytest.raises(CheckpointError, match=f"{field}="):
        read(**{field: value})


def test_contradictions_are_the_files_fault():
    with pytest.raises(CheckpointError, match="cannot share"):
        read(num_key_value_heads=3)
    with pytest.raises(CheckpointError, match="5 heads, which cannot share 64 dimensions"):
        read(num_attention_heads=5)
    with pytest.raises(CheckpointError, match="heads of 15 dimensions"):
        read(head_dim=15)
    with pytest.raises(CheckpointError, match="rope_theta=1"):
        read(rope_theta=10000.0, rope_parameters={"rope_theta": 5e5, "rope_type": "default"})
    with pytest.raises(CheckpointError, match="both rope_parameters and rope_scaling"):
        read(rope_parameters={"rope_type": "default"}, rope_scaling=LLAMA3)


def test_a_missing_size_is_named():
    hf = {name: value for name, value in MINIMAL.items() if name != "intermediate_size"}
    with pytest.raises(CheckpointError, match="no intermediate_size"):
        family_for_hf(hf, "config.json").config_from_hf(hf)


def test_an_unknown_model_type_is_refused_with_those_that_are_known_and_its_code_is_not_run():
    with pytest.raises(UnsupportedModelError, match=r"'mamba'.*Supported are .*llama"):
        family_for_hf({"model_type": "mamba"}, "config.json")
    with pytest.raises(UnsupportedModelError, match=r"own code \(auto_map\), which is never run"):
        family_for_hf({"model_type": "mamba", "auto_map": {"AutoConfig": "x.Config"}}, "config.json")
    with pytest.raises(CheckpointError, match="no model_type"):
        family_for_hf({}, "config.json")


def test_code_beside_a_known_model_type_is_left_alone():
    assert read(auto_map={"AutoConfig": "x.Config"}) == read()


def test_no_bookkeeping_field_is_one_that_the_family_reads():
    read_fields = {"hidden_size", "head_dim", "rope_theta", "rope_scaling", "hidden_act", "tie_word_embeddings"}
    assert not BOOKKEEPING & read_fields
