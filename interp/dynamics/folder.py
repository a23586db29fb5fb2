"""The folder of a training: what was asked, checkpoints, the loss of every step, and the state to go on from.

`training.json` says what was asked; its hash stands in every checkpoint, so that those of two trainings cannot be
mixed. `checkpoints/000128/` holds a model after 128 updates and how it does on held-out rows. `loss.parquet` has one
row per update. `resume/` is the last complete state. Each is written whole or not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from torch import Tensor

from interp.dynamics.base import Data, Optimizer, Recipe, data_from
from interp.dynamics.interventions import Intervention, held_hooks, in_force, read_interventions
from interp.errors import CheckpointError, InputError, StorageError
from interp.files import content_hash, read_json
from interp.model.checked import build
from interp.model.config import ModelConfig
from interp.model.taps import HookSpec
from interp.model.transformer import HookedTransformer

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "checkpoints",
    "differences",
    "hash_of",
    "locked",
    "read_tensors",
    "step_folder",
]

ASKED, ABOUT, LOSS = "training.json", "checkpoint.json", "loss.parquet"
MODEL, STEPS, LOCK = "model.safetensors", "checkpoints", ".lock"
SCHEMA = 1


@dataclass(frozen=True)
class Checkpoint:
    """A model after `step` updates. `held_out`: group of tokens -> its mean loss in nats and accuracy on rows that are
    the same for every checkpoint; what was not finite is absent."""

    step: int
    folder: Path
    config: ModelConfig = field(repr=False)
    sha256: str = field(repr=False)
    held_out: Mapping[str, Mapping[str, float]]
    interventions: tuple[Intervention, ...] = ()  # in force at this step

    def load(self) -> HookedTransformer:
        """The model. Raises `CheckpointError` if the file is not as it was written."""
        weights = read_tensors(self.folder / MODEL, self.sha256)
        name = f"{self.config.model_name} step {self.step}"
        return HookedTransformer.from_weights(dataclasses.replace(self.config, model_name=name), weights)

    def hooks(self) -> HookSpec:
        """What was done to heads at this step: `with model.hooks(checkpoint.hooks()): …`. Empty where nothing was."""
        return held_hooks(self.interventions, self.config)


class Checkpoints(Sequence[Checkpoint]):
    """The checkpoints of one training, in order. `asked`: the recipe's fields, seed, steps and schedule."""

    def __init__(self, folder: Path, asked: Mapping[str, Any], found: Sequence[Checkpoint]):
        self.folder, self.asked, self._found = folder, asked, tuple(found)

    @property
    def steps(self) -> tuple[int, ...]:
        """Updates that each checkpoint has behind it."""
        return tuple(one.step for one in self._found)

    @property
    def finished(self) -> bool:
        """Whether the last step that was asked for is among them."""
        return self.steps[-1:] == (self.asked["steps"],)

    @cached_property
    def recipe(self) -> Recipe:
        """What was trained, read from the folder and not from this version's recipes."""
        asked = self.asked["recipe"]
        config, optimizer = (
            build(kind, asked[name]) for kind, name in ((ModelConfig, "config"), (Optimizer, "optimizer"))
        )
        return Recipe(asked["name"], config, data_from(asked["data"]), self.asked["steps"], "", optimizer)

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """What was done to heads while this model learned."""
        return read_interventions(self.asked.get("interventions", ()), self.recipe.config)

    @property
    def data(self) -> Data:
        """Where the training's examples came from."""
        return self.recipe.data

    def at(self, step: int) -> Checkpoint:
        """The checkpoint after `step` updates; `InputError` where there is none, with the nearest."""
        found = {one.step: one for one in self._found}
        if step not in found:
            near = min(found, key=lambda one: abs(one - step)) if found else None
            raise InputError(f"{self.folder} holds no checkpoint of step {step!r}. The nearest is {near}.")
        return found[step]

    def load(self, step: int) -> HookedTransformer:
        """The model after `step` updates."""
        return self.at(step).load()

    def held_out(self) -> pd.DataFrame:
        """One row per checkpoint and group of tokens: step, group, loss (nats), accuracy."""
        import pandas as pd

        rows = [{"step": one.step, "group": name, **got} for one in self for name, got in one.held_out.items()]
        return pd.DataFrame(rows, columns=["step", "group", "loss", "accuracy"])

    def losses(self) -> pd.DataFrame:
        """One row per update: step (updates before it), loss (nats), norm of the gradients before clipping, rate."""
        return read_losses(self.folder)

    @overload
    def __getitem__(self, index: int) -> Checkpoint: ...
    @overload
    def __getitem__(self, index: slice) -> Checkpoints: ...
    def __getitem__(self, index: int | slice) -> Checkpoint | Checkpoints:
        if isinstance(index, slice):
            return Checkpoints(self.folder, self.asked, self._found[index])
        return self._found[index]

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self._found)

    def __repr__(self) -> str:
        of = f"{self.asked['recipe']['name']}, seed {self.asked['seed']}"
        of += "".join(f", {one.head} {one.action}" for one in self.interventions)
        reached = f"steps {self.steps[0]} to {self.steps[-1]} of {self.asked['steps']}" if self.steps else "none yet"
        return f"Checkpoints({of}: {len(self)}, {reached}; {str(self.folder)!r})"


