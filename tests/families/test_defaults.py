"""What a config leaves out means what the library's config class means by it.

A config as it may stand in a folder is read twice: as it is, and completed by the library. Both must give one model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from interp.errors import CheckpointError, InterpError
from interp.families.base import families, family_for_hf
from interp.model.config import ModelConfig

LLAMA = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
BERT = {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"}
OPT = {name: value for name, value in BERT.items() if name != "intermediate_size"} | {"ffn_dim": 40}
WINDOWED = {**LLAMA, "sliding_window": 5}
GEMMA = {**WINDOWED, "head_dim": 12}
T5 = {"vocab_size": 61, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
BART = {
    "vocab_size": 61,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 40,
}
GPT = {"vocab_size": 61, "n_embd": 40, "n_layer": 3, "n_head": 5, "n_positions": 40}
GPT_NEO = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_layers": 4,
    "num_heads": 4,
    "max_position_embeddings": 40,
    "attention_types": [[["global", "local"], 2]],
    "window_size": 4,
}
FALCON = {
    "vocab_size": 61,
    "hidden_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
RAW: dict[str, tuple[str, dict[str, Any]]] = {  # model type: the library's config class, a small config of a folder
    "gpt2": ("GPT2", GPT),
    "gpt_neo": ("GPTNeo", GPT_NEO),
    "gpt_neox": ("GPTNeoX", {**BERT, "hidden_size": 64}),
    "gptj": ("GPTJ", {**GPT, "rotary_dim": 4}),
    "opt": ("OPT", OPT),
    "bloom": ("Bloom", {"vocab_size": 61, "hidden_size": 48, "n_layer": 2, "n_head": 6}),
    "falcon": ("Falcon", FALCON),
    "llama": ("Llama", LLAMA),
    "mistral": ("Mistral", WINDOWED),
    "qwen2": ("Qwen2", {**LLAMA, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {**LLAMA, "head_dim": 12, "max_window_layers": 1}),
    "phi": ("Phi", LLAMA),
    "phi3": ("Phi3", {**LLAMA, "pad_token_id": 0, "original_max_position_embeddings": 64}),
    "gemma": ("Gemma", {**LLAMA, "head_dim": 12}),
    "gemma2": ("Gemma2", GEMMA),
    "gemma3_text": ("Gemma3Text", GEMMA),
    "olmo2": ("Olmo2", LLAMA),
    "granite": ("Granite", LLAMA),
    "stablelm": ("StableLm", {**LLAMA, "hidden_size": 64}),
    "starcoder2": ("Starcoder2", LLAMA),
    "bert": ("Bert", BERT),
    "roberta": ("Roberta", BERT),
    "xlm-roberta": ("XLMRoberta", BERT),
    "camembert": ("Camembert", BERT),
    "distilbert": (
        "DistilBert",
        {"vocab_size": 61, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40},
    ),
    "albert": ("Albert", {**BERT, "embedding_size": 16}),
    "electra": ("Electra", {**BERT, "embedding_size": 16}),
    "mpnet": ("MPNet", BERT),
    "t5": ("T5", T5),
    "mt5": ("MT5", T5),
    "bart": ("Bart", BART),
    "marian": ("Marian", BART),
    "pegasus": ("Pegasus", BART),
}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 500.0}
MANY_HEADS = {"hidden_size": 256, "num_attention_heads": 32, "num_key_value_heads": ...}  # `...` leaves a field out
SLIDING = {"use_sliding_window": True, "sliding_window": ..., "max_window_layers": 1}
ODD: list[tuple[str, dict[str, Any]]] = [
    *((kind, MANY_HEADS) for kind in ("mistral", "qwen2", "gemma", "gemma2", "gemma3_text", "stablelm", "starcoder2")),
    *((kind, {**MANY_HEADS, "num_key_value_heads": None}) for kind in ("qwen2", "qwen3", "phi", "llama")),
    *((kind, {"rope_parameters": LLAMA3}) for kind in ("llama", "qwen2", "granite", "stablelm", "falcon")),
    *((kind, {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}) for kind in ("llama", "phi")),
    *((kind, {"partial_rotary_factor": 0.5, "rope_theta": 700.0}) for kind in ("phi", "stablelm")),
    ("gpt_neox", {"rotary_pct": 0.5, "rotary_emb_base": 300}),
    *((kind, SLIDING) for kind in ("qwen2", "qwen3")),
    *((kind, {**SLIDING, "sliding_window": None}) for kind in ("qwen2", "qwen3")),
    *((kind, {**SLIDING, "max_window_layers": ..., "num_hidden_layers": 30}) for kind in ("qwen2", "qwen3")),
    *((kind, {**SLIDING, "use_sliding_window": False}) for kind in ("qwen2", "qwen3")),
    *((kind, {"sliding_window": None}) for kind in ("mistral", "phi3", "starcoder2")),
    ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    ("gemma2", {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}),
    ("gemma3_text", {"sliding_window_pattern": 2}),
    ("gemma3_text", {"sliding_window_pattern": 2, "_sliding_window_pattern": 3}),
    ("gemma3_text", {"_sliding_window_pattern": 6, "num_hidden_layers": 7}),
    ("gemma3_text", {"rope_theta": 900.0, "rope_local_base_freq": 300.0}),
    ("gemma3_text", {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 900.0}}}),
    ("gpt_neo", {"attention_types": [[["global"], 4]]}),
    ("gpt_neo", {"attention_types": [[["local"], 2], [["global"], 2]]}),
    ("gpt_neo", {"attention_types": ..., "num_layers": 24}),
    ("gpt_neo", {"attention_types": ..., "attention_layers": ["local"] * 4}),
    ("gpt_neo", {"attention_types": ..., "num_layers": 24, "attention_layers": ["global", "local"] * 12}),
    ("gptj", {"rotary_dim": ..., "n_embd": 400}),
    ("falcon", {"new_decoder_architecture": True}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}),
    ("falcon", {"multi_query": False}),
    ("albert", {"hidden_act": "gelu"}),
    ("electra", {"embedding_size": 32}),
    ("t5", {"scale_decoder_outputs": None}),
    ("t5", {"tie_word_embeddings": False}),
    ("t5", {"tie_word_embeddings": False, "scale_decoder_outputs": True}),
    ("t5", {"tie_word_embeddings": True, "scale_decoder_outputs": False}),
    ("t5", {"feed_forward_proj": "gated-gelu"}),
    ("mt5", {"feed_forward_proj": "relu"}),
    ("mt5", {"tie_word_embeddings": False}),
    *((kind, {"scale_embedding": True}) for kind in ("bart", "marian", "pegasus")),
]


def _class(kind: str) -> Any:
    import transformers

    return getattr(transformers, f"{RAW[kind][0]}Config")


def _read(hf: dict[str, Any]) -> ModelConfig | InterpError:
    try:
        return family_for_hf(hf, "it").config_from_hf(hf)
    except InterpError as error:
        return error


def _compared(kind: str, changes: dict[str, Any]) -> tuple[Any, Any] | None:
    """What the config means as it is and as the library completes it; None where the library refuses it, or where it
    lacks a size, which we never guess."""
    changed = {**RAW[kind][1], **changes}
    raw = {name: value for name, value in changed.items() if value is not ...}
    try:
        whole = _class(kind).from_dict(copy.deepcopy(raw)).to_dict()
    except Exception:  # of any kind, by its validators
        return None
    one, other = _read({**raw, "model_type": kind}), _read(whole)
    if isinstance(one, CheckpointError) and "Get a whole copy" in str(one):
        return None
    return (type(one), type(other)) if isinstance(one, InterpError) and isinstance(other, InterpError) else (one, other)


def _without_each(kind: str) -> Iterator[dict[str, Any]]:
    yield {}
    yield from ({name: ...} for name in RAW[kind][1])


@pytest.mark.parametrize("kind", RAW)
def test_a_config_and_one_without_any_of_its_fields_mean_what_the_library_means(kind: str) -> None:
    compared = {str(changes): _compared(kind, changes) for changes in _without_each(kind)}
    assert {name: pair for name, pair in compared.items() if pair and pair[0] != pair[1]} == {}
    assert isinstance((compared["{}"] or [None])[0], ModelConfig)


@pytest.mark.parametrize(("kind", "changes"), ODD, ids=[f"{kind}-{n}" for n, (kind, _) in enumerate(ODD)])
def test_an_odd_spelling_means_what_the_library_means_by_it(kind: str, changes: dict[str, Any]) -> None:
    pair = _compared(kind, changes)
    assert pair is not None and isinstance(pair[1], ModelConfig)
    assert pair[0] == pair[1]


@pytest.mark.parity_all
@pytest.mark.parametrize("kind", RAW)
def test_a_field_that_is_null_means_what_the_library_means_by_it(kind: str) -> None:
    names = _class(kind)(**copy.deepcopy(RAW[kind][1])).to_dict()
    compared = {name: _compared(kind, {name: None}) for name in names if name != "model_type"}
    assert {name: pair for name, pair in compared.items() if pair and pair[0] != pair[1]} == {}
    assert sum(pair is not None for pair in compared.values()) > 10


def test_every_model_type_is_compared() -> None:
    assert set(RAW) == {kind for family in families() for kind in family.hf_model_types}
