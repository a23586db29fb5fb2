"""What the planted models of agreement and of conflict are there to teach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp import planted
from interp.tasks.base import definition

Make = Callable[..., planted.Planted]


def differences(one: planted.Planted, corruption: str, side: str) -> np.ndarray:
    """Answer − foil of each prompt, in logits."""
    pairs = one.pairs[corruption]
    found = []
    for i, row in enumerate(getattr(pairs, side)):
        logits = one.model(torch.tensor(row))[0, pairs.read[i]].detach()
        found.append(float(logits[pairs.answer[i][0][0]] - logits[pairs.foil[i][0][0]]))
    return np.array(found)


@pytest.mark.parametrize("name", ["agreement", "conflict"])
def test_prompts_name_the_places_and_corruptions_of_the_task(name: str, made: Make) -> None:
    one, task = made(name), definition(name)
    assert set(one.pairs) == set(task.corruptions)
    assert all(set(task.positions) == set(pairs.positions) for pairs in one.pairs.values())


def test_on_congruent_prompts_the_head_of_the_nearest_noun_looks_like_a_help(made: Make) -> None:
    one = made("agreement")
    assert np.allclose(differences(one, "subject", "clean"), 15.0, atol=1e-3)
    assert np.allclose(differences(one, "attractor", "corrupt"), 5.0, atol=1e-3), "and there it is a harm"
    effects = interp.ablate(one.model, one.pairs["attractor"], ["1.1", "1.2"], "zero")
    assert np.allclose(effects.values.values, [[-10.0, -5.0]], atol=1e-3)
    swapped = interp.ablate(one.model, one.pairs["attractor"].swapped(), ["1.1", "1.2"], "zero")
    assert np.allclose(swapped.values.values, [[-10.0, 5.0]], atol=1e-3)
    assert swapped.base is not None
    assert (swapped.base + swapped.values.values[:, 0] < 0).all(), "without 1.1 the nearest noun decides"


def test_the_context_wins_a_conflict_and_every_control_does_what_it_says(made: Make) -> None:
    one = made("conflict")
    expected = {"consistent": -16.0, "unknown": 10.0, "irrelevant": -6.0}
    for corruption, value in expected.items():
        assert np.allclose(differences(one, corruption, "clean"), 4.0, atol=1e-2)
        assert np.allclose(differences(one, corruption, "corrupt"), value, atol=1e-2), corruption


@pytest.mark.parametrize(
    ("name", "corruption", "writers"),
    [
        ("agreement", "subject", {"1.1": 10.0, "1.2": 5.0}),
        ("conflict", "consistent", {"1.1": 10.0, "1.2": -6.0}),
    ],
)
def test_logit_attribution_names_the_heads_that_write_and_their_signs(
    name: str, corruption: str, writers: dict[str, float], made: Make
) -> None:
    one = made(name, dtype=torch.float64)
    found = interp.logit_attribution(one.model, one.pairs[corruption], by="head")
    parts = found.mean().set_index("part")["value"]
    assert found.ok
    assert {part: pytest.approx(value, abs=0.01) for part, value in writers.items()} == parts[list(writers)].to_dict()
    assert parts.drop(list(writers)).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("name", "corruption", "head", "key", "asks", "answers"),
    [
        ("agreement", "subject", "1.1", "subject", {"embed"}, {"embed"}),
        ("conflict", "consistent", "1.1", "context_object", {"embed", "0.2"}, {"embed", "0.1"}),
        ("conflict", "unknown", "1.2", "subject", {"embed"}, {"embed", "pos_embed"}),  # the second mention
    ],
)
def test_an_edge_is_explained_by_what_was_laid_into_it(
    name: str, corruption: str, head: str, key: str, asks: set, answers: set, made: Make
) -> None:
    one: Any = made(name, dtype=torch.float64)
    pairs = one.pairs[corruption]
    at = [pairs.span(place, 0)[-1] for place in ("END", key)]
    found = interp.explain_attention(one.model, torch.tensor([pairs.clean[0]]), head, *at, view="head")
    sums, total = found.marginals(), abs(found.total())
    for side, expected in (("query", asks), ("key", answers)):
        parts = sums.loc[sums["side"] == side].set_index("source")["part"].abs() / total
        assert set(parts[parts > 0.05].index) == expected, parts.head()
