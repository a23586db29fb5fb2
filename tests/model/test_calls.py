"""What users type: calls, losses, text, generation, weights; and one clear sentence for each kind of bad input."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import interp
from interp.errors import CheckpointError, HookError, InputError, InterpError
from interp.model.config import AttentionConfig, BlockConfig, MLPConfig, ModelConfig, NormConfig, StackConfig
from interp.model.generate import Sampling
from interp.model.transformer import HookedTransformer

RIGHT = torch.tensor([[1] * 9, [1] * 6 + [0] * 3, [1] * 2 + [0] * 7]).bool()
LEFT = RIGHT.flip(1)


def _close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    assert a.shape == b.shape
    assert float((a - b).detach().abs().max()) <= tolerance * max(1.0, float(b.detach().abs().max()))


# ---- return types and losses ----


@torch.no_grad()
def test_return_types_give_logits_a_loss_both_or_nothing(decoder: Any) -> None:
    logits = decoder()
    assert logits.shape == (3, 9, 50)
    loss = decoder(return_type="loss")
    assert loss.shape == ()
    both = decoder(return_type="both")
    assert torch.equal(both[0], logits) and torch.equal(both[1], loss)
    assert decoder(return_type=None) is None
    assert torch.equal(decoder.model(decoder.tokens, "loss"), loss)
    output, _ = decoder.cached("embed", return_type="both")
    _close(output[0], logits)


@torch.no_grad()
def test_the_loss_is_minus_log_p_of_each_next_token(decoder: Any) -> None:
    logits, tokens = decoder(), decoder.tokens
    by_hand = torch.zeros(3, 8, dtype=logits.dtype)
    for row, pos in itertools.product(range(3), range(8)):
        p = torch.exp(logits[row, pos]) / torch.exp(logits[row, pos]).sum()
        by_hand[row, pos] = -torch.log(p[tokens[row, pos + 1]])
    assert_close(decoder(return_type="loss", loss_per_token=True), by_hand, rtol=1e-4, atol=1e-4)
    assert_close(decoder(return_type="loss"), by_hand.mean(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("mask", [LEFT, RIGHT], ids=["left", "right"])
def test_padding_is_neither_read_nor_predicted_in_a_loss(llama: Any, mask: Tensor) -> None:
    per_token = llama(return_type="loss", loss_per_token=True, attention_mask=mask)
    real = mask[:, :-1] & mask[:, 1:]
    assert torch.equal(per_token.isnan(), ~real)
    alone = [
        llama.model(llama.tokens[row : row + 1, mask[row]], return_type="loss", loss_per_token=True).flatten()
        for row in range(3)
    ]
    _close(per_token[real], torch.cat(alone))
    assert_close(llama(return_type="loss", attention_mask=mask), torch.cat(alone).mean())


@torch.no_grad()
def test_a_loss_with_nothing_to_predict_is_refused_and_not_nan(llama: Any) -> None:
    with pytest.raises(InputError, match="at least two tokens"):
        llama.model(llama.tokens[:, :1], return_type="loss")
    mask = torch.tensor([[0] * 8 + [1]] * 3)
    with pytest.raises(InputError):
        llama(return_type="loss", attention_mask=mask)


@torch.no_grad()
def test_the_loss_of_a_two_stack_model_is_of_its_decoders_text(two_stacks: Any) -> None:
    logits, loss = two_stacks(return_type="both")
    target = two_stacks.options["decoder_input"]
    by_hand = -logits[:, :-1].log_softmax(-1).gather(-1, target[:, 1:, None]).mean()
    assert_close(loss, by_hand)


@torch.no_grad()
def test_tokens_that_do_not_fit_the_logits_are_refused(llama: Any) -> None:
    resid = llama(stop_at_layer=1)
    with pytest.raises(InputError):
        llama.model(resid, start_at_layer=1, return_type="loss", tokens=llama.tokens[:, :-1])
    with pytest.raises(InputError):
        llama.model(resid, start_at_layer=1, return_type="loss", tokens=llama.tokens[:2])


def test_an_encoder_has_no_next_token_loss(encoder: Any) -> None:
    for return_type in ("loss", "both"):
        with pytest.raises(InputError, match="An encoder predicts no next token"):
            encoder(return_type=return_type)
    assert encoder().shape == (3, 9, 50)


def test_an_encoder_generates_nothing(encoder: Any) -> None:
    with pytest.raises(InputError):
        encoder.model.generate(encoder.tokens, 2)


def test_an_unknown_return_type_is_refused(llama: Any, unchecked: None) -> None:
    with pytest.raises(InputError, match=r"return_type is 'logit'\. Choose"):
        llama(return_type="logit")


@torch.no_grad()
def test_tokens_come_flat_in_rows_as_lists_and_as_any_integers(llama: Any) -> None:
    expected, rows = llama(), llama.tokens
    assert torch.equal(llama.model(rows.int()), expected)
    _close(llama.model(rows[0]), expected[:1])
    _close(llama.model(rows[0].tolist()), expected[:1])


@torch.no_grad()
def test_tokens_of_several_rows_come_as_lists_too(llama: Any) -> None:
    assert torch.equal(llama.model(llama.tokens.tolist()), llama())


def test_logits_carry_gradients_unless_they_are_off(llama: Any) -> None:
    assert llama().requires_grad
    with torch.no_grad():
        assert not llama().requires_grad


# ---- the config by its TransformerLens names ----


def test_sizes_are_read_by_their_transformer_lens_names(llama: Any, gpt2: Any, configs: dict) -> None:
    cfg = llama.model.cfg
    expected = {
        "n_layers": 3, "d_model": 32, "n_heads": 4, "d_head": 8, "d_mlp": 48, "d_vocab": 50, "n_ctx": 64,
        "act_fn": "silu", "eps": 1e-5, "normalization_type": "RMS", "positional_embedding_type": "rotary",
        "n_key_value_heads": 2, "gated_mlp": True, "attn_only": False, "parallel_attn_mlp": False,
        "rotary_base": 10_000.0, "rotary_dim": 8, "window_size": None, "default_prepend_bos": False,
    }  # fmt: skip
    assert {name: getattr(cfg, name) for name in expected} == expected
    assert cfg.attn_scale == pytest.approx(8**0.5)
    assert gpt2.model.cfg.normalization_type == "LN"
    assert gpt2.model.cfg.positional_embedding_type == "standard"
    assert gpt2.model.cfg.rotary_base is None and not gpt2.model.cfg.gated_mlp
    assert configs["attention_only"].attn_only and configs["attention_only"].d_mlp is None
    assert configs["bare"].normalization_type is None
    assert configs["neox"].parallel_attn_mlp and configs["neox"].rotary_dim == 4


def test_every_size_named_here_is_a_name_of_transformer_lens(llama: Any) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformer_lens.config import TransformerBridgeConfig
    wanted = (
        "n_layers d_model n_ctx d_head n_heads d_mlp act_fn d_vocab eps normalization_type gated_mlp rotary_dim "
        "positional_embedding_type rotary_base n_key_value_heads parallel_attn_mlp attn_only window_size model_name "
        "default_prepend_bos tie_word_embeddings attn_scale"
    )
    theirs = TransformerBridgeConfig(d_model=32, d_head=8, n_layers=3, n_ctx=64, n_heads=4, d_vocab=50)
    for name in wanted.split():
        assert hasattr(theirs, name), "the list here is of their names"
        assert hasattr(llama.model.cfg, name)


def test_a_size_that_differs_between_layers_or_stacks_is_asked_for_more_exactly(configs: dict) -> None:
    with pytest.raises(InputError, match="window_size differs between the layers"):
        _ = configs["window"].window_size
    with pytest.raises(InputError, match=r"two stacks\. Ask cfg\.encoder or cfg\.decoder"):
        _ = configs["two_stacks"].n_layers
    assert configs["two_stacks"].encoder.n_layers == 3


def test_a_config_goes_through_plain_data_and_back(configs: dict) -> None:
    import json

    for config in configs.values():
        assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    data = configs["llama"].to_dict()
    data["decoder"]["blocks"][0]["attn"]["alibino"] = True
    with pytest.raises(CheckpointError, match="does not know: alibino"):
        ModelConfig.from_dict(data)


def test_configs_that_cannot_be_models_are_refused() -> None:
    with pytest.raises(InputError, match="6 query heads cannot share 4"):
        AttentionConfig(6, 8, 4, 1.0)
    attn = AttentionConfig(4, 8, 4, 1.0)
    with pytest.raises(InputError, match="needs a decoder, an encoder, or both"):
        ModelConfig(8, 9, 10)
    with pytest.raises(InputError, match="cross-attention needs"):
        BlockConfig(attn, MLPConfig(8), cross_attn=attn)
    with pytest.raises(InputError, match="parallel block needs an MLP"):
        BlockConfig(attn, None, residual="parallel")
    with pytest.raises(InputError, match=r"act_fn='swiglu'.*one of silu"):
        ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=2, d_vocab=9, n_ctx=8, act_fn="swiglu")


def test_cross_attention_without_an_encoder_is_refused_when_it_is_described(configs: dict) -> None:
    with pytest.raises(InputError):
        model = HookedTransformer(replace(configs["two_stacks"], encoder=None))
        model(torch.tensor([[1, 2]]))


def test_parallel_blocks_with_cross_attention_are_refused_and_not_run_as_sequential(configs: dict) -> None:
    with pytest.raises(InputError):
        replace(configs["two_stacks"].decoder.blocks[0], residual="parallel")


def test_decoder_only_is_llamas_layout_unless_told(configs: dict) -> None:
    sizes = {"n_layers": 2, "d_model": 16, "n_heads": 4, "d_vocab": 9, "n_ctx": 8}
    plain = ModelConfig.decoder_only(**sizes)
    assert (plain.d_head, plain.n_key_value_heads, plain.d_mlp, plain.rotary_dim) == (4, 4, 64, 4)
    assert ModelConfig.decoder_only(**sizes, d_mlp=0).attn_only
    learned = ModelConfig.decoder_only(**sizes, rotary=None)
    assert learned.decoder.learned_positions == 8 and learned.rotary_base is None
    for config in (plain, ModelConfig.decoder_only(**sizes, d_mlp=0), learned):
        assert torch.isfinite(HookedTransformer(config)(torch.tensor([1, 2, 3]))).all()


# ---- text ----


def test_text_becomes_what_the_metadata_says_and_prepend_bos_overrides(words: Callable, configs: dict) -> None:
    for add_bos in (False, True):
        model = HookedTransformer(configs["llama"], words(add_bos=add_bos))
        assert model.to_tokens("w1 w2").tolist() == [[1, 6, 7] if add_bos else [6, 7]]
        assert model.to_tokens("w1 w2", prepend_bos=True).tolist() == [[1, 6, 7]]
        assert model.to_tokens("w1 w2", prepend_bos=False).tolist() == [[6, 7]]
        assert model.to_tokens("<s> w1", prepend_bos=True).tolist() == [[1, 6]], "never twice"
        with torch.no_grad():
            assert torch.equal(model("w1 w2", prepend_bos=True), model(torch.tensor([[1, 6, 7]])))
            assert torch.equal(model("w1 w2"), model(model.to_tokens("w1 w2")))


def test_texts_become_rows_padded_at_the_side_asked_for(talker: HookedTransformer) -> None:
    texts = ["w1 w2 w3", "w4"]
    assert talker.to_tokens(texts).tolist() == [[6, 7, 8], [9, 0, 0]]
    assert talker.to_tokens(texts, padding_side="left").tolist() == [[6, 7, 8], [0, 0, 9]]
    assert talker.tokenize(texts).mask.tolist() == [[True] * 3, [True, False, False]]
    assert talker.tokenize(["w1", "w2"]).mask is None


def test_padding_needs_no_pad_token(words: Callable, configs: dict) -> None:
    model = HookedTransformer(configs["llama"], words(pad_id=None))
    with torch.no_grad():
        logits = model(["w1 w2 w3", "w4"])
        _close(logits[1, :1], model("w4")[0])


def test_tokens_become_text(talker: HookedTransformer) -> None:
    assert talker.to_string(torch.tensor([6, 7])) == "w1 w2"
    assert talker.to_string([6, 7]) == "w1 w2"
    assert talker.to_string(torch.tensor([[6, 7], [8, 9]])) == ["w1 w2", "w3 w4"]
    assert talker.to_str_tokens("w1 w2") == ["w1", "w2"]
    assert talker.to_str_tokens("w1 w2", prepend_bos=True) == ["<s>", "w1", "w2"]
    assert talker.to_str_tokens(torch.tensor([6, 1])) == ["w1", "<s>"]
    assert talker.to_str_tokens(torch.tensor([[6, 1]])) == ["w1", "<s>"]
    assert talker.to_str_tokens(["w1 w2", "w3"]) == [["w1", "w2"], ["w3"]]


def test_one_token_and_a_list_of_ids_become_text_too(talker: HookedTransformer) -> None:
    assert talker.to_string(torch.tensor(6)) == "w1"
    assert talker.to_str_tokens([6, 7]) == ["w1", "w2"]


def test_a_list_of_one_text_gives_a_list_of_one_as_transformer_lens_does(talker: HookedTransformer) -> None:
    assert talker.to_str_tokens(["w1 w2"]) == [["w1", "w2"]]


def test_a_single_token_is_one_token(talker: HookedTransformer) -> None:
    assert talker.to_single_token("w3") == 8
    assert talker.to_single_str_token(8) == "w3"
    with pytest.raises(InputError, match="is 2 tokens here, not one"):
        talker.to_single_token("w3 w4")


def test_a_chat_is_what_the_template_writes(talker: HookedTransformer) -> None:
    assert talker.chat("w1 w2").tolist() == [[1, 6, 7, 4]]
    messages = [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]
    assert talker.chat(messages, add_generation_prompt=False).tolist() == [[1, 6, 1, 7]]
    assert talker(talker.chat("w1")).shape == (1, 3, 50)


def test_a_model_without_a_tokenizer_takes_ids_only(llama: Any) -> None:
    calls = (
        lambda: llama.model("text"), lambda: llama.model(["a", "b"]), lambda: llama.model.to_tokens("a"),
        lambda: llama.model.to_string([1]), lambda: llama.model.to_str_tokens("a"), lambda: llama.model.chat("a"),
        lambda: llama.model.to_single_token("a"), lambda: llama.model.generate("a", 1),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(InputError, match="has no tokenizer"):
            call()


# ---- bad input ----


def test_an_empty_prompt_is_refused(talker: HookedTransformer) -> None:
    for text in ("", "  ", ["w1", ""]):
        with pytest.raises(InputError, match=r"The prompt '.*' is empty\. Give some text, or prepend_bos=True"):
            talker(text)
    for tokens in (torch.zeros(0, dtype=torch.long), torch.zeros(1, 0, dtype=torch.long), []):
        with pytest.raises(InputError, match="The prompt is empty"):
            talker(tokens)
    assert talker("", prepend_bos=True).shape == (1, 1, 50)


def test_a_prompt_longer_than_the_context_is_refused(talker: HookedTransformer) -> None:
    message = r"has 65 tokens; this model reads at most 64\. Shorten it"
    with pytest.raises(InputError, match=message):
        talker("w1 " * 65)
    with pytest.raises(InputError, match=message):
        talker(torch.ones(1, 65, dtype=torch.long))
    with pytest.raises(InputError, match=message):
        talker.to_tokens(["w1", "w1 " * 65])
    assert talker.to_tokens("w1 " * 65, truncate=True).shape == (1, 64)
    assert talker("w1 " * 64).shape == (1, 64, 50)


@pytest.mark.parametrize("wrong", [50, -1, 10**12, -(10**9)])
def test_token_ids_out_of_range_are_refused(llama: Any, wrong: int) -> None:
    with pytest.raises(InputError, match=rf"Token id {wrong} is outside this model's vocabulary, 0 to 49"):
        llama.model(torch.tensor([[1, wrong, 2]]))
    assert llama.model(torch.tensor([[0, 49]])).shape == (1, 2, 50)


@pytest.mark.parametrize(
    "wrong",
    [torch.rand(2, 3), torch.ones(2, 3, dtype=torch.bool), torch.rand(3).bfloat16(), [0.5, 1.0], [True, False]],
    ids=lambda x: str(getattr(x, "dtype", x)),
)
def test_ids_that_are_no_whole_numbers_are_refused(llama: Any, unchecked: None, wrong: Any) -> None:
    with pytest.raises(InputError, match=r"Token ids are whole numbers.*start_at_layer="):
        llama.model(wrong)


@pytest.mark.parametrize("shape", [(), (2, 3, 4), (1, 1, 1, 1)], ids=str)
def test_ids_of_another_number_of_axes_are_refused(llama: Any, shape: tuple, unchecked: None) -> None:
    with pytest.raises(InputError, match=r"come as \[pos\] or \[batch, pos\]; this tensor has shape"):
        llama.model(torch.ones(shape, dtype=torch.long))


@pytest.mark.parametrize(
    "wrong", [[[1, 2], [3]], None, {"a": 1}, [["a"]], [1, "a"], [10**30], pytest.param(object(), id="object")], ids=str
)
def test_what_is_neither_text_nor_ids_is_refused(talker: HookedTransformer, wrong: Any, unchecked: None) -> None:
    with pytest.raises(InputError):
        talker(wrong)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(3, 8), r"shape \(3, 8\); the tokens have \(3, 9\)"),
        (torch.ones(9), r"shape \(1, 9\); the tokens have \(3, 9\)"),
        (torch.ones(2, 9), r"shape \(2, 9\)"),
        (torch.ones(3, 9, 1), r"shape \(3, 9, 1\)"),
        (torch.full((3, 9), 2), "values other than 0"),
        (torch.full((3, 9), -1.0), "values other than 0"),
        (torch.full((3, 9), torch.nan), "values other than 0"),
        (torch.cat([torch.ones(2, 9), torch.zeros(1, 9)]), "Row 2 is all padding"),
    ],
    ids=["short", "flat", "rows", "axes", "two", "minus", "nan", "all padding"],
)
def test_masks_that_do_not_fit_are_refused(llama: Any, mask: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        llama(attention_mask=mask)
    with pytest.raises(InputError, match=message):
        llama.cached("q.0", attention_mask=mask)


@pytest.mark.parametrize(
    "mask",
    [torch.ones(3, 8), torch.ones(2, 9), torch.full((3, 9), 2), torch.cat([torch.ones(2, 9), torch.zeros(1, 9)])],
    ids=["short", "rows", "two", "all padding"],
)
def test_masks_that_do_not_fit_are_refused_when_resuming_too(llama: Any, mask: Tensor) -> None:
    resid = llama(stop_at_layer=1)
    with pytest.raises(InputError):
        llama.model(resid, start_at_layer=1, attention_mask=mask)


@pytest.mark.parametrize("layer", [4, -4, 99, 1.0, "1", None], ids=str)
def test_layers_that_are_not_there_are_refused(llama: Any, layer: Any, unchecked: None) -> None:
    if layer is not None:
        with pytest.raises(InputError, match=r"stop_at_layer is .*; this model has layers 0 to 2"):
            llama(stop_at_layer=layer)
        with pytest.raises(InputError, match=r"start_at_layer is .*; this model has layers 0 to 2"):
            llama.model(torch.zeros(1, 2, 32), start_at_layer=layer)


def test_stopping_before_the_start_is_refused(llama: Any) -> None:
    with pytest.raises(InputError, match="stop_at_layer 1 is before start_at_layer 2"):
        llama.model(torch.zeros(1, 2, 32), start_at_layer=2, stop_at_layer=1)


@pytest.mark.parametrize(
    ("resid", "message"),
    [
        (torch.zeros(1, 2, 31), "31 wide; this model's d_model is 32"),
        (torch.zeros(2, 32), r"takes a residual \[batch, pos, d_model\]; this is shape \(2, 32\)"),
        (torch.ones(1, 2, dtype=torch.long), "takes a residual"),
        (torch.zeros(1, 2, 32, dtype=torch.long), "takes a residual"),
        (torch.zeros(1, 2, 32, dtype=torch.float64), r"torch\.float64 on cpu; this model is torch\.float32"),
        (torch.zeros(1, 2, 32, device="meta"), r"on meta; this model is torch\.float32 on cpu"),
        ("text", "this is str"),
        ([[1, 2]], "this is list"),
    ],
    ids=["width", "axes", "tokens", "integers", "dtype", "device", "text", "list"],
)
def test_what_is_no_residual_of_this_model_is_refused(llama: Any, resid: Any, message: str, unchecked: None) -> None:
    with pytest.raises(InputError, match=message):
        llama.model(resid, start_at_layer=1)


def test_an_empty_residual_is_refused(llama: Any) -> None:
    for shape in ((0, 3, 32), (1, 0, 32)):
        with pytest.raises(InputError):
            llama.model(torch.zeros(shape), start_at_layer=1)


def test_a_residual_longer_than_the_context_is_refused(llama: Any) -> None:
    with pytest.raises(InputError, match="has 65 tokens; this model reads at most 64"):
        llama.model(torch.zeros(1, 65, 32), start_at_layer=1)


@pytest.mark.parametrize("side", ["middle", "", 1], ids=repr)
def test_an_unknown_padding_side_is_refused_for_text_and_for_ids(
    talker: HookedTransformer, side: Any, unchecked: None
) -> None:
    with pytest.raises(InputError, match=r"padding_side is .*Choose"):
        talker(["w1 w2", "w3"], padding_side=side)
    with pytest.raises(InputError, match=r"padding_side is .*Choose"):
        talker(torch.tensor([[6, 7], [8, 0]]), padding_side=side)


def test_a_two_stack_model_needs_its_decoders_text_and_others_take_none(two_stacks: Any, llama: Any) -> None:
    with pytest.raises(InputError, match="needs decoder_input="):
        two_stacks.model(two_stacks.tokens)
    with pytest.raises(InputError, match="takes no decoder_input"):
        llama(decoder_input=llama.tokens)
    with pytest.raises(InputError, match="Token id 50 is outside"):
        two_stacks.model(two_stacks.tokens, decoder_input=torch.tensor([[50]]))
    for name in ("blocks", "W_Q", "W_E", "ln_final"):
        with pytest.raises(InputError, match=r"two stacks\. Ask model\.encoder or model\.decoder"):
            getattr(two_stacks.model, name)


def test_texts_of_different_number_in_two_stacks_are_refused_in_plain_words(two_stacks: Any) -> None:
    with pytest.raises(InputError):
        two_stacks.model(two_stacks.tokens, decoder_input=two_stacks.options["decoder_input"][:2])


@torch.no_grad()
def test_backward_hooks_without_gradients_are_refused(llama: Any) -> None:
    with pytest.raises(HookError, match="gradients are off"):
        llama.model.run_with_hooks(llama.tokens, bwd_hooks=[("q.0", lambda grad, hook: grad)], return_type="loss")


def test_every_refusal_is_one_sentence_or_three_and_an_interp_error(talker: HookedTransformer, llama: Any) -> None:
    calls = (
        lambda: talker(""), lambda: talker("w1 " * 99), lambda: talker(torch.tensor([99])), lambda: talker([]),
        lambda: llama(stop_at_layer=9), lambda: llama(attention_mask=torch.ones(1, 1)), lambda: llama.cached("qq"),
        lambda: llama.hooked(("q.0", lambda x, hook: x[0])), lambda: llama.model.generate(llama.tokens, 99),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(InterpError) as caught:
            call()
        message = str(caught.value)
        assert 20 < len(message) < 300 and message.rstrip().endswith((".", ")")) and "Traceback" not in message


# ---- generation ----


@torch.no_grad()
def _greedy(model: HookedTransformer, row: Tensor, n: int) -> Tensor:
    """Argmax with a whole pass per token."""
    for _ in range(n):
        row = torch.cat([row, model(row[None])[0, -1].argmax()[None]])
    return row


def test_greedy_generation_equals_a_whole_pass_per_token(decoder: Any) -> None:
    got = decoder.model.generate(decoder.tokens, 12, do_sample=False)
    for row in range(3):
        assert torch.equal(got[row], _greedy(decoder.model, decoder.tokens[row], 12))
    assert torch.equal(decoder.model.generate(decoder.tokens, 12, temperature=0.0), got)
    assert torch.equal(decoder.model.generate(decoder.tokens, 12, top_k=1), got)
    assert torch.equal(decoder.model.generate(decoder.tokens, 12, top_p=1e-9), got)


def test_texts_of_different_length_generate_what_each_does_alone(talker: HookedTransformer) -> None:
    texts = ["w1 w2 w3 w4", "w5", "w6 w7"]
    together = talker.generate(texts, 8, do_sample=False, stop_at_eos=False)
    assert together == [talker.generate(text, 8, do_sample=False, stop_at_eos=False) for text in texts]
    assert all(after.startswith(before) for before, after in zip(texts, together, strict=True))


def test_ids_that_begin_with_the_pad_id_generate_what_each_row_does_alone(words: Callable, fresh: Callable) -> None:
    """In many checkpoints (GPT-2) one token is BOS, EOS and padding, and a prompt may begin with it."""
    model = fresh()
    model.tokenizer = words(bos_id=2, pad_id=2)
    tokens = torch.tensor([[2, 6, 7], [2, 8, 9]])
    together = model.generate(tokens, 6, do_sample=False, stop_at_eos=False)
    for row in range(2):
        alone = model.generate(tokens[row : row + 1], 6, do_sample=False, stop_at_eos=False)
        assert torch.equal(together[row], alone[0])


def _stops_after(model: HookedTransformer, eos: int, when: int) -> Any:
    """Standing hooks that make `eos` certain at one position and impossible elsewhere."""
    calls = itertools.count()

    def force(x: Tensor, hook: Any) -> Tensor:
        x[..., eos] = 1e4 if next(calls) == when else -1e4
        return x

    return model.hooks([("logits", force)])


def test_generation_stops_at_the_end_of_text(talker: HookedTransformer) -> None:
    with _stops_after(talker, 2, when=3):
        tokens = talker.generate(torch.tensor([[6, 7]]), 10, do_sample=False)
    assert tokens.shape == (1, 6) and int(tokens[0, -1]) == 2
    with _stops_after(talker, 2, when=3):
        assert talker.generate(torch.tensor([[6, 7]]), 10, do_sample=False, stop_at_eos=False).shape == (1, 12)
    with _stops_after(talker, 9, when=1):
        assert talker.generate(torch.tensor([[6, 7]]), 10, do_sample=False, eos_token_id=9).shape == (1, 4)
    with _stops_after(talker, 9, when=1):
        assert talker.generate(torch.tensor([[6, 7]]), 10, do_sample=False, eos_token_id=[8, 9]).shape[1] <= 4


@pytest.mark.parametrize("pad_id", [0, None])
def test_a_row_that_stopped_early_reads_in_a_batch_as_it_does_alone(
    words: Callable, fresh: Callable, pad_id: int | None
) -> None:
    model = fresh()
    model.tokenizer = words(pad_id=pad_id)
    texts = ["w1 w2", "w3 w4"]
    free = [model.generate(model.to_tokens(text), 8, do_sample=False, stop_at_eos=False)[0] for text in texts]
    stop = next(int(token) for token in free[0][2:9] if token not in free[1])  # only the first text says it
    alone = [model.generate(text, 8, do_sample=False, eos_token_id=stop) for text in texts]
    assert len(alone[0].split()) < len(alone[1].split()) == 10
    assert model.generate(texts, 8, do_sample=False, eos_token_id=stop) == alone


def test_the_same_seed_writes_the_same_and_another_does_not(llama: Any) -> None:
    one, same, other = (llama.model.generate(llama.tokens, 15, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)
    state = torch.get_rng_state()
    llama.model.generate(llama.tokens, 3)
    assert torch.equal(torch.get_rng_state(), state), "the process' own generator is left alone"


def test_what_comes_in_decides_what_comes_out_unless_told(talker: HookedTransformer) -> None:
    options: dict[str, Any] = {"do_sample": False, "stop_at_eos": False}
    text = talker.generate("w1 w2", 3, **options)
    assert isinstance(text, str) and text.startswith("w1 w2 ") and len(text.split()) == 5
    tokens = talker.generate(talker.to_tokens("w1 w2"), 3, **options)
    assert tokens.shape == (1, 5) and talker.to_string(tokens[0]) == text
    assert torch.equal(talker.generate("w1 w2", 3, return_type="tokens", **options), tokens)
    assert talker.generate(tokens[:, :2], 3, return_type="str", **options) == text
    assert talker.generate(["w1 w2"], 3, **options) == [text]
    assert talker.generate("w1", 2, prepend_bos=True, **options).startswith("<s> w1")


def test_sampling_keeps_to_the_top_tokens() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).expand(4000, -1)

    def drawn(**options: Any) -> Tensor:
        chosen = Sampling(**options).choose(logits, torch.Generator().manual_seed(0))
        return torch.bincount(chosen, minlength=4) / 4000

    assert_close(drawn(), torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.03, rtol=0)
    assert_close(drawn(top_k=2), torch.tensor([0.625, 0.375, 0, 0]), atol=0.03, rtol=0)
    assert_close(drawn(top_p=0.79), torch.tensor([0.625, 0.375, 0, 0]), atol=0.03, rtol=0)
    assert_close(drawn(top_p=0.81), torch.tensor([0.526, 0.316, 0.158, 0]), atol=0.03, rtol=0)
    assert drawn(top_p=0.01)[0] == 1 and drawn(top_k=1)[0] == 1 and drawn(temperature=0.0)[0] == 1
    assert drawn(top_k=99).gt(0).all() and drawn(top_p=1.0).gt(0).all()
    hot = torch.softmax(logits[0] / 2, -1)
    assert_close(drawn(temperature=2.0), hot, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"max_new_tokens": 0}, "room for 1 to 55"),
        ({"max_new_tokens": -2}, "max_new_tokens is -2"),
        ({"max_new_tokens": 56}, "after this prompt there is room for 1 to 55"),
    ],
    ids=str,
)
def test_bad_values_for_generation_are_refused_before_anything_runs(llama: Any, options: dict, message: str) -> None:
    ran: list[int] = []
    with (
        pytest.raises(InputError, match=message),
        llama.model.hooks([("embed", lambda x, hook: ran.append(1))]),
    ):
        llama.model.generate(llama.tokens, **options)
    assert not ran


def test_generation_to_the_end_of_the_context_works(llama: Any) -> None:
    assert llama.model.generate(llama.tokens, 55, do_sample=False).shape == (3, 64)


# ---- weights ----


def test_weights_have_the_papers_shapes_and_are_views(fresh: Callable) -> None:
    for name in ("llama", "gpt2"):
        model = fresh(name)
        kv, d_mlp = (2, 48) if name == "llama" else (4, 40)
        block = model.blocks[1]
        shapes = {
            "W_Q": (4, 32, 8), "W_K": (kv, 32, 8), "W_V": (kv, 32, 8), "W_O": (4, 8, 32),
            "b_Q": (4, 8), "b_K": (kv, 8), "b_V": (kv, 8), "b_O": (32,),
        }  # fmt: skip
        for weight, shape in shapes.items():
            assert getattr(block.attn, weight).shape == shape
            assert getattr(model, weight).shape == (model.cfg.n_layers, *shape)
            assert torch.equal(getattr(model, weight)[1], getattr(block.attn, weight))
        for weight, owner in (("W_Q", "q"), ("W_K", "k"), ("W_V", "v"), ("W_O", "o")):
            stored = getattr(block.attn, owner).weight
            assert getattr(block.attn, weight).untyped_storage().data_ptr() == stored.untyped_storage().data_ptr()
        for weight, shape in {"W_in": (32, d_mlp), "W_out": (d_mlp, 32), "b_in": (d_mlp,), "b_out": (32,)}.items():
            assert getattr(block.mlp, weight).shape == shape
            assert getattr(model, weight).shape == (model.cfg.n_layers, *shape)
        assert model.W_E.shape == (50, 32) and model.W_U.shape == (32, 50) and model.b_U.shape == (50,)
    assert fresh("llama").W_gate.shape == (3, 32, 48)
    assert fresh("gpt2").W_pos.shape == (64, 32)
    with pytest.raises(InputError, match="has no learned positions"):
        _ = fresh("llama").W_pos


@torch.no_grad()
@pytest.mark.parametrize(
    "weight", ["attn.W_Q", "attn.W_K", "attn.W_V", "attn.W_O", "mlp.W_in", "mlp.W_out", "mlp.W_gate"]
)
def test_a_change_through_a_view_changes_the_model(fresh: Callable, llama: Any, weight: str) -> None:
    model = fresh()
    before = model(llama.tokens)
    part, name = weight.split(".")
    getattr(getattr(model.blocks[1], part), name)[0].zero_()
    after = model(llama.tokens)
    assert (after - before).abs().amax() > 1e-3
    if name == "W_O":
        expected = llama.hooked(("z.1", lambda x, hook: x.index_fill(2, torch.tensor([0]), 0.0)))
        _close(after, expected)


def test_parts_without_biases_show_zeros(llama: Any) -> None:
    assert not llama.model.b_Q.any() and not llama.model.b_out.any() and not llama.model.b_U.any()


def test_stacked_weights_of_unlike_layers_are_refused(configs: dict) -> None:
    stack = configs["llama"].decoder
    narrow = replace(stack.blocks[0], mlp=MLPConfig(8))
    model = HookedTransformer(replace(configs["llama"], decoder=replace(stack, blocks=(stack.blocks[0], narrow))))
    assert model.W_Q.shape[0] == 2
    with pytest.raises(InputError, match=r"differ in shape\. Ask model\.blocks\[layer\]"):
        _ = model.W_in


def test_the_weights_are_raw(smollm2: Any) -> None:
    """Nothing folded, nothing centred: gains are not ones, the stream is not mean-free."""
    gains = smollm2.blocks[0].ln1.gain.detach()
    assert float((gains - 1).abs().max()) > 0.1
    assert float(smollm2.W_E.detach().mean(-1).abs().max()) > 1e-4
    assert smollm2.unembed.weight is smollm2.decoder.embed.weight
    assert smollm2.blocks[0].attn.W_Q.shape == (9, 576, 64) and smollm2.blocks[0].attn.W_K.shape == (3, 576, 64)


def _weights(model: HookedTransformer) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@torch.no_grad()
def test_a_model_over_given_weights_uses_them_as_they_lie(case: Any) -> None:
    weights = _weights(case.model)
    model = HookedTransformer.from_weights(case.model.cfg, weights)
    assert torch.equal(model(case.tokens, **case.options), case())
    assert all(p.data_ptr() == weights[name].data_ptr() for name, p in model.named_parameters())
    assert not model.training


@torch.no_grad()
def test_given_weights_may_be_converted(llama: Any) -> None:
    model = HookedTransformer.from_weights(llama.model.cfg, _weights(llama.model), dtype=torch.float64)
    assert model.dtype == torch.float64 and llama.model.dtype == torch.float32
    _close(model(llama.tokens).float(), llama(), 1e-4)


def test_the_documented_names_are_the_parameters_names(llama: Any) -> None:
    names = set(_weights(llama.model))
    block = {"ln1.w", "ln2.w", *(f"attn.{x}.weight" for x in "qkvo")}
    block |= {f"mlp.{x}.weight" for x in ("gate", "up", "down")}
    expected = {f"decoder.blocks.{layer}.{name}" for layer in range(3) for name in block}
    assert names == expected | {"decoder.embed.weight", "decoder.ln_final.w", "unembed.weight"}


def test_weights_that_do_not_fit_the_config_are_refused(llama: Any, gpt2: Any) -> None:
    cfg, weights = llama.model.cfg, _weights(llama.model)
    missing = {name: x for name, x in weights.items() if name != "decoder.blocks.1.attn.q.weight"}
    with pytest.raises(CheckpointError, match=r"lacks decoder\.blocks\.1\.attn\.q\.weight"):
        HookedTransformer.from_weights(cfg, missing)
    with pytest.raises(CheckpointError, match=r"holds decoder\.blocks\.0\.attn\.q\.bias, which this architecture"):
        HookedTransformer.from_weights(cfg, {**weights, "decoder.blocks.0.attn.q.bias": torch.zeros(32)})
    name = "decoder.blocks.0.attn.k.weight"
    with pytest.raises(CheckpointError, match=r"attn\.k\.weight has shape \(32, 32\).*config says \(16, 32\)"):
        HookedTransformer.from_weights(cfg, {**weights, name: torch.zeros(32, 32)})
    with pytest.raises(CheckpointError, match=r"lacks .* and holds"):
        HookedTransformer.from_weights(cfg, _weights(gpt2.model))


def test_tied_embeddings_are_one_tensor_everywhere(fresh: Callable) -> None:
    model = fresh("gpt2")
    assert model.unembed.weight is model.decoder.embed.weight
    assert "unembed.weight" not in _weights(model)
    again = HookedTransformer.from_weights(model.cfg, _weights(model))
    assert again.unembed.weight is again.decoder.embed.weight
    assert model.to(torch.float64).unembed.weight is model.decoder.embed.weight
    both = copy.deepcopy(model)
    assert both.unembed.weight is both.decoder.embed.weight
    assert both.unembed.weight is not model.unembed.weight


def test_the_same_seed_makes_the_same_model(configs: dict) -> None:
    for name in ("llama", "gpt2", "two_stacks"):
        one, same, other = (HookedTransformer(configs[name], seed=seed) for seed in (0, 0, 1))
        equal = [torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True)]
        assert all(equal)
        assert not torch.equal(one.unembed.weight, other.unembed.weight)
    state = torch.get_rng_state()
    HookedTransformer(configs["gpt2"])
    assert torch.equal(torch.get_rng_state(), state)


def test_plain_torch_trains_it(fresh: Callable, llama: Any) -> None:
    for name in ("llama", "gpt2"):
        model = fresh(name)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        before = model(llama.tokens, return_type="loss")
        before.backward()
        assert all(p.grad is not None and p.grad.any() for n, p in model.named_parameters() if ".k.bias" not in n)
        optimizer.step()
        assert model(llama.tokens, return_type="loss") < before - 0.01


@torch.no_grad()
def test_state_dicts_copies_and_dtypes_are_torchs_own(fresh: Callable, llama: Any) -> None:
    model, other = fresh(), fresh(seed=5)
    assert not torch.equal(model(llama.tokens), other(llama.tokens))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(llama.tokens), other(llama.tokens))
    assert torch.equal(copy.deepcopy(model)(llama.tokens), model(llama.tokens))
    assert model.to(torch.float64)(llama.tokens).dtype == torch.float64


# ---- the real model ----


def test_what_transformer_lens_users_type_works_on_smollm2(smollm2: Any) -> None:
    import interp

    text = "The cat sat on the"
    tokens = smollm2.to_tokens(text)
    assert smollm2.to_string(tokens[0]) == text, "SmolLM2's metadata says: no BOS"
    assert smollm2.to_str_tokens(text) == ["The", " cat", " sat", " on", " the"]
    assert smollm2.to_tokens(text, prepend_bos=True).shape[1] == tokens.shape[1] + 1
    assert isinstance(smollm2.to_single_token(" cat"), int)
    with torch.no_grad():
        loss = smollm2(text, return_type="loss")
        assert 1 < float(loss) < 8
        _, cache = smollm2.run_with_cache(text, names_filter=[interp.get_act_name("pattern", 5)])
        assert cache["pattern", 5].shape == (1, 9, 5, 5)
        assert smollm2.run_with_hooks(
            text, fwd_hooks=[("blocks.3.attn.hook_z", lambda z, hook: 0 * z)], return_type="loss"
        ) != pytest.approx(float(loss))
    assert smollm2.generate(text, 4, do_sample=False).startswith(text)
    said = smollm2.to_string(smollm2.chat("Hi")[0])
    assert said.count("<|im_start|>") >= 2 and "Hi<|im_end|>" in said
    assert "smol" in smollm2.cfg.model_name.lower() and smollm2.cfg.family == "llama"


def test_from_pretrained_is_load(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.families import load as module

    seen: list[Any] = []
    monkeypatch.setattr(module, "load", lambda name, **options: seen.append((name, options)) or "a model")
    assert HookedTransformer.from_pretrained("smollm2-135m", dtype="float64") == "a model"
    assert seen == [("smollm2-135m", {"dtype": "float64"})]


def test_norms_and_stacks_may_be_left_out() -> None:
    attn = AttentionConfig(2, 4, 2, 0.5)
    block = BlockConfig(attn, None, NormConfig("none"))
    model = HookedTransformer(ModelConfig(8, 9, 10, decoder=StackConfig((block,), None)))
    assert model.sites.names[:2] == ["hook_embed", "blocks.0.hook_resid_pre"]
    assert not [name for name in model.sites.names if "ln" in name]
    assert model.ln_final is model.decoder.ln_final and model.embed is model.decoder.embed


@pytest.mark.parametrize("kind", ["T5", "Bart"])
@torch.no_grad()
def test_two_stacks_generate_what_full_passes_would_say(kind: str) -> None:
    import transformers

    sizes: dict[str, Any] = {
        "T5": {"d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
        "Bart": {
            **{f"{stack}_{name}": n for stack in ("encoder", "decoder") for name, n in
               (("layers", 2), ("attention_heads", 2), ("ffn_dim", 24))},
            "max_position_embeddings": 32,
        },
    }  # fmt: skip
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=40, d_model=16, pad_token_id=1, decoder_start_token_id=2, **sizes[kind]
    )
    model = interp.load(getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval())
    source = torch.randint(5, 40, (2, 7), generator=torch.Generator().manual_seed(3))
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
    got = model.generate(source, 6, do_sample=False, decoder_input=[[2], [2]], attention_mask=mask)
    want = torch.tensor([[2], [2]])
    for _ in range(6):
        logits = model(source, decoder_input=want, attention_mask=mask)
        want = torch.cat([want, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(got, want)
    memory = model.encode(source, attention_mask=mask)
    first, keys = model.extend(want[:, :3], memory=memory)
    rest, _ = model.extend(want[:, 3:], past=keys, memory=memory)
    torch.testing.assert_close(
        torch.cat([first, rest], dim=1), model(source, decoder_input=want, attention_mask=mask), atol=1e-5, rtol=1e-5
    )
    sampled = [model.generate(source, 4, decoder_input=[[2], [2]], seed=seed) for seed in (1, 1)]
    assert torch.equal(*sampled)
    for call, words in (
        (lambda: model.generate(source, 2), "needs decoder_input="),
        (lambda: model.extend(want), r"needs memory=model\.encode"),
        (lambda: model.extend(want[:1], memory=memory), "of 2 texts and the decoder gets 1"),
    ):
        with pytest.raises(InputError, match=words):
            call()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"token_type_ids": 1}, "no token_type_ids.*type 0"),
        ({"decoder_attention_mask": 1}, "no decoder_attention_mask.*brings its own mask"),
        ({"frobnicate": 1}, "no frobnicate.*keywords are return_type"),
    ],
)
def test_keywords_of_other_libraries_say_what_does_the_same(options: dict[str, Any], words: str) -> None:
    model = HookedTransformer(ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=2, d_vocab=9, n_ctx=8))
    for call in (model, model.run_with_cache, model.run_with_hooks):
        with pytest.raises(InputError, match=words):
            call(torch.tensor([[1, 2]]), **options)


def test_a_call_without_input_says_what_to_give() -> None:
    model = HookedTransformer(ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=2, d_vocab=9, n_ctx=8))
    with pytest.raises(InputError, match=r"nothing to run\. Give text"):
        model()
