"""A TransformerBridge loads with the numbers it computes with, site by site, or is refused; it is never changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

import interp
from interp.errors import UnsupportedModelError

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peer's own

SIZES = {"vocab_size": 50}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": (
        "Llama",
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
        },
    ),
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "neox": (
        "GPTNeoX",
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
        },
    ),
}
HEAD = {"llama": "LlamaForCausalLM", "gpt2": "GPT2LMHeadModel", "neox": "GPTNeoXForCausalLM"}
TOKENS = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(1))


def _tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({f"w{i}": i for i in range(50)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="w1", eos_token="w2", pad_token="w3", unk_token="w0"
    )
    made.init_kwargs.update(name_or_path="tiny", add_bos_token=True)  # else the peer looks for it on the hub
    return made


@pytest.fixture
def make_bridge() -> Callable[[str], Any]:
    """Boots a bridge around a tiny random model, its biases and gains random too."""

    def make(kind: str) -> Any:
        import transformers
        from transformer_lens.model_bridge import TransformerBridge

        torch.manual_seed(0)
        name, sizes = KINDS[kind]
        config = getattr(transformers, f"{name}Config")(**SIZES, **sizes)
        live = getattr(transformers, HEAD[kind])(config).eval()
        for parameter in live.parameters():
            parameter.data = torch.randn_like(parameter) * 0.3 + (1.0 if parameter.ndim == 1 else 0.0)
        live.tie_weights()
        return TransformerBridge.boot_transformers(kind, hf_model=live, tokenizer=_tokenizer())

    return make


def _near(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_bridge_agrees_at_every_site_that_both_name_alike(make_bridge: Callable[[str], Any], kind: str) -> None:
    bridge = make_bridge(kind)
    model = interp.load(bridge)
    theirs_out, theirs = bridge.run_with_cache(TOKENS)
    ours_out, ours = model.run_with_cache(TOKENS)
    _near(ours_out, theirs_out)
    names = ["hook_embed", "ln_final.hook_scale"]
    for layer in range(2):
        inner = ["attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z", "attn.hook_pattern", "hook_resid_pre"]
        inner += ["hook_resid_post", "hook_attn_out", "hook_mlp_out", "mlp.hook_pre", "mlp.hook_post", "ln1.hook_scale"]
        inner += [] if kind == "neox" else ["hook_resid_mid"]
        names += [f"blocks.{layer}.{name}" for name in inner]
    for name in names:
        mine, peer = ours[name], theirs[name]
        _near(mine, peer.reshape(mine.shape))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_loading_leaves_the_bridge_as_it_was(make_bridge: Callable[[str], Any], kind: str) -> None:
    bridge = make_bridge(kind)
    before, names = bridge(TOKENS), list(dict(bridge.original_model.named_modules()))
    model = interp.load(bridge)
    for parameter in model.parameters():
        parameter.zero_()
    assert torch.equal(bridge(TOKENS), before)
    assert list(dict(bridge.original_model.named_modules())) == names


@torch.no_grad()
def test_text_becomes_the_tokens_that_the_bridge_makes_of_it(make_bridge: Callable[[str], Any]) -> None:
    bridge = make_bridge("llama")
    model = interp.load(bridge)
    assert torch.equal(model.to_tokens("w5 w7 w9"), bridge.to_tokens("w5 w7 w9"))
    assert model.to_tokens("w5")[0, 0] == 1
    bridge.cfg.default_prepend_bos = False
    assert torch.equal(interp.load(bridge).to_tokens("w5 w7"), bridge.to_tokens("w5 w7"))


@pytest.mark.parametrize("kind", KINDS)
def test_processed_weights_are_refused(make_bridge: Callable[[str], Any], kind: str) -> None:
    bridge = make_bridge(kind)
    bridge.enable_compatibility_mode(disable_warnings=True)
    with pytest.raises(UnsupportedModelError, match=r"processed.*no_processing=True"):
        interp.load(bridge)


@torch.no_grad()
def test_old_names_without_processing_are_fine(make_bridge: Callable[[str], Any]) -> None:
    bridge = make_bridge("gpt2")
    bridge.enable_compatibility_mode(disable_warnings=True, no_processing=True)
    _near(interp.load(bridge)(TOKENS), bridge(TOKENS))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_weights_edited_on_the_bridge_are_taken_or_refused(make_bridge: Callable[[str], Any], kind: str) -> None:
    bridge = make_bridge(kind)
    linear = bridge.blocks[1].attn.q.original_component
    linear.weight.mul_(2)  # in place: where q is a view of a fused weight, that is edited too
    try:
        _near(interp.load(bridge)(TOKENS), bridge(TOKENS))
    except UnsupportedModelError as error:
        assert kind != "llama" and "were edited" in str(error)
    linear.weight = torch.nn.Parameter(linear.weight * 2)  # a tensor of its own
    if kind == "llama":
        _near(interp.load(bridge)(TOKENS), bridge(TOKENS))
    else:
        with pytest.raises(UnsupportedModelError, match=r"q, k and v of .*\.1\.att.* were edited"):
            interp.load(bridge)


@torch.no_grad()
def test_biases_edited_behind_a_fused_projection_are_refused(make_bridge: Callable[[str], Any]) -> None:
    bridge = make_bridge("neox")
    linear = bridge.blocks[0].attn.v.original_component
    linear.bias = torch.nn.Parameter(linear.bias + 1)
    with pytest.raises(UnsupportedModelError, match="were edited"):
        interp.load(bridge)


@torch.no_grad()
def test_an_edited_unembedding_bias_is_not_lost(make_bridge: Callable[[str], Any]) -> None:
    bridge = make_bridge("llama")
    bridge.unembed.original_component.bias.add_(1.0)
    with pytest.raises(UnsupportedModelError, match=r"lm_head\.bias"):
        interp.load(bridge)


def test_a_model_that_a_bridge_stands_around_is_refused(make_bridge: Callable[[str], Any]) -> None:
    bridge = make_bridge("llama")
    with pytest.raises(UnsupportedModelError, match="Give the bridge"):
        interp.load(bridge.original_model)


def test_another_model_of_the_library_is_refused_by_name() -> None:
    Old = type("HookedTransformer", (), {"__module__": "transformer_lens.HookedTransformer"})
    with pytest.raises(UnsupportedModelError, match="HookedTransformer of TransformerLens holds no transformers model"):
        interp.load(Old())
