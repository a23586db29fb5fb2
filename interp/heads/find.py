"""`find_heads`: score every head by its attention, see what it writes, and ablate the best against matched others."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from interp.circuits.streaming import HeadGrid, head_grid
from interp.errors import InputError
from interp.heads.ablation import Ablations, HeadSet, ablate_sets
from interp.heads.base import Finder, finder
from interp.heads.causes import CAUSES
from interp.heads.patterns import attention_shares
from interp.heads.plan import AblationPlan, make_plan, stability
from interp.heads.verdicts import Cutoffs, cutoffs_of, verdicts
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer
from interp.results import HeadScores
from interp.sites import Head
from interp.stats import benjamini_hochberg, bootstrap_interval, sign_flip, smallest_p

__all__ = ["find_heads"]

Progress = Callable[[str, int, int], None]
_WRITING_PROMPTS = 8


@dataclass(frozen=True)
class _Measured:
    """One kind's attention scores `[prompt layer head]` and what heads write `[layer head]`."""

    select: np.ndarray
    report: np.ndarray
    no_bos: np.ndarray
    writing: np.ndarray | None


def find_heads(
    model: HookedTransformer,
    kinds: str | Sequence[str] = ("previous_token", "duplicate_token", "induction", "sink"),
    *,
    pairs: Any = None,
    corpus: Any = None,
    n: int = 32,
    screen: str = "attention",
    top: int = 8,
    n_random_sets: int = 5,
    alpha: float = 0.05,
    cutoffs: Mapping[str, Mapping[str, float]] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> HeadScores:
    """Find heads of some kinds and test them by ablation.

    1. Every head's attention score on `n` prompts; the best `top` of each kind are chosen by it (`screen="none"`
       tests every head instead).
    2. The score of all heads again on `n` other prompts, with 95% intervals, with and without BOS; what they write.
    3. The chosen heads are set to their mean output, each alone and all together; the effect is the harm to the
       kind's behaviour on `n` further items (see `about["causes"]`). Controls: other heads of the same layers, and
       `n_random_sets` random sets from the same layers. p by sign flips of items on the harm beyond the controls',
       corrected over all heads tested by the max-statistic and over kinds by Bonferroni; q by Benjamini-Hochberg.

    A verdict names the kind only if score, writing and effect pass its cutoffs (`cutoffs={"induction": {"score": .5}}`
    changes them) and the corrected p is at most `alpha`. `corpus` is a file, folder or list of files of the user's
    own text. Cost: about 6 forward passes a kind, and one partial pass a set. Same seed, same numbers. Raises
    `InputError` for an unknown kind, or an `n` too small to reject anything.
    """
    found = [finder(kind) for kind in dict.fromkeys([kinds] if isinstance(kinds, str) else kinds)]
    _check(found, model, pairs=pairs, n=n, screen=screen, top=top, n_random_sets=n_random_sets, alpha=alpha)
    limits = cutoffs_of(found, cutoffs)
    report = progress or (lambda stage, done, total: None)
    grid = head_grid(model)
    measured = _measure(model, found, n, seed, corpus, report)
    frames, sets, metrics = [], [], {}
    for cause in dict.fromkeys(one.cause for one in found):
        group = [one for one in found if one.cause == cause]
        scores = {one.name: measured[one.name].select for one in group}
        plan = make_plan(grid, scores, top=top, test_all=screen == "none", n_random_sets=n_random_sets, seed=seed)
        behaviour = CAUSES[cause].make(model, n, seed)
        stage = f"ablating heads: {CAUSES[cause].metric}"
        report(stage, 0, len(plan.sets))
        tested = ablate_sets(model, behaviour, plan.sets, progress=lambda done, total, s=stage: report(s, done, total))
        effects = _effects(plan, tested.harm, len(found), seed)
        frames += [_frame(one, grid, measured[one.name], effects, seed) for one in group]
        sets += [_set_row(one, plan, tested, measured[one.name], len(found), seed) for one in group]
        metrics[cause] = {
            "metric": CAUSES[cause].metric,
            "unit": CAUSES[cause].unit,
            "clean": float(tested.clean.mean()),
            "reference": float(tested.reference.mean()),
        }
    frame, set_table = pd.concat(frames, ignore_index=True), pd.DataFrame(sets)
    frame["q"] = benjamini_hochberg(frame["p"].to_numpy(dtype=float))
    frame["verdict"] = verdicts(found, frame, set_table, limits, alpha)
    settings = {"n": n, "screen": screen, "top": top, "n_random_sets": n_random_sets, "alpha": alpha, "seed": seed}
    return HeadScores(frame, set_table, _about(model, found, limits, metrics, corpus, settings))


def _check(
    found: list[Finder],
    model: Any,
    *,
    pairs: Any,
    n: Any,
    screen: str,
    top: Any,
    n_random_sets: Any,
    alpha: float,
) -> None:
    if not isinstance(model, HookedTransformer):
        raise InputError(f"find_heads takes a loaded model, not {model!r}. Load it first: interp.load(…).")
    if not found:
        raise InputError("No kinds were asked for. Name at least one, e.g. kinds=['induction'].")
    if pairs is not None:
        names = ", ".join(one.name for one in found)
        raise InputError(
            f"{names} heads are found on prompts of their own, so they take no pairs. Give corpus= instead."
        )
    for one in found:
        one.must_apply_to(model)
    if screen not in ("attention", "none"):
        raise InputError(f'screen is {screen!r}. Choose "attention" (test the top heads) or "none" (test every head).')
    for name, value in (("n", n), ("top", top), ("n_random_sets", n_random_sets)):
        if not isinstance(value, int) or (value < 1 and name != "n"):
            raise InputError(f"{name} is {value!r}. Give a whole number, at least one.")
    reachable = min(smallest_p(n) * len(found), 1.0) if n > 0 else 1.0
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha}. Give the false-positive rate you accept, above 0 and below 1.")
    if reachable > alpha:
        least = smallest_p(10**9) * len(found)
        if alpha < least:
            raise InputError(f"alpha={alpha:g} cannot be reached: the flips allow no corrected p below {least:.2g}.")
        enough = max(2, math.ceil(-math.log2(alpha / len(found))))
        raise InputError(
            f"With n={n} items and {len(found)} kinds the smallest corrected p that sign flips can reach is "
            f"{reachable:.3g}, above alpha={alpha:g}: nothing could be found. Use n ≥ {enough}."
        )


