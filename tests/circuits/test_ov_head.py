"""What one head writes: identities with the forward pass, planted copying, and what is said where it makes no sense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.circuits.copying import copying_eigenvalues, eigenvalue_score
from interp.circuits.decomposition import logit_attrs, stack_head_results
from interp.circuits.direct import direct_logits
from interp.circuits.embedding import effective_embedding
from interp.circuits.factored import FactoredMatrix
from interp.circuits.ov import value_logits, written, written_norms
from interp.circuits.streaming import stream_heads
from interp.circuits.svd import factored_svd
from interp.errors import InputError
from interp.model.tokens import Batch

SUMS = ["llama", "gpt2", "gptj", "granite", "gemma2", "olmo2", "softcap", "bloom", "t5", "two_stacks"]


def options_of(case: Any) -> dict[str, Any]:
    return {name: x[:1] for name, x in case.options.items()}


@pytest.mark.parametrize("name", SUMS)
@torch.no_grad()
def test_attribution_by_source_token_sums_to_the_heads_direct_attribution(named: Any, name: str) -> None:
    case = named(name)
    model, tokens, options = case.model, case.tokens[:1], options_of(case)
    found = interp.ov(model, "1.2").attribution(tokens, 7, 11, query=3, **options)
    _, cache = model.run_with_cache(tokens, return_type=None, **options)
    results, labels = stack_head_results(cache, return_labels=True)  # type: ignore[misc]
    whole = logit_attrs(cache, results, 7, 11)[labels.index("L1H2"), 0, 3]
    assert found.frame["logit"].sum() == pytest.approx(float(whole), abs=1e-5)
    assert found.about["total"] == pytest.approx(float(whole), abs=1e-5)
    assert found.frame["attention"].sum() == pytest.approx(1.0, abs=1e-5)
    assert len(found.frame) == (5 if options else 9)


@torch.no_grad()
def test_attribution_of_cross_attention_is_split_over_the_encoders_tokens(named: Any) -> None:
    case = named("t5")
    found = interp.ov(case.model, "cross_attn.1.2").attribution(case.tokens[:1], 7, query=3, **options_of(case))
    _, cache = case.model.run_with_cache(case.tokens[:1], return_type=None, **options_of(case))
    result = cache["decoder.blocks.1.cross_attn.hook_result"][:, :, 2]
    whole = logit_attrs(cache, result[None], 7)[0, 0, 3]
    assert len(found.frame) == 9 and found.frame["logit"].sum() == pytest.approx(float(whole), abs=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2", "olmo2", "granite"])
@torch.no_grad()
def test_what_heads_write_sums_to_what_attention_adds(named: Any, name: str) -> None:
    case = named(name)
    model = case.model
    _, cache = model.run_with_cache(case.tokens)
    outputs = model.blocks[1].config.norms in ("output", "both")
    scale = cache["blocks.1.ln1_post.hook_scale"] if outputs else None
    total = written(model.main, 1, cache["blocks.1.attn.hook_result"].sum(2), scale=scale)
    torch.testing.assert_close(total, cache["blocks.1.hook_attn_out"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2", "olmo2", "granite", "bloom"])
@torch.no_grad()
def test_written_norms_are_of_what_reaches_the_residual(named: Any, name: str) -> None:
    case = named(name)
    model, _ = case.model, None
    _, cache = model.run_with_cache(case.tokens)
    for layer in range(2):
        results = cache[f"blocks.{layer}.attn.hook_result"]
        outputs = model.blocks[layer].config.norms in ("output", "both")
        scale = cache[f"blocks.{layer}.ln1_post.hook_scale"].unsqueeze(-2) if outputs else None
        mine = written(model.main, layer, results, scale=scale)[:, 1:].square().sum(-1).mean((0, 1)).sqrt()
        found = written_norms(model, Batch(case.tokens))[layer]
        torch.testing.assert_close(found, mine, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gemma2", "olmo2", "granite"])
@torch.no_grad()
def test_value_logits_go_through_the_output_norm(named: Any, name: str) -> None:
    """Up to the scale: at a query that sees one key only (the first), the head's own logits are in proportion."""
    case = named(name)
    model, ids = case.model, torch.arange(50)
    seen: list[Any] = []
    stream_heads(model, Batch(case.tokens), lambda heads: seen.append(value_logits(model, heads, 0, ids)))
    _, cache = model.run_with_cache(case.tokens)
    for layer, found in enumerate(seen):
        result = cache[f"blocks.{layer}.attn.hook_result"][0, 0]  # [head d_model]: the first query sees itself alone
        outputs = model.blocks[layer].config.norms in ("output", "both")
        scale = cache[f"blocks.{layer}.ln1_post.hook_scale"][0, 0] if outputs else torch.ones(1)
        real = direct_logits(model, written(model.main, layer, result, scale=scale), ids) * scale
        torch.testing.assert_close(found[:, 0], real, rtol=1e-4, atol=1e-5)


