"""Metrics of residuals: of models without logits, exact against pooled vectors of plain hooked passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError
from interp.metrics import embedding_similarity, residual_metric
from interp.model.transformer import HookedTransformer
from tests.causal.methods.plain import agree, cached, model_named, pairs_for, put, text_of
from tests.model.conftest import ZOO, randomize

pytestmark = pytest.mark.usefixtures("unchecked")
_MADE: dict[str, HookedTransformer] = {}
HEADLESS = {"bert": ZOO["bert"].headless(), "encoder": ZOO["encoder"].headless()}


def headless(name: str) -> HookedTransformer:
    if name not in _MADE:
        _MADE[name] = randomize(HookedTransformer(HEADLESS[name]))
    return _MADE[name]


def finished(model, text, hooks=()):
    """The finished residuals `[pos d_model]` of a hooked pass."""
    last = f"{model.main.address}blocks.{model.main.config.n_layers - 1}.hook_resid_post"
    tokens, options = text
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, last, fwd_hooks=list(hooks), return_type=None, **options)
        x = cache[last]
        if model.main.config.final_norm is None:
            return x[0].double()
        gain, eps = model.main.ln_final.gain.detach(), model.main.config.final_norm.eps
        if model.main.config.final_norm.kind == "layer":
            x = x - x.mean(-1, keepdim=True)
            bias = model.main.ln_final.b.detach()
        else:
            bias = torch.zeros(())
        return (x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * gain + bias)[0].double()


def cosine(x, y):
    return float((x @ y) / (x.norm() * y.norm()))


def kept(model, text, names):
    tokens, options = text
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names, return_type=None, **options)
    return {name: cache[name][0] for name in names}


def unanswered(model):
    pairs = pairs_for(model)
    sides = {"decoder": pairs.clean_decoder, "corrupt_decoder": pairs.corrupt_decoder} if pairs.clean_decoder else {}
    return interp.PromptPairs.from_tokens(
        pairs.clean, pairs.corrupt, positions={"subject": [[2, 3], [1], [3, 4], [1, 2], [2]]}, **sides
    )


@pytest.mark.parametrize("name", list(HEADLESS))
@pytest.mark.parametrize("pool", ["mean", "first"])
def test_every_cell_is_the_similarity_of_a_hooked_pass(name, pool):
    model = headless(name)
    pairs = unanswered(model)[[0, 3]]
    sites = [f"blocks.{layer}.attn.hook_z" for layer in range(2)]
    patched, base, source = np.zeros((2, 2, 4)), np.zeros(2), np.zeros(2)
    for pair in range(2):
        clean, corrupt = text_of(pairs, "clean", pair), text_of(pairs, "corrupt", pair)
        pooled = (lambda x: x.mean(0)) if pool == "mean" else (lambda x: x[0])
        target = pooled(finished(model, clean))
        base[pair], source[pair] = cosine(pooled(finished(model, corrupt)), target), 1.0
        new = kept(model, clean, sites)
        for layer, site in enumerate(sites):
            for head in range(4):
                hooks = [(site, put(new[site], slice(None), head))]
                patched[pair, layer, head] = cosine(pooled(finished(model, corrupt, hooks)), target)
    got = interp.patch(model, pairs, "z", ("layer", "head"), metric=embedding_similarity(pool=pool))
    agree(got, patched, base)
    np.testing.assert_allclose(got.source, source, atol=1e-6)
    assert got.about["metric"] == "embedding_similarity" and got.about["unit"] == "cosine"
    assert np.abs(got.values).max() > 1e-4


@pytest.mark.parametrize("name", list(HEADLESS))
def test_heads_are_ablated_and_edges_cut_by_their_embedding(name):
    model = headless(name)
    pairs = unanswered(model)[[0, 3]]
    target = torch.randn(2, model.cfg.d_model, generator=torch.Generator().manual_seed(2))
    metric = embedding_similarity(target)
    ablated, cut, base = np.zeros((2, 8)), np.zeros((2, 2)), np.zeros(2)
    for pair, span in enumerate([[2, 3], [1, 2]]):
        text, wanted = text_of(pairs, "clean", pair), target[pair].double()
        base[pair] = cosine(finished(model, text).mean(0), wanted)
        for layer in range(2):
            for head in range(4):
                hooks = [(f"blocks.{layer}.attn.hook_z", put(0.0, slice(None), head))]
                ablated[pair, layer * 4 + head] = cosine(finished(model, text, hooks).mean(0), wanted)

            def write(x, hook, span=span):
                x[0, :, 0, span] = -torch.inf

            hooks = [(f"blocks.{layer}.attn.hook_attn_scores", write)]
            cut[pair, layer] = cosine(finished(model, text, hooks).mean(0), wanted)
    agree(interp.ablate(model, pairs, metric=metric), ablated, base)
    agree(interp.knockout(model, pairs, 0, "subject", metric=metric), cut, base)
    resampled = interp.ablate(model, unanswered(model)[[0, 1]], "heads", "resample", metric=embedding_similarity())
    assert np.isfinite(resampled.values).all() and np.abs(resampled.values).max() > 1e-5


@pytest.mark.parametrize("at", ["all", "read", "first"])
@pytest.mark.parametrize("name", ["llama", "two_stacks", "encoder"])
def test_functions_of_residuals_are_told_what_stands_where_they_read(name, at):
    """Decoders too, where reads in front of an edit keep what the unedited run has."""
    model = model_named(name)
    pairs = pairs_for(model)[[0, 3]]

    def value(resid, pair):
        return resid.flatten(1).pow(2).sum(1).sqrt() + pair

    site = "decoder.attn_out" if name == "two_stacks" else "attn_out"
    names = [f"{model.main.address}blocks.{layer}.hook_attn_out" for layer in range(model.main.config.n_layers)]
    n_pos = max(pairs.predicted_lengths)
    patched, base = np.full((2, len(names), n_pos), np.nan), np.zeros(2)
    for pair in range(2):
        where = {"all": list(range(pairs.predicted_lengths[pair])), "read": [pairs.read[pair]], "first": [0]}[at]
        clean, corrupt = text_of(pairs, "clean", pair), text_of(pairs, "corrupt", pair)
        new = cached(model, clean, names)
        base[pair] = float(finished(model, corrupt)[where].norm()) + pair
        for layer, one in enumerate(names):
            for pos in range(pairs.predicted_lengths[pair]):
                resid = finished(model, corrupt, [(one, put(new[one], pos))])
                patched[pair, layer, pos] = float(resid[where].norm()) + pair
    got = interp.patch(model, pairs, site, metric=residual_metric(value, at=at, unit="length"))
    agree(got, patched, base)
    assert got.about["metric"] == "value" and got.about["unit"] == "length"


def test_attribution_takes_the_gradient_of_a_similarity():
    model = headless("bert")
    pairs = unanswered(model)[[0, 3]]
    # The last residual moved a little: to first order the estimate is the effect.
    near = interp.attribute(model, pairs, "resid_post", ("pos",), at={"layer": [1]}, metric=embedding_similarity())
    clean = [finished(model, text_of(pairs, "clean", pair)) for pair in range(2)]
    for pair in range(2):
        corrupt = finished(model, text_of(pairs, "corrupt", pair)).requires_grad_()
        target = clean[pair].mean(0)
        similarity = torch.nn.functional.cosine_similarity(corrupt.mean(0), target, dim=0)
        (gradient,) = torch.autograd.grad(similarity, corrupt)
        expected = ((clean[pair] - corrupt) * gradient).sum(-1).detach()
        np.testing.assert_allclose(near.values[pair, : len(expected)], expected, atol=1e-5)


def test_noise_is_traced_by_the_embedding_of_the_pair_and_not_of_the_draw():
    model = headless("bert")
    pairs = unanswered(model)[[0, 3]]
    got = interp.causal_trace(model, pairs, draws=3, metric=embedding_similarity(), site="resid_pre", over=("layer",))
    np.testing.assert_allclose(got.source, 1.0, atol=1e-6)
    np.testing.assert_allclose(got.patched[:, 0], 1.0, atol=1e-6)  # all positions restored where the noise was put
    vectors = torch.eye(model.cfg.d_model)[:2]
    given = interp.causal_trace(model, pairs, draws=2, metric=embedding_similarity(vectors), over=("layer",))
    expected = [cosine(finished(model, text_of(pairs, "clean", i)).mean(0), vectors[i].double()) for i in range(2)]
    np.testing.assert_allclose(given.source, expected, atol=1e-6)


def test_without_logits_the_way_out_is_named():
    model = headless("bert")
    for pairs in (unanswered(model), pairs_for(model)):
        for run in (interp.ablate, interp.path_patch):
            with pytest.raises(InputError, match=r"no head that predicts tokens.*metric=embedding_similarity\(\)"):
                run(model, pairs)
    with pytest.raises(
        InputError, match=r"logit reads the logit of an answer, and these pairs have none. Give answer="
    ):
        interp.patch(model_named("llama"), unanswered(model_named("llama")), "z", metric="logit")
    assert np.isfinite(
        interp.ablate(model_named("llama"), unanswered(model_named("llama"))[[0]], metric="kl").values
    ).all()
    with pytest.raises(InputError, match=r"This model is an encoder.*Give read="):
        interp.ablate(model, unanswered(model), metric=embedding_similarity(pool="read"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: embedding_similarity(pool="max"), "pool is 'max'"),
        (lambda: embedding_similarity(3), "target is 3"),
        (lambda: embedding_similarity("a text", pool="read"), "A target text has no read position"),
        (lambda: residual_metric("norm"), "function is 'norm'"),
        (lambda: residual_metric(len, at="last"), "at is 'last'"),
        (
            lambda: interp.ablate(
                headless("bert"), unanswered(headless("bert")), metric=embedding_similarity(torch.ones(3))
            ),
            "target has shape",
        ),
        (
            lambda: interp.ablate(
                headless("bert"), unanswered(headless("bert")), metric=embedding_similarity(torch.ones(2, 32))
            ),
            "there are 5 pairs",
        ),
        (
            lambda: interp.ablate(
                headless("bert"), unanswered(headless("bert")), metric=residual_metric(lambda x, pair: x)
            ),
            "one value per cell",
        ),
    ],
)
def test_what_measures_no_residuals_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.slow
def test_minilms_sentences_are_patched_by_their_similarity():
    model = interp.load("minilm-l6")
    pairs = interp.PromptPairs.from_text(
        model, "A child plays the violin.", "A child plays the football.", positions={"noun": "violin"}
    )
    texts = embedding_similarity("Someone makes music.")
    got = interp.patch(model, pairs, "resid_pre", ("layer", "pos"), metric=texts)
    rows = model.to_tokens("Someone makes music.")
    target = finished(model, (rows, {})).mean(0)
    for side, values in (("corrupt", got.base), ("clean", got.source)):
        assert values[0] == pytest.approx(cosine(finished(model, text_of(pairs, side, 0)).mean(0), target), abs=1e-5)
    pos = pairs.span("noun", 0)[-1]
    name = "blocks.3.hook_resid_pre"
    new = kept(model, text_of(pairs, "clean", 0), [name])
    hooked = finished(model, text_of(pairs, "corrupt", 0), [(name, put(new[name], pos))])
    assert got.patched[0, 3, pos] == pytest.approx(cosine(hooked.mean(0), target), abs=1e-5)
