"""Causal tracing noises the subject, restores one state at a time, and draws what its seed says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interp
from tests.causal.methods.plain import LAYOUTS, agree, cached, is_double, judge, pairs_for, run, text_of

SPANS = [[2, 3], [1], [3, 4], [1, 2], [2]]


def noises(model, pairs, spans, *, noise, draws, seed):
    """Noise of each prompt and draw: normal numbers of the seed, pair after pair, draw after draw."""
    generator = torch.Generator().manual_seed(seed)
    sigma = noise * float(model.main.embed.weight.detach().float().std()) * model.main.config.embed_scale
    made = []
    for pair in range(len(pairs)):
        some = []
        for _ in range(draws):
            added = torch.zeros(len(pairs.clean[pair]), model.cfg.d_model)
            added[spans[pair]] = torch.randn(len(spans[pair]), model.cfg.d_model, generator=generator) * sigma
            some.append(added.to(model.dtype))
        made.append(some)
    return made


def restored(model, pairs, spans, sites, cells, *, metric="prob", noise=3.0, draws=2, seed=0):
    """Metric `[pair cell]` and of the noised run `[pair]`: means over draws. A cell is (layers, position)."""
    drawn = noises(model, pairs, spans, noise=noise, draws=draws, seed=seed)
    patched, base = np.zeros((len(pairs), len(cells))), np.zeros(len(pairs))
    for pair in range(len(pairs)):
        text = text_of(pairs, "clean", pair)
        clean, logits = cached(model, text, list(sites.values())), run(model, text)
        for added in drawn[pair]:

            def noised(x, hook, added=added):
                return x + added

            start = [("blocks.0.hook_resid_pre", noised)]
            base[pair] += judge(pairs, pair, run(model, text, start), metric, logits) / draws
            for i, (layers, pos) in enumerate(cells):
                if pos >= len(pairs.clean[pair]):
                    patched[pair, i] = np.nan
                    continue
                hooks = list(start)
                for layer in layers:

                    def write(x, hook, pos=pos, new=clean[sites[layer]]):
                        x[0, pos] = new[pos]

                    hooks.append((sites[layer], write))
                patched[pair, i] += judge(pairs, pair, run(model, text, hooks), metric, logits) / draws
    return patched, base


@pytest.mark.parametrize(
    ("name", "metric"), [*((name, "prob") for name in LAYOUTS), ("llama", "kl"), ("encoder", "kl")]
)
def test_every_cell_is_a_noised_run_with_one_clean_state(model_of, name, metric):
    model = model_of(name)
    pairs = pairs_for(model)[[0, 3]]
    n_layers = model.main.config.n_layers
    sites = {layer: f"blocks.{layer}.hook_resid_post" for layer in range(n_layers)}
    cells = [([layer], pos) for layer in range(n_layers) for pos in range(6)]
    patched, base = restored(model, pairs, [SPANS[0], SPANS[3]], sites, cells, metric=metric, seed=4)
    got = interp.causal_trace(model, pairs, draws=2, metric=metric, seed=4)
    agree(got, patched.reshape(2, n_layers, 6), base, double=is_double(model))
    for pair in range(2):
        logits = run(model, text_of(pairs, "clean", pair))
        assert got.source[pair] == pytest.approx(judge(pairs, pair, logits, metric, logits), abs=1e-6)
    assert got.about["draws"] == 2 and got.about["noise"] == 3.0 and got.about["exact"] is True


def test_sublayers_are_restored_in_windows(llama):
    pairs = pairs_for(llama)[[3, 1]]
    sites = {layer: f"blocks.{layer}.hook_mlp_out" for layer in range(3)}
    around = {2: [[0], [0, 1], [1, 2]], 3: [[0, 1], [0, 1, 2], [1, 2]]}
    for width, layers in around.items():
        cells = [(some, pos) for some in layers for pos in range(6)]
        patched, base = restored(llama, pairs, [SPANS[3], SPANS[1]], sites, cells, noise=1.5)
        got = interp.causal_trace(llama, pairs, noise=1.5, draws=2, site="mlp_out", window=width)
        agree(got, patched.reshape(2, 3, 6), base)


def test_restoring_every_position_gives_the_clean_metric_back(model):
    pairs = pairs_for(model)
    got = interp.causal_trace(model, pairs, draws=2, site="resid_pre", over=("layer",), metric="logit_diff")
    wide = np.repeat(got.source[:, None], model.main.config.n_layers, axis=1)
    agree(got, wide, got.base, double=is_double(model))
    assert (np.abs(got.base - got.source) > 1e-3).all()


def test_nothing_is_felt_in_front_of_the_subject(llama):
    pairs = pairs_for(llama)
    got = interp.causal_trace(llama, pairs, draws=2)
    for pair, span in enumerate(SPANS):
        assert (got.values[pair, :, : span[0]] == 0).all() and float(got.values[pair, 0, span[0]]) != 0


def test_draws_are_averaged_and_come_from_the_seed_alone(llama):
    pairs = pairs_for(llama)[[2]]
    traced = [interp.causal_trace(llama, pairs, draws=3, seed=seed, metric="logit_diff") for seed in (5, 5, 6)]
    one, again, other = traced
    np.testing.assert_array_equal(one.values, again.values)
    assert (one.base != other.base).all() and one.about["seed"] == 5
    options = {"seed": 5, "metric": "logit_diff"}
    alone = [restored(llama, pairs, [SPANS[2]], {}, [], draws=n, **options)[1] for n in (1, 2, 3)]
    assert one.base == pytest.approx(alone[2], abs=1e-5) and abs(alone[0] - alone[2]) > 1e-3
    assert len(one.items) == 1 and one.values.shape == (1, 3, 6)


def test_the_subject_may_be_one_end_of_a_span(llama):
    pairs = pairs_for(llama)
    got = interp.causal_trace(llama, pairs, "subject:last", draws=1, over=("layer",))
    last = [[span[-1]] for span in SPANS]
    _, base = restored(llama, pairs, last, {}, [], draws=1)
    np.testing.assert_allclose(got.base, base, atol=1e-5)
    assert "subject:last" in got.about["base"]


def test_named_positions_may_be_the_grid(llama):
    pairs = pairs_for(llama)
    named = interp.causal_trace(llama, pairs, draws=2, over=("position", "layer"), at={"position": ["subject:last"]})
    every = interp.causal_trace(llama, pairs, draws=2)
    for pair, span in enumerate(SPANS):
        np.testing.assert_allclose(named.values[pair, 0], every.values[pair, :, span[-1]], atol=1e-6)


def test_a_metric_function_is_told_the_pair_and_not_the_draw(llama):
    told = []

    def the_pair(logits, pair):
        told.extend(pair.tolist())
        return pair.to(logits.dtype)

    got = interp.causal_trace(llama, pairs_for(llama), draws=3, metric=the_pair)
    assert got.base.tolist() == [0, 1, 2, 3, 4] and set(told) == set(range(5))
    assert got.about["metric"] == "the_pair"


def test_the_answer_and_the_foil_are_read_under_the_same_noise(llama):
    clean = [[1, 2, 3, 4, 5]]
    pairs = interp.PromptPairs.from_tokens(clean, clean, [(3, 4)], [(3, 6)], positions={"subject": [[1]]})
    got = interp.causal_trace(llama, pairs, draws=1, metric="log_prob_diff", over=("layer",), site="resid_pre")
    added = noises(llama, pairs, [[1]], noise=3.0, draws=1, seed=0)[0][0]

    def noised(x, hook):
        x[:, :5] += added
        return x

    logits = run(llama, [*clean[0], 3], [("blocks.0.hook_resid_pre", noised)])
    assert got.base[0] == pytest.approx(float(logits[5, 4] - logits[5, 6]), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "draws is 0"),
        ({"draws": 1.5}, "draws is 1.5"),
        ({"draws": True}, "draws is True"),
        ({"noise": 0.0}, "noise is 0.0"),
        ({"noise": float("inf")}, "noise is inf"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"subject": "object"}, "There is no position named 'object'"),
        ({"site": "nothing"}, "nothing"),
        ({"over": ("head",)}, "resid_post has no axis 'head'"),
    ],
)
def test_what_cannot_be_traced_is_refused(llama, options, message):
    with pytest.raises(interp.InterpError, match=message):
        interp.causal_trace(llama, pairs_for(llama), **options)