def _measure(
    model: HookedTransformer, found: list[Finder], n: int, seed: int, corpus: Any, report: Progress
) -> dict[str, _Measured]:
    """Scores on the selecting and the reported half of 2n prompts, and without BOS; the writing on a few. Kinds that
    look at the same prompts share the passes."""
    measured = {}
    for make_data in dict.fromkeys(one.make_data for one in found):
        group = [one for one in found if one.make_data is make_data]
        stage = f"attention: {group[0].data}"
        report(stage, 0, 3)
        rules = {one.name: one.rule for one in group}
        batch = make_data(model, 2 * n, seed, True, corpus)
        scores = attention_shares(model, batch, rules)
        report(stage, 1, 3)
        bare = attention_shares(model, _part(make_data(model, 2 * n, seed, False, corpus), slice(n, None)), rules)
        report(stage, 2, 3)
        few = _part(batch, slice(n, n + _WRITING_PROMPTS))
        for one in group:
            both, no_bos = (found[one.name].double().numpy() for found in (scores, bare))
            writing = one.writing.measure(model, few).double().numpy() if one.writing is not None else None
            measured[one.name] = _Measured(both[:n], both[n:], no_bos, writing)
        report(stage, 3, 3)
    return measured


def _part(batch: Batch, rows: slice) -> Batch:
    return Batch(batch.tokens[rows], None if batch.mask is None else batch.mask[rows])


def _effects(
    plan: AblationPlan, harm: Mapping[HeadSet, np.ndarray], n_kinds: int, seed: int
) -> dict[Head, dict[str, float]]:
    """Harm of each tested head alone, with its interval, its controls' harm, and p of what is beyond theirs."""
    alone = np.stack([harm[(head,)] for head in plan.singles], axis=1)  # [item, head]
    control = np.stack([_mean_harm(plan.others(head), harm, alone[:, 0]) for head in plan.singles], axis=1)
    low, high = bootstrap_interval(alone, seed=seed)
    p, corrected = np.full((2, len(plan.singles)), np.nan)
    matched = ~np.isnan(control).any(axis=0)  # a head that has no other in its layer cannot be tested against one
    if matched.any():
        p[matched], corrected[matched] = sign_flip((alone - control)[:, matched], side="greater", seed=seed)
    return {
        head: {
            "effect": alone[:, i].mean(),
            "effect_low": low[i],
            "effect_high": high[i],
            "control": control[:, i].mean(),
            "p": p[i],
            "p_corrected": np.minimum(corrected[i] * n_kinds, 1.0),
        }
        for i, head in enumerate(plan.singles)
    }


