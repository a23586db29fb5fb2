"""`conflict`: where they differ, does a model say what its weights learned or what the context states?"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from interp.dynamics.context import Conflicts
from interp.dynamics.folder import Checkpoints
from interp.dynamics.measures import Found
from interp.dynamics.training import stream
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.results.frames import as_records, load_frames, save_frames
from interp.stats import bootstrap_interval

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ConflictResult", "Fight", "conflict", "conflicts_of"]

Progress = Callable[[str, int, int], None]
_KIND, _FORMAT = "conflict", 1
_VALUE = {("measure",): "value", ("layer", "head"): "effect"}


@dataclass(frozen=True)
class ConflictResult:
    """`table`: a row per checkpoint and measure: step, measure, value, low, high (95%, of prompts). Measures: `weights`
    and `context`, the shares of prompts whose most probable token is the learned or the stated value; `other`, the
    rest; `logit_diff`, the stated value's logit minus the learned one's.

    `heads`: a row per checkpoint and head: step, layer, head, effect, low, high: by how much `logit_diff` falls when
    the head's output at the end is that of the prompt without the contradiction. Positive: it speaks for the context.
    """

    table: pd.DataFrame
    heads: pd.DataFrame
    about: Mapping[str, Any]

    def series(self, measure: str) -> pd.Series:
        """One measure by step; `InputError` for one that is not there."""
        known = list(dict.fromkeys(self.table["measure"]))
        if measure not in known:
            raise InputError(f"There is no measure {measure!r}. Measured are {', '.join(known)}.")
        of: Any = self.table[self.table["measure"] == measure]
        return of.set_index("step")["value"]

    def to_frame(self) -> pd.DataFrame:
        """A copy of `table`."""
        return self.table.copy()

    def to_records(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return {"table": as_records(self.table), "heads": as_records(self.heads), "about": dict(self.about)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: both tables as Parquet, and about.json."""
        return save_frames(path, _KIND, _FORMAT, self.about, {"table": self.table, "heads": self.heads})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ConflictResult:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        about, tables = load_frames(path, _KIND, _FORMAT, ("table", "heads"))
        return cls(tables["table"], tables["heads"], about)

    def __repr__(self) -> str:
        last = self.table[self.table["step"] == self.table["step"].max()].set_index("measure")["value"]
        return (
            f"ConflictResult({self.about['training']}, {self.about['n']} prompts; at the end {last['weights']:.2f} "
            f"from weights, {last['context']:.2f} from context)"
        )


@torch.no_grad()
def conflict(
    checkpoints: Checkpoints, *, n: int = 256, seed: int = 0, progress: Progress | None = None
) -> ConflictResult:
    """Weights against context at each checkpoint of a training on facts that also stand in the context.

    The training's data have to know contradictions (recipe "facts-in-context"): `n` prompts state another value of a
    subject than the training's table. Each head's output at the last token is then replaced by its output on the same
    prompt with the statement about another subject. What was done to heads in training is done here too.
    Cost for each checkpoint: two forward passes over the prompts, and one for each head.
    """
    report = progress or (lambda stage, done, total: None)
    if not isinstance(checkpoints, Checkpoints):
        raise InputError(f"conflict takes interp.dynamics.checkpoints(folder), not {type(checkpoints).__name__}.")
    rows = conflicts_of(checkpoints, n, seed)
    table, heads = [], []
    for i, one in enumerate(checkpoints):
        model = one.load()
        with model.hooks(one.hooks()):
            said, effects = _measured(model, rows)
        table += _rows(("measure",), said, one.step, seed)
        heads += _rows(("layer", "head"), effects, one.step, seed)
        report("weights against context", i + 1, len(checkpoints))
    import pandas as pd

    about = {"training": repr(checkpoints), "n": n, "seed": seed}
    return ConflictResult(pd.DataFrame(table), pd.DataFrame(heads), about)