def test_an_effective_embedding_is_layer_0_without_its_attention(named: Any) -> None:
    for name in ("llama", "gptj", "neox", "gemma2", "olmo2", "granite", "attention_only", "softcap"):
        case = named(name)
        tokens = case.tokens[:1]
        nothing = [("blocks.0.hook_attn_out", lambda x, hook: torch.zeros_like(x))]
        with torch.no_grad():
            real = case.model.run_with_hooks(tokens, fwd_hooks=nothing, stop_at_layer=1)
        torch.testing.assert_close(effective_embedding(case.model.main, tokens[0]), real[0], atol=1e-5, rtol=1e-5)


def test_planted_copying_is_found_by_every_score(matching: Any) -> None:
    found = interp.ov(matching, "1.0").copying(n=12).frame.set_index("score")["value"]
    assert found["top_share"] == 1.0 and found["mean_place"] == pytest.approx(11 / 12)
    assert found["eigenvalues"] == pytest.approx(1.0) and found["own_over_spread"] > 2
    table = interp.ov(matching, "1.0").token(5, k=3).frame
    assert table.iloc[0]["token"] == "5" and table.iloc[0]["logit"] > table.iloc[1]["logit"] + 0.5
    real = interp.ov(matching, "1.0").tokens(torch.tensor([[7, 3, 5]]), 1, k=2).frame
    assert real.iloc[0]["token"] == "3"


def test_a_head_of_the_opposite_sign_scores_minus_one(matching: Any) -> None:
    head = interp.ov(matching, "1.0")
    negative = FactoredMatrix(head.W_V, -head.W_O)
    assert float(eigenvalue_score(copying_eigenvalues(matching, head.place, negative))) == pytest.approx(-1.0)


@pytest.mark.parametrize("folded", [False, True])
@torch.no_grad()
def test_copying_eigenvalues_are_those_of_the_map_of_tokens(named: Any, folded: bool) -> None:
    """The oracle multiplies the V × V matrix out."""
    case = named("gpt2")
    head = interp.ov(case.model, "1.2")
    small = copying_eigenvalues(case.model, head.place, head.circuit, folded=folded)
    embed, unembed = case.model.W_E, case.model.W_U
    if folded:
        embed = (embed - embed.mean(-1, keepdim=True)) * case.model.blocks[1].ln1.w
        unembed = unembed * case.model.ln_final.w[:, None]
        unembed = unembed - unembed.mean(0)
    whole = torch.linalg.eigvals((embed @ head.W_V @ head.W_O @ unembed).double())
    largest = whole[whole.abs().argsort(descending=True)[: len(small)]]
    assert float(largest.abs().sum()) == pytest.approx(float(small.abs().sum()), rel=1e-4)
    assert float(largest.real.sum()) == pytest.approx(float(small.real.sum()), rel=1e-3)