def _mean_harm(heads: Sequence[Head], harm: Mapping[HeadSet, np.ndarray], like: np.ndarray) -> np.ndarray:
    """Mean harm of some heads per item; NaN where there are none."""
    return np.mean([harm[(head,)] for head in heads], axis=0) if heads else np.full_like(like, np.nan)


def _frame(
    one: Finder, grid: HeadGrid, measured: _Measured, effects: Mapping[Head, Mapping[str, float]], seed: int
) -> pd.DataFrame:
    flat = measured.report.reshape(len(measured.report), -1)
    low, high = bootstrap_interval(flat, seed=seed)
    absent = dict.fromkeys(("effect", "effect_low", "effect_high", "control", "p", "p_corrected"), np.nan)
    rows = []
    for i in np.flatnonzero(~np.isnan(flat).all(axis=0)):  # a layer may have fewer heads than the widest
        layer, head = divmod(int(i), grid.n_heads)
        row: dict[str, Any] = {
            "kind": one.name,
            "stack": grid.stack,
            "sublayer": "attn",
            "layer": layer,
            "head": head,
            "score": np.nanmean(flat[:, i]),
            "score_low": low[i],
            "score_high": high[i],
            "score_select": np.nanmean(measured.select[:, layer, head]),
            "score_no_bos": np.nanmean(measured.no_bos[:, layer, head]),
            "writing": np.nan if measured.writing is None else measured.writing[layer, head],
        }
        rows.append(row | dict(effects.get(Head(layer, head, "attn", grid.stack), absent)))
    return pd.DataFrame(rows)


def _set_row(
    one: Finder, plan: AblationPlan, tested: Ablations, measured: _Measured, n_kinds: int, seed: int
) -> dict[str, Any]:
    heads, randoms, harm = plan.tops[one.name], plan.random_sets[one.name], tested.harm
    joint = harm[heads]
    low, high = bootstrap_interval(joint[:, None], seed=seed)
    p = np.array([np.nan])  # every head of these layers is in the set: there is no random one to compare with
    if randoms:
        control = np.mean([harm[s] for s in randoms], axis=0)
        p, _ = sign_flip((joint - control)[:, None], side="greater", seed=seed)
    random_means = [harm[s].mean() for s in randoms]
    return {
        "kind": one.name,
        "heads": " ".join(str(head) for head in heads),
        "metric": CAUSES[one.cause].metric,
        "unit": CAUSES[one.cause].unit,
        "clean": tested.clean.mean(),
        "ablated": tested.clean.mean() + tested.sign * joint.mean() * tested.share,
        "effect": joint.mean(),
        "effect_low": low[0],
        "effect_high": high[0],
        "random_mean": np.mean(random_means) if randoms else np.nan,
        "random_max": np.max(random_means) if randoms else np.nan,
        "p": np.minimum(p[0] * n_kinds, 1.0),
        "stability": stability(measured.select, len(heads), seed=seed),
    }


def _about(
    model: HookedTransformer,
    found: list[Finder],
    limits: Cutoffs,
    metrics: dict[str, Any],
    corpus: Any,
    settings: dict[str, Any],
) -> dict[str, Any]:
    return {
        "model": model.cfg.model_name,
        "definitions": {one.name: one.definition for one in found},
        "writing": {one.name: one.writing.label for one in found if one.writing is not None},
        "data": {one.name: one.data for one in found},
        "corpus": "the sample of this package" if corpus is None else str(corpus),
        "bos": "one BOS in front where the model has one; score_no_bos without it",
        "ablation": "mean over the reference prompts, position by position; exact",
        "normalisation": "harm: positive where the behaviour got worse",
        "cause": {one.name: one.cause for one in found},
        "causes": metrics,
        "cutoffs": limits,
        **settings,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
