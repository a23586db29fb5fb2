"""`emergence`: what changed in a training, when, and how sharply: losses, in-context score, attention of heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from interp.dynamics.base import Examples
from interp.dynamics.changes import change_of, resampled
from interp.dynamics.folder import Checkpoints
from interp.dynamics.training import stream, token_losses
from interp.errors import InputError
from interp.heads.base import Finder, finder, finders
from interp.heads.patterns import attention_shares
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Emergence", "emergence", "in_context_scores"]

Progress = Callable[[str, int, int], None]
_LEAST = 16  # predicted tokens in a row below which early and late say nothing
_RESAMPLES = 1_000


@dataclass(frozen=True)
class Emergence:
    """What was measured at each checkpoint, and what changed.

    `scores`: a row per checkpoint and series: step, measure, series, value, low, high (95%, of rows). Measures: `loss`
    (nats) by group of tokens; `in_context` (nats; the more negative, the more the context helps); of each kind of head
    its `sum` over all heads and `best`, the head that is best at the end, followed back. `changes`: a row per series,
    with the fields of `interp.dynamics.changes.Change`. `about`: rows, seed, the best heads, and `uniform`: the score
    of a head that attends everywhere alike.
    """

    scores: pd.DataFrame
    changes: pd.DataFrame
    about: Mapping[str, Any]

    def series(self, measure: str, series: str) -> pd.Series:
        """One series, by step; `InputError` for one that was not measured, with those that were."""
        import pandas as pd

        of = self.scores[(self.scores["measure"] == measure) & (self.scores["series"] == series)]
        if of.empty:
            known = self.changes[["measure", "series"]].itertuples(index=False)
            raise InputError(f"There is no {measure} {series}. Measured are {', '.join(map(' '.join, known))}.")
        return pd.Series(of["value"].tolist(), index=of["step"].tolist(), name=f"{measure} {series}")

    def __repr__(self) -> str:
        steps = sorted(set(self.scores["step"]))
        return f"Emergence({len(self.changes)} series at {len(steps)} checkpoints, steps {steps[0]} to {steps[-1]})"


def emergence(
    checkpoints: Any,
    *,
    kinds: str | Sequence[str] = ("previous_token", "duplicate_token", "induction"),
    tokens: Int[Tensor, "row pos"] | None = None,
    n: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Emergence:
    """Losses, in-context score and attention of kinds of heads at each checkpoint, and when each changed.

    `checkpoints`: those of one training, or step -> model (or a function that loads it), with `tokens` to measure on.
    Of a training the rows are `n` held-out ones, drawn anew. `kinds`: kinds known by a pattern of attention, scored on
    these rows. Half of the rows choose the best heads, all numbers come from the others. Intervals are of rows within
    this training: another seed is another training, and may differ by more.
    Cost: two forward passes over the rows for each checkpoint.

    Raises `InputError` for fewer than two checkpoints, an unknown kind or one that is known by no pattern.
    """
    found = _kinds(kinds)
    models = _models(checkpoints)
    if isinstance(n, bool) or not isinstance(n, int) or n < 4:
        raise InputError(f"n is {n!r}. Give a whole number of rows, at least 4.")
    examples = _examples(checkpoints, tokens, n, seed)
    report = progress or (lambda stage, done, total: None)
    steps, losses, shares = sorted(models), [], []
    for i, step in enumerate(steps):
        loaded = models[step]
        model = loaded if isinstance(loaded, HookedTransformer) else loaded()
        for one in found:
            one.must_apply_to(model)
        with torch.no_grad():
            losses.append(token_losses(model, examples)[0])
            shares.append(
                attention_shares(model, Batch(examples.tokens[:, :-1]), {one.name: one.rule for one in found})
            )
        report("measuring checkpoints", i + 1, len(steps))
    half = torch.arange(len(examples.tokens)) % 2 == 0
    series, best = _attention(found, shares, half)
    everything = {**_losses(torch.stack(losses, dim=-1)[~half], examples, ~half), **series}
    about = {"n": int((~half).sum()), "seed": seed, "best": best, "uniform": _uniform(found, examples)}
    return _result(everything, np.array(steps), about, seed)


def in_context_scores(losses: Float[Tensor, "row next_pos *rest"]) -> Float[Tensor, "row *rest"]:
    """Mean loss of the last eighth of a row's tokens minus that of the first eighth, in nats: negative where context
    helps. Olsson 2022 takes tokens 500 and 50 of long texts; short rows need means."""
    eighth = losses.shape[1] // 8
    return losses[:, -eighth:].mean(dim=1) - losses[:, :eighth].mean(dim=1)


Named = dict[tuple[str, str], Float[ndarray, "_ checkpoint"]]  # rows: those that ask


def _losses(losses: Float[Tensor, "row next_pos checkpoint"], examples: Examples, rows: Tensor) -> Named:
    found: Named = {}
    for name, scored in examples.scored.items():
        which = scored[rows, 1:, None].to(losses.dtype)
        found["loss", name] = _array((losses * which).sum(1) / which.sum(1))
    if losses.shape[1] >= _LEAST and bool(examples.all_scored.float().mean() > 0.5):
        found["in_context", "late − early"] = _array(in_context_scores(losses))
    return found


def _attention(
    found: Sequence[Finder], shares: Sequence[Mapping[str, Tensor]], half: Tensor
) -> tuple[Named, dict[str, str]]:
    series: Named = {}
    best: dict[str, str] = {}
    for one in found:
        scores = torch.stack([each[one.name] for each in shares], dim=-1)  # row layer head checkpoint
        asks = ~scores[..., 0].isnan().all(dim=(1, 2))
        if int((asks & half).sum()) < 1 or int((asks & ~half).sum()) < 2:
            raise InputError(f"Too few rows have what {one.name} heads attend to. Give other tokens, or a larger n.")
        chosen = scores[asks & half][..., -1].nanmean(dim=0)
        layer, head = divmod(int(chosen.nan_to_num(-1.0).argmax()), chosen.shape[1])
        best[one.name] = f"{layer}.{head}"
        reported = scores[asks & ~half]
        series[one.name, "sum"] = _array(reported.nansum(dim=(1, 2)))
        series[one.name, "best"] = _array(reported[:, layer, head])
    return series, best


def _uniform(found: Sequence[Finder], examples: Examples) -> dict[str, float]:
    """The score of one head that attends alike to every token it may see."""
    tokens = examples.tokens[:, :-1]
    queries = torch.arange(tokens.shape[1])
    scores = {}
    for one in found:
        keys = one.rule(tokens, queries).float().sum(-1)
        share = keys / (queries + 1)
        scores[one.name] = float(share[keys > 0].mean())
    return scores


def _result(everything: Named, steps: Int[ndarray, " checkpoint"], about: Mapping[str, Any], seed: int) -> Emergence:
    import pandas as pd

    rows, changes = [], []
    for (measure, name), values in everything.items():
        low, high = np.quantile(resampled(values, _RESAMPLES, seed), [0.025, 0.975], axis=0)
        numbers = zip(steps.tolist(), values.mean(axis=0).tolist(), low.tolist(), high.tolist(), strict=True)
        rows += [
            {"step": step, "measure": measure, "series": name, "value": value, "low": least, "high": most}
            for step, value, least, most in numbers
        ]
        change = change_of(values, steps.astype(float), n_resamples=_RESAMPLES, seed=seed)
        changes.append({"measure": measure, "series": name, **dataclasses.asdict(change)})
    return Emergence(pd.DataFrame(rows), pd.DataFrame(changes), about)


def _kinds(kinds: str | Sequence[str]) -> list[Finder]:
    found = [finder(kind) for kind in dict.fromkeys([kinds] if isinstance(kinds, str) else kinds)]
    if wrong := [one.name for one in found if not isinstance(one, Finder)]:
        known = ", ".join(name for name, one in finders().items() if isinstance(one, Finder))
        raise InputError(f"{wrong[0]} is known by no pattern on plain rows of tokens. Kinds that are: {known}.")
    return found


def _models(given: Any) -> dict[int, Any]:
    if isinstance(given, Checkpoints):
        models: dict[int, Any] = {one.step: one.load for one in given}
    elif isinstance(given, Mapping):
        models = dict(given)
    else:
        raise InputError(
            "emergence takes the checkpoints of a training (interp.dynamics.checkpoints(folder)) or step -> model, "
            f"not {type(given).__name__}."
        )
    if len(models) < 2:
        raise InputError(f"A change takes at least two checkpoints; these are {len(models)}.")
    if wrong := [step for step in models if isinstance(step, bool) or not isinstance(step, int) or step < 0]:
        raise InputError(f"{wrong[0]!r} is no step. Name each model by the updates it has behind it: 0, 1, …")
    return models


def _examples(given: Any, tokens: Tensor | None, n: int, seed: int) -> Examples:
    if tokens is not None:
        if len(tokens) < 4 or tokens.shape[1] < 3:
            raise InputError(f"tokens has shape {tuple(tokens.shape)}. Give at least 4 rows of 3 tokens.")
        return Examples(tokens, {"all": (torch.arange(tokens.shape[1]) > 0).expand(len(tokens), -1)})
    if not isinstance(given, Checkpoints):
        raise InputError("These models come without data. Give tokens= [row pos] to measure them on.")
    return given.data.draw(n, stream(seed, "emergence"), held_out=True)


def _array(values: Tensor) -> Float[ndarray, "row checkpoint"]:
    return values.double().numpy()
