"""Rows that contradict the table do so and nothing else; who answers is counted as it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from interp.dynamics import Recipe, conflict, train
from interp.dynamics.base import Optimizer
from interp.dynamics.conflict import _measured
from interp.dynamics.context import StatedFacts
from interp.dynamics.copying import RECIPES as COPY
from interp.dynamics.knowledge import windowed
from interp.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = StatedFacts()
SMALL = StatedFacts(n_residents=4, n_strangers=4, n_values=4)
TINY = Recipe(
    "tiny facts", windowed(SMALL.d_vocab, SMALL.length, d_model=8, n_heads=2), SMALL, 6, "", Optimizer(batch=8)
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_answers_follow_from_a_statement_or_from_the_table_as_their_group_says() -> None:
    examples = DATA.draw(2_000, generator())
    first_value = DATA.d_vocab - DATA.n_values
    groups = {name: which[:, -1] for name, which in examples.scored.items()}
    for row, *of in zip(examples.tokens.tolist(), *(one.tolist() for one in groups.values()), strict=True):
        name = dict(zip(of, groups, strict=True))[True]
        stated = {row[1]: row[2], row[3]: row[4]}
        asked, answer = row[6], row[7]
        resident = asked - 2 < DATA.n_residents
        assert len(stated) == 2 and (asked in stated) == (name != "weights") and resident == (name != "context")
        assert stated.get(asked, answer) == answer
        for subject, value in [*stated.items(), (asked, answer)]:
            if subject - 2 < DATA.n_residents:  # nothing contradicts the table
                assert value == first_value + int(DATA.table[subject - 2])
    shares = {name: float(which.float().mean()) for name, which in groups.items()}
    assert shares == pytest.approx({"context": 0.4, "either": 0.1, "weights": 0.5}, abs=0.04)


def test_a_conflict_states_another_value_and_its_twin_states_nothing_of_the_subject() -> None:
    rows = DATA.conflicts(300, generator())
    first_value = DATA.d_vocab - DATA.n_values
    places = set()
    for row, twin, stated, learned in zip(*(one.tolist() for one in vars(rows).values()), strict=True):
        assert learned == first_value + int(DATA.table[row[6] - 2]) != stated
        at = row.index(row[6])
        places.add(at)
        assert row[at + 1] == stated and twin[6] == row[6] and row[6] not in twin[:6]
        assert row[:at] + row[at + 2 :] == twin[:at] + twin[at + 2 :]
    assert places == {1, 3}


def test_shares_sum_to_one_and_a_heads_effect_is_what_a_patch_by_hand_gives(tmp_path: Path) -> None:
    found = train(TINY, out=tmp_path / "a", per_octave=1)
    got = conflict(found, n=40)
    shares = got.table[got.table["measure"] != "logit_diff"].groupby("step")["value"].sum()
    assert shares.tolist() == pytest.approx([1.0] * len(found)) and list(shares.index) == list(found.steps)
    assert bool((got.table["low"] <= got.table["value"]).all() and (got.table["value"] <= got.table["high"]).all())
    assert len(got.heads) == 4 * len(found) and "40 prompts" in repr(got)
    rows, model = SMALL.conflicts(40, generator()), found.load(6)
    said, effects = _measured(model, rows)
    logits = model(rows.tokens)[:, -1]
    i = torch.arange(40)
    diff = logits[i, rows.stated] - logits[i, rows.learned]
    torch.testing.assert_close(said["logit_diff"], diff)
    _, cache = model.run_with_cache(rows.unstated, "z.1")

    def put(z: Any, hook: Any) -> Any:
        z[:, -1, 1] = cache["z", 1][:, -1, 1]
        return z

    new = model.run_with_hooks(rows.tokens, fwd_hooks=[("z.1", put)])[:, -1]
    torch.testing.assert_close(effects[1, 1], diff - (new[i, rows.stated] - new[i, rows.learned]))
    assert not effects[0, 0].any()  # layer 0 at the end sees neither statement
    with pytest.raises(InputError, match="no measure 'share'"):
        got.series("share")


def test_a_training_without_contradictions_is_refused(tmp_path: Path) -> None:
    found = train(COPY[0], out=tmp_path / "copy", steps=1)
    with pytest.raises(InputError, match=r'copy has no rows .* Train the recipe "facts-in-context"'):
        conflict(found)
    with pytest.raises(InputError, match="at least 2"):
        conflict(train(TINY, out=tmp_path / "a", steps=1), n=1)


@pytest.mark.parametrize("fields", [{"n_values": 2}, {"strangers": 0.8, "agreed": 0.3}, {"agreed": -0.1}])
def test_data_that_cannot_be_are_refused(fields: dict) -> None:
    with pytest.raises(InputError):
        StatedFacts(**fields)
