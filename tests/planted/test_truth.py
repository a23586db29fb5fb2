"""Patching, path patching and ablation find what is planted, all of it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp import planted
from interp.sites import Head

Make = Callable[..., planted.Planted]
NAMES = planted.names()
HOWS = ("denoise", "noise", "zero", "mean", "resample")
ALL = [(norm, rotate, seed) for norm in ("none", "rms", "layer") for rotate in (False, True) for seed in range(1, 6)]
CONTAINED = {"induction", "negative", "backup"}  # larger copies or parts of other circuits


def some(*quick: str) -> list[Any]:
    """Every circuit; all but these in the slow tests."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in NAMES]


BUT_CONTAINED = some(*(name for name in NAMES if name not in CONTAINED))


def _correct(one: planted.Planted) -> float:
    pairs = one.pairs[next(iter(one.pairs))]
    said = [
        one.model(torch.tensor(row))[0, read].argmax().item() for row, read in zip(pairs.clean, pairs.read, strict=True)
    ]
    return float(np.mean([token == answer[0][0] for token, answer in zip(said, pairs.answer, strict=True)]))


@pytest.mark.parametrize("name", BUT_CONTAINED)
def test_both_directions_of_patching_find_what_is_declared(name: str, made: Make, ask: Any) -> None:
    _finds_what_is_declared(name, ("denoise", "noise"), made, ask)


@pytest.mark.parametrize("name", some("or", "and", "saturated", "cancelling", "copy_suppression", "coreference"))
def test_all_ablations_find_what_is_declared(name: str, made: Make, ask: Any) -> None:
    _finds_what_is_declared(name, ("zero", "mean", "resample"), made, ask)


def _finds_what_is_declared(name: str, hows: tuple[str, ...], made: Make, ask: Any) -> None:
    """In double precision, so that heads outside the circuit have an effect of exactly 0."""
    one = made(name, dtype=torch.float64)
    assert _correct(one) == 1.0
    unasked = {("swap", "resample")} if name == "or" else set()  # chance decides that one, see there
    assert set(one.truth.effects) == {(corruption, how) for corruption in one.pairs for how in HOWS} - unasked
    planted_heads = {str(head) for heads in one.truth.heads.values() for head in heads}
    for (corruption, how), declared in one.truth.effects.items():
        if how not in hows:
            continue
        shares = ask.shares(one, corruption, how)
        assert ask.found(shares) == declared, (corruption, how, shares)
        assert max(abs(x) for n, x in shares.items() if n not in planted_heads | declared) < 1e-9
        assert max([0.0, *(abs(x) for n, x in shares.items() if n not in declared)]) < 0.01


@pytest.mark.parametrize("name", some("ioi", "induction_grouped", "coreference", "or", "saturated"))
def test_norms_a_rotation_and_the_stated_noise_leave_the_circuit_what_it_is(name: str, made: Make, ask: Any) -> None:
    """Both norms in turn; the slow test below takes every variant of every circuit."""
    norm = ("layer", "rms")[NAMES.index(name) % 2]
    one = made(name, norm=norm, rotate=True, noise=planted.EPSILON[name], seed=2)
    _holds(one, ask, ("denoise", "noise"))


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "rotate", "seed"), ALL)
@pytest.mark.parametrize("name", NAMES)
def test_the_circuit_survives_every_variant(name: str, norm: str, rotate: bool, seed: int, ask: Any) -> None:
    one = planted.make(name, norm=norm, rotate=rotate, noise=planted.EPSILON[name], seed=seed, n=24)
    _holds(one, ask, HOWS)


def _holds(one: planted.Planted, ask: Any, hows: tuple[str, ...]) -> None:
    assert _correct(one) == 1.0
    for (corruption, how), declared in one.truth.effects.items():
        if how in hows:
            shares = ask.shares(one, corruption, how)
            assert ask.found(shares) == declared, (corruption, how, shares)


