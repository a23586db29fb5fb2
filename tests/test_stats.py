"""Statistics attacked from both sides: they must find what is there and hold their rate where nothing is."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from interp.errors import InputError
from interp.stats import benjamini_hochberg, bootstrap_interval, item_means, sign_flip, smallest_p


def exact_flip_p(values: np.ndarray) -> float:
    """The oracle: every sign assignment of a single cell."""
    observed = values.mean()
    flips = [np.mean(values * signs) for signs in product([-1, 1], repeat=len(values))]
    return float(np.mean([flip >= observed - 1e-12 for flip in flips]))


def test_sign_flips_agree_with_all_assignments():
    values = np.random.default_rng(1).normal(0.4, 1.0, size=10)
    p, corrected = sign_flip(values[:, None], n_flips=200_000)
    assert p[0] == pytest.approx(exact_flip_p(values), abs=0.004)
    assert corrected[0] == pytest.approx(p[0])  # one cell: nothing to correct for


def test_one_huge_cell_does_not_hide_a_clear_one():
    generator = np.random.default_rng(0)
    huge = generator.normal(50.0, 5.0, size=24)
    clear = generator.normal(0.5, 0.3, size=24)
    _, corrected = sign_flip(np.stack([huge, clear], axis=1))
    assert corrected.max() < 0.001


def test_max_statistic_holds_its_rate_over_many_null_cells():
    rejected = 0
    for trial in range(200):
        values = np.random.default_rng(trial).standard_t(4, size=(20, 50))
        rejected += sign_flip(values, n_flips=500, seed=trial)[1].min() <= 0.05
    assert rejected <= 19  # binomial(200, 0.05): 19 or fewer with probability 0.996


def test_cells_that_move_together_are_corrected_as_one():
    values = np.random.default_rng(3).normal(0.5, 1.0, size=(20, 1))
    p, corrected = sign_flip(np.repeat(values, 100, axis=1))
    np.testing.assert_allclose(corrected, p)  # Bonferroni would give 100 times as much


def test_sides_of_a_sign_flip_are_what_they_say():
    values = np.random.default_rng(5).normal(-1.0, 0.5, size=(16, 1))
    assert sign_flip(values, side="less")[0][0] < 0.001
    assert sign_flip(values, side="two")[0][0] < 0.001
    assert sign_flip(values, side="greater")[0][0] > 0.99
    with pytest.raises(InputError, match="greater"):
        sign_flip(values, side="up")


def test_a_cell_that_never_moves_is_never_significant():
    p, corrected = sign_flip(np.zeros((12, 3)))
    assert (p == 1).all() and (corrected == 1).all()


def test_unmeasured_cells_are_refused_rather_than_counted_as_zero():
    with pytest.raises(InputError, match="Leave out cells"):
        sign_flip(np.array([[1.0, np.nan], [1.0, 2.0]]))
    with pytest.raises(InputError, match="at least one item"):
        sign_flip(np.zeros((0, 3)))


def test_smallest_p_is_that_of_the_flips_there_are():
    assert smallest_p(3) == 0.125
    assert smallest_p(40) == pytest.approx(1 / 10_001)


def test_bootstrap_interval_covers_the_mean_at_its_level():
    generator = np.random.default_rng(7)
    values = generator.normal(1.0, 2.0, size=(40, 400))  # 400 experiments of 40 items
    low, high = bootstrap_interval(values)
    covered = ((low <= 1.0) & (high >= 1.0)).mean()
    assert 0.90 <= covered <= 0.97


def test_bootstrap_leaves_out_items_that_a_cell_lacks():
    values = np.array([[1.0, 5.0], [3.0, np.nan], [2.0, 7.0]])
    low, high = bootstrap_interval(values, seed=1)
    assert 5.0 <= low[1] <= high[1] <= 7.0
    assert np.isfinite([*low, *high]).all()


def test_items_not_prompts_are_the_unit():
    values = np.array([[1.0], [3.0], [10.0], [np.nan]])
    means = item_means(values, np.array(["a", "a", "b", "c"]))
    np.testing.assert_array_equal(means, [[2.0], [10.0], [np.nan]])


def test_benjamini_hochberg_matches_the_textbook_example():
    p = np.array([0.005, 0.009, 0.05, 0.05, 0.2, np.nan])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.0225, 0.0225, 0.0625, 0.0625, 0.2, np.nan])


def test_infinite_values_are_refused_rather_than_significant():
    values = np.random.default_rng(0).normal(size=(10, 2))
    values[3, 0] = np.inf
    for test in (sign_flip, bootstrap_interval):
        with pytest.raises(InputError, match="infinite"):
            test(values)
