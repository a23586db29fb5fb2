"""The hash of a model follows its content: the weights and the configuration, and nothing else."""

from __future__ import annotations

import copy
import dataclasses
import time

import pytest
import torch

import interp
from interp.errors import InputError
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.runs.provenance import model_hash, provenance


def tiny(seed: int = 0, **options) -> HookedTransformer:
    config = ModelConfig.decoder_only(n_layers=2, d_model=16, n_heads=2, d_vocab=30, n_ctx=20, d_mlp=32, **options)
    return HookedTransformer(config, seed=seed)


def test_equal_models_have_equal_hashes_and_others_do_not():
    assert model_hash(tiny()) == model_hash(tiny()) and len(model_hash(tiny())) == 64
    assert model_hash(tiny(1)) != model_hash(tiny(0))


def test_every_parameter_counts_down_to_its_last_bit():
    model = tiny()
    before = model_hash(model)
    for name, parameter in model.named_parameters():
        flat = parameter.detach().view(-1)
        kept = flat[-1].clone()
        flat[-1] = torch.nextafter(kept, torch.tensor(9.0))
        assert model_hash(model) != before, name
        flat[-1] = kept
    assert model_hash(model) == before


def test_two_parameters_that_trade_places_change_the_hash():
    model = tiny()
    before = model_hash(model)
    first, second = model.blocks[0].attn.W_Q, model.blocks[1].attn.W_Q
    with torch.no_grad():
        a, b = first.clone(), second.clone()
        first.copy_(b), second.copy_(a)
    assert model_hash(model) != before


def test_names_for_people_do_not_count_and_the_mathematics_does():
    plain = tiny()
    assert model_hash(tiny(model_name="mine", family="llama")) == model_hash(plain)
    other = copy.copy(plain)
    other.cfg = dataclasses.replace(plain.cfg, default_prepend_bos=True)
    assert model_hash(other) != model_hash(plain)


def test_tied_weights_are_read_once_and_another_dtype_is_another_model():
    tied = tiny(tie_word_embeddings=True)
    assert model_hash(tied) == model_hash(tiny(tie_word_embeddings=True)) != model_hash(tiny())
    half = tiny().to(torch.bfloat16)
    assert model_hash(half) != model_hash(tiny()) and model_hash(half) == model_hash(tiny().to(torch.bfloat16))


def test_large_tensors_are_hashed_in_parts_to_the_same_end(monkeypatch):
    whole = model_hash(tiny())
    monkeypatch.setattr("interp.model.identity._CHUNK", 7)
    parts = model_hash(tiny())
    assert parts == model_hash(tiny()) != whole, "the size of a part belongs to the definition"


def test_a_model_without_weights_is_refused():
    empty = tiny().to("meta")
    with pytest.raises(InputError, match="no weights to hash"):
        model_hash(empty)


@pytest.mark.slow
def test_smollm2_is_hashed_quickly_and_the_same_after_another_load(smollm2):
    start = time.perf_counter()
    first = model_hash(smollm2)
    seconds = time.perf_counter() - start
    assert first == model_hash(interp.load("smollm2-135m"))
    assert seconds < 3, f"{seconds:.2f} s"  # 0.4 s on two free cores


def test_provenance_names_versions_and_no_machine():
    made = provenance()
    assert made["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert made["threads"] == torch.get_num_threads()
    assert set(made) == {"python", "platform", "threads", "versions"}
