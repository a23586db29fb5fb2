"""`train`: AdamW on batches drawn on the fly, checkpoints on a log schedule, and a state to go on from after a kill."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from interp.dynamics.base import Examples, Recipe, recipe
from interp.dynamics.folder import (
    ABOUT,
    ASKED,
    LOCK,
    LOSS,
    MODEL,
    SCHEMA,
    Checkpoints,
    checkpoints,
    differences,
    hash_of,
    locked,
    read_asked,
    read_losses,
    step_folder,
)
from interp.dynamics.interventions import Intervention, held_hooks, in_force, plain, read_interventions
from interp.dynamics.schedule import log_schedule
from interp.dynamics.state import State, load_state, save_state, saved_step
from interp.errors import CheckpointError, InputError, StorageError, TrainingError
from interp.files import atomic_folder, content_hash, write_atomically, write_json
from interp.model.transformer import HookedTransformer

__all__ = ["measure", "stream", "token_losses", "train"]

Progress = Callable[[str, int, int], None]
HELD_OUT_ROWS = 256
KEEP_EVERY = 100  # updates between states to go on from, besides those at checkpoints


def train(
    recipe_or_name: Recipe | str,
    *,
    out: str | os.PathLike[str],
    seed: int = 0,
    steps: int | None = None,
    lr: float | None = None,
    per_octave: int = 4,
    interventions: Iterable[Intervention] = (),
    progress: Progress | None = None,
) -> Checkpoints:
    """Train a recipe's model in the folder `out`, and list its checkpoints.

    `seed` gives the first weights and the batches. `steps` and `lr` replace the recipe's own. Checkpoints stand at step
    0 and at `per_octave` steps for each doubling. Where `out` holds the same training unfinished, it goes on from its
    last state and gives the numbers it would have given (with the same versions and number of threads); a finished one
    is returned as it is. `interventions` hold heads while the model learns, and when its held-out loss is measured; the
    weights in a checkpoint are as they are, and `Checkpoint.hooks()` does to them what was done in training.
    `progress(stage, done, total)` is called after every update.

    Raises `InputError` for an unknown recipe, or where `out` holds another training; `StorageError` where it holds
    other files, or another process trains in it; `TrainingError` when loss or gradients are not finite: at which step,
    and the last good checkpoint.
    """
    what = _checked(recipe_or_name, seed, steps, lr)
    root = Path(out)
    schedule = log_schedule(what.steps, per_octave=per_octave)
    held = read_interventions(interventions, what.config)
    asked = {"recipe": what.to_dict(), "seed": seed, "steps": what.steps, "schedule": schedule}
    asked |= {"interventions": plain(held)} if held else {}
    asked = json.loads(json.dumps(asked))  # as it will be read again
    _refuse_other_files(root)
    with nullcontext() if saved_step(root) == what.steps else locked(root):
        _train(root, asked, what, seed, held, progress or (lambda stage, done, total: None))
    return checkpoints(root)


def _train(
    root: Path, asked: dict[str, Any], what: Recipe, seed: int, held: tuple[Intervention, ...], report: Progress
) -> None:
    """Go on to the last step from where the folder stands."""
    schedule = asked["schedule"]
    state = _open(root, asked, what, seed)
    held_out = what.data.draw(HELD_OUT_ROWS, stream(0, "held out"), held_out=True)
    run, rows = hash_of(read_asked(root) or asked), read_losses(root).head(state.step).to_dict("records")
    if len(rows) != state.step:
        raise CheckpointError(f"{root / LOSS} has {len(rows)} updates of {state.step}. Train again in a new folder.")
    if state.step == 0:
        _write_checkpoint(root, state, run, held_out, held)
    while state.step < what.steps:
        try:
            rows.append(_update(state, what, held))
        except TrainingError as error:
            _write_losses(root, rows)
            last = max(step for step in schedule if step <= state.step)
            raise TrainingError(
                f"{error} The last good checkpoint is step {last} in {root}. Train in a new folder with a smaller "
                f"learning rate than {what.optimizer.lr:g}."
            ) from error
        if state.step in schedule:
            _write_checkpoint(root, state, run, held_out, held)
        if state.step in schedule or state.step % KEEP_EVERY == 0:
            _write_losses(root, rows)
            save_state(root, state, run)
        report(f"training {what.name}", state.step, what.steps)


def token_losses(model: HookedTransformer, examples: Examples) -> tuple[Float[Tensor, "n next_pos"], Tensor]:
    """−log p of each token but the first, in nats, and whether it was the most probable one."""
    before, target = examples.tokens[:, :-1], examples.tokens[:, 1:]
    source = examples.source
    logits = model(before) if source is None else model(source, decoder_input=before)
    losses = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").unflatten(0, target.shape)
    return losses, logits.argmax(-1) == target


@torch.no_grad()
def measure(model: HookedTransformer, examples: Examples) -> dict[str, dict[str, float]]:
    """Group of tokens -> its mean loss in nats, and the share of them that was the most probable."""
    losses, right = token_losses(model, examples)
    groups = {name: which[:, 1:] for name, which in examples.scored.items()}
    return {
        name: {"loss": float(losses[which].mean()), "accuracy": float(right[which].float().mean())}
        for name, which in groups.items()
    }


def _update(state: State, what: Recipe, held: tuple[Intervention, ...]) -> dict[str, float | int]:
    """One update. Weights stay as they were where the loss or the gradients are not finite."""
    examples = what.data.draw(what.optimizer.batch, state.generator)
    with state.model.hooks(held_hooks(in_force(held, state.step), what.config)):
        losses, _ = token_losses(state.model, examples)
    loss = losses[examples.all_scored[:, 1:]].mean()
    rate = what.optimizer.rate(state.step, what.steps)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), what.optimizer.clip)
    row = {"step": state.step, "loss": float(loss.detach()), "grad_norm": float(norm), "rate": rate}
    for name, value in (("loss", row["loss"]), ("norm of the gradients", row["grad_norm"])):
        if not math.isfinite(value):
            raise TrainingError(f"Training of {what.name} stopped: after {state.step} updates the {name} is {value}.")
    state.optimizer.step()
    state.step += 1
    return row


def _open(root: Path, asked: dict[str, Any], what: Recipe, seed: int) -> State:
    """The state to go on from, or a new one in a new folder."""
    there = read_asked(root)
    if there is not None and (differ := differences(there, asked)):
        more = f", and {len(differ) - 3} more" if len(differ) > 3 else ""
        raise InputError(
            f"{root} holds another training: {'; '.join(differ[:3])}{more}. Ask for the same, or choose a new folder."
        )
    model = HookedTransformer(dataclasses.replace(what.config, model_name=what.name), seed=seed)
    options = what.optimizer
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.lr, betas=(options.betas[0], options.betas[1]), weight_decay=options.weight_decay
    )
    state = State(model, optimizer, stream(seed, "batches"))
    if there is None:
        write_json(root / ASKED, {"schema": SCHEMA, "asked": asked, "about": what.about})
        return state
    checkpoints(root)  # refuses missing and mixed ones before time is spent
    load_state(root, state, hash_of(there))  # fields that came later have their defaults here and are absent there
    return state


def _refuse_other_files(root: Path) -> None:
    if not root.exists() or (root / ASKED).exists():
        return
    if not root.is_dir() or any(one.name != LOCK for one in root.iterdir()):
        raise StorageError(f"Cannot train in {root}: it holds other files. Choose a new folder.")


def _checked(what: Recipe | str, seed: Any, steps: Any, lr: Any) -> Recipe:
    what = recipe(what) if isinstance(what, str) else what
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed is {seed!r}. Give a whole number, 0 or more.")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise InputError(f"steps is {steps!r}. Give a whole number, at least 1.")
    what = what if steps is None else dataclasses.replace(what, steps=steps)
    return what if lr is None else dataclasses.replace(what, optimizer=dataclasses.replace(what.optimizer, lr=lr))


def stream(seed: int, purpose: str) -> torch.Generator:
    """A stream of its own: batches must not be correlated with first weights of the same seed."""
    import numpy as np

    words = np.random.SeedSequence([seed, *purpose.encode()]).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 16 ^ int(words[1]))


def _write_checkpoint(root: Path, state: State, run: str, held_out: Examples, held: tuple[Intervention, ...]) -> None:
    from safetensors.torch import save_file

    with atomic_folder(step_folder(root, state.step)) as part:
        save_file({name: one.detach() for name, one in state.model.named_parameters()}, part / MODEL)
        with state.model.hooks(held_hooks(in_force(held, state.step), state.model.cfg)):
            got = measure(state.model, held_out)
        finite = {name: {key: x for key, x in one.items() if math.isfinite(x)} for name, one in got.items()}
        about = {"step": state.step, "training": run, "sha256": content_hash(part / MODEL), "held_out": finite}
        made = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        write_json(part / ABOUT, about | {"made_with": made})


def _write_losses(root: Path, rows: list[dict[Any, Any]]) -> None:
    import pandas as pd

    frame = pd.DataFrame(rows, columns=["step", "loss", "grad_norm", "rate"])
    write_atomically(root / LOSS, lambda part: frame.to_parquet(part, index=False))
