"""A head that is held learns what it may, resumes as it was held, and is found again in the checkpoints."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch

from interp.dynamics import Intervention, Recipe, checkpoints, compare_formation, train
from interp.dynamics.base import Optimizer
from interp.dynamics.induction import TiledBlocks, attention_only
from interp.dynamics.interventions import held_hooks, read_interventions
from interp.dynamics.reversal import RECIPES as REVERSAL
from interp.dynamics.training import HELD_OUT_ROWS, measure, stream
from interp.errors import CheckpointError, InputError, StorageError
from interp.model.transformer import HookedTransformer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As outside the tests: the package's own checks meet the bad input."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


DATA = TiledBlocks(d_vocab=12, length=12, periods=(3, 5))
TINY = Recipe("tiny", attention_only(2, DATA, d_model=8, n_heads=2), DATA, 20, "", Optimizer(batch=4, warm_up=5))
ROWS = DATA.draw(6, torch.Generator().manual_seed(0)).tokens[:, :-1]


def held(*interventions: Intervention) -> Any:
    """All sites of a model under some interventions."""
    model = HookedTransformer(TINY.config, seed=3)
    with model.hooks(held_hooks(interventions, TINY.config)):
        return model.run_with_cache(ROWS)[1]


def same(a: HookedTransformer, b: HookedTransformer) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_an_ablated_head_writes_nothing_or_the_same_everywhere() -> None:
    plain, zero, mean = held(), held(Intervention("0.1")), held(Intervention("0.1", "mean"))
    assert not zero["z", 0][:, :, 1].any() and torch.equal(zero["z", 0][:, :, 0], plain["z", 0][:, :, 0])
    expected = plain["z", 0][:, :, 1].mean(dim=(0, 1))
    torch.testing.assert_close(mean["z", 0][:, :, 1], expected.expand(*ROWS.shape, -1))
    assert not held(Intervention("1.*"))["attn_out", 1].any()


def test_given_patterns_are_uniform_over_what_is_seen_or_on_the_token_before() -> None:
    n = ROWS.shape[1]
    uniform = held(Intervention("0.0", "uniform"))["pattern", 0]
    torch.testing.assert_close(uniform[0, 0], torch.ones(n, n).tril() / torch.arange(1, n + 1)[:, None])
    before = held(Intervention("1.1", "previous_token"))["pattern", 1]
    expected = torch.eye(n).roll(-1, 1)
    expected[0] = torch.eye(n)[0]
    assert torch.equal(before[2, 1], expected)
    assert not torch.equal(before[2, 0], expected)  # the other head is as it was


def test_padding_is_not_a_previous_token() -> None:
    model = HookedTransformer(TINY.config, seed=3)
    mask = torch.ones_like(ROWS, dtype=torch.bool)
    mask[:, :3] = False
    hooks = held_hooks([Intervention("0.*", "previous_token")], TINY.config)
    _, cache = model.run_with_cache(ROWS, "pattern.0", attention_mask=mask, fwd_hooks=hooks)
    pattern = cache["pattern", 0][0, 0]
    assert pattern[3, 3] == 1 and pattern[4, 3] == 1 and not pattern[:3].any()


@pytest.mark.parametrize("action", ["zero", "mean", "uniform", "previous_token"])
def test_gradients_reach_what_is_left_of_a_held_head_and_nothing_else(action: Any) -> None:
    model = HookedTransformer(TINY.config, seed=3)
    with model.hooks(held_hooks([Intervention("0.1", action)], TINY.config)):
        model(ROWS).square().mean().backward()
    attn = model.blocks[0].attn
    moved = {name: bool(getattr(attn, name).weight.grad[attn.config.d_head :].any()) for name in ("q", "k", "v")}
    given = action in ("uniform", "previous_token")
    assert moved == {"q": action == "mean", "k": action == "mean", "v": given or action == "mean"}
    assert attn.q.weight.grad[: attn.config.d_head].any()  # head 0.0 goes on


def test_a_held_training_says_so_resumes_the_same_and_is_measured_as_it_was_trained(tmp_path: Path) -> None:
    what = [Intervention("0.*", "previous_token"), Intervention("1.0", "zero", start=4, stop=16)]
    whole = train(TINY, out=tmp_path / "whole", interventions=what)

    class Killed(BaseException):
        pass

    def kill(stage: str, done: int, total: int) -> None:
        if done == 9:
            raise Killed

    with pytest.raises(Killed):
        train(TINY, out=tmp_path / "killed", interventions=what, progress=kill)
    again = train(TINY, out=tmp_path / "killed", interventions=what)
    assert all(same(a.load(), b.load()) for a, b in zip(whole, again, strict=True))
    assert whole.interventions == tuple(what) and "1.0 zero" in repr(whole)
    assert [len(whole.at(step).interventions) for step in (3, 4, 13, 16, 20)] == [1, 2, 2, 1, 1]
    examples = DATA.draw(HELD_OUT_ROWS, stream(0, "held out"), held_out=True)
    one, model = whole.at(8), whole.load(8)
    with model.hooks(one.hooks()):
        got = measure(model, examples)["repeat"]["loss"]
    assert got == pytest.approx(one.held_out["repeat"]["loss"], rel=1e-5)
    assert measure(model, examples)["repeat"]["loss"] != pytest.approx(got, rel=1e-4)
    plain = train(TINY, out=tmp_path / "plain")
    assert same(plain.load(0), whole.load(0)) and not same(plain.load(20), whole.load(20))
    assert plain.interventions == () and not plain[-1].hooks() and "interventions" not in plain.asked
    with pytest.raises(InputError, match=r"holds another training: interventions is \[\{"):
        train(TINY, out=tmp_path / "whole")


def test_before_its_start_and_after_its_stop_a_training_is_as_without(tmp_path: Path) -> None:
    plain = train(TINY, out=tmp_path / "plain")
    late = train(TINY, out=tmp_path / "late", interventions=[Intervention("0.0", start=10)])
    assert same(plain.load(10), late.load(10)) and not same(plain.load(11), late.load(11))
    asked = plain.asked["schedule"]
    assert asked == late.asked["schedule"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([Intervention("2.0")], "There is no head 2.0: the layers are 0 to 1"),
        ([Intervention("0.2")], "layer 0 has heads 0 to 1"),
        ([Intervention("encoder.0.0")], "names no stack of this model. Write 0.0"),
        ([Intervention("cross_attn.0.0")], "no cross-attention"),
        ([Intervention("0.*"), Intervention("0.1", "uniform", start=9)], "same head at the same steps"),
        (Intervention("0.1"), "Give a list"),
        (["0.1"], "interventions holds '0.1'"),
    ],
)
def test_interventions_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path: Path, unchecked: None, given: Any, words: str
) -> None:
    with pytest.raises(InputError) as said:
        train(TINY, out=tmp_path / "new", interventions=given)
    assert words in str(said.value) and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Intervention("head 3"), "names no head"),
        (lambda: Intervention("0.1", "noise"), "action='noise'"),  # type: ignore[arg-type]
        (lambda: Intervention("0.1", start=5, stop=5), "stop after it starts"),
    ],
)
def test_an_intervention_is_checked_where_it_is_made(make: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError) as said:
        make()
    assert words in str(said.value)


def test_in_two_stacks_the_stack_is_named_and_cross_attention_has_no_previous_token() -> None:
    config = REVERSAL[0].config
    ok = read_interventions([Intervention("decoder.cross_attn.0.*", "uniform")], config)
    assert held_hooks(ok, config)[0][0] == "decoder.blocks.0.cross_attn.hook_attn_scores"
    with pytest.raises(InputError, match=r"Write encoder\.0\.1 or decoder\.0\.1"):
        read_interventions([Intervention("0.1")], config)
    with pytest.raises(InputError, match="no token is the previous one"):
        read_interventions([Intervention("decoder.cross_attn.0.1", "previous_token")], config)


def test_formation_is_dated_by_the_reference_level_and_never_where_it_is_not_reached(tmp_path: Path) -> None:
    found = {
        "plain": [
            train(TINY, out=tmp_path / f"p{seed}", seed=seed, steps=40, lr=0.03, per_octave=1) for seed in (0, 1)
        ],
        "without layer 0 and 1": train(
            TINY,
            out=tmp_path / "no",
            steps=40,
            lr=0.03,
            per_octave=1,
            interventions=[Intervention("0.*"), Intervention("1.*")],
        ),
    }
    table = compare_formation(found, "repeat")
    plain = table[table["training"] == "plain"]
    assert list(plain["seed"]) == [0, 1] and set(table.columns) >= {"halfway", "reached", "loss", "accuracy"}
    first, last = (sum(one[i].held_out["repeat"]["loss"] for one in found["plain"]) / 2 for i in (0, -1))
    assert table.attrs["level"] == pytest.approx((first + last) / 2)
    for one, at in zip(found["plain"], plain["halfway"], strict=True):
        above = [c.step for c in one if c.held_out["repeat"]["loss"] > table.attrs["level"]]
        assert at != at or min(s for s in one.steps if s not in above) >= at > 0
    with pytest.raises(InputError, match=r"no group 'fact'.*first, repeat"):
        compare_formation(found, "fact")
    with pytest.raises(InputError, match="no trainings"):
        compare_formation({}, "repeat")


def test_a_folder_that_another_process_trains_in_is_refused_and_a_killed_one_blocks_nobody(tmp_path: Path) -> None:
    out = tmp_path / "shared"
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom interp.dynamics.folder import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == "held\n"
            with pytest.raises(StorageError, match=rf"process {other.pid} on .* trains in it"):
                train(TINY, out=out)
        finally:
            other.kill()
    start = time.monotonic()
    assert train(TINY, out=out, steps=2).finished and time.monotonic() - start < 30
    with pytest.raises(CheckpointError, match="holds no training"):
        checkpoints(tmp_path)


def test_a_training_inside_a_training_of_one_folder_is_refused(tmp_path: Path) -> None:
    def again(stage: str, done: int, total: int) -> None:
        train(TINY, out=tmp_path / "a")

    with pytest.raises(StorageError, match="trains in it"):
        train(TINY, out=tmp_path / "a", progress=again)
    assert train(TINY, out=tmp_path / "a").finished