def checkpoints(folder: str | os.PathLike[str]) -> Checkpoints:
    """What `train` left in a folder, finished or not. Reads no weights.

    Raises `CheckpointError` for a folder that is no training's, a missing or damaged checkpoint, and one of another
    training (mixed).
    """
    root = Path(folder)
    asked = read_asked(root)
    if asked is None:
        raise CheckpointError(f"{root} holds no training: there is no {ASKED}. Make one with interp.dynamics.train.")
    config = build(ModelConfig, asked["recipe"]["config"])
    config = dataclasses.replace(config, model_name=f"{asked['recipe']['name']} seed {asked['seed']}")
    there = sorted(one for one in (root / STEPS).glob("[0-9]*") if one.is_dir())
    held = read_interventions(asked.get("interventions", ()), config)
    found = [_read(one, config, hash_of(asked), held) for one in there]
    steps = {one.step for one in found}
    due = {step for step in asked["schedule"] if steps and step <= max(steps)}
    if missing := sorted(due - steps):
        raise CheckpointError(
            f"{root} lacks the checkpoint of step {', '.join(map(str, missing[:5]))}, though later ones are there. Put "
            "it back, or train again in a new folder: the same recipe and seed give the same numbers."
        )
    return Checkpoints(root, asked, sorted(found, key=lambda one: one.step))


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold a folder for this call alone; `StorageError` where another one, here or in another process, trains in it.

    The operating system holds the lock and lets go of it when a process ends, however it ends; the file stays.
    """
    if os.name != "posix":  # no such locks elsewhere
        root.mkdir(parents=True, exist_ok=True)
        yield
        return
    import fcntl

    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StorageError(f"Cannot train in {root}: {error.strerror or error}. Choose another folder.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            who = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            raise StorageError(
                f"Cannot train in {root}: {who} trains in it. Wait for it, or choose another folder."
            ) from error
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
        yield
    finally:
        os.close(handle)


def read_asked(root: Path) -> dict[str, Any] | None:
    """What a training was asked for; None for a folder that is none yet."""
    if not (root / ASKED).exists():
        return None
    held = read_json(root / ASKED)
    if not isinstance(held, dict) or held.get("schema") != SCHEMA or not isinstance(held.get("asked"), dict):
        schema = held.get("schema") if isinstance(held, dict) else None
        raise CheckpointError(f"{root / ASKED} has schema {schema!r}; this version reads {SCHEMA}. Get a sound copy.")
    return held["asked"]


def read_losses(root: Path) -> pd.DataFrame:
    """The losses in a folder; none where no update has been written yet."""
    import pandas as pd

    if not (root / LOSS).exists():
        return pd.DataFrame(columns=["step", "loss", "grad_norm", "rate"])
    try:
        return pd.read_parquet(root / LOSS)
    except (OSError, ValueError) as error:
        raise StorageError(f"Cannot read {root / LOSS}: {error}") from error


def read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """Tensors from a safetensors file that still has this hash."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(f"{path} is missing. Put it back, or train again in a new folder.")
    if content_hash(path) != sha256:
        raise CheckpointError(f"{path} is not as it was written: its hash differs. Get a sound copy, or train again.")
    return load_file(path)


def step_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of a step stands."""
    return root / STEPS / f"{step:06d}"


def hash_of(asked: Mapping[str, Any]) -> str:
    """What marks the files of one training."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def differences(there: Any, here: Any, path: str = "") -> list[str]:
    """Where two nested plain values differ, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        names = [*there, *(name for name in here if name not in there)]
        lines = (differences(there.get(name), here.get(name), f"{path}.{name}") for name in names)
        return [line for found in lines for line in found]
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here) and path:
        lines = (differences(a, b, f"{path}.{i}") for i, (a, b) in enumerate(zip(there, here, strict=True)))
        return [line for found in lines for line in found]
    return [] if there == here else [f"{path.removeprefix('.')} is {there!r:.60} there and {here!r:.60} here"]


def _read(folder: Path, config: ModelConfig, run: str, held: tuple[Intervention, ...]) -> Checkpoint:
    try:
        about = read_json(folder / ABOUT)
    except StorageError as error:
        raise CheckpointError(
            f"The checkpoint {folder} cannot be read ({error}). Train again in a new folder."
        ) from error
    wanted = {"step": int, "training": str, "sha256": str, "held_out": dict}
    if not isinstance(about, dict) or any(not isinstance(about.get(name), kind) for name, kind in wanted.items()):
        raise CheckpointError(f"{folder / ABOUT} does not say {', '.join(wanted)}. Train again in a new folder.")
    if about["training"] != run or folder.name != f"{about['step']:06d}":
        raise CheckpointError(
            f"The checkpoint {folder} is of another training (it calls itself step {about['step']}): recipe, seed or "
            f"steps differ from those in {ASKED}. Move it out; one folder holds one training."
        )
    if not (folder / MODEL).is_file():
        raise CheckpointError(f"The checkpoint {folder} has no {MODEL}. Train again in a new folder.")
    now = in_force(held, about["step"])
    return Checkpoint(about["step"], folder, config, about["sha256"], about["held_out"], now)
