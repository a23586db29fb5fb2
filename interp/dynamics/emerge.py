"""`emergence`: what changed in a training, when, how sharply, and whether loss moved with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from interp.dynamics.attending import CROSS, Composed, CrossHeads, PatternHeads, TaskHeads
from interp.dynamics.base import Examples
from interp.dynamics.causing import ABLATED, Patched, ablations
from interp.dynamics.changes import beside_loss, change_of, crossing, onsets, resampled
from interp.dynamics.conflict import Fight, conflicts_of
from interp.dynamics.contrasts import contrast
from interp.dynamics.folder import Checkpoints
from interp.dynamics.measures import Found, Losses, Measure, Own, in_context_scores, own_measures
from interp.dynamics.results import Emergence
from interp.dynamics.rows import must_predict
from interp.dynamics.sources import must_match, source_of, told_of
from interp.dynamics.training import stream
from interp.errors import InputError
from interp.heads.base import Finder, finder, finders
from interp.heads.task_finder import TaskFinder
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs

__all__ = ["Emergence", "emergence", "in_context_scores"]

Progress = Callable[[str, int, int], None]
_RESAMPLES = 1_000
_KINDS = ("previous_token", "duplicate_token", "induction")
_TAKEN = ("loss", "in_context", "patch", "patch gap", "K-composition", "conflict", "conflict, logits")


def emergence(
    checkpoints: Any,
    *,
    kinds: str | Sequence[str] | None = None,
    measures: Any = (),
    pairs: PromptPairs | str | None = "data",
    ablate_at: Sequence[int] = (),
    top: int = 2,
    tokens: Int[Tensor, "row pos"] | None = None,
    revisions: Sequence[str] | None = None,
    shares: Sequence[float] = (0.1, 0.25, 0.5),
    n: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Emergence:
    """Losses, in-context score, heads by their attention, composition and patch effects at each checkpoint, and when
    each changed.

    `checkpoints`: those of one training, or its folder; step -> model (or a function that loads it); folders in the
    hub's layout; or a hub id with `revisions`. Steps are read from names such as "step1000". All but a training's need
    `tokens` to measure on; of a training the rows are `n` held-out ones, drawn anew.

    `kinds`: kinds known by a pattern of attention, scored on these rows (by default previous_token, duplicate_token and
    induction); kinds of a task, scored on `pairs` or, with a tokenizer, on the task's own prompts; of an
    encoder-decoder "mirror" or "source_token", where its cross-attention looks. `pairs`: PromptPairs to patch; "data"
    draws `n` from the recipe's data, where a contrast is known of them; None leaves patching out. `measures`: more of
    them, by name: of an installed package ("probe_accuracy"), "conflict" (weights against context, for trainings on
    facts-in-context), or a mapping from names to functions of (model, Examples) that give series -> one number for each
    row. `ablate_at`: steps at which the `top` heads of each kind are ablated
    together, beside random sets. `shares` of the way from first to last that are dated, besides halfway.

    Half of the rows choose the best heads, all numbers come from the others. Intervals are of rows within this
    training: another seed is another training, and may differ by more (`interp.dynamics.order`).
    Checkpoints of a training in which heads were held are measured under what was done to them at that step; what
    cannot be (patching, composition; ablations and kinds of a task are refused) is left out.
    Cost: two forward passes over the rows for each checkpoint, and two over the pairs and one more for each head.

    Raises `InputError` for fewer than two checkpoints, those of two architectures, an unknown kind or measure.
    """
    models, training, name = source_of(checkpoints, revisions)
    for label, number, least in (("n", n, 4), ("top", top, 1)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise InputError(f"{label} is {number!r}. Give a whole number, at least {least}.")
    asked = _kinds(kinds)
    dated = _shares(shares)
    measures, fight = _fight(measures, training, n, seed)
    own = own_measures(measures, (*_TAKEN, *(getattr(one, "name", one) for one in asked or ())))
    examples = _examples(training, tokens, n, seed)
    asked = _suiting(asked, examples)
    if unknown := [step for step in ablate_at if step not in models]:
        raise InputError(f"ablate_at names step {unknown[0]!r}. There are {', '.join(map(str, models))}.")
    if ablate_at and (examples.source is not None or not any(isinstance(one, Finder) for one in asked)):
        raise InputError("ablate_at takes a decoder and kinds known by a pattern: their top heads are ablated.")
    patched = _pairs(pairs, training, n, seed)
    left_out = _left_out_of_held(training, asked, patched, ablate_at)
    patched = None if "patch" in left_out else patched
    plan = _plan(asked, examples, own, patched, n, seed, chosen=kinds is not None)
    plan.measures[:] = [one for one in plan.measures if not (left_out and isinstance(one, Composed))] + fight
    plan.left_out.update(left_out)
    seen = _look(models, plan, training, progress or (lambda stage, done, total: None))
    found = [one.found(of) for one, of in zip(plan.measures, seen, strict=True)]
    about = {"model": name, "seed": seed, "steps": list(models), "training": told_of(training)}
    for one in found:
        _join(about, one.about)
    if plan.left_out:
        _join(about, {"left_out": plan.left_out})
    ablated = _ablated(models, plan, examples, found, ablate_at, top, seed)
    return _result(found, np.array(list(models), dtype=float), about, dated, ablated, seed)


@dataclass
class _Plan:
    measures: list[Measure]
    heads: PatternHeads | None
    chooses: Tensor
    left_out: dict[str, str]


def _plan(
    asked: Sequence[Any],
    examples: Examples,
    own: Mapping[str, Any],
    patched: Patched | None,
    n: int,
    seed: int,
    *,
    chosen: bool,
) -> _Plan:
    chooses = torch.arange(len(examples.tokens)) % 2 == 0
    measures: list[Measure] = [Losses(examples, ~chooses)]
    patterns = [one for one in asked if isinstance(one, Finder)]
    heads = PatternHeads(patterns, examples, chooses) if patterns else None
    left_out: dict[str, str] = {}
    if heads is not None:
        left_out = {
            one.name: f"too few rows have what {one.name} heads attend to" for one in patterns if heads.too_few(one)
        }
        if left_out and chosen:
            name = next(iter(left_out))
            raise InputError(f"Too few rows have what {name} heads attend to. Give other tokens, or a larger n.")
        heads.kinds = patterns = [one for one in patterns if one.name not in left_out]
        measures += [heads] if patterns else []
    if cross := [one for one in asked if isinstance(one, str)]:
        measures.append(CrossHeads(cross, examples, chooses))
    given = patched.pairs if patched is not None and not patched.difference else None
    measures += [TaskHeads(one, given, n, seed) for one in asked if isinstance(one, TaskFinder)]
    if heads and {"previous_token", "induction"} <= {one.name for one in patterns}:
        measures.append(Composed(heads, seed))
    measures += [patched] if patched is not None else []
    measures += [Own(name, function, examples) for name, function in own.items()]
    return _Plan(measures, heads, chooses, left_out)


def _look(models: Mapping[int, Any], plan: _Plan, training: Checkpoints | None, report: Progress) -> list[list[Any]]:
    """What each measure saw of each checkpoint, as it was trained; a measure that a model has no room for is left out
    of the plan."""
    first: tuple[int, HookedTransformer] | None = None
    seen: list[list[Any]] = [[] for _ in plan.measures]
    for i, (step, loaded) in enumerate(models.items()):
        model = loaded if isinstance(loaded, HookedTransformer) else loaded()
        if first is None:
            first = (step, model)
            if training is None:
                must_predict(model)
            kept = [one for one in plan.measures if (why := _no_room(one, model)) is None or _note(plan, one, why)]
            plan.measures[:], seen = kept, [[] for _ in kept]
        must_match(first, step, model)
        done = () if training is None else training.at(step).hooks()
        with torch.no_grad(), model.hooks(done) if done else nullcontext():
            for one, of in zip(plan.measures, seen, strict=True):
                of.append(one.see(model))
        report("measuring checkpoints", i + 1, len(models))
    return seen


def _no_room(one: Measure, model: HookedTransformer) -> str | None:
    """Why a measure that nobody asked for by name cannot be made of a model."""
    if isinstance(one, Composed):
        blocks = model.main.config.blocks
        if len(blocks) < 2:
            return "the model has one layer, so no head reads what another writes"
        if len({(block.attn.n_heads, block.attn.d_head) for block in blocks}) > 1:
            return "layers differ in their heads"
    return None


def _note(plan: _Plan, one: Measure, why: str) -> bool:
    plan.left_out["composition" if isinstance(one, Composed) else type(one).__name__] = why
    return False


def _ablated(
    models: Mapping[int, Any],
    plan: _Plan,
    examples: Examples,
    found: Sequence[Found],
    at: Sequence[int],
    top: int,
    seed: int,
) -> list[dict[str, Any]]:
    if not at or plan.heads is None:
        return []
    sets = {name: heads[:top] for name, heads in plan.heads.ranked.items()}
    if {"previous_token", "induction"} <= set(sets):
        sets["previous_token + induction"] = list(dict.fromkeys([*sets["previous_token"], *sets["induction"]]))
    group = _most_changed(found[0])
    reports = ~plan.chooses
    rows = Examples(examples.tokens[reports], {group: examples.scored[group][reports]})
    table: list[dict[str, Any]] = []
    for step in sorted(set(at)):
        loaded = models[step]
        model = loaded if isinstance(loaded, HookedTransformer) else loaded()
        with torch.no_grad():
            table += ablations(model, step, rows, rows.scored[group], sets, seed)
    return table


def _left_out_of_held(
    training: Checkpoints | None, asked: Sequence[Any], patched: Patched | None, ablate_at: Sequence[int]
) -> dict[str, str]:
    """What is not measured of a training in which heads were held, and why; what was asked for by name is refused."""
    if training is None or not training.interventions:
        return {}
    held = ", ".join(f"{one.head} {one.action}" for one in training.interventions)
    why = f"this would show the model without what was done to it in training ({held})"
    by_name = ["pairs"] * (patched is not None and not patched.difference) + ["ablate_at"] * bool(ablate_at)
    by_name += [one.name for one in asked if isinstance(one, TaskFinder)]
    if by_name:
        raise InputError(f"{by_name[0]} cannot be had of these checkpoints: {why}. Leave it out.")
    return {"composition": why} | ({} if patched is None else {"patch": why})


def _fight(measures: Any, training: Checkpoints | None, n: int, seed: int) -> tuple[Any, list[Measure]]:
    """The measures besides "conflict", and that one where it is among them."""
    names = [measures] if isinstance(measures, str) else measures
    if isinstance(names, Mapping) or "conflict" not in names:
        return measures, []
    if training is None:
        raise InputError("conflict is measured of checkpoints of interp.dynamics.train alone: it needs their data.")
    return [name for name in names if name != "conflict"], [Fight(conflicts_of(training, 4 * n, seed))]


def _most_changed(found: Found) -> str:
    """The group of tokens whose loss changed most."""
    ways = {name[1]: values.mean(axis=0) for name, values in found.series.items() if name[0] == "loss"}
    return max(ways, key=lambda name: abs(ways[name][-1] - ways[name][0]))


def _result(
    found: Sequence[Found],
    steps: Float[ndarray, " checkpoint"],
    about: dict[str, Any],
    shares: Sequence[float],
    ablated: list[dict[str, Any]],
    seed: int,
) -> Emergence:
    import pandas as pd

    everything = {name: values for one in found for name, values in one.series.items()}
    noise = {name: value for one in found for name, value in one.noise.items()}
    about["loss"] = _most_changed(found[0])
    loss = everything["loss", about["loss"]].mean(axis=0)
    rows: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
    for (measure, name), values in everything.items():
        draws = resampled(values, _RESAMPLES, seed) if len(values) > 1 else np.full((2, len(steps)), np.nan)
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        for at, value, least, most in zip(steps, values.mean(axis=0), low, high, strict=True):
            numbers = {"value": float(value), "low": float(least), "high": float(most)}
            rows.append({"step": int(at), "measure": measure, "series": name, **numbers})
        change = change_of(values, steps, n_resamples=_RESAMPLES, seed=seed, noise=noise.get((measure, name), 0.0))
        line = {"measure": measure, "series": name, **dataclasses.asdict(change)}
        line |= _dates(values, draws, steps, shares, change.step)
        changes.append(line | _with_loss(loss, values.mean(axis=0), steps, change.step))
    return Emergence(pd.DataFrame(rows), pd.DataFrame(changes), about, pd.DataFrame(ablated, columns=ABLATED))


def _dates(
    values: ndarray, draws: ndarray, steps: ndarray, shares: Sequence[float], halfway: float
) -> dict[str, float]:
    """The step at each share of the way, with intervals; NaN for what did not change."""
    dates: dict[str, float] = {}
    for share in shares:
        name, changed = f"at_{round(100 * share)}", not np.isnan(halfway)
        dates[name] = crossing(values.mean(axis=0), steps, share) if changed else np.nan
        many = onsets(draws, steps, share) if changed and len(values) > 1 else np.array([np.nan])
        dates[f"{name}_low"], dates[f"{name}_high"] = (float(x) for x in np.quantile(many, [0.025, 0.975]))
    return dates


def _with_loss(loss: ndarray, mean: ndarray, steps: ndarray, halfway: float) -> dict[str, float]:
    changed = not np.isnan(halfway)
    first, last = (crossing(mean, steps, share) if changed else np.nan for share in (0.1, 0.9))
    share, at = beside_loss(loss, steps, first, halfway, last)
    return {"loss_share": share, "loss_at": at}


def _kinds(kinds: str | Sequence[str] | None) -> list[Any] | None:
    """Finders, and names of what cross-attention looks at; None where the model decides."""
    if kinds is None:
        return None
    names = dict.fromkeys([kinds] if isinstance(kinds, str) else kinds)
    found = [name if name in CROSS else finder(name) for name in names]
    if wrong := [one.name for one in found if not isinstance(one, Finder | TaskFinder | str)]:
        known = ", ".join(name for name, one in finders().items() if isinstance(one, Finder | TaskFinder))
        raise InputError(f"{wrong[0]} is known by no attention that can be followed over a training. Kinds: {known}.")
    return found


def _suiting(asked: list[Any] | None, examples: Examples) -> list[Any]:
    """The kinds, or those that suit the data where none were asked for."""
    source = examples.source
    if asked is None and source is None:
        return [finder(name) for name in _KINDS]
    if asked is None and source is not None:
        following = examples.tokens[:, 1:]
        mirrored = source.shape == following.shape and torch.equal(source.flip(1), following)
        return ["mirror" if mirrored else "source_token"]
    assert asked is not None
    cross = [one for one in asked if isinstance(one, str)]
    others = [one.name for one in asked if not isinstance(one, str)]
    if cross and source is None:
        raise InputError(f"{cross[0]!r} is of cross-attention, and these rows have no source that an encoder reads.")
    if others and source is not None:
        raise InputError(f"{others[0]} heads are of one stack; of an encoder-decoder ask for {' or '.join(CROSS)}.")
    return asked


def _shares(shares: Sequence[float]) -> list[float]:
    found = sorted({float(one) for one in shares})
    if wrong := [one for one in found if not 0.01 <= one <= 0.99]:
        raise InputError(f"shares has {wrong[0]}. Give shares of the way, between 0.01 and 0.99.")
    return found


def _pairs(pairs: PromptPairs | str | None, training: Checkpoints | None, n: int, seed: int) -> Patched | None:
    if isinstance(pairs, PromptPairs):
        if len(pairs) < 4 or not pairs.foil:
            raise InputError(
                f"pairs= holds {len(pairs)} pairs. Give at least 4, with foils: effects are of a difference."
            )
        return Patched(pairs)
    if pairs not in ("data", None):
        raise InputError(f'pairs is {pairs!r}. Give PromptPairs, "data" or None.')
    made = contrast(training.data, n, stream(seed, "pairs")) if pairs and training is not None else None
    return None if made is None else Patched(*made)


def _examples(training: Checkpoints | None, tokens: Tensor | None, n: int, seed: int) -> Examples:
    if tokens is not None:
        if len(tokens) < 4 or tokens.shape[1] < 3:
            raise InputError(f"tokens has shape {tuple(tokens.shape)}. Give at least 4 rows of 3 tokens.")
        return Examples(tokens, {"all": (torch.arange(tokens.shape[1]) > 0).expand(len(tokens), -1)})
    if training is None:
        raise InputError("These models come without data. Give tokens= [row pos] to measure them on.")
    return training.data.draw(n, stream(seed, "emergence"), held_out=True)


def _join(about: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add what a measure says; mappings of one name are joined."""
    for name, value in more.items():
        about[name] = {**about.get(name, {}), **value} if isinstance(value, Mapping) else value
