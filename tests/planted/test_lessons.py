"""What each planted model is there to teach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import interp
from interp import planted

Make = Callable[..., planted.Planted]


def test_attribution_patching_misses_the_saturated_head_and_finds_the_linear_one(made: Make, ask: Any) -> None:
    one = made("saturated")
    pairs = one.pairs["mark"]
    for direction in ("denoise", "noise"):
        exact = ask.shares(one, "mark", direction)
        guess = interp.attribute(one.model, pairs, "z", over=("layer", "head"), direction=direction)
        guessed = guess.mean(normalize="pooled")
        for head in one.truth.flat:
            assert abs(exact[str(head)] - 1.0) < 1e-3
            assert abs(float(guessed.sel(layer=head.layer, head=head.head))) < 1e-6
        assert abs(float(guessed.sel(layer=1, head=1)) - 1.0) < 1e-3


def test_a_mean_over_prompts_of_one_template_hides_the_duplicate_token_head(made: Make, ask: Any) -> None:
    one = made("ioi")
    assert abs(ask.shares(one, "swap", "mean")["0.1"]) < 1e-3
    assert abs(ask.shares(one, "abc", "mean")["0.1"]) > 0.5


def test_heads_that_lower_the_logit_difference_raise_it_when_ablated(made: Make) -> None:
    lowering = [name for name in planted.names() if made(name).truth.raises]
    assert {"negative", "copy_suppression", "cancelling"} <= set(lowering)
    for name in lowering:
        one = made(name)
        effects = interp.ablate(one.model, next(iter(one.pairs.values())), "heads", "zero")
        raised = {
            str(t) for t, x in zip(effects.values["target"].values, effects.mean().values, strict=True) if x > 0.1
        }
        assert raised == {str(head) for head in one.truth.raises}, name


def test_a_negative_head_moves_the_answer_away_from_the_corrupt_run(made: Make, ask: Any) -> None:
    shares = ask.shares(made("negative"), "swap", "noise")
    assert abs(shares["2.3"] + 2 / 3) < 0.01
    assert shares["2.1"] > 1.5


def test_cancelling_paths_are_equal_and_opposite_and_their_sum_is_nothing(made: Make, ask: Any) -> None:
    one = made("cancelling", dtype=torch.float64)
    through = [ask.by_path(one, "swap", "noise", f"{head}.v")["0.1"] for head in ("1.1", "1.2")]
    assert np.allclose(through, [1.0, -1.0], atol=1e-5)
    assert abs(ask.shares(one, "swap", "noise")["0.1"]) < 1e-9


def test_the_backup_writes_only_where_the_mover_is_missing(made: Make) -> None:
    one = made("backup")
    pairs = one.pairs["swap"]

    def written(row: tuple[int, ...], read: int, *, without_mover: bool) -> float:
        def silence(z: torch.Tensor, **_: Any) -> torch.Tensor:
            return torch.where(torch.arange(z.shape[2])[:, None] == 1, 0.0, z) if without_mover else z

        with one.model.hooks([("blocks.2.attn.hook_z", silence)]):
            _, cache = one.model.run_with_cache(torch.tensor(row), ["result.3"])
        return cache["result", 3][0, read, 1].detach().norm().item()

    for row, read in list(zip(pairs.clean, pairs.read, strict=True))[:4]:
        assert written(row, read, without_mover=False) < 0.02
        assert written(row, read, without_mover=True) > 0.95


def test_the_nearest_noun_head_is_perfect_until_the_orders_are_balanced(made: Make) -> None:
    one = made("coreference")
    pairs = one.pairs["pronoun"]
    right: dict[int, list[float]] = {1: [], 2: [], 3: []}  # of the heads 0.1, 0.2 and 0.3
    last = []
    for i, row in enumerate(pairs.clean):
        _, cache = one.model.run_with_cache(torch.tensor(row), ["pattern.0"])
        (asked,), (antecedent,), (other,) = (pairs.positions[p][i] for p in ("pronoun", "antecedent", "distractor"))
        for head, found in right.items():
            pattern = cache["pattern", 0][0, head, asked].detach()
            found.append(float(pattern[antecedent] > pattern[other]))
        last.append(antecedent > other)
    nearest = np.array(right[2])
    assert nearest[np.array(last)].mean() == 1.0
    assert np.mean(right[1]) == 1.0
    assert nearest.mean() == 0.5
    assert np.mean(right[3]) == 0.5


def test_the_subject_is_needed_where_the_fact_is_looked_up_and_only_there(made: Make) -> None:
    one = made("fact_recall")
    pairs = one.pairs["subject"]
    effects = interp.knockout(one.model, pairs, "END", "subject:last")
    lost = effects.mean(normalize="pooled").values
    assert np.allclose(lost, [0.0, 0.0, 0.5], atol=0.01)  # the answer goes, the foil does not come


def test_each_head_of_a_sum_says_all_it_can_and_only_the_sum_says_which(made: Make) -> None:
    one = made("additive_facts", dtype=torch.float64)
    subject, relation = one.pairs["subject"], one.pairs["relation"]
    every = {foil[0][0] for foil in (*relation.answer, *relation.foil)}  # both attributes of every subject asked for
    for i in range(4):
        answer, other, same = (of[i][0][0] for of in (subject.answer, subject.foil, relation.foil))
        _, cache = one.model.run_with_cache(torch.tensor(subject.clean[i]), ["result.0", "result.1"])
        assert one.model.unembed is not None

        def said(layer: int, head: int, i: int = i, cache: Any = cache) -> dict[int, float]:
            logits = (one.model.unembed.weight @ cache["result", layer][0, subject.read[i], head]).detach()
            return {token: round(float(x), 2) for token, x in enumerate(logits) if abs(x) > 0.01}

        assert said(0, 1) == {answer: 10.0, same: 10.0}, "the subject's attributes, whatever is asked"
        asked = said(0, 2)
        assert set(asked.values()) == {10.0} and {answer, other} <= set(asked) and same not in asked
        assert len(asked) == 32 and len(set(asked) & every) == len(every) // 2, "all that the relation can be"
        assert said(1, 1) == {token: 8.0 if token == answer else 4.0 for token in {*asked, same}}
        assert not said(0, 0) and not said(0, 3) and not said(1, 0)
