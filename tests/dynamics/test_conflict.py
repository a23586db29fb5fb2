"""Rows that contradict the table do so and nothing else; who answers is counted as it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp.dynamics import ConflictResult, Recipe, conflict, train
from interp.dynamics.base import Optimizer
from interp.dynamics.conflict import _measured
from interp.dynamics.context import StatedFacts
from interp.dynamics.copying import RECIPES as COPY
from interp.dynamics.knowledge import windowed
from interp.errors import InputError, StorageError
from interp.runs.store import RunStore

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = StatedFacts()
SMALL = StatedFacts(n_residents=5, n_strangers=4, n_values=4, n_stated=2, n_asked=2)
TINY = Recipe(
    "tiny facts", windowed(SMALL.d_vocab, SMALL.length, d_model=8, n_heads=2), SMALL, 6, "", Optimizer(batch=8)
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_answers_follow_from_a_statement_or_from_the_table_as_their_group_says() -> None:
    examples = DATA.draw(500, generator())
    first_value = DATA.d_vocab - DATA.n_values
    seen = dict.fromkeys(examples.scored, 0)
    for i, row in enumerate(examples.tokens.tolist()):
        stated = dict(zip(row[1:9:2], row[2:9:2], strict=True))
        assert len(stated) == 4 and len({row[at] for at in (11, 15, 19, 23)}) == 4
        for at in (12, 16, 20, 24):
            (name,) = [name for name, which in examples.scored.items() if which[i, at]]
            seen[name] += 1
            subject, answer = row[at - 1], row[at]
            resident = subject - 2 < DATA.n_residents
            assert (subject in stated) == (name != "weights") and resident == (name != "context")
            assert stated.get(subject, answer) == answer
            if resident:
                by_table = first_value + int(DATA.table[subject - 2])
                assert (answer != by_table) == (name == "overruled")
    share = {name: count / 2_000 for name, count in seen.items()}
    assert share == pytest.approx({"weights": 0.25, "either": 0.28, "overruled": 0.094, "context": 0.375}, abs=0.04)


def test_a_conflict_states_another_value_and_its_twin_states_nothing_of_the_subject() -> None:
    rows = DATA.conflicts(300, generator())
    first_value = DATA.d_vocab - DATA.n_values
    places = set()
    for row, twin, stated, learned in zip(*(one.tolist() for one in vars(rows).values()), strict=True):
        assert learned == first_value + int(DATA.table[row[-1] - 2]) != stated
        at = row.index(row[-1])
        places.add(at)
        assert row[at + 1] == stated and twin[-1] == row[-1] and row[-1] not in twin[:-1]
        assert row[:at] + row[at + 2 :] == twin[:at] + twin[at + 2 :]
    assert places == {1, 3, 5, 7}


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


def test_a_conflict_is_kept_and_stored_as_it_is(tmp_path: Path) -> None:
    got = conflict(train(TINY, out=tmp_path / "a", steps=2), n=8)
    got.save(tmp_path / "kept")
    back = ConflictResult.load(tmp_path / "kept")
    assert back.table.equals(got.table) and back.heads.equals(got.heads) and dict(back.about) == dict(got.about)
    assert len(got.to_records()["table"]) == len(got.to_frame()) == 4 * 3
    run = RunStore(tmp_path / "runs").save(got, spec={})
    assert run.info.kind == "conflict" and isinstance(run.results(), ConflictResult)
    (tmp_path / "kept" / "about.json").write_text('{"kind": "emergence", "format": 1, "about": {}}')
    with pytest.raises(StorageError, match="holds no conflict of format 1"):
        ConflictResult.load(tmp_path / "kept")


def test_as_a_measure_of_emergence_it_gives_the_same_numbers(tmp_path: Path) -> None:
    found = train(TINY, out=tmp_path / "a", per_octave=1)
    grown = interp.emergence(found, measures="conflict", kinds="previous_token", n=8, pairs=None)
    got = conflict(found, n=4 * 8)
    for name in ("weights", "context", "other"):
        assert grown.series("conflict", name).tolist() == pytest.approx(got.series(name).tolist())
    assert grown.series("conflict, logits", "stated − learned").tolist() == pytest.approx(
        got.series("logit_diff").tolist(), rel=1e-5
    )
    head = got.heads[(got.heads["layer"] == 1) & (got.heads["head"] == 0)]["effect"].tolist()
    assert grown.series("conflict, logits", "head 1.0").tolist() == pytest.approx(head, abs=1e-6)
    page = grown.to_html(tmp_path / "page.html").read_text()
    assert page.count("weights against context: share of answers") >= 1
    copying = train(COPY[0], out=tmp_path / "copy", steps=1)
    with pytest.raises(InputError, match="copy has no rows"):
        interp.emergence(copying, measures="conflict", n=8)
    with pytest.raises(InputError, match="it needs their data"):
        interp.emergence({0: found.load(0), 6: found.load(6)}, measures=["conflict"], tokens=torch.zeros(4, 8).long())


def test_a_training_without_contradictions_is_refused(tmp_path: Path) -> None:
    found = train(COPY[0], out=tmp_path / "copy", steps=1)
    with pytest.raises(InputError, match=r'copy has no rows .* Train the recipe "facts-in-context"'):
        conflict(found)
    with pytest.raises(InputError, match="at least 2"):
        conflict(train(TINY, out=tmp_path / "a", steps=1), n=1)


@pytest.mark.parametrize("fields", [{"n_values": 1}, {"n_asked": 5}, {"overruled": -0.1}, {"from_stated": 1.5}])
def test_data_that_cannot_be_are_refused(fields: dict) -> None:
    with pytest.raises(InputError, match="StatedFacts has"):
        StatedFacts(**fields)
