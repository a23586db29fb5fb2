"""Where there is nothing to find, finders find nothing: randomly initialised models of many seeds."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest

import interp
from interp import planted
from interp.heads.base import finder, finders
from interp.heads.find import BASIC_KINDS
from interp.heads.task_finder import TaskFinder
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer

ALPHA = 0.05
TASK_KINDS = [name for name, one in finders().items() if isinstance(one, TaskFinder)]


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
    counts = dict.fromkeys(BASIC_KINDS, 0)
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
    monkeypatch.setattr("interp.heads.pattern_search.sign_flip", broken)
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
    counts = false_positives(range(6), random_rows)
    assert max(counts.values()) <= binomial_bound(6, ALPHA), counts


@pytest.mark.slow
def test_two_hundred_random_models_stay_within_the_bound(random_rows):
    counts = false_positives(range(200), random_rows)
    assert max(counts.values()) <= binomial_bound(200, ALPHA), counts


def false_positives_of_task(kind: str, seeds: range, placed) -> tuple[int, int]:
    """Models in which a measure that decides rejects for at least one head, and those in which a head is named.

    The null are the labels (see tests/planted/test_null.py): a coin says for each item which token is the answer, so
    every harm, and every excess over controls that were chosen on other items, is as likely x as −x.
    """
    rejected = named = 0
    columns = ["p_corrected", *(f"{name}_p_corrected" for name in finder(kind).test.decisive[1:])]
    for seed in seeds:
        made = planted.null(seed=seed, n=20)
        pairs = placed(made.pairs["random"], seed)
        frame = interp.find_heads(made.model, kind, pairs=pairs, top=4, n_random_sets=1, alpha=ALPHA, seed=seed).frame
        asked = [name for name in columns if name in frame]
        rejected += bool((frame[asked] <= ALPHA).any(axis=None))
        named += bool((frame["verdict"].str.split(" (", regex=False).str[0] == kind).any())
    return rejected, named


@pytest.fixture
def movers_everywhere(monkeypatch):
    """Random heads rest on no name; without a mover nothing would be tested for the kinds that act on movers."""
    monkeypatch.setattr("interp.heads.ioi.MOVER_CUTOFF", 0.0)


@pytest.mark.parametrize("kind", ["coreference", "copy_suppression"])
def test_a_few_random_models_with_shuffled_labels_have_no_heads_of_a_task(kind, placed, movers_everywhere):
    assert max(false_positives_of_task(kind, range(8), placed)) <= binomial_bound(8, ALPHA)


@pytest.mark.parametrize("kind", ["name_mover", pytest.param("s_inhibition", marks=pytest.mark.slow)])
def test_the_count_of_a_task_would_see_a_broken_test(kind, placed, movers_everywhere, monkeypatch):
    broken = lambda values, **options: (np.zeros(values.shape[1]), np.zeros(values.shape[1]))  # noqa: E731
    monkeypatch.setattr("interp.heads.rows.sign_flip", broken)
    rejected, _ = false_positives_of_task(kind, range(4), placed)
    assert rejected > binomial_bound(4, ALPHA)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TASK_KINDS)
def test_two_hundred_random_models_with_shuffled_labels_stay_within_the_bound(kind, placed, movers_everywhere):
    rejected, named = false_positives_of_task(kind, range(200), placed)
    assert max(rejected, named) <= binomial_bound(200, ALPHA), (rejected, named)
