"""`interp train`: the same checkpoints as `interp.dynamics.train`, printed and as JSON."""

from __future__ import annotations

import inspect
import json
import time

import pytest

from interp import dynamics
from interp.cli.train import train

SMALL = """
import dataclasses
from interp.dynamics import base
real = base.recipes
base.recipes = lambda: {name: dataclasses.replace(one, steps=3) for name, one in real().items()}
"""


def test_the_defaults_are_those_of_train():
    ours, theirs = inspect.signature(train).parameters, inspect.signature(dynamics.train).parameters
    assert all(ours[name].default == theirs[name].default for name in ("seed", "steps", "lr", "per_octave"))


def test_a_training_is_printed_goes_on_and_is_told_as_json(run, tmp_path):
    done = run("train", "copy", "--out", "runs/copy", code=SMALL)
    assert done.code == 0, done.err
    assert "loss copy" in done.out and "copy, seed 0: 4, steps 0 to 3 of 3" in " ".join(done.out.split())
    found = dynamics.checkpoints(tmp_path / "runs" / "copy")
    assert f"{found[-1].held_out['copy']['loss']:.3f}" in done.out
    again = run("train", "copy", "--out", "runs/copy", "--json", code=SMALL)
    told = json.loads(again.out)
    assert [row["step"] for row in told["held_out"]] == [0, 1, 2, 3] and told["asked"]["recipe"]["name"] == "copy"


def test_mistakes_are_one_sentence(run):
    unknown = run("train", "inductoin", "--out", "a")
    assert unknown.code == 2 and "no recipe 'inductoin'" in unknown.err
    assert run("train", "copy", "--out", "a", code=SMALL).code == 0
    other = run("train", "copy", "--out", "a", "--seed", "1", code=SMALL)
    assert other.code == 2 and "seed is 0 there and 1 here" in other.err
    assert run("train", "copy").code == 2


def test_heads_are_held_as_asked_and_a_pattern_nobody_knows_is_refused(run, tmp_path):
    held = ("--ablate", "0.2", "--clamp", "0.1=previous_token", "--hold-from", "1", "--hold-until", "3")
    assert run("train", "copy", "--out", "a", *held, code=SMALL).code == 0
    found = dynamics.checkpoints(tmp_path / "a").interventions
    assert found == (
        dynamics.Intervention("0.2", "zero", 1, 3),
        dynamics.Intervention("0.1", "previous_token", 1, 3),
    )
    wrong = run("train", "copy", "--out", "b", "--clamp", "0.1", code=SMALL)
    assert wrong.code == 2 and "says no pattern" in wrong.err


@pytest.mark.slow
def test_a_killed_command_goes_on_with_the_same_numbers(run, begin, tmp_path):
    arguments = ["train", "copy", "--steps", "400", "--out"]
    process = begin(*arguments, "killed")
    until = time.monotonic() + 100
    while not (tmp_path / "killed" / "checkpoints" / "000064").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert not dynamics.checkpoints(tmp_path / "killed").finished
    assert run(*arguments, "killed").code == 0 and run(*arguments, "whole").code == 0
    one, two = (dynamics.checkpoints(tmp_path / name) for name in ("killed", "whole"))
    assert one.finished and one.losses().equals(two.losses())
    assert [a.sha256 for a in one] == [b.sha256 for b in two]
