"""A pass made in pieces equals the pass made whole: at any layer, after any tokens, for any positions and tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from interp.errors import InputError
from interp.model.block import Memory
from interp.model.passes import Pass, prepare
from interp.model.positions import KeyValues
from interp.model.taps import NO_TAPS
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer

LEFT = torch.tensor([[1] * 9, [0] * 3 + [1] * 6, [0] * 8 + [1]]).bool()


def _close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


# ---- layers ----


@torch.no_grad()
def test_a_pass_started_at_any_layer_from_its_residual_ends_as_the_whole_pass(case: Any) -> None:
    if case.main:
        pytest.skip("a decoder needs the encoder's memory: tested below")
    logits, cache = case.cached(lambda name: name.endswith("hook_resid_pre"))
    for layer in range(case.n_layers):
        resid = cache["resid_pre", layer]
        assert torch.equal(case.model(resid, start_at_layer=layer), logits)
        assert torch.equal(case.model(resid, start_at_layer=layer - case.n_layers), logits)


@torch.no_grad()
def test_a_pass_stopped_at_any_layer_gives_the_residual_entering_it(case: Any) -> None:
    _, cache = case.cached(lambda name: name.endswith(("hook_resid_pre", "hook_resid_post")))
    for layer in range(case.n_layers):
        resid = case(stop_at_layer=layer)
        assert torch.equal(resid, cache[f"{case.main}blocks.{layer}.hook_resid_pre"])
        assert torch.equal(resid, case(stop_at_layer=layer - case.n_layers))
    end = case(stop_at_layer=case.n_layers)
    assert torch.equal(end, cache[f"{case.main}blocks.{case.n_layers - 1}.hook_resid_post"])


@torch.no_grad()
def test_two_halves_make_the_whole_at_every_cut(decoder: Any) -> None:
    whole = decoder()
    for layer in range(decoder.n_layers + 1):
        resid = decoder(stop_at_layer=layer)
        assert torch.equal(decoder.model(resid, start_at_layer=layer), whole)


@torch.no_grad()
def test_a_middle_piece_runs_its_layers_and_no_other(llama: Any) -> None:
    resid, end = llama(stop_at_layer=1), llama(stop_at_layer=2)
    assert torch.equal(llama.model(resid, start_at_layer=1, stop_at_layer=2), end)
    assert torch.equal(llama.model(resid, start_at_layer=1, stop_at_layer=1), resid)
    _, cache = llama.model.run_with_cache(resid, start_at_layer=1, stop_at_layer=2)
    assert {name.split(".")[1] for name in cache} == {"1"}


@torch.no_grad()
def test_a_resumed_pass_reads_and_edits_like_a_whole_one(llama: Any) -> None:
    whole, everything = llama.cached()
    resid = llama(stop_at_layer=1)
    logits, cache = llama.model.run_with_cache(resid, start_at_layer=1)
    assert torch.equal(logits, whole)
    assert "blocks.0.attn.hook_q" not in cache and "hook_embed" not in cache
    for name in cache:
        _close(cache[name].nan_to_num(neginf=-9), everything[name].nan_to_num(neginf=-9))
    twice = [("z.2", lambda x, hook: 2 * x)]
    assert torch.equal(llama.model.run_with_hooks(resid, fwd_hooks=twice, start_at_layer=1), llama.hooked(twice[0]))


@torch.no_grad()
def test_a_resumed_pass_needs_the_mask_again_and_then_equals_the_whole(decoder: Any) -> None:
    whole = decoder(attention_mask=LEFT)
    resid = decoder(attention_mask=LEFT, stop_at_layer=1)
    again = decoder.model(resid, start_at_layer=1, attention_mask=LEFT)
    assert torch.equal(again[LEFT], whole[LEFT])
    without = decoder.model(resid, start_at_layer=1)
    assert not torch.equal(without[LEFT], whole[LEFT]), "or the mask would not matter in this test"


def test_the_loss_of_a_resumed_pass_takes_the_tokens_it_predicts(llama: Any) -> None:
    resid = llama(stop_at_layer=2)
    loss = llama.model(resid, start_at_layer=2, return_type="loss", tokens=llama.tokens)
    assert_close(loss, llama(return_type="loss"))
    with pytest.raises(InputError, match="Give them as tokens="):
        llama.model(resid, start_at_layer=2, return_type="loss")


# ---- keys and values ----


def _step_by_step(case: Any, tokens: Tensor, sizes: list[int], mask: Tensor | None = None) -> tuple[Tensor, KeyValues]:
    logits, past, at = [], None, 0
    for size in sizes:
        part = None if mask is None else mask[:, at : at + size]
        piece, past = case.model.extend(tokens[:, at : at + size], past=past, attention_mask=part)
        assert past.n_keys == at + size
        logits.append(piece)
        at += size
    assert past is not None
    return torch.cat(logits, dim=1), past


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[1] * 9, [4, 5], [2, 3, 1, 3], [8, 1], [1, 8], [9]], ids=str)
def test_tokens_read_in_chunks_give_the_logits_of_one_pass(decoder: Any, sizes: list[int]) -> None:
    whole = decoder()
    logits, past = _step_by_step(decoder, decoder.tokens, sizes)
    _close(logits, whole)
    assert sorted(past.layers) == list(range(decoder.n_layers))


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[4, 1, 1, 1, 1, 1], [4, 5], [7, 1, 1]], ids=str)
def test_left_padded_rows_read_in_chunks_give_the_logits_of_one_pass(decoder: Any, sizes: list[int]) -> None:
    mask = torch.tensor([[1] * 9, [0] * 3 + [1] * 6, [0] + [1] * 8]).bool()
    whole = decoder(attention_mask=mask)
    logits, past = _step_by_step(decoder, decoder.tokens, sizes, mask)
    _close(logits[mask], whole[mask])
    assert past.key_mask is not None and torch.equal(past.key_mask, mask)
    assert torch.isfinite(logits).all()


@torch.no_grad()
def test_after_a_padded_prompt_new_tokens_need_no_mask(decoder: Any) -> None:
    more = decoder.tokens[:, :4]
    _, past = decoder.model.extend(decoder.tokens, attention_mask=LEFT)
    logits, later = decoder.model.extend(more, past=past)
    mask = torch.cat([LEFT, torch.ones(3, 4, dtype=torch.bool)], dim=1)
    whole = decoder.model(torch.cat([decoder.tokens, more], dim=1), attention_mask=mask)
    _close(logits, whole[:, 9:])
    assert torch.equal(later.key_mask, mask)
    over_all, _ = decoder.model.extend(more, past=past, attention_mask=mask)  # a mask over stored tokens too
    _close(over_all, logits)


@torch.no_grad()
def test_a_mask_that_begins_after_stored_tokens_holds_for_the_new_ones(decoder: Any) -> None:
    _, past = decoder.model.extend(decoder.tokens[:, :5])
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]]).bool()
    logits, _ = decoder.model.extend(decoder.tokens[:, 5:], past=past, attention_mask=mask)
    whole_mask = torch.cat([torch.ones(3, 5, dtype=torch.bool), mask], dim=1)
    whole = decoder(attention_mask=whole_mask)
    _close(logits[mask], whole[:, 5:][mask])


@torch.no_grad()
def test_stored_keys_cut_short_go_on_from_there(decoder: Any) -> None:
    _, past = decoder.model.extend(decoder.tokens)
    for pos in (0, 1, 6, 9):
        cut = past.upto(pos)
        assert cut.n_keys == pos
        logits, _ = decoder.model.extend(decoder.other.tokens[:, :3], past=cut)
        whole = decoder.model(torch.cat([decoder.tokens[:, :pos], decoder.other.tokens[:, :3]], dim=1))
        _close(logits, whole[:, pos:])
    assert past.n_keys == 9 and next(iter(past.layers.values()))[0].shape[1] == 9, "the long one stays"


@torch.no_grad()
def test_stored_keys_cut_short_keep_their_padding(decoder: Any) -> None:
    _, past = decoder.model.extend(decoder.tokens, attention_mask=LEFT)
    cut = past.upto(5)
    logits, _ = decoder.model.extend(decoder.tokens[:2, 5:], past=cut.select(torch.tensor([0, 1])))
    _close(logits, decoder.model(decoder.tokens[:2], attention_mask=LEFT[:2])[:, 5:])


@torch.no_grad()
def test_rows_of_stored_keys_may_be_chosen_and_repeated(decoder: Any) -> None:
    _, past = decoder.model.extend(decoder.tokens[:, :6], attention_mask=LEFT[:, 3:])
    rows = torch.tensor([2, 0, 0, 1])
    logits, _ = decoder.model.extend(decoder.tokens[rows, 6:], past=past.select(rows))
    whole = decoder(attention_mask=torch.cat([LEFT[:, 3:], torch.ones(3, 3, dtype=torch.bool)], 1))
    _close(logits, whole[rows, 6:])


@torch.no_grad()
def test_one_stored_prompt_serves_a_batch_of_continuations(decoder: Any) -> None:
    prompt, ends = decoder.tokens[:1, :5], decoder.tokens[:, 5:]
    _, past = decoder.model.extend(prompt)
    logits, later = decoder.model.extend(ends, past=past)
    whole = decoder.model(torch.cat([prompt.expand(3, -1), ends], dim=1))
    _close(logits, whole[:, 5:])
    assert later.layers[0][0].shape[0] == 3


@torch.no_grad()
def test_one_stored_padded_prompt_serves_a_batch(decoder: Any) -> None:
    prompt, mask = decoder.tokens[:1, :5], torch.tensor([[0, 0, 1, 1, 1]]).bool()
    _, past = decoder.model.extend(prompt, attention_mask=mask)
    ends = decoder.tokens[:, 5:]
    logits, _ = decoder.model.extend(ends, past=past)
    whole_mask = torch.cat([mask.expand(3, -1), torch.ones(3, 4, dtype=torch.bool)], 1)
    whole = decoder.model(torch.cat([prompt.expand(3, -1), ends], dim=1), attention_mask=whole_mask)
    _close(logits, whole[:, 5:])


@torch.no_grad()
def test_forward_itself_goes_on_after_stored_keys(llama: Any) -> None:
    _, past = llama.model.extend(llama.tokens[:, :4])
    whole = llama()
    _close(llama.model(llama.tokens[:, 4:], past_kv=past), whole[:, 4:])
    loss = llama.model(llama.tokens[:, 4:], past_kv=past, return_type="loss", loss_per_token=True)
    _close(loss, llama(return_type="loss", loss_per_token=True)[:, 4:])


@torch.no_grad()
def test_a_pass_may_start_in_the_middle_of_both_layers_and_positions(llama: Any) -> None:
    """What exact patching does: later positions of later layers only."""
    _, past = llama.model.extend(llama.tokens)
    whole, cache = llama.cached("resid_pre.1")
    resid = cache["resid_pre.1"][:, 5:]
    _close(llama.model(resid, start_at_layer=1, past_kv=past.upto(5)), whole[:, 5:])
    only_later = KeyValues({1: past.layers[1], 2: past.layers[2]}, 9).upto(5)
    _close(llama.model(resid, start_at_layer=1, past_kv=only_later), whole[:, 5:])
    with pytest.raises(InputError, match=r"hold no layer 0 \(they hold 1, 2\)"):
        llama.model(llama.tokens[:, 5:], past_kv=only_later)


@torch.no_grad()
def test_reading_after_stored_keys_gives_the_same_tensors(decoder: Any) -> None:
    _, everything = decoder.cached()
    _, past = decoder.model.extend(decoder.tokens[:, :5])
    _, cache = decoder.model.run_with_cache(decoder.tokens[:, 5:], past_kv=past)
    for site in decoder.model.sites:
        expected = everything[site]
        axis = next(i for i, name in enumerate(site.axes) if name in ("pos", "q_pos"))
        expected = expected.narrow(axis, 5, 4)
        finite = torch.isfinite(expected)
        assert cache[site].shape == expected.shape, site
        assert torch.equal(torch.isfinite(cache[site]), finite), site
        _close(cache[site][finite], expected[finite])


@torch.no_grad()
def test_keys_that_a_hook_changed_are_the_ones_stored(llama: Any) -> None:
    with llama.model.hooks([("v.1", lambda x, hook: 2 * x)]):
        _, edited = llama.model.extend(llama.tokens)
    _, plain = llama.model.extend(llama.tokens)
    _close(edited.layers[1][1], 2 * plain.layers[1][1])
    assert torch.equal(edited.layers[0][1], plain.layers[0][1])


@torch.no_grad()
def test_bad_cuts_and_bad_options_are_refused(llama: Any) -> None:
    _, past = llama.model.extend(llama.tokens)
    for pos in (-1, 10):
        with pytest.raises(InputError, match=f"Cannot keep {pos} of 9 stored keys"):
            past.upto(pos)
    with pytest.raises(InputError, match="extend takes no return_type"):
        llama.model.extend(llama.tokens, return_type="loss")
    with pytest.raises(InputError, match="has 65 tokens; this model reads at most 64"):
        full = llama.model.extend(torch.zeros(1, 64, dtype=torch.long))[1]
        llama.model.extend(llama.tokens[:1, :1], past=full)


@torch.no_grad()
def test_stored_keys_of_another_number_of_rows_are_refused_in_plain_words(llama: Any) -> None:
    _, past = llama.model.extend(llama.tokens)
    with pytest.raises(InputError):
        llama.model.extend(llama.tokens[:2], past=past)


# ---- chosen positions and tokens ----


@torch.no_grad()
def test_chosen_positions_and_tokens_are_slices_of_all_logits(case: Any) -> None:
    whole = case()
    for pos in ([0], [-1], [2, 0, -2], torch.tensor([1, 1])):
        _close(case(unembed_pos=pos), whole[:, pos])
    for tokens in ([0], [49, 3, 3], torch.tensor([7])):
        _close(case(unembed_tokens=tokens), whole[:, :, tokens])
    _close(case(unembed_pos=[-1, 0], unembed_tokens=[5, 1]), whole[:, [-1, 0]][:, :, [5, 1]])


@torch.no_grad()
def test_extend_takes_chosen_positions_and_tokens_too(llama: Any) -> None:
    whole = llama()
    logits, _ = llama.model.extend(llama.tokens, unembed_pos=[-1], unembed_tokens=[4, 2])
    _close(logits, whole[:, [-1]][:, :, [4, 2]])


@torch.no_grad()
@pytest.mark.parametrize("pos", [[9], [-10], [0, 30], [0.5], [], [[0]]], ids=str)
def test_positions_outside_the_text_are_refused(llama: Any, unchecked: None, pos: Any) -> None:
    with pytest.raises(InputError, match=r"Give a list of positions from -9 to 8"):
        llama(unembed_pos=pos)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [[50], [-1], [0.5], []], ids=str)
def test_tokens_outside_the_vocabulary_are_refused(llama: Any, unchecked: None, tokens: Any) -> None:
    with pytest.raises(InputError):
        llama(unembed_tokens=tokens)


@torch.no_grad()
def test_a_square_of_tokens_to_unembed_is_refused_and_not_cut_to_its_first_row(llama: Any) -> None:
    with pytest.raises(InputError):
        llama(unembed_tokens=torch.tensor([[1, 2], [3, 4]]))


@torch.no_grad()
def test_a_loss_of_chosen_logits_is_refused(llama: Any) -> None:
    with pytest.raises(InputError, match="A loss needs all logits"):
        llama(return_type="loss", unembed_pos=[-1])
    with pytest.raises(InputError, match="A loss needs all logits"):
        llama(return_type="both", unembed_tokens=[1])


@torch.no_grad()
def test_a_cache_of_chosen_logits_holds_them_as_they_are(llama: Any) -> None:
    logits, cache = llama.cached(unembed_pos=[-1], unembed_tokens=[4, 2])
    assert torch.equal(cache["logits"], logits)


@torch.no_grad()
def test_chosen_logits_and_chosen_positions_go_together(llama: Any) -> None:
    """pos_slice is about positions of the text; the logits of one position are not cut again."""
    logits, cache = llama.cached(["logits", "resid_post.2"], unembed_pos=[-1], pos_slice=[3, -1])
    assert cache["resid_post.2"].shape[1] == 2
    assert torch.equal(cache["logits"], logits)


# ---- an encoder's memory ----


def _decode(case: Any, memory: Memory, tokens: Tensor, **options: Any) -> tuple[Tensor, Pass]:
    job = Pass(decoder=Batch(tokens), memory=memory, **options)
    return case.model.run(job), job


@torch.no_grad()
def test_one_encoding_serves_many_decoder_passes(two_stacks: Any) -> None:
    memory = two_stacks.model.encode(two_stacks.tokens)
    assert memory.resid.shape == (3, 9, 32)
    logits, _ = _decode(two_stacks, memory, two_stacks.options["decoder_input"])
    assert torch.equal(logits, two_stacks())
    other = two_stacks.other.options["decoder_input"]
    again, _ = _decode(two_stacks, memory, other)
    assert torch.equal(again, two_stacks.model(two_stacks.tokens, decoder_input=other))


@torch.no_grad()
def test_the_memory_is_the_encoders_normed_output(two_stacks: Any) -> None:
    _, cache = two_stacks.cached()
    norm = two_stacks.model.encoder.ln_final
    expected = cache["encoder.ln_final.hook_normalized"] * norm.gain + norm.b
    _close(two_stacks.model.encode(two_stacks.tokens).resid, expected)
    cross = two_stacks.model.decoder.blocks[0].cross_attn
    keys = torch.einsum("bpm,hmd->bphd", expected, cross.W_K) + cross.b_K
    _close(cache["decoder.blocks.0.cross_attn.hook_k"], keys)


@torch.no_grad()
def test_a_masked_encoding_is_the_encoding_of_the_shorter_text(two_stacks: Any) -> None:
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3, [1] * 4 + [0] * 5]).bool()
    logits = two_stacks(attention_mask=mask)
    memory = two_stacks.model.encode(two_stacks.tokens, attention_mask=mask)
    same, _ = _decode(two_stacks, memory, two_stacks.options["decoder_input"])
    assert torch.equal(same, logits)
    for row, length in enumerate((9, 6, 4)):
        alone = two_stacks.model(
            two_stacks.tokens[row : row + 1, :length],
            decoder_input=two_stacks.options["decoder_input"][row : row + 1],
        )
        _close(logits[row], alone[0])


@torch.no_grad()
def test_a_decoder_goes_on_token_by_token_over_one_memory(two_stacks: Any) -> None:
    whole, tokens = two_stacks(), two_stacks.options["decoder_input"]
    memory, past, logits = two_stacks.model.encode(two_stacks.tokens), None, []
    for pos in range(tokens.shape[1]):
        piece, job = _decode(two_stacks, memory, tokens[:, pos : pos + 1], past=past, keep_keys=True)
        logits.append(piece)
        past = job.keys
    _close(torch.cat(logits, dim=1), whole)


@torch.no_grad()
def test_a_decoder_starts_at_any_layer_over_one_memory(two_stacks: Any) -> None:
    whole, cache = two_stacks.cached(lambda name: name.endswith("hook_resid_pre"))
    memory = two_stacks.model.encode(two_stacks.tokens)
    for layer in range(2):
        job = Pass(resid=cache[f"decoder.blocks.{layer}.hook_resid_pre"], memory=memory, start=layer)
        assert torch.equal(two_stacks.model.run(job), whole)


@torch.no_grad()
def test_starting_a_decoder_without_its_memory_is_refused_in_plain_words(two_stacks: Any) -> None:
    with pytest.raises(InputError):
        two_stacks.model(torch.zeros(1, 4, 32), start_at_layer=1)


def test_only_two_stacks_can_encode_apart(llama: Any, encoder: Any) -> None:
    for case in (llama, encoder):
        with pytest.raises(InputError, match="Only a model with an encoder and a decoder"):
            case.model.encode(case.tokens)


# ---- passes ----


@torch.no_grad()
def test_a_prepared_pass_tells_what_it_did(llama: Any) -> None:
    job = prepare(llama.model, llama.tokens)
    job.keep_keys, job.unembed_pos = True, [-1]
    logits = llama.model.run(job)
    _close(logits, llama()[:, -1:])
    assert job.n_tokens == 9 and job.keys is not None and job.keys.n_keys == 9
    assert torch.equal(job.rows[""].positions, torch.arange(9)[None])
    k, v = job.keys.layers[1]
    _, cache = llama.cached(["rot_k.1", "v.1"])
    assert torch.equal(k, cache["rot_k.1"]) and torch.equal(v, cache["v.1"])


@torch.no_grad()
def test_rows_of_a_pass_may_be_chosen(llama: Any) -> None:
    """What the engine does: many edits of few prompts in one batch."""
    rows = torch.tensor([2, 0, 0])
    job = prepare(llama.model, llama.tokens, attention_mask=LEFT)
    whole = llama.model.run(job)
    stack = llama.model.main
    chosen = job.rows[""].select(rows)
    resid = llama(attention_mask=LEFT, stop_at_layer=1)[rows]
    out, _ = stack(resid, chosen, NO_TAPS, start=1)
    logits = llama.model.logits(stack.finish(out, NO_TAPS))
    _close(logits[LEFT[rows]], whole[rows][LEFT[rows]])


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "window", "gpt2", "interleaved", "softcap"])
def test_chosen_queries_see_the_keys_they_see_among_all(name: str, configs: Any) -> None:
    """Rows.at: some queries, all keys."""
    model = HookedTransformer(configs[name])
    tokens = torch.arange(18).reshape(2, 9)
    mask = torch.tensor([[1] * 9, [0, 0] + [1] * 7]).bool()
    pos = torch.tensor([2, 5, 8])
    for given in (None, mask):
        job = prepare(model, tokens, attention_mask=given)
        model.run(job)
        rows, attn = job.rows[""], model.blocks[0].attn
        seen = rows.mask(attn.config, 9)
        assert seen is not None
        at = rows.at(pos).mask(attn.config, 3)
        assert torch.equal(at, seen[:, :, pos])
        again = rows.at(pos).at(torch.tensor([2, 0]))
        assert torch.equal(again.mask(attn.config, 2), seen[:, :, [8, 2]])
        assert torch.equal(rows.at(pos).positions, rows.positions[:, pos])


# ---- the real model ----


@torch.no_grad()
def test_pieces_make_the_whole_on_smollm2(smollm2: Any) -> None:
    tokens = smollm2.to_tokens("The quick brown fox jumps over the lazy dog")
    whole = smollm2(tokens)
    for layer in (0, 15, 30, -1):
        resid = smollm2(tokens, stop_at_layer=layer)
        _close(smollm2(resid, start_at_layer=layer), whole)
    _, past = smollm2.extend(tokens[:, :4])
    logits, _ = smollm2.extend(tokens[:, 4:], past=past)
    _close(logits, whole[:, 4:], 1e-5)
    _close(smollm2(tokens, unembed_pos=[-1], unembed_tokens=[260, 17]), whole[:, [-1]][:, :, [260, 17]])
