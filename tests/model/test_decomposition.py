"""Parts of the residual stream sum to it, and their logits to the logits, for every layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from interp.circuits.decomposition import logit_bias
from interp.errors import InputError, UnknownSiteError
from interp.model.cache import ActivationCache
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer

LAYERS = (0, 1, None)


def _read(case: Any) -> ActivationCache:
    with torch.no_grad():
        return case.model.run_with_cache(case.tokens, **case.options)[1]


def _is_sum(case: Any) -> bool:
    return all(block.norms != "post" for block in case.model.main.config.blocks)


def _entering(case: Any, cache: ActivationCache, layer: int | None) -> Tensor:
    last = case.n_layers - 1
    name = f"blocks.{last}.hook_resid_post" if layer is None else f"blocks.{layer}.hook_resid_pre"
    return cache[case.main + name]


def _close(a: Tensor, b: Tensor) -> None:
    assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_what_was_added_sums_to_the_residual(case: Any, layer: int | None) -> None:
    cache = _read(case)
    if not _is_sum(case):
        with pytest.raises(InputError, match="no sum of their outputs"):
            cache.decompose_resid(layer)
        return
    parts, labels = cache.decompose_resid(layer, return_labels=True)
    assert len(parts) == len(labels) == len(set(labels))
    _close(parts.sum(0), _entering(case, cache, layer))
    either = [cache.decompose_resid(layer, mode=mode, incl_embeds=False) for mode in ("attn", "mlp")]
    embeds = cache.decompose_resid(0)
    _close(sum((x.sum(0) for x in either), embeds.sum(0)), _entering(case, cache, layer))


@pytest.mark.parametrize("layer", LAYERS)
def test_heads_and_the_remainder_sum_to_the_residual(case: Any, layer: int | None) -> None:
    cache = _read(case)
    if not _is_sum(case):
        return
    parts, labels = cache.stack_head_results(layer, incl_remainder=True, return_labels=True)
    n_layers = case.n_layers if layer is None else layer
    heads = [f"L{at}H{h}" for at in range(n_layers) for h in range(case.model.main.config.blocks[at].attn.n_heads)]
    assert labels == [*heads, "remainder"]
    _close(parts.sum(0), _entering(case, cache, layer))


def test_heads_of_a_layer_and_its_bias_sum_to_what_attention_adds(case: Any) -> None:
    cache = _read(case)
    if not _is_sum(case):
        return
    block = case.model.main.block(0)
    heads = cache.stack_head_results(1).sum(0)
    out = cache[f"{case.main}blocks.0.hook_attn_out"]
    missing = out - heads
    if block.config.norms == "pre":
        b_O = block.attn.b_O * block.config.residual_scale
        _close(missing, b_O.expand_as(out))
    else:  # no biases in these
        _close(heads, out)


def test_logits_of_the_parts_and_the_bias_sum_to_the_logit_difference(case: Any) -> None:
    model = case.model
    cache = _read(case)
    if not _is_sum(case):
        return
    right, wrong = torch.tensor([3] * len(case.tokens)), torch.tensor([4] * len(case.tokens))
    logits = cache["hook_unembed"]
    if model.cfg.logit_softcap is not None:  # attributions are of the logits before it
        logits = model.cfg.logit_softcap * torch.atanh(logits / model.cfg.logit_softcap)
    bias = logit_bias(cache, right, wrong)
    for parts in (cache.decompose_resid(), cache.stack_head_results(incl_remainder=True)):
        direct = cache.logit_attrs(parts, right, wrong)
        assert direct.shape == parts.shape[:-1]
        _close(direct.sum(0) + bias[:, None], logits[..., 3] - logits[..., 4])
        _close(cache.logit_attrs(parts, 3).sum(0) + logit_bias(cache, 3), logits[..., 3])


def test_accumulated_residuals_are_the_cuts_in_order(case: Any) -> None:
    cache = _read(case)
    parts, labels = cache.accumulated_resid(incl_mid=True, return_labels=True)
    names = {"pre": "hook_resid_pre", "mid": "hook_resid_mid", "mid_cross": "hook_resid_mid_cross"}
    for part, label in zip(parts, labels, strict=True):
        layer, _, cut = label.partition("_")
        name = f"blocks.{case.n_layers - 1}.hook_resid_post"
        name = name if layer == "final" else f"blocks.{layer}.{names[cut]}"
        assert torch.equal(part, cache[case.main + name])
    assert labels[0] == "0_pre" and labels[-1] == "final_post"


def test_the_logit_lens_of_the_last_residual_is_the_logits(named: Any) -> None:
    case = named("neox")
    cache = _read(case)
    lens = cache.accumulated_resid(apply_ln=True) @ case.model.W_U + case.model.b_U
    _close(lens[-1], cache["hook_unembed"])


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_parts_through_a_norm_sum_to_what_the_norm_gives(named: Any, name: str) -> None:
    case = named(name)
    cache, block = _read(case), case.model.main.block(1)
    for mlp_input, norm, part in ((False, block.ln1, "ln1"), (True, block.ln2, "ln2")):
        parts = cache.decompose_resid(1, mlp_input=mlp_input, apply_ln=True)
        want = cache[f"blocks.1.{part}.hook_normalized"] * norm.gain
        _close(parts.sum(0), want)


def test_a_position_can_be_chosen_and_an_int_takes_the_axis_away(named: Any) -> None:
    case = named("llama")
    cache = _read(case)
    for read in (cache.decompose_resid, cache.stack_head_results, cache.accumulated_resid):
        whole = read()
        assert torch.equal(read(pos_slice=-1), whole[:, :, -1])
        assert torch.equal(read(pos_slice=slice(1, 3)), whole[:, :, 1:3])
        assert torch.equal(read(pos_slice=[0, -1]), whole[:, :, [0, -1]])
        right = torch.arange(len(case.tokens)) + 5
        chosen = cache.logit_attrs(read(pos_slice=-1), right, pos_slice=-1)
        _close(chosen, cache.logit_attrs(whole, right)[:, :, -1])
    with pytest.raises(InputError, match="pos_slice is 99"):
        cache.decompose_resid(pos_slice=99)


def test_without_a_batch_axis_all_is_the_same(named: Any) -> None:
    case = named("llama")
    _, one = case.model.run_with_cache(case.tokens[:1])
    bare = one.remove_batch_dim()
    for name in ("decompose_resid", "stack_head_results", "accumulated_resid"):
        assert torch.equal(getattr(bare, name)(), getattr(one, name)()[:, 0])
    _close(bare.logit_attrs(bare.decompose_resid(), 3), one.logit_attrs(one.decompose_resid(), 3)[:, 0])


def test_a_token_per_prompt_and_position_is_taken_at_its_place(named: Any) -> None:
    case = named("gpt2")
    cache = _read(case)
    parts = cache.decompose_resid()
    each = cache.logit_attrs(parts, case.tokens)
    for row, pos in ((0, 0), (1, 3)):
        token = int(case.tokens[row, pos])
        _close(each[:, row, pos], cache.logit_attrs(parts, token)[:, row, pos])


def test_mistakes_are_named(named: Any) -> None:
    llama, neox = _read(named("llama")), _read(named("neox"))
    bert = _read(named("bert"))
    with pytest.raises(InputError, match=r"layer is 9\. Give 0 to 3"):
        llama.accumulated_resid(9)
    with pytest.raises(InputError, match="Layer 1 has no MLP on a residual of its own"):
        neox.decompose_resid(1, mlp_input=True)
    with pytest.raises(InputError, match=r'Choose "all", "mlp" or "attn"'):
        llama.decompose_resid(mode="heads")
    with pytest.raises(InputError, match="nonlinear head"):
        bert.logit_attrs(bert.accumulated_resid(), 3)
    with pytest.raises(InputError, match="ids from 0 to 49"):
        llama.logit_attrs(llama.decompose_resid(), 50)
    with pytest.raises(InputError, match="Match them"):
        llama.logit_attrs(llama.decompose_resid(), 3, torch.tensor([3, 4]))
    with pytest.raises(InputError, match="do not fit a stack"):
        llama.logit_attrs(llama.decompose_resid(), torch.arange(7))
    with pytest.raises(UnknownSiteError, match=r"Call \.bind"):
        ActivationCache(llama._contents).decompose_resid()


def test_heads_of_models_that_norm_their_stream_stack_though_they_have_no_remainder(configs: dict) -> None:
    config = ModelConfig.encoder_only(n_layers=2, d_model=16, n_heads=2, d_vocab=20, n_ctx=16)
    model = HookedTransformer(config, seed=1)
    _, cache = model.run_with_cache(torch.tensor([[1, 2, 3]]))
    heads, labels = cache.stack_head_results(return_labels=True)
    assert labels == ["L0H0", "L0H1", "L1H0", "L1H1"]
    torch.testing.assert_close(heads[:2].sum(0) + model.blocks[0].attn.b_O, cache["attn_out.0"], atol=1e-5, rtol=1e-5)
    for options in ({"incl_remainder": True}, {"apply_ln": True}):
        with pytest.raises(InputError, match="no sum"):
            cache.stack_head_results(**options)


def test_the_encoder_of_two_stacks_has_its_own_parts(configs: dict) -> None:
    model = HookedTransformer(configs["two_stacks"], seed=1)
    tokens = torch.tensor([[1, 2, 3]])
    _, cache = model.run_with_cache(tokens, decoder_input=tokens[:, :2])
    parts = cache.decompose_resid(stack="encoder")
    whole = cache.accumulated_resid(stack="encoder")[-1]
    torch.testing.assert_close(parts.sum(0), whole, atol=1e-5, rtol=1e-5)
    assert whole.shape[1] == 3 and cache.accumulated_resid()[-1].shape[1] == 2
    assert cache.stack_head_results(stack="encoder", incl_remainder=True).sum(0).allclose(whole, atol=1e-5)
    normed = cache.decompose_resid(stack="encoder", apply_ln=True).sum(0)
    assert normed.shape == whole.shape and not normed.allclose(whole)
    with pytest.raises(InputError, match="stack is 'middle'; this model has encoder and decoder"):
        cache.decompose_resid(stack="middle")


def test_each_stack_gives_its_own_weights(configs: dict) -> None:
    model = HookedTransformer(configs["two_stacks"], seed=1)
    assert torch.equal(model.decoder.W_Q[0], model.decoder.blocks[0].attn.W_Q)
    assert model.encoder.W_E is model.encoder.embed.weight
    with pytest.raises(InputError, match=r"model\.decoder\.W_Q"):
        _ = model.W_Q