@pytest.mark.parametrize("name", some("or", "and", "negative", "backup"))
def test_path_patching_finds_every_declared_path_and_no_other(name: str, made: Make, ask: Any) -> None:
    one = made(name, n=8)
    assert one.truth.paths
    for (corruption, direction), receivers in one.truth.paths.items():
        for receiver, senders in receivers.items():
            shares = ask.by_path(one, corruption, direction, receiver)
            assert ask.found(shares) == senders, (corruption, direction, receiver, shares)


@pytest.mark.parametrize("name", ["or", "and", "backup"])
def test_redundant_heads_have_an_effect_together(name: str, made: Make, ask: Any) -> None:
    one = made(name)
    assert one.truth.joint
    for heads, questions in one.truth.joint.items():
        for corruption, how in questions:
            names, pairs = {str(head) for head in heads}, one.pairs[corruption]
            hidden = names - one.truth.effects[corruption, how]
            assert hidden, "a set is declared for what its heads do not show alone"
            if how in ("denoise", "noise"):
                (layer,) = {head.layer for head in heads}
                at = {"layer": [layer], "head": sorted(head.head for head in heads)}
                effects = interp.patch(one.model, pairs, "z", ("layer",), at=at, direction=how)
            else:
                effects = interp.ablate(one.model, pairs, sorted(names), how, joint=True)
            clean = "source" if how == "denoise" else "base"
            assert effects.mean().values.item() / ask.whole(effects, clean=clean) > 0.25


@pytest.mark.parametrize("name", NAMES)
def test_decoys_attend_like_the_real_heads_and_do_nothing(name: str, made: Make, ask: Any) -> None:
    one = made(name, n=4)
    declared = frozenset().union(*one.truth.effects.values())
    for kind, decoys in one.truth.decoys.items():
        assert not {str(head) for head in decoys} & declared
        for decoy in decoys if kind in one.truth.heads else ():
            distances = [_distance(one, decoy, head) for head in one.truth.heads[kind]]
            assert min(distances) < 1e-5, (kind, decoy)


def _distance(one: planted.Planted, a: Head, b: Head) -> float:
    """The largest difference between two heads' patterns on the clean prompts."""
    worst = 0.0
    for row in next(iter(one.pairs.values())).clean:
        _, cache = one.model.run_with_cache(torch.tensor(row), [("pattern", a.layer), ("pattern", b.layer)])
        first, second = cache["pattern", a.layer][0, a.head], cache["pattern", b.layer][0, b.head]
        worst = max(worst, (first - second).detach().abs().max().item())
    return worst


@pytest.mark.parametrize("norm", ["none", "rms", "layer"])
@pytest.mark.parametrize("name", ["induction_grouped", "fact_recall"])
def test_a_rotation_of_the_residual_space_changes_no_logit(name: str, norm: str, made: Make) -> None:
    options = {"norm": norm, "noise": planted.EPSILON[name], "dtype": torch.float64}
    straight, turned = made(name, **options), made(name, rotate=True, **options)
    assert straight.pairs == turned.pairs
    weights, others = straight.model.blocks[0].attn.q.weight, turned.model.blocks[0].attn.q.weight
    assert (weights - others).abs().max() > 0.1
    for row in next(iter(straight.pairs.values())).clean[:4]:
        assert torch.allclose(straight.model(torch.tensor(row)), turned.model(torch.tensor(row)), atol=1e-8)


@pytest.mark.parametrize("name", some("ioi", "coreference", "saturated", "or"))
def test_norms_change_what_the_model_says_by_little(name: str, made: Make) -> None:
    plain = made(name, n=4)
    for norm in ("rms", "layer"):
        normed = made(name, norm=norm, n=4)
        assert normed.model.cfg.normalization_type == {"rms": "RMS", "layer": "LN"}[norm]
        pairs = next(iter(plain.pairs.values()))
        for row, read in list(zip(pairs.clean, pairs.read, strict=True))[:4]:
            before, after = plain.model(torch.tensor(row))[0, read], normed.model(torch.tensor(row))[0, read]
            assert (before - after).abs().max() < 0.2  # of a logit of 10
