"""Keywords that TransformerLens users type: the harmless ones are taken, the others say what to do instead."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.errors import InputError
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer

TOKENS = torch.tensor([[3, 4, 5]])


@pytest.fixture
def model() -> HookedTransformer:
    return HookedTransformer(ModelConfig.decoder_only(n_layers=1, d_model=16, n_heads=2, d_vocab=30, n_ctx=16))


@torch.no_grad()
def test_harmless_keywords_change_nothing(model):
    plain = model(TOKENS)
    assert torch.equal(model.run_with_hooks(TOKENS, reset_hooks_end=True, clear_contexts=False), plain)
    assert torch.equal(model.run_with_cache(TOKENS, return_cache_object=True)[0], plain)
    generated = model.generate(TOKENS, 2, do_sample=False, verbose=False, use_past_kv_cache=True, padding_side="left")
    assert torch.equal(generated, model.generate(TOKENS, 2, do_sample=False))


def test_keywords_that_ask_for_something_else_name_the_way(model):
    with pytest.raises(InputError, match="with model"):
        model.run_with_hooks(TOKENS, reset_hooks_end=False)
    with pytest.raises(InputError, match="mapping already"):
        model.run_with_cache(TOKENS, return_cache_object=False)
    with pytest.raises(InputError, match="generate takes no speed"):
        model.generate(TOKENS, 2, speed=3)
    with pytest.raises(InputError, match="fold_norms"):
        interp.HookedTransformer.from_pretrained("smollm2-135m", fold_ln=True)
