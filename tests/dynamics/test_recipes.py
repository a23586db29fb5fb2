"""The recipes' data say what they promise: what can be known, and from where."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from interp.cli.train import RECIPES
from interp.dynamics import Recipe, recipe, recipes
from interp.dynamics.base import Optimizer, data_from
from interp.dynamics.copying import CopyRows
from interp.dynamics.induction import TiledBlocks
from interp.dynamics.knowledge import WINDOW, FactSentences, PronounSentences
from interp.dynamics.reversal import ReversedRows
from interp.dynamics.schedule import log_schedule
from interp.errors import CheckpointError, InputError
from interp.model.transformer import HookedTransformer

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = sorted(recipes())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ALL)
def test_every_recipe_draws_rows_that_its_model_takes_and_no_first_token_is_scored(name: str) -> None:
    what = recipe(name)
    examples = what.data.draw(5, generator())
    model = HookedTransformer(what.config, seed=0)
    before = examples.tokens[:, :-1]
    logits = model(before) if examples.source is None else model(examples.source, decoder_input=before)
    assert logits.shape == (*before.shape, what.config.d_vocab)
    assert examples.tokens.shape[1] == what.config.n_ctx + 1  # every row of the position table is trained
    assert not examples.all_scored[:, 0].any() and examples.all_scored.any(dim=1).all()
    assert sum(one.int() for one in examples.scored.values()).max() == 1  # groups are disjoint


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_draws_the_same_rows_and_another_one_others(name: str) -> None:
    data = recipe(name).data
    one, same, other = (data.draw(8, generator(seed)).tokens for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("name", ALL)
def test_data_come_back_from_json_as_they_were(name: str) -> None:
    what = recipe(name)
    assert data_from(json.loads(json.dumps(what.to_dict()))["data"]) == what.data


def test_unknown_data_and_fields_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match="no data called 'Rows', only CopyRows"):
        data_from({"kind": "Rows"})
    with pytest.raises(CheckpointError, match="CopyRows do not fit"):
        data_from({"kind": "CopyRows", "colour": 1})


def test_the_command_line_names_every_recipe() -> None:
    assert sorted(RECIPES) == ALL


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no recipe 'inductoin'. Known are .*induction"):
        recipe("inductoin")


def test_repeats_follow_from_the_context_and_firsts_do_not_repeat_by_period() -> None:
    data = TiledBlocks(periods=(4, 9), length=20)
    examples = data.draw(50, generator())
    for row, first, repeat in zip(examples.tokens, examples.scored["first"], examples.scored["repeat"], strict=True):
        period = int(first.sum())
        assert 4 <= period <= 9
        at = repeat.nonzero()[:, 0]
        assert torch.equal(row[at], row[at - period]) and torch.equal(row[at - 1], row[at - 1 - period])
        assert int(at[0]) == period + 2  # one token after the copy's first, which nothing announces
    assert {int(one.sum()) for one in examples.scored["first"]} == set(range(4, 10))


def test_the_control_has_one_period_and_the_recipe_many() -> None:
    def periods(name: str) -> set[int]:
        return {int(one.sum()) for one in recipe(name).data.draw(300, generator()).scored["first"]}

    assert periods("induction-fixed-period") == {16} and periods("induction") == set(range(8, 33))


def test_periods_that_cannot_repeat_are_refused() -> None:
    with pytest.raises(InputError, match=r"periods=\(8, 64\)"):
        TiledBlocks(periods=(8, 64))


def test_copies_and_reversals_are_those_of_the_source() -> None:
    copied = CopyRows(length=5).draw(9, generator()).tokens
    assert torch.equal(copied[:, 1:6], copied[:, 7:]) and bool((copied[:, 6] == 1).all())
    examples = ReversedRows(length=5).draw(9, generator())
    assert examples.source is not None and torch.equal(examples.tokens[:, 1:], examples.source.flip(1))


def test_a_reversal_of_several_lengths_says_how_many_and_only_the_tokens_tell_which() -> None:
    data = ReversedRows(d_vocab=20, length=6, shortest=3)
    examples = data.draw(200, generator())
    assert examples.source is not None
    counts = examples.scored["reversed"].sum(1)
    assert set(counts.tolist()) == {3, 4, 5, 6} and torch.equal(examples.tokens[:, 0], counts - 3)
    for row, source, n in zip(examples.tokens.tolist(), examples.source.tolist(), counts.tolist(), strict=True):
        assert row[1 : n + 1] == source[:n][::-1] and min(source) >= data.n_starts
    assert ReversedRows().draw(4, generator()).all_scored[:, 1:].all()
    with pytest.raises(InputError, match="shortest=9, length=8"):
        ReversedRows(shortest=9)


def test_facts_are_the_same_world_for_every_seed_and_answer_by_subject_and_relation() -> None:
    data = FactSentences()
    answers: dict[tuple[int, int], int] = {}
    for seed in (0, 1):
        for row in data.draw(400, generator(seed)).tokens.tolist():
            assert answers.setdefault((row[1], row[3]), row[-1]) == row[-1]
    assert len({answer for (relation, _), answer in answers.items()}) > data.n_values
    other = dataclasses.replace(data, world=1)
    assert not torch.equal(data.table, other.table) and max(answers.values()) < data.d_vocab


def test_the_antecedent_agrees_with_the_pronoun_and_held_out_pairs_are_never_trained_on() -> None:
    data = PronounSentences()
    seen = {held: data.draw(2000, generator(), held_out=held).tokens for held in (False, True)}
    pairs = {held: {frozenset((row[1], row[3])) for row in rows.tolist()} for held, rows in seen.items()}
    assert pairs[False].isdisjoint(pairs[True]) and len(pairs[False]) > 400 and len(pairs[True]) > 100
    first_name = int(seen[False][:, [1, 3]].min())
    for row in seen[False].tolist():
        kind = row[5] - min(seen[False][:, 5].tolist())
        assert row[-1] in (row[1], row[3]) and (row[-1] - first_name) // data.n_names == kind


@pytest.mark.parametrize(("name", "changed"), [("facts", 3), ("coreference", 1), ("coreference", 3)])
def test_no_first_layer_head_at_the_end_sees_what_decides_the_answer(name: str, changed: int) -> None:
    what = recipe(name)
    model = HookedTransformer(what.config, seed=3)
    rows = what.data.draw(4, generator()).tokens[:, :-1]
    other = rows.clone()
    other[:, changed] = rows.roll(1, 0)[:, changed]
    caches = [model.run_with_cache(one, ["blocks.0.attn.hook_z", "blocks.1.attn.hook_z"])[1] for one in (rows, other)]
    near, far = ([cache["z", layer][:, -1] for cache in caches] for layer in (0, 1))
    assert torch.equal(*near) and not torch.equal(*far)
    assert rows.shape[1] - 1 - changed >= WINDOW


def test_a_reversal_encoder_keeps_each_token_at_its_own_place() -> None:
    what = recipe("reversal")
    model = HookedTransformer(what.config, seed=0)
    source = what.data.draw(3, generator()).source
    assert source is not None
    other = source.clone()
    other[:, 2] = (source[:, 2] % 30) + 2
    one, two = model.encode(source).resid, model.encode(other).resid
    differ = (one != two).any(dim=-1)
    assert differ[:, 2].all() and not differ[:, [0, 1, 3, 4, 5, 6, 7]].any()


def test_the_schedule_is_dense_at_first_and_holds_both_ends() -> None:
    assert log_schedule(10, per_octave=1) == (0, 1, 2, 4, 8, 10)
    steps = log_schedule(2000)
    assert steps[0] == 0 and steps[-1] == 2000 and len([s for s in steps if 200 < s <= 400]) == 4
    assert log_schedule(1) == (0, 1)
    with pytest.raises(InputError, match="0 steps"):
        log_schedule(0)


def test_the_rate_warms_up_and_decays_where_asked() -> None:
    flat, falling = Optimizer(lr=1.0, warm_up=10), Optimizer(lr=1.0, warm_up=10, decay=True)
    assert flat.rate(0, 100) == pytest.approx(0.1) and flat.rate(9, 100) == flat.rate(99, 100) == 1.0
    assert falling.rate(100, 100) == pytest.approx(0.02) and falling.rate(50, 100) == pytest.approx(0.51)
    assert Optimizer(lr=1.0, warm_up=0).rate(0, 5) == 1.0


def test_a_recipe_says_in_words_what_is_known_of_it() -> None:
    assert all(isinstance(one, Recipe) and one.about.endswith(".") for one in recipes().values())
