"""A folded copy computes the same function with norms that only divide; the original keeps its weights."""

from __future__ import annotations

from typing import Any

import torch

from interp.model.fold import fold_norms
from interp.model.norms import Norm


@torch.no_grad()
def test_a_folded_copy_gives_the_same_logits(case: Any) -> None:
    folded = fold_norms(case.model)
    logits, expected = folded(case.tokens, **case.options), case()
    assert logits.dtype == expected.dtype
    assert float((logits - expected).abs().max()) <= 2e-5 * max(1.0, float(expected.abs().max()))


@torch.no_grad()
def test_the_norms_of_a_folded_copy_only_divide(case: Any) -> None:
    """All that weights read directly, but an encoder's final norm, which a decoder reads through several weights."""
    folded = fold_norms(case.model)
    kept = folded.encoder.ln_final if folded.decoder is not None and folded.encoder is not None else None
    norms = [module for module in folded.modules() if isinstance(module, Norm) and module.config.kind != "none"]
    assert norms or case.name == "bare"
    for norm in norms:
        is_plain = torch.equal(norm.gain, torch.ones_like(norm.gain)) and (norm.b is None or not norm.b.any())
        assert is_plain == (norm is not kept and _read_by_weights(case, norm.address)), norm.address


def _read_by_weights(case: Any, address: str) -> bool:
    """Not the residual behind a norm, what a norm adds to it, queries and keys, or a head's own norm."""
    if "blocks." not in address:
        return address.endswith("ln_final.")
    if ".ln" not in address or address.endswith("_post."):
        return False
    return case.block(address + "hook_scale").norms != "post"


@torch.no_grad()
def test_the_original_is_untouched_and_shares_no_memory(case: Any) -> None:
    before = {name: weight.clone() for name, weight in case.model.state_dict().items()}
    folded = fold_norms(case.model)
    own = {weight.untyped_storage().data_ptr() for weight in case.model.parameters()}
    assert all(weight.untyped_storage().data_ptr() not in own for weight in folded.parameters())
    for weight in folded.parameters():
        weight.zero_()
    for name, weight in case.model.state_dict().items():
        assert torch.equal(weight, before[name])


@torch.no_grad()
def test_padded_rows_and_normalized_sites_agree_too(case: Any) -> None:
    """What a norm hands on before its gain does not depend on where the gain stands."""
    mask = torch.tensor([[1] * 9, [0] * 3 + [1] * 6, [1] * 5 + [0] * 4]).bool()
    folded = fold_norms(case.model)
    _, ours = folded.run_with_cache(case.tokens, attention_mask=mask, **case.options)
    _, theirs = case.cached(attention_mask=mask)
    names = [name for name in theirs if name.endswith(("hook_normalized", "hook_pattern", "hook_z"))]
    assert set(ours) == set(theirs) and names
    for name in names:
        assert float((ours[name] - theirs[name]).abs().max()) <= 1e-4, name


def test_a_folded_copy_keeps_the_tokenizer_and_its_embeddings_are_no_longer_tied(gpt2: Any, talker: Any) -> None:
    assert fold_norms(talker).tokenizer is talker.tokenizer
    folded = fold_norms(gpt2.model)
    assert folded.unembed.weight is not folded.decoder.embed.weight
    assert torch.equal(folded.W_E, gpt2.model.W_E) and not torch.equal(folded.W_U, gpt2.model.W_U)
    assert not folded.cfg.tie_word_embeddings and gpt2.model.cfg.tie_word_embeddings