def conflicts_of(checkpoints: Checkpoints, n: int, seed: int) -> Conflicts:
    """Prompts of a training's data that contradict its table; `InputError` where the data know none."""
    make = getattr(checkpoints.data, "conflicts", None)
    if make is None:
        raise InputError(
            f"{checkpoints.asked['recipe']['name']} has no rows in which context and weights contradict each other. "
            'Train the recipe "facts-in-context".'
        )
    if isinstance(n, bool) or not isinstance(n, int) or n < 2:
        raise InputError(f"n is {n!r}. Give a whole number of prompts, at least 2.")
    return make(n, stream(seed, "conflict"))


@dataclass
class Fight:
    """The same as a measure of `interp.emergence`: shares of answers, and logits (of the answer, and by head)."""

    rows: Conflicts

    def see(self, model: HookedTransformer) -> dict[tuple[str, str], ndarray]:
        said, effects = _measured(model, self.rows)
        logits = {"stated − learned": said.pop("logit_diff")}
        logits |= {f"head {layer}.{head}": one for (layer, head), one in effects.items()}
        named = {**{("conflict", name): one for name, one in said.items()},
                 **{("conflict, logits", name): one for name, one in logits.items()}}  # fmt: skip
        return {name: one.double().numpy() for name, one in named.items()}

    def found(self, seen: Sequence[Mapping[tuple[str, str], ndarray]]) -> Found:
        made = Found(about={"conflict": {"n": len(self.rows.stated)}})
        made.series.update({name: np.stack([one[name] for one in seen], axis=-1) for name in seen[0]})
        return made


def _measured(
    model: HookedTransformer, rows: Conflicts
) -> tuple[dict[str, Float[Tensor, " n"]], dict[tuple[int, int], Float[Tensor, " n"]]]:
    """By prompt: each measure, and each head's effect."""
    blocks = model.main.config.blocks
    sites = [f"{model.main.address}blocks.{layer}.attn.hook_z" for layer in range(len(blocks))]
    _, cache = model.run_with_cache(rows.unstated, sites)
    logits = model(rows.tokens)[:, -1]
    top, diff = logits.argmax(-1), _difference(logits, rows)
    said = {"weights": top == rows.learned, "context": top == rows.stated}
    said["other"] = ~(said["weights"] | said["context"])
    effects = {}
    for layer, (site, block) in enumerate(zip(sites, blocks, strict=True)):
        for head in range(block.attn.n_heads):
            hook = partial(_put, new=cache[site][:, -1, head], head=head)
            patched = model.run_with_hooks(rows.tokens, fwd_hooks=[(site, hook)])[:, -1]
            effects[layer, head] = diff - _difference(patched, rows)
    return {**{name: one.to(diff.dtype) for name, one in said.items()}, "logit_diff": diff}, effects


def _put(z: Float[Tensor, "n pos head d_head"], hook: Any, new: Float[Tensor, "n d_head"], head: int) -> Tensor:
    z[:, -1, head] = new
    return z


def _difference(logits: Float[Tensor, "n d_vocab"], rows: Conflicts) -> Float[Tensor, " n"]:
    picked = (logits.gather(1, one[:, None])[:, 0] for one in (rows.stated, rows.learned))
    stated, learned = picked
    return stated - learned


def _rows(
    names: tuple[str, ...], cells: Mapping[Any, Float[Tensor, " n"]], step: int, seed: int
) -> list[dict[str, Any]]:
    numbers = torch.stack(list(cells.values()), dim=1).double().numpy()
    low, high = bootstrap_interval(numbers, seed=seed, n_resamples=1_000)
    found = []
    for cell, value, least, most in zip(cells, np.mean(numbers, axis=0), low, high, strict=True):
        named = dict(zip(names, (cell,) if isinstance(cell, str) else cell, strict=True))
        found.append({"step": step, **named, _VALUE[names]: float(value), "low": float(least), "high": float(most)})
    return found
