"""Attribution is the exact derivative of a patch at its start."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError
from interp.pairs import PromptPairs
from tests.causal.methods.plain import cached, judge, pairs_for, run, text_of

NAMES = {
    "resid_pre": "hook_resid_pre",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
    "z": "attn.hook_z",
    "pattern": "attn.hook_pattern",
    "attn_scores": "attn.hook_attn_scores",
    "mlp_post": "mlp.hook_post",
}


def score(pairs, pair, logits, metric):
    x, answer = logits[pairs.read[pair]], pairs.answer[pair][0][0]
    return x.softmax(-1)[answer] if metric == "prob" else x[answer] - x[pairs.foil[pair][0][0]]


def derivative(model, pairs, sites, cells, *, metric="logit_diff", direction="denoise"):
    """d/dε metric(base + ε (source − base)) at 0 for cells (layers, index of the site's row); None is absent."""
    into, out_of = ("corrupt", "clean") if direction == "denoise" else ("clean", "corrupt")
    made = np.full((len(pairs), len(cells)), np.nan)
    for pair in range(len(pairs)):
        text = text_of(pairs, into, pair)
        base, source = (cached(model, text_of(pairs, side, pair), list(sites.values())) for side in (into, out_of))
        for i, (layers, index) in enumerate(cells):
            where = index(pair)
            if where is None:
                continue
            eps = torch.zeros((), dtype=torch.float64, requires_grad=True)
            hooks = []
            for layer in layers:
                change = source[sites[layer]] - base[sites[layer]]
                change = torch.where(torch.isfinite(change), change, 0.0)
                only = torch.zeros_like(change)
                only[where] = change[where]

                def add(x, hook, only=only):
                    return x + eps * only  # noqa: B023

                hooks.append((sites[layer], add))
            logits = model.run_with_hooks(text[0], fwd_hooks=hooks, **text[1])[0]
            (grad,) = torch.autograd.grad(score(pairs, pair, logits, metric), eps, allow_unused=True)
            made[pair, i] = 0.0 if grad is None else float(grad)
    return made


def n_tokens(pairs, pair):
    return len(pairs.clean[pair])


ALL = [(name, site) for name in ("llama", "gpt2") for site in NAMES]


@pytest.mark.parametrize(
    ("name", "site"),
    [
        *ALL,
        ("neox", "z"),
        ("encoder", "k"),
        ("encoder", "pattern"),
        ("encoder", "resid_post"),
        ("neox", "resid_pre"),
        ("softcap", "k"),
        ("window", "v"),
    ],
)
def test_each_site_by_layer_and_position_is_the_derivative(model_of, name, site):
    model = model_of(name, double=True)
    pairs = pairs_for(model)[[0, 3]]
    sites = {layer: f"blocks.{layer}.{NAMES[site]}" for layer in range(2)}

    def at(pos):
        across = site in ("pattern", "attn_scores")  # [head query key]
        return lambda pair: None if pos >= n_tokens(pairs, pair) else (slice(None), pos) if across else (pos,)

    got = interp.attribute(model, pairs, site, at={"layer": [0, 1]})
    expected = derivative(model, pairs, sites, [([layer], at(pos)) for layer, pos in product(range(2), range(6))])
    np.testing.assert_allclose(got.values.values.reshape(2, -1), expected, atol=1e-10)
    assert got.about["exact"] is False and "approximate" in repr(got)


@pytest.mark.parametrize("site", ["q", "k", "v", "z", "pattern", "mlp_post"])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_heads_and_neurons_are_told_apart(model_of, site, direction):
    model = model_of("llama", double=True)
    pairs = pairs_for(model)[[0, 3]]
    axis, n = {"k": ("kv_head", 2), "v": ("kv_head", 2), "mlp_post": ("neuron", 48)}.get(site, ("head", 4))
    units = list(range(n)) if n < 10 else [0, 7, 47]
    sites = {layer: f"blocks.{layer}.{NAMES[site]}" for layer in range(3)}

    def of(unit):
        return lambda pair: (unit,) if site == "pattern" else (slice(None), unit)

    got = interp.attribute(model, pairs, site, ("layer", axis), at={axis: units}, direction=direction)
    cells = [([layer], of(unit)) for layer, unit in product(range(3), units)]
    expected = derivative(model, pairs, sites, cells, direction=direction)
    np.testing.assert_allclose(got.values.values.reshape(2, -1), expected, atol=1e-10)
    into, out_of = ("corrupt", "clean") if direction == "denoise" else ("clean", "corrupt")
    for side, values in ((into, got.base), (out_of, got.source)):
        known = [judge(pairs, i, run(model, text_of(pairs, side, i))) for i in range(2)]
        np.testing.assert_allclose(values, known, atol=1e-10)


def test_windows_named_positions_and_restricted_axes_are_the_derivative(model_of):
    model = model_of("llama", double=True)
    pairs = pairs_for(model)
    sites = {layer: f"blocks.{layer}.hook_mlp_out" for layer in range(3)}
    for width, windows in {2: [[0], [0, 1], [1, 2]], 3: [[0, 1], [0, 1, 2], [1, 2]]}.items():
        got = interp.attribute(model, pairs, "mlp_out", ("layer", "position"), window=width, metric="prob")
        names = ["subject"]
        cells = [(some, lambda pair: (list(pairs.span("subject", pair)),)) for some in windows]
        expected = derivative(model, pairs, sites, cells, metric="prob")
        np.testing.assert_allclose(got.values.values[:, :, 0], expected, atol=1e-10)
        assert got.values["position"].values.tolist() == names
    z = {layer: f"blocks.{layer}.attn.hook_z" for layer in range(3)}
    got = interp.attribute(model, pairs, "z", ("head",), at={"pos": "subject:last", "layer": [0, 2]})
    cells = [([0, 2], lambda pair, head=head: (pairs.span("subject", pair)[-1], head)) for head in range(4)]
    np.testing.assert_allclose(got.values.values, derivative(model, pairs, z, cells), atol=1e-10)
    got = interp.attribute(model, pairs, "z", ("layer",), at={"pos": [-1, 0], "head": [1, 3]})
    cells = [
        ([layer], lambda pair: (torch.tensor([[n_tokens(pairs, pair) - 1], [0]]), torch.tensor([[1, 3]])))
        for layer in range(3)
    ]
    np.testing.assert_allclose(got.values.values, derivative(model, pairs, z, cells), atol=1e-10)


@pytest.mark.parametrize(
    "site", ["decoder.z", "encoder.z", "decoder.cross_attn.z", "decoder.cross_attn.k", "cross_attn.v"]
)
def test_both_stacks_of_a_model_are_differentiated(model_of, site):
    model = model_of("two_stacks", double=True)
    pairs = pairs_for(model)[[0, 1]]
    stack = "encoder" if site == "encoder.z" else "decoder"
    part = "cross_attn" if "cross" in site else "attn"
    name = f"{stack}.blocks.0.{part}.hook_{site[-1]}"
    long = stack == "encoder" or site[-1] in "kv"  # as many positions as the encoder's text has
    got = interp.attribute(model, pairs, site, ("layer", "pos"), at={"layer": [0]})
    n_pos = 6 if long else 3
    expected = derivative(model, pairs, {0: name}, [([0], lambda pair, pos=pos: (pos,)) for pos in range(n_pos)])
    np.testing.assert_allclose(got.values.values[:, 0], expected, atol=1e-10)


def test_where_the_model_is_linear_the_estimate_is_the_patch(model_of):
    model = model_of("bare", double=True)  # no norms, no MLPs
    pairs = pairs_for(model)
    for site, axes in (
        ("resid_post", ("pos",)),
        ("z", ("head", "pos")),
        ("v", ("kv_head", "pos")),
        ("pattern", ("head",)),
    ):
        options = {"at": {"layer": [1]}, "direction": "noise"}
        guess = interp.attribute(model, pairs, site, axes, **options)
        truth = interp.patch(model, pairs, site, axes, **options)
        np.testing.assert_allclose(guess.values, truth.values, atol=1e-10)
        assert np.nanmax(np.abs(truth.values)) > 1e-3
        assert truth.about["exact"] is True and guess.about["exact"] is False
    curved = interp.attribute(model, pairs, "q", ("head",), at={"layer": [1]})
    exact = interp.patch(model, pairs, "q", ("head",), at={"layer": [1]})
    assert np.abs(curved.values - exact.values).max() > 1e-4  # a softmax behind it


def test_metrics_with_a_reference_and_with_two_texts_are_differentiated(model_of):
    model = model_of("llama", double=True)
    pairs = pairs_for(model)
    clean = interp.attribute(model, pairs, "resid_post", direction="noise", metric="kl")
    assert np.nanmax(np.abs(clean.values)) < 1e-10  # its gradient is 0 at the clean run (METHODS §1)
    corrupt = interp.attribute(model, pairs, "resid_post", metric="kl")
    assert np.nanmax(np.abs(corrupt.values)) > 1e-3
    for i in range(len(pairs)):  # by itself or among others: which clean run it is compared with must not mix
        alone = interp.attribute(model, pairs[[i]], "resid_post", metric="kl")
        n_pos = alone.values.shape[2]
        np.testing.assert_allclose(corrupt.values[i, :, :n_pos], alone.values[0], atol=1e-10)
    long = pairs_for(model, answer=[(3, 4)] * 5, foil=[(5, 6)] * 5)
    both = interp.attribute(model, long, "resid_post", ("layer",), metric="log_prob_diff")
    answer, foil = (
        interp.attribute(
            model, PromptPairs.from_tokens(long.clean, long.corrupt, one), "resid_post", ("layer",), metric="log_prob"
        )
        for one in ([(3, 4)] * 5, [(5, 6)] * 5)
    )
    np.testing.assert_allclose(both.values, answer.values - foil.values, atol=1e-10)


def test_many_texts_give_what_each_gives_alone(model_of, monkeypatch):
    from interp.causal import attribution

    model = model_of("llama", double=True)
    pairs = pairs_for(model)
    whole = interp.attribute(model, pairs, "z", ("layer", "head"))
    monkeypatch.setattr(attribution, "_TOKENS_AT_ONCE", 9)
    parts = interp.attribute(model, pairs, "z", ("layer", "head"))
    np.testing.assert_allclose(parts.values, whole.values, atol=1e-12)
    np.testing.assert_allclose(parts.source, whole.source, atol=1e-12)
    assert parts.items == pairs.items and parts.templates == pairs.templates


def test_no_gradient_is_left_and_none_is_needed(model_of):
    model = model_of("llama")
    pairs = pairs_for(model)
    first = interp.attribute(model, pairs, "z", ("layer", "head"))
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        again = interp.attribute(model, pairs, "z", ("layer", "head"))
    np.testing.assert_array_equal(first.values, again.values)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    try:
        frozen = interp.attribute(model, pairs, "pattern", ("layer", "head"))
    finally:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
    np.testing.assert_allclose(
        frozen.values, interp.attribute(model, pairs, "pattern", ("layer", "head")).values, atol=1e-6
    )


def test_what_cannot_be_attributed_is_refused(llama, unchecked):
    pairs = pairs_for(llama)
    for args, options, message in (
        (("z",), {"direction": "up"}, "direction is 'up'"),
        (("z", ("kv_head",)), {}, "z has no axis 'kv_head'"),
        (("resid_pre", ("layer", "head")), {}, "resid_pre has no axis 'head'"),
        (("z",), {"window": 0}, "window is 0"),
        (("z",), {"metric": "f1"}, "There is no metric 'f1'"),
    ):
        with pytest.raises(InputError, match=message):
            interp.attribute(llama, pairs, *args, **options)
    with pytest.raises(interp.InterpError, match="nothing"):
        interp.attribute(llama, pairs, "nothing")