def test_singular_vectors_are_those_of_the_product() -> None:
    generator = torch.Generator().manual_seed(0)
    for left, inner, right in ((9, 4, 11), (5, 7, 6)):
        a, b = (torch.randn(x, generator=generator, dtype=torch.float64) for x in ((left, inner), (inner, right)))
        u, s, v = factored_svd(FactoredMatrix(a, b))
        torch.testing.assert_close((u * s) @ v.mT, a @ b)
        torch.testing.assert_close(s[:4], torch.linalg.svdvals(a @ b)[:4])
        torch.testing.assert_close(u.mT @ u, torch.eye(len(s), dtype=torch.float64))


@torch.no_grad()
def test_qk_turns_with_the_distance_as_the_pass_does(named: Any) -> None:
    case = named("llama")
    head = interp.qk(case.model, "1.3")
    _, cache = case.model.run_with_cache(case.tokens)
    read = cache["blocks.1.ln1.hook_normalized"][0] * case.model.blocks[1].ln1.w
    score = read[6] @ head.circuit(distance=2).AB @ read[4] * case.model.blocks[1].attn.config.scale
    assert float(score) == pytest.approx(float(cache["blocks.1.attn.hook_attn_scores"][0, 3, 6, 4]), rel=1e-4)
    assert not torch.allclose(head.circuit(0).AB, head.circuit(2).AB)


def test_singular_directions_are_read_as_tokens(matching: Any) -> None:
    qk = interp.qk(matching, "1.0").svd(n=2, k=3).frame
    assert qk["share"].iloc[0] == pytest.approx(1 / 12, abs=0.01), "the planted match treats all tokens alike"
    table = interp.ov(matching, "1.0").svd(n=3, k=2)
    assert len(table.frame) == 6
    for row in table.frame.to_dict("records"):
        assert row["reads"].split()[0] == row["writes"].split()[0], "a copier writes what it reads"


def test_examples_are_the_heaviest_edges_of_the_corpus(smollm2: Any) -> None:
    table = interp.ov(smollm2, "3.2").examples(4, windows=6, n_tokens=24)
    frame = table.frame
    assert len(frame) == 4 and frame["weight"].is_monotonic_decreasing and (frame["key"] > 0).all()
    row = frame.iloc[0]
    assert row["key_token"] in row["text"] and row["query_token"] in row["text"]
    from interp.tasks.natural_text import natural_text

    ids = natural_text(smollm2, 6, n_tokens=24).batch.tokens
    with torch.no_grad():
        _, cache = smollm2.run_with_cache(ids, ["blocks.3.attn.hook_pattern"], stop_at_layer=4, return_type=None)
    pattern = cache["pattern", 3][:, 2, :, 1:]
    np.testing.assert_allclose(row["weight"], float(pattern.max()), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "head", "call", "message"),
    [
        ("bert", "1.0", lambda o: o.token(3), "itself after each sublayer, so its heads have no direct logits"),
        ("bert", "1.0", lambda o: o.copying(n=5), "norms the residual stream itself"),
        ("bart", "decoder.attn.1.0", lambda o: o.svd(), "norms the residual stream itself"),
        ("t5", "cross_attn.1.0", lambda o: o.token(3), "no token has a value by itself"),
        ("t5", "decoder.attn.1.0", lambda o: o.examples(), "this model reads two"),
        ("t5", "decoder.attn.1.0", lambda o: o.tokens(torch.tensor([[3, 4]]), 0), "needs decoder_input"),
        ("llama", "1.0", lambda o: o.token(999), "ids go from 0 to 49"),
        ("llama", "1.0", lambda o: o.token(3, k=0), "Ask for 1 to 50"),
        ("llama", "1.0", lambda o: o.copying(n=1), "Take at least 2"),
        ("llama", "1.0", lambda o: o.examples(), "no tokenizer"),
    ],
)
def test_what_a_head_cannot_be_asked_is_refused(named: Any, name: str, head: str, call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(interp.ov(named(name).model, head))


def test_heads_of_an_encoder_under_a_decoder_write_no_logits(named: Any) -> None:
    with pytest.raises(InputError, match="no unembedding reads directly"):
        interp.ov(named("t5").model, "encoder.attn.0.0")
