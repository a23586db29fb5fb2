"""Where nothing is planted nothing is found, as often as promised; and where something is, it is found.

What is null here? Not "no effect": in a random model every head changes every logit. The labels are null: which of two
tokens is the answer and which the foil is a fair coin for each item, so an effect on the logit difference is as likely
x as −x, whatever the model. That is just what sign flips over items assume, so the family-wise rate is at most α for
each model, and the number of models with any finding at most binomial.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import interp
from interp import planted
from interp.pairs import PromptPairs

ALPHA, N_ITEMS = 0.05, 20


def _most(n_models: int, level: float = 0.99) -> int:
    """The smallest count that a binomial of rate α stays at or below with this probability."""
    total = 0.0
    for count in range(n_models + 1):
        total += math.comb(n_models, count) * ALPHA**count * (1 - ALPHA) ** (n_models - count)
        if total >= level:
            return count
    raise AssertionError


def _finds(model: interp.HookedTransformer, pairs: PromptPairs, how: str, seed: int) -> bool:
    """Whether any head has an effect by the max-statistic over all of them, items as the unit."""
    if how == "zero":
        effects = interp.ablate(model, pairs, "heads", "zero")
    else:
        effects = interp.patch(model, pairs, "z", over=("layer", "head"), direction="noise")
    _, corrected = effects.pvalues(side="two", seed=seed)
    return bool((corrected.values <= ALPHA).any())


def _false_positives(n_models: int) -> dict[str, int]:
    count = {"zero": 0, "noise": 0}
    for seed in range(n_models):
        one = planted.null(2, 4, seed, n=N_ITEMS)
        for how in count:
            count[how] += _finds(one.model, one.pairs["random"], how, seed)
    return count


def test_few_random_models_with_shuffled_labels_show_anything() -> None:
    assert max(_false_positives(4).values()) <= _most(4)


@pytest.mark.slow
def test_false_positives_on_200_random_models_stay_within_the_binomial_bound() -> None:
    assert max(_false_positives(200).values()) <= _most(200)


def test_the_same_test_finds_a_planted_head_with_as_few_items(made: Any) -> None:
    one = made("ioi", n=N_ITEMS)
    for how in ("zero", "noise"):
        assert _finds(one.model, one.pairs["abc"], how, 0)


def test_without_shuffling_random_heads_have_an_effect_and_are_found() -> None:
    """Why labels have to be shuffled: with the same answer and foil everywhere, heads of random models push one way."""
    rejected = 0
    for seed in range(6):
        one = planted.null(2, 4, seed, n=N_ITEMS)
        pairs = one.pairs["random"]
        fixed = PromptPairs.from_tokens(
            torch.tensor(pairs.clean), torch.tensor(pairs.corrupt), [3] * N_ITEMS, [7] * N_ITEMS
        )
        rejected += _finds(one.model, fixed, "zero", seed)
    assert rejected > _most(6)


def test_a_null_declares_nothing_and_is_the_same_for_the_same_seed() -> None:
    one, again, other = planted.null(seed=3), planted.null(seed=3), planted.null(seed=4)
    assert not (one.truth.heads or one.truth.decoys or one.truth.effects or one.truth.paths)
    assert one.pairs == again.pairs != other.pairs
    tokens = torch.tensor(one.pairs["random"].clean)
    assert torch.equal(one.model(tokens), again.model(tokens))
    assert not torch.allclose(one.model(tokens), other.model(tokens))
