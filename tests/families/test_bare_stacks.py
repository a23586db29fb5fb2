"""Checkpoints without their head, and fields that are null: what they become is said, never guessed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import interp
from interp.errors import CheckpointError, InputError, UnsupportedModelError
from interp.families.base import family_named

SIZES = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TOKENS = torch.tensor([[5, 6, 7]])


@pytest.mark.parametrize("kind", ["Llama", "GPTNeoX"])
@torch.no_grad()
def test_a_bare_stack_with_an_unembedding_of_its_own_loads_without_logits(kind: str) -> None:
    import transformers

    torch.manual_seed(0)
    live = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**SIZES)).eval()
    model = interp.load(live)
    with pytest.raises(InputError, match="no head that predicts tokens"):
        model(TOKENS)
    _, cache = model.run_with_cache(TOKENS, return_type=None)
    normed = cache["ln_final.hook_normalized"] * model.ln_final.gain
    normed = normed if model.ln_final.b is None else normed + model.ln_final.b
    torch.testing.assert_close(normed, live(TOKENS).last_hidden_state, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_bare_stack_that_ties_its_unembedding_has_logits() -> None:
    import transformers

    config = transformers.GPT2Config(
        vocab_size=50, n_embd=32, n_layer=1, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2
    )
    model = interp.load(transformers.GPT2Model(config).eval())
    assert "tied to the embedding" in str(model.cfg) and model(TOKENS).shape == (1, 3, 50)


def test_a_whole_model_that_lost_its_head_is_not_taken_for_a_bare_stack() -> None:
    import transformers

    live = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    stored = {name: x for name, x in live.state_dict().items() if name != "lm_head.weight"}
    live.state_dict = lambda: stored  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match=r"lacks unembed\.weight"):
        interp.load(live)


def _llama(**fields: Any) -> Any:
    return family_named("llama").config_from_hf(
        {"model_type": "llama", **SIZES, "max_position_embeddings": 64, **fields}
    )


def test_a_null_epsilon_is_refused_and_not_the_default() -> None:
    assert _llama(head_dim=None).d_head == 8
    with pytest.raises(CheckpointError, match="rms_norm_eps=None; expected a finite number"):
        _llama(rms_norm_eps=None)


def test_only_what_is_unknown_may_be_waived() -> None:
    with pytest.raises(UnsupportedModelError, match=r"frobnicate=3.*ignore=\('frobnicate',\)"):
        _llama(frobnicate=3)
    with pytest.raises(UnsupportedModelError, match=r"yarn.*results would be another model's") as refused:
        _llama(rope_scaling={"rope_type": "yarn", "factor": 2.0})
    assert "ignore=" not in str(refused.value)
