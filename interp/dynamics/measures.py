"""What is measured of each checkpoint, and how that becomes series over all of them: the contract, losses, own ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from interp.dynamics.base import Examples
from interp.dynamics.training import token_losses
from interp.errors import CheckpointError, InputError
from interp.model.transformer import HookedTransformer

__all__ = ["Found", "Losses", "Measure", "Own", "best_and_sum", "in_context_scores", "own_measures"]

LEAST = 16  # predicted tokens in a row below which early and late say nothing
Function = Callable[[HookedTransformer, Examples], Mapping[str, Any]]


@dataclass
class Found:
    """Series `(measure, series) -> [row checkpoint]`, whose rows are those that ask. `noise`: of series of one row, the
    change that is none. `about` is what to say of them."""

    series: dict[tuple[str, str], Float[ndarray, "_ checkpoint"]] = field(default_factory=dict)
    noise: dict[tuple[str, str], float] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Measure(Protocol):
    """`see` looks at one checkpoint, `found` makes series of all that was seen, in the order of the steps."""

    def see(self, model: HookedTransformer) -> Any: ...
    def found(self, seen: Sequence[Any]) -> Found: ...


@dataclass
class Losses:
    """Mean loss by group of tokens and the in-context score, of the rows that report. A group that fewer than `least`
    of them have is left out: of one row there is no interval."""

    examples: Examples
    reports: Tensor
    least: int = 2

    def see(self, model: HookedTransformer) -> Tensor:
        losses = token_losses(model, self.examples)[0]
        if not losses.isfinite().all():
            raise CheckpointError(f"{model.cfg.model_name} has losses that are not finite. Leave this checkpoint out.")
        return losses

    def found(self, seen: Sequence[Tensor]) -> Found:
        losses = torch.stack(list(seen), dim=-1)[self.reports]
        made = Found(about={"n": int(self.reports.sum())})
        for name, scored in self.examples.scored.items():
            which = scored[self.reports, 1:, None].to(losses.dtype)
            some = which[:, :, 0].any(dim=1)
            if int(some.sum()) < self.least:
                why = f"fewer than {self.least} of the rows that report have such tokens"
                made.about.setdefault("left_out", {})[f"loss, {name}"] = why
                continue
            made.series["loss", name] = _array((losses * which).sum(1)[some] / which.sum(1)[some])
        if not made.series:
            raise InputError(
                f"Fewer than {self.least} of the rows that report have tokens to predict. Give a larger n."
            )
        if losses.shape[1] >= LEAST and bool(self.examples.all_scored.float().mean() > 0.5):
            made.series["in_context", "late − early"] = _array(in_context_scores(losses))
        return made


@dataclass
class Own:
    """A measure that the caller or another package gives: rows, or one number, by the name of a series."""

    name: str
    function: Function
    examples: Examples

    def see(self, model: HookedTransformer) -> dict[str, ndarray]:
        got = self.function(model, self.examples)
        if not isinstance(got, Mapping) or not got:
            raise InputError(f"The measure {self.name} gave {type(got).__name__}. Give series -> numbers, one per row.")
        rows = {str(key): np.atleast_1d(np.asarray(value, dtype=float)) for key, value in got.items()}
        if wrong := [key for key, value in rows.items() if value.ndim != 1 or not value.size]:
            shape = rows[wrong[0]].shape
            raise InputError(f"The measure {self.name} gave {wrong[0]} of shape {shape}. Give one number per row.")
        return rows

    def found(self, seen: Sequence[dict[str, ndarray]]) -> Found:
        made = Found()
        for name, first in seen[0].items():
            same = all(name in one and one[name].shape == first.shape for one in seen)
            if not same or any(len(one) != len(seen[0]) for one in seen):
                raise InputError(f"The measure {self.name} gave other series or rows for other checkpoints.")
            made.series[self.name, name] = np.stack([one[name] for one in seen], axis=-1)
        return made


def own_measures(given: Any, taken: Sequence[str]) -> dict[str, Function]:
    """Measures by name: a mapping to functions, or names that packages give under `interp.measures`."""
    offered = {one.name: one for one in entry_points(group="interp.measures")}
    if isinstance(given, Mapping):
        named = dict(given)
    else:
        names = [given] if isinstance(given, str) else list(given)
        if unknown := [name for name in names if name not in offered]:
            known = ", ".join(sorted(offered)) or "none"
            raise InputError(
                f"There is no measure {unknown[0]!r}. Installed packages give: {known}. For one of your own give "
                "measures={name: function of (model, examples)}."
            )
        named = {name: offered[name].load() for name in names}
    for name, one in named.items():
        if not callable(one) or name in taken:
            raise InputError(f"{name!r} is no measure of your own: give a function, under a name other than {taken}.")
    return named


def in_context_scores(losses: Float[Tensor, "row next_pos *rest"]) -> Float[Tensor, "row *rest"]:
    """Mean loss of the last eighth of a row's tokens minus that of the first eighth, in nats: negative where context
    helps. Olsson 2022 takes tokens 500 and 50 of long texts; short rows need means."""
    eighth = losses.shape[1] // 8
    return losses[:, -eighth:].mean(dim=1) - losses[:, :eighth].mean(dim=1)


def best_and_sum(
    cells: Float[ndarray, "row layer head checkpoint"], chooses: ndarray
) -> tuple[Float[ndarray, "_ checkpoint"], Float[ndarray, "_ checkpoint"], list[tuple[int, int]]]:
    """The sum over all heads, the head that is best in the last checkpoint, and all heads ranked by it. The rows that
    choose rank them; the others are reported."""
    last = np.nan_to_num(_mean(cells[chooses][..., -1]), nan=-1.0)
    order = [divmod(int(one), last.shape[1]) for one in np.argsort(-last, axis=None, kind="stable")]
    reported = cells[~chooses]
    layer, head = order[0]
    return np.nansum(reported, axis=(1, 2)), reported[:, layer, head], order


def _mean(values: ndarray) -> ndarray:
    """Over rows, of those that have a value; NaN for a cell that none has."""
    count = (~np.isnan(values)).sum(axis=0)
    return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)


def _array(values: Tensor) -> Float[ndarray, "row checkpoint"]:
    return values.double().numpy()
