"""Checkpoints of a training in which heads were held are measured as they were trained, or not at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import interp
from interp.dynamics import Checkpoints, Intervention, Recipe, order, train
from interp.dynamics.base import Optimizer
from interp.dynamics.emerge import _examples
from interp.dynamics.induction import TiledBlocks, attention_only
from interp.dynamics.training import token_losses
from interp.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = TiledBlocks(d_vocab=12, length=20, periods=(3, 5))
TINY = Recipe("tiny", attention_only(2, DATA, d_model=8, n_heads=2), DATA, 8, "", Optimizer(batch=8, warm_up=2))


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    what = [Intervention("0.1", "previous_token"), Intervention("1.0", "zero", start=3)]
    return train(TINY, out=tmp_path_factory.mktemp("held") / "a", per_octave=1, interventions=what)


def test_losses_and_attention_are_those_of_the_model_as_it_was_trained(held) -> None:
    grown = interp.emergence(held, n=16)
    assert grown.steps == [0, 1, 2, 4, 8] and "held" in grown.about["training"]
    assert grown.series("previous_token", "best").tolist() == pytest.approx([1.0] * 5)  # as it was given
    rows = _examples(held, None, 16, 0)
    for step in (2, 8):
        model, hooks = held.load(step), held.at(step).hooks()
        with torch.no_grad(), model.hooks(hooks):
            losses = token_losses(model, rows)[0]
            _, cache = model.run_with_cache(rows.tokens[:, :-1], ["pattern.0", "pattern.1"])
        bare = token_losses(model, rows)[0].detach()
        which = rows.scored["repeat"][1::2, 1:]
        each = [(one[1::2] * which).sum(1) / which.sum(1) for one in (losses, bare)]
        assert grown.series("loss", "repeat")[step] == pytest.approx(float(each[0].mean()), rel=1e-5)
        assert grown.series("loss", "repeat")[step] != pytest.approx(float(each[1].mean()), rel=1e-4)
        looks = torch.stack([cache["pattern", layer][1::2].diagonal(-1, 2, 3).mean(2) for layer in (0, 1)], dim=1)
        if step == 8:
            looks[:, 1, 0] = 0.0  # it is held at 0, so where it looks says nothing
        assert grown.series("previous_token", "sum")[step] == pytest.approx(float(looks.sum((1, 2)).mean()), rel=1e-5)


def test_attention_under_hooks_is_what_it_is_without_where_the_hooks_change_nothing(held) -> None:
    from interp.dynamics.attending import PatternHeads
    from interp.heads.base import finder

    rows, model = _examples(held, None, 8, 0), held.load(8)
    heads = PatternHeads([finder(name) for name in ("previous_token", "induction")], rows, torch.arange(8) % 2 == 0)
    plain = heads.see(model)
    with model.hooks([("blocks.0.attn.hook_z", lambda z, hook: z)]):
        same = heads.see(model)
    for name, shares in plain.items():
        torch.testing.assert_close(same[name], shares)


def test_what_would_run_without_the_hooks_is_left_out_or_refused(held) -> None:
    grown = interp.emergence(held, n=16)
    assert {"patch", "composition"} <= set(grown.about["left_out"])
    assert "0.1 previous_token" in grown.about["left_out"]["patch"]
    assert not {"patch", "patch gap", "K-composition"} & set(grown.changes["measure"])
    pairs = interp.planted.make("induction", n=8).pairs
    pairs = pairs[next(iter(pairs))] if isinstance(pairs, dict) else pairs
    for options, words in (({"ablate_at": [8]}, "ablate_at cannot be had"), ({"pairs": pairs}, "pairs cannot be had")):
        with pytest.raises(InputError, match=words):
            interp.emergence(held, n=16, **options)


def test_own_measures_see_the_hooks_too(held) -> None:
    def looks(model, examples):
        return {"0.1": model.run_with_cache(examples.tokens[:, :-1], "pattern.0")[1]["pattern", 0][:, 1, 5, 4]}

    grown = interp.emergence(held, n=8, measures={"mine": looks})
    assert grown.series("mine", "0.1").tolist() == [1.0] * 5


def test_held_and_free_trainings_are_no_seeds_of_one_recipe(held, tmp_path: Path) -> None:
    free = train(TINY, out=tmp_path / "free", per_octave=1, seed=1)
    found = [interp.emergence(one, kinds="induction", n=8, pairs=None) for one in (held, free)]
    with pytest.raises(
        InputError, match=r"different recipes: tiny of 8 steps, tiny of 8 steps with 0\.1 previous_token"
    ):
        order(found)
    again = [dataclasses.replace(found[1]), found[1]]
    with pytest.raises(InputError, match="Seed 1 is given twice"):
        order(again)
