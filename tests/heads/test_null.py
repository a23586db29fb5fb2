"""Where there is nothing to find, finders find nothing: randomly initialised models of many seeds."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest

import interp
from interp.heads.base import finders
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer

ALPHA = 0.05


def binomial_bound(n: int, alpha: float, tail: float = 0.001) -> int:
    """The count that a rate of alpha exceeds with probability below `tail`."""
    total = 0.0
    for k in range(n + 1):
        total += comb(n, k) * alpha**k * (1 - alpha) ** (n - k)
        if 1 - total < tail:
            return k
    return n


def false_positives(seeds: range, corpus) -> dict[str, int]:
    """Models in which the test of each kind rejected for at least one head: before any cutoff on size or attention,
    which no random model passes."""
    counts = dict.fromkeys(finders(), 0)
    for seed in seeds:
        sizes = {"n_layers": 2, "d_model": 32, "n_heads": 4, "n_key_value_heads": 2, "d_mlp": 64}
        model = HookedTransformer(ModelConfig.decoder_only(d_vocab=120, n_ctx=128, **sizes), seed=seed)
        scores = interp.find_heads(model, corpus=corpus, n=8, top=3, n_random_sets=3, alpha=ALPHA, seed=seed)
        for kind in counts:
            counts[kind] += bool((scores.of(kind)["p_corrected"] <= ALPHA).any())
            assert not scores.of(kind)["verdict"].isin([kind, f"{kind} (jointly)"]).any()
    return counts


def test_the_count_would_see_a_broken_test(random_rows, monkeypatch):
    broken = lambda values, **options: (np.zeros(values.shape[1]), np.zeros(values.shape[1]))  # noqa: E731
    monkeypatch.setattr("interp.heads.find.sign_flip", broken)
    counts = false_positives(range(4), random_rows)
    assert min(counts.values()) == 4 > binomial_bound(4, ALPHA)


def test_binomial_bound_is_the_first_count_with_so_small_a_tail():
    def tail(n: int, k: int) -> Fraction:
        rate = Fraction(1, 20)
        return sum((comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(k + 1, n + 1)), Fraction(0))

    for n in (10, 200):
        bound = binomial_bound(n, 0.05)
        assert tail(n, bound) < Fraction(1, 1000) <= tail(n, bound - 1)


def test_a_few_random_models_stay_within_the_bound(random_rows):
    counts = false_positives(range(10), random_rows)
    assert max(counts.values()) <= binomial_bound(10, ALPHA), counts


@pytest.mark.slow
def test_two_hundred_random_models_stay_within_the_bound(random_rows):
    counts = false_positives(range(200), random_rows)
    assert max(counts.values()) <= binomial_bound(200, ALPHA), counts
