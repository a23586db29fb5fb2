"""Whose checkpoints: those of a training, any models by step, folders, or revisions of a hub repository."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from interp.dynamics.folder import ASKED, Checkpoint, Checkpoints, checkpoints, differences, hash_of
from interp.errors import InputError
from interp.model.transformer import HookedTransformer

__all__ = ["must_match", "source_of", "step_of", "told_of"]

Models = dict[int, Any]
_TAKES = (
    "emergence takes the checkpoints of a training (interp.dynamics.checkpoints(folder), or its folder), step -> "
    'model, folders in the hub\'s layout, or a hub id with revisions=["step0", "step1000", …]'
)


def source_of(given: Any, revisions: Sequence[str] | None) -> tuple[Models, Checkpoints | None, str]:
    """Step -> model or a function that loads it, in order; the training, if it is one of ours; and a name.

    Raises `InputError` for fewer than two checkpoints, or those of two trainings."""
    if revisions is not None:
        if not isinstance(given, str) or isinstance(revisions, str) or not isinstance(revisions, Sequence):
            raise InputError("revisions is a list of a hub repository's revisions, whose id comes first.")
        loaders = [partial(_load, given, revision=one) for one in revisions]
        return _counted(_by_name([str(one) for one in revisions], loaders)), None, given
    if isinstance(given, str | os.PathLike):
        folder = Path(given)
        if not (folder / ASKED).exists():
            raise InputError(f"{given} holds no training. {_TAKES}.")
        given = checkpoints(folder)
    if isinstance(given, Checkpoints):
        asked = given.asked
        name = f"{asked['recipe']['name']} seed {asked['seed']}"
        return _counted({one.step: one.load for one in given}), given, name
    if isinstance(given, Mapping):
        return _counted(dict(given)), None, "models by step"
    if isinstance(given, Sequence) and given:
        return _of_list(given)
    raise InputError(f"{_TAKES}; not {type(given).__name__}.")


def step_of(name: str) -> int | None:
    """The step that a name tells: "step1000", "step1000-tokens4B", "checkpoint-500" or "000256"; None without one."""
    named = re.search(r"(?:step|checkpoint|iter)[s_-]*(\d+)", name, re.IGNORECASE)
    alone = re.fullmatch(r"\D*(\d+)\D*", name)
    found = named or alone
    return int(found[1]) if found else None


def must_match(first: tuple[int, HookedTransformer], step: int, model: HookedTransformer) -> None:
    """Raise `InputError` where a checkpoint has another architecture than the first."""
    one, other = (dataclasses.replace(x.cfg, model_name="").to_dict() for x in (first[1], model))
    if one != other:
        differ = "; ".join(line.replace("there", f"at step {first[0]}").replace("here", f"at step {step}")
                           for line in differences(one, other)[:3])  # fmt: skip
        raise InputError(f"These are not checkpoints of one training: {differ}. Give those of one architecture.")


def _of_list(given: Sequence[Any]) -> tuple[Models, Checkpoints | None, str]:
    if all(isinstance(one, Checkpoint) for one in given):
        homes = sorted({str(one.folder.parent.parent) for one in given})
        if len(homes) > 1:
            raise InputError(f"These checkpoints are of {len(homes)} trainings: {', '.join(homes)}. Give those of one.")
        whole = checkpoints(homes[0])
        models = _counted({one.step: one.load for one in given})
        return models, whole, f"{whole.asked['recipe']['name']} seed {whole.asked['seed']}"
    if all(isinstance(one, str | os.PathLike) for one in given):
        if missing := [str(one) for one in given if not Path(one).is_dir()]:
            raise InputError(f"{missing[0]} is no folder. Give folders in the hub's layout, one for each checkpoint.")
        loaders = [partial(_load, str(one)) for one in given]
        return _counted(_by_name([Path(one).name for one in given], loaders)), None, str(Path(given[0]).parent)
    raise InputError(f"{_TAKES}; not a list of {type(given[0]).__name__}.")


def _by_name(names: Sequence[str], loaders: Sequence[Callable[[], HookedTransformer]]) -> Models:
    """By the steps that the names tell; where one of them tells none, by their order: 0, 1, …"""
    told = [step_of(name) for name in names]
    steps = [step for step in told if step is not None]
    if len(steps) < len(names):
        steps = list(range(len(names)))
    twice = [name for name, step in zip(names, steps, strict=True) if steps.count(step) > 1]
    if twice:
        raise InputError(f"{' and '.join(twice[:2])} tell the same step. Give step -> function that loads it instead.")
    return dict(zip(steps, loaders, strict=True))


def _counted(models: Models) -> Models:
    if len(models) < 2:
        raise InputError(f"A change takes at least two checkpoints; these are {len(models)}.")
    if wrong := [step for step in models if isinstance(step, bool) or not isinstance(step, int) or step < 0]:
        raise InputError(f"{wrong[0]!r} is no step. Name each model by the updates it has behind it: 0, 1, …")
    return {step: models[step] for step in sorted(models)}


def _load(name: str, revision: str | None = None) -> HookedTransformer:
    from interp.families.load import load

    return load(name, revision=revision)


def told_of(training: Checkpoints | None) -> dict[str, Any] | None:
    """What results say of the training that they were measured on; `hash` ties those of one training together."""
    if training is None:
        return None
    asked = training.asked
    told = {"recipe": asked["recipe"]["name"], "seed": asked["seed"], "steps": asked["steps"], "hash": hash_of(asked)}
    held = [f"{one.head} {one.action} {one.start} to {one.stop or 'the end'}" for one in training.interventions]
    return told | ({"held": ", ".join(held)} if held else {})
