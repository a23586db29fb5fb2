"""All that the next update depends on: weights, AdamW's moments, and where the stream of batches stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from interp.dynamics.folder import MODEL, read_tensors
from interp.errors import CheckpointError
from interp.files import atomic_folder, content_hash, read_json, write_json
from interp.model.transformer import HookedTransformer

__all__ = ["State", "load_state", "save_state", "saved_step"]

FOLDER, ABOUT, OPTIMIZER = "resume", "state.json", "optimizer.safetensors"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_STREAM = "batches"


@dataclass
class State:
    """A training after `step` updates. It is changed in place: it exists once."""

    model: HookedTransformer
    optimizer: torch.optim.AdamW
    generator: torch.Generator
    step: int = 0


def save_state(root: Path, state: State, run: str) -> None:
    """Replace the state in the folder by this one, whole or not at all."""
    from safetensors.torch import save_file

    with atomic_folder(root / FOLDER) as part:
        save_file({name: one.detach() for name, one in state.model.named_parameters()}, part / MODEL)
        save_file({**_moments(state), _STREAM: state.generator.get_state()}, part / OPTIMIZER)
        files = {name: content_hash(part / name) for name in (MODEL, OPTIMIZER)}
        write_json(part / ABOUT, {"step": state.step, "training": run, "files": files})


def saved_step(root: Path) -> int | None:
    """Updates behind the state in a folder; None where there is none."""
    return read_json(root / FOLDER / ABOUT).get("step") if (root / FOLDER / ABOUT).exists() else None


def load_state(root: Path, state: State, run: str) -> None:
    """Put the folder's state in place of a new one; where none was saved yet, the new one stays."""
    if not (root / FOLDER).exists():
        return
    about = read_json(root / FOLDER / ABOUT)
    if about.get("training") != run:
        raise CheckpointError(
            f"The state in {root / FOLDER} is of another training. Move it out, or train in a new folder."
        )
    weights, kept = (read_tensors(root / FOLDER / name, about["files"][name]) for name in (MODEL, OPTIMIZER))
    with torch.no_grad():
        for name, parameter in state.model.named_parameters():
            parameter.copy_(weights[name])
    for name, parameter in state.model.named_parameters():
        state.optimizer.state[parameter] = {key: kept[f"{key}.{name}"] for key in _MOMENTS}
    state.generator.set_state(kept[_STREAM])
    state.step = about["step"]


def _moments(state: State) -> dict[str, Tensor]:
    names = state.model.named_parameters()
    return {f"{key}.{name}": state.optimizer.state[one][key] for name, one in names for key in _MOMENTS}
