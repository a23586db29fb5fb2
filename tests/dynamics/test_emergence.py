"""What changed, when and how sharply: known of made series, and of models whose heads are planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import interp
from interp.dynamics import Recipe, train
from interp.dynamics.base import Optimizer
from interp.dynamics.causing import Patched
from interp.dynamics.changes import beside_loss, change_of, crossing, left_at, onsets
from interp.dynamics.contrasts import contrast
from interp.dynamics.folder import hash_of
from interp.dynamics.induction import TiledBlocks, attention_only
from interp.dynamics.measures import best_and_sum, in_context_scores
from interp.errors import InputError
from interp.model.loss import next_token_loss
from interp.model.transformer import HookedTransformer

pytestmark = pytest.mark.usefixtures("one_thread")
_LIKE_IT = 4  # heads of a kind in the planted model: true ones, and decoys that attend alike
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


def test_onsets_of_many_series_are_those_of_each() -> None:
    many = np.random.default_rng(1).normal(size=(30, 7)).cumsum(axis=1)
    for share in (0.1, 0.5):
        assert onsets(many, STEPS, share) == pytest.approx([crossing(one, STEPS, share) for one in many])


def test_a_series_has_left_where_it_stays_away_on_the_side_where_it_ends() -> None:
    blip = rows([0, 1, 0, 0.1, 0.5, 1, 1], noise=0.05)
    assert left_at(blip, STEPS) == 7 and left_at(-blip, STEPS) == 7
    assert np.isnan(left_at(rows([0.0] * 7), STEPS)) and np.isnan(left_at(blip[:1], STEPS))


def test_a_series_without_rows_changed_where_it_moved_more_than_its_noise() -> None:
    one = np.array([[0, 0, 0, 0.5, 1, 1, 1.0]])
    moved, still = (change_of(one, STEPS, n_resamples=10, seed=0, noise=noise) for noise in (0.5, 2.0))
    assert moved.step == pytest.approx(7) and np.isnan([moved.step_low, moved.change_low, moved.left]).all()
    assert np.isnan(still.step)


def test_the_share_of_the_loss_that_moved_is_read_between_two_steps() -> None:
    loss = np.array([8.0, 8, 8, 4, 0, 0, 0])
    assert beside_loss(loss, STEPS, 3.0, 7.0, 15.0) == pytest.approx((1.0, 0.5))
    assert beside_loss(loss, STEPS, 15.0, 31.0, 63.0) == pytest.approx((0.0, 1.0))
    assert (
        np.isnan(beside_loss(loss, STEPS, np.nan, 7.0, 15.0)).all()
        and np.isnan(beside_loss(loss * 0, STEPS, 1.0, 2.0, 3.0)).all()
    )


def test_more_rows_date_a_change_more_narrowly() -> None:
    few, many = (change(rows([0, 0, 0.2, 0.5, 0.8, 1, 1], noise=0.5, n=n)) for n in (20, 500))
    assert many.step_high - many.step_low < few.step_high - few.step_low


def test_the_in_context_score_is_late_loss_minus_early_loss() -> None:
    losses = torch.full((2, 16), 5.0)
    losses[:, -2:] = 1.0
    assert in_context_scores(losses).tolist() == [-4.0, -4.0]


def _cells() -> tuple[np.ndarray, np.ndarray]:
    """[row layer head checkpoint]: head 0 is best at first, then 1 on rows that choose and 2 on the others."""
    cells, chooses = np.full((6, 1, 3, 2), 0.1), np.arange(6) % 2 == 0
    cells[:, 0, 0, 0] = 0.9
    cells[chooses, 0, 1, 1], cells[~chooses, 0, 2, 1] = 0.8, 0.95
    return cells, chooses


def test_the_best_head_is_that_of_the_last_checkpoint_chosen_on_rows_that_are_not_reported() -> None:
    cells, chooses = _cells()
    total, best, order = best_and_sum(cells, chooses)
    assert order[0] == (0, 1) and best.tolist() == [[0.1, 0.1]] * 3
    assert total.mean(0).tolist() == pytest.approx([0.9 + 0.1 + 0.1, 0.1 + 0.1 + 0.95])


def test_the_head_that_restores_most_at_last_is_chosen_on_pairs_that_are_not_reported() -> None:
    cells, _ = _cells()
    made = contrast(interp.dynamics.recipe("copy").data, 6, torch.Generator().manual_seed(0))
    assert made is not None
    found = Patched(*made).found([{"z": cells[..., i], "gap": np.full(6, 2.0)} for i in (0, 1)])
    assert found.about["best"] == {"patch best head of layer 0": "0.1"}
    assert found.series["patch", "best head of layer 0"].tolist() == [[0.05, 0.05]] * 3


@pytest.fixture(scope="module")
def planted():
    return interp.planted.make("induction", n=8)


@pytest.fixture(scope="module")
def grown(planted):
    """An untrained model that becomes a planted one."""
    start = HookedTransformer(planted.model.cfg, seed=1)
    models = {0: start, 10: start, 20: lambda: planted.model, 40: planted.model}
    return interp.emergence(models, tokens=planted.tokens, ablate_at=[0, 40], top=_LIKE_IT)


def test_planted_heads_are_seen_to_appear_between_their_checkpoints(grown, planted) -> None:
    changes = grown.changes.set_index(["measure", "series"])
    for kind in ("induction", "previous_token"):
        like_it = planted.truth.heads[kind] | planted.truth.decoys[kind]  # which attend alike
        assert grown.about["best"][kind] in {str(head) for head in like_it}
        assert 10 < changes.loc[(kind, "best"), "step"] < 20
        assert grown.series(kind, "best")[40] > 0.8 > 2 * grown.about["uniform"][kind]
        assert grown.series(kind, "best")[0] < 0.5
    assert repr(grown) == f"Emergence({len(changes)} series at 4 checkpoints, steps 0 to 40)"


def test_loss_moves_with_the_heads_that_were_planted_with_it(grown) -> None:
    changes = grown.changes.set_index(["measure", "series"])
    row = changes.loc["induction", "best"]
    assert row["loss_share"] == pytest.approx(0.8, abs=1e-6) and row["loss_at"] == pytest.approx(0.5, abs=1e-6)
    assert 10 < row["at_10"] < row["at_25"] < row["at_50"] == row["step"] < 20 and row["left"] == 20
    assert row["at_25_low"] <= row["at_25"] <= row["at_25_high"]


def test_what_is_ablated_together_harms_where_the_heads_were_planted_and_not_before(grown, planted) -> None:
    table = grown.ablations.set_index(["step", "set"])
    both = "previous_token + induction"
    assert set(table.loc[40].index) == {"previous_token", "duplicate_token", "induction", both}
    assert table.loc[(40, both), "low"] > 0.5 > abs(table.loc[(0, both), "change"])
    heads = set(table.loc[(40, both), "heads"].split())
    for kind in ("previous_token", "induction"):
        assert planted.truth.heads[kind] and {str(head) for head in planted.truth.heads[kind]} <= heads
    random = table.loc[(40, "previous_token")]
    assert random["n_random"] == 0 or random["random_mean"] <= random["random_max"]


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
        interp.emergence(found, kinds="induction", n=8, pairs=None, progress=lambda *call: calls.append(call))
        for _ in range(2)
    )
    assert one.scores.equals(two.scores) and list(one.series("loss", "repeat").index) == [0, 1, 2, 4]
    assert ("in_context", "late − early") in set(zip(one.changes["measure"], one.changes["series"], strict=True))
    assert calls[:4] == [("measuring checkpoints", i, 4) for i in (1, 2, 3, 4)]
    about = {"recipe": "tiny", "seed": 0, "steps": 4, "hash": hash_of(found.asked)}
    assert one.about["training"] == about
    some = interp.emergence([found[0], found[3]], kinds="induction", n=8, pairs=None)
    assert some.steps == [0, 4] and some.series("loss", "repeat")[4] == pytest.approx(
        one.series("loss", "repeat")[4], rel=1e-6
    )


def test_what_cannot_be_measured_is_refused_before_a_model_is_loaded(planted) -> None:
    def never() -> HookedTransformer:
        raise AssertionError("loaded")

    two = {0: never, 1: never}
    for given, options, words in (
        ({0: never}, {}, "at least two checkpoints; these are 1"),
        ({-1: never, 1: never}, {}, "-1 is no step"),
        ([never], {}, "not a list of function"),
        (3, {}, "not int"),
        ("no/such", {}, "no/such holds no training"),
        (["no/such", "nor/this"], {"tokens": planted.tokens}, "no/such is no folder"),
        (two, {"revisions": ["a", "b"]}, "whose id comes first"),
        (two, {"tokens": planted.tokens, "ablate_at": [5]}, "ablate_at names step 5. There are 0, 1"),
        (two, {"tokens": planted.tokens, "measures": "prob"}, "no measure 'prob'"),
        (two, {"tokens": planted.tokens, "measures": {"loss": len}}, "'loss' is no measure of your own"),
        (two, {"tokens": planted.tokens, "pairs": "mine"}, "pairs is 'mine'"),
        (two, {"tokens": planted.tokens, "kinds": "mirror"}, "'mirror' is of cross-attention"),
        (two, {"tokens": planted.tokens, "shares": [1.5]}, "shares has 1.5"),
        (two, {}, "come without data"),
        (two, {"kinds": "syntax"}, "syntax is known by no attention"),
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
