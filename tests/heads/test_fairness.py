"""What a trial reports is recomputed from plain passes and hooks: scores of each half, exchanges and ablations,
controls without the head itself, and p corrected for heads, measures and kinds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import interp
from interp import planted
from interp.heads.base import finder
from interp.heads.choose import Choice
from interp.heads.plan import AblationPlan
from interp.heads.splits import halves, of_task
from interp.heads.study import Study
from interp.sites import Head
from interp.stats import sign_flip

N_LAYERS, N_HEADS = 2, 4
IO, S1, S2 = 1, 2, 4


@cache
def random_trial(*kinds: str):
    """A tiny random model whose every head is a candidate, so that controls are the half that mattered least."""
    made = planted.null(N_LAYERS, N_HEADS, seed=3, n=40)
    pairs = interp.PromptPairs(
        **{
            name: getattr(made.pairs["random"], name)
            for name in ("clean", "corrupt", "answer", "foil", "read", "templates")
        },
        positions={"IO": ((IO,),) * 40, "S1": ((S1,),) * 40, "S2": ((S2,),) * 40},
        items=tuple(f"{i // 2:02}" for i in range(40)),
    )
    worse = difference(made.model, pairs, "clean") < difference(made.model, pairs, "corrupt")
    sides = [
        (foil, answer) if turn else (answer, foil)
        for answer, foil, turn in zip(pairs.answer, pairs.foil, worse, strict=True)
    ]
    pairs = replace(
        pairs, answer=tuple(one[0] for one in sides), foil=tuple(one[1] for one in sides)
    )  # a task, of sorts
    options = {"top": N_LAYERS * N_HEADS, "n_random_sets": 1, "per_item": 2}
    scores = interp.find_heads(made.model, list(kinds), pairs=pairs, **options)
    select, report = halves(pairs, 0)
    return made.model, pairs.select(select), pairs.select(report), scores


def rows_of(scores, kind: str = "name_mover"):
    return scores.of(kind).set_index(["layer", "head"]).sort_index()


def difference(model, pairs, side: str, hooks=()) -> np.ndarray:
    with torch.no_grad():
        logits = model.run_with_hooks(torch.tensor(getattr(pairs, side)), fwd_hooks=list(hooks))
    rows = torch.arange(len(pairs))
    answer, foil = (torch.tensor([one[0][0] for one in of]) for of in (pairs.answer, pairs.foil))
    end = logits[rows, torch.tensor(pairs.read)]
    return (end[rows, answer] - end[rows, foil]).double().numpy()


def head_output(model, pairs, side: str, layer: int) -> torch.Tensor:
    with torch.no_grad():
        return model.run_with_cache(torch.tensor(getattr(pairs, side)))[1]["z", layer]


def put(layer: int, head: int, value: torch.Tensor):
    def edit(z: torch.Tensor, hook: object) -> None:
        z[:, :, head] = value

    return [(f"z.{layer}", edit)]


def test_exchanges_and_the_mean_are_those_of_plain_hooks():
    model, _, report, scores = random_trial("name_mover")
    clean, corrupt = difference(model, report, "clean"), difference(model, report, "corrupt")
    gap, rows = abs(clean.mean() - corrupt.mean()), rows_of(scores)
    assert len(rows) == N_LAYERS * N_HEADS and rows["noise"].notna().all()
    for layer in range(N_LAYERS):
        of_clean, of_corrupt = (head_output(model, report, side, layer) for side in ("clean", "corrupt"))
        for head in range(N_HEADS):
            row = rows.loc[(layer, head)]
            noised = difference(model, report, "clean", put(layer, head, of_corrupt[:, :, head]))
            denoised = difference(model, report, "corrupt", put(layer, head, of_clean[:, :, head]))
            averaged = difference(model, report, "clean", put(layer, head, of_corrupt[:, :, head].mean(0)))
            assert row["noise"] == pytest.approx((clean - noised).mean() / gap, abs=1e-4)
            assert row["denoise"] == pytest.approx((denoised - corrupt).mean() / gap, abs=1e-4)
            assert row["mean"] == pytest.approx((clean - averaged).mean() / gap, abs=1e-4)


def test_each_half_is_scored_by_itself_and_effects_are_those_of_the_reported_half():
    model, select, report, scores = random_trial("name_mover")
    rows = rows_of(scores)
    for pairs, column in ((select, "score_select"), (report, "score")):
        with torch.no_grad():
            _, seen = model.run_with_cache(torch.tensor(pairs.clean))
        for layer in range(N_LAYERS):
            expected = seen["pattern", layer][:, :, pairs.read[0], IO].mean(0).numpy()
            np.testing.assert_allclose(rows.loc[layer, column].to_numpy(), expected, atol=1e-6)
    assert not np.allclose(rows["score"], rows["score_select"], atol=1e-3)
    assert scores.about["tasks"]["ioi"]["clean"] == pytest.approx(difference(model, report, "clean").mean(), abs=1e-5)


def test_a_task_chooses_on_its_selecting_split_and_reports_on_the_other():
    model = planted.make("ioi").model
    splits = of_task(model, [finder("name_mover")], n=8, seed=0)
    for split in ("select", "report"):
        drawn = interp.tasks.load("ioi", model, "abc", split=split, n=8, seed=0)
        assert getattr(splits, split).main.clean == drawn.pairs.clean
    assert set(splits.select.main.templates).isdisjoint(splits.report.main.templates)
    assert set(splits.select.main.items).isdisjoint(splits.report.main.items)


def test_no_head_is_its_own_control():
    first, second, third = (Head(0, i, "attn", "") for i in range(3))
    for plan in (
        Choice({}, (first, second, third), {0: (first, second)}, {}, {}),
        AblationPlan({}, (first, second, third), {0: (first, second)}, {}),
    ):
        assert plan.others(first) == [second] and plan.others(third) == [first, second]


def test_controls_and_p_are_those_of_the_excess_over_other_heads_corrected_for_heads_measures_and_kinds():
    kinds = ("name_mover", "negative_mover")
    model, _, report, scores = random_trial(*kinds)
    study = Study(model, {"pairs": report}, ("END",))
    gap = abs(difference(model, report, "clean").mean() - difference(model, report, "corrupt").mean())
    heads = [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]
    for direction, prefix in (("noise", ""), ("denoise", "denoise_")):
        effects = interp.patch(model, report, "z", over=("layer", "head"), direction=direction).values.values
        harm = study.by_item(effects.reshape(len(report), -1) * (-1 if direction == "noise" else 1) / gap)
        for kind, sign in zip(kinds, (1, -1), strict=True):
            rows = rows_of(scores, kind)
            controls = [rows.loc[at, f"{prefix}control"] for at in heads]
            matched = np.stack([_control(harm, i, controls[i]) for i in range(len(heads))], axis=1)
            p, corrected = sign_flip(sign * (harm - matched), side="greater", seed=0)
            for i, at in enumerate(heads):
                assert rows.loc[at, f"{prefix}p"] == pytest.approx(min(2 * p[i], 1), abs=2e-3)
                expected = min(2 * len(kinds) * corrected[i], 1)
                assert rows.loc[at, f"{prefix}p_corrected"] == pytest.approx(expected, abs=4e-3)
    both = np.concatenate([rows_of(scores, kind)["p_corrected"] for kind in kinds])
    assert (both < 1).any(), "every p is 1, so nothing was compared"


def _control(harm: np.ndarray, head: int, mean: float) -> np.ndarray:
    """Harm per item of the one or two other heads of a head's layer whose mean is the control reported of it."""
    others = [i for i in range(head - head % N_HEADS, head - head % N_HEADS + N_HEADS) if i != head]
    sets = [[i] for i in others] + [[i, j] for i in others for j in others if i < j]
    found = [one for one in sets if harm[:, one].mean() == pytest.approx(mean, abs=1e-5)]
    assert len(found) == 1, "the control is no mean of one or two other heads of the layer"
    return harm[:, found[0]].mean(axis=1)
