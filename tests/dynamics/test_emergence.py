"""What changed, when and how sharply: known of made series, and of models whose heads are planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import interp
from interp.dynamics import Recipe, train
from interp.dynamics.base import Optimizer
from interp.dynamics.changes import change_of, crossing
from interp.dynamics.emerge import in_context_scores
from interp.dynamics.induction import TiledBlocks, attention_only
from interp.errors import InputError
from interp.model.loss import next_token_loss
from interp.model.transformer import HookedTransformer

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = np.array([0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0])  # an octave apart in 1 + step
DATA = TiledBlocks(d_vocab=12, length=24, periods=(3, 5))
TINY = Recipe("tiny", attention_only(2, DATA, d_model=8, n_heads=2), DATA, 4, "", Optimizer(batch=4, warm_up=2))


def rows(series: list[float], noise: float = 0.01, n: int = 40) -> np.ndarray:
    return np.array(series) + noise * np.random.default_rng(0).standard_normal((n, len(series)))


def change(values: np.ndarray):
    return change_of(values, STEPS, n_resamples=300, seed=0)


def test_a_step_is_dated_between_its_checkpoints_and_is_sharper_than_a_slope() -> None:
    sharp = change(rows([0, 0, 0, 0, 1, 1, 1]))
    slope = change(rows([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1]))
    assert 7 < sharp.step < 15 and sharp.step_low <= sharp.step <= sharp.step_high
    assert sharp.octaves == pytest.approx(0.8, abs=0.05) and slope.octaves == pytest.approx(4.8, abs=0.3)
    assert slope.step == pytest.approx(7, rel=0.1)


def test_a_fall_is_dated_like_a_rise() -> None:
    up, down = rows([0, 0, 0, 0, 1, 1, 1]), -rows([0, 0, 0, 0, 1, 1, 1])
    assert change(down).step == pytest.approx(change(up).step)
    assert change(down).change_high < 0 < change(up).change_low


def test_what_did_not_change_has_no_date_but_what_came_and_went_has_a_peak() -> None:
    still = change(rows([0.3] * 7, noise=0.1))
    assert np.isnan([still.step, still.step_low, still.step_high, still.octaves]).all()
    assert still.change_low <= 0 <= still.change_high
    bump = change(np.concatenate([rows([0, 0, 0.5, 0.9, 0.5, 0, 0], noise=0.0)] * 2))
    assert np.isnan(bump.step) and bump.peak == pytest.approx(0.9) and bump.peak_step == 7


def test_a_crossing_is_exact_on_a_line_in_the_logarithm() -> None:
    assert crossing(np.arange(7.0), STEPS, 0.5) == pytest.approx(7)
    assert np.isnan(crossing(np.zeros(7), STEPS, 0.5))
    with pytest.raises(InputError, match="at least two checkpoints"):
        change_of(np.zeros((3, 1)), STEPS[:1], n_resamples=10, seed=0)


def test_more_rows_date_a_change_more_narrowly() -> None:
    few, many = (change(rows([0, 0, 0.2, 0.5, 0.8, 1, 1], noise=0.5, n=n)) for n in (20, 500))
    assert many.step_high - many.step_low < few.step_high - few.step_low


def test_the_in_context_score_is_late_loss_minus_early_loss() -> None:
    losses = torch.full((2, 16), 5.0)
    losses[:, -2:] = 1.0
    assert in_context_scores(losses).tolist() == [-4.0, -4.0]


@pytest.fixture(scope="module")
def planted():
    return interp.planted.make("induction", n=8)


@pytest.fixture(scope="module")
def grown(planted):
    """An untrained model that becomes a planted one."""
    start = HookedTransformer(planted.model.cfg, seed=1)
    return interp.emergence({0: start, 10: start, 20: lambda: planted.model, 40: planted.model}, tokens=planted.tokens)


def test_planted_heads_are_seen_to_appear_between_their_checkpoints(grown, planted) -> None:
    changes = grown.changes.set_index(["measure", "series"])
    for kind in ("induction", "previous_token"):
        like_it = planted.truth.heads[kind] | planted.truth.decoys[kind]  # which attend alike
        assert grown.about["best"][kind] in {str(head) for head in like_it}
        assert 10 < changes.loc[(kind, "best"), "step"] < 20
        assert grown.series(kind, "best")[40] > 0.8 > 2 * grown.about["uniform"][kind]
        assert grown.series(kind, "best")[0] < 0.5
    assert repr(grown) == f"Emergence({len(changes)} series at 4 checkpoints, steps 0 to 40)"


def test_losses_are_those_of_the_rows_that_did_not_choose_the_heads(grown, planted) -> None:
    tokens = planted.tokens[1::2]
    expected = next_token_loss(planted.model(tokens), tokens)
    assert grown.series("loss", "all")[40] == pytest.approx(expected.item(), rel=1e-5)
    assert grown.about["n"] == len(tokens)


def test_an_unmeasured_series_is_answered_with_the_measured_ones(grown) -> None:
    with pytest.raises(InputError, match=r"no sink best. Measured are loss all, .*induction sum"):
        grown.series("sink", "best")


def test_the_checkpoints_of_a_training_bring_their_own_rows(tmp_path: Path) -> None:
    found = train(TINY, out=tmp_path / "a", per_octave=1)
    calls: list[tuple[str, int, int]] = []
    one, two = (
        interp.emergence(found, kinds="induction", n=8, progress=lambda *call: calls.append(call)) for _ in range(2)
    )
    assert one.scores.equals(two.scores) and list(one.series("loss", "repeat").index) == [0, 1, 2, 4]
    assert ("in_context", "late − early") in set(zip(one.changes["measure"], one.changes["series"], strict=True))
    assert calls[:4] == [("measuring checkpoints", i, 4) for i in (1, 2, 3, 4)]


def test_what_cannot_be_measured_is_refused_before_a_model_is_loaded(planted) -> None:
    def never() -> HookedTransformer:
        raise AssertionError("loaded")

    two = {0: never, 1: never}
    for given, options, words in (
        ({0: never}, {}, "at least two checkpoints; these are 1"),
        ({-1: never, 1: never}, {}, "-1 is no step"),
        ([never], {}, "not list"),
        (two, {}, "come without data"),
        (two, {"kinds": "name_mover"}, "name_mover is known by no pattern"),
        (two, {"kinds": "inducer"}, "no kind of head called 'inducer'"),
        (two, {"n": 1}, "n is 1"),
        (two, {"tokens": planted.tokens[:1]}, "at least 4 rows"),
    ):
        with pytest.raises(InputError, match=words):
            interp.emergence(given, **options)  # type: ignore[arg-type]


def test_rows_without_what_a_kind_attends_to_are_refused() -> None:
    model = HookedTransformer(TINY.config, seed=0)
    with pytest.raises(InputError, match="Too few rows have what induction heads attend to"):
        interp.emergence({0: model, 1: model}, kinds="induction", tokens=torch.arange(12).repeat(6, 1))
