"""The search for kinds that are known by their pattern on token rows: attention scores, writing, and ablation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from interp.circuits.streaming import HeadGrid, head_grid
from interp.errors import InputError
from interp.heads.ablation import Ablations, HeadSet, ablate_sets
from interp.heads.base import Finder
from interp.heads.causes import CAUSES, Behaviour
from interp.heads.patterns import attention_shares
from interp.heads.plan import AblationPlan, make_plan, stability
from interp.model.tokens import Batch, pad_rows
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results.heads import all_items, item_rows
from interp.sites import Head
from interp.stats import bootstrap_interval, item_means, sign_flip

__all__ = ["PatternSettings", "search_patterns"]

Progress = Callable[[str, int, int], None]
_WRITING_PROMPTS = 8


@dataclass(frozen=True)
class PatternSettings:
    """How many prompts, which heads are tested, and against what."""

    n: int
    top: int
    n_random_sets: int
    screen: str
    seed: int
    n_kinds: int


@dataclass(frozen=True)
class _Measured:
    """One kind's attention scores `[prompt layer head]` and what heads write `[layer head]`."""

    select: np.ndarray
    report: np.ndarray
    no_bos: np.ndarray
    writing: np.ndarray | None


def search_patterns(
    model: HookedTransformer,
    found: Sequence[Finder],
    settings: PatternSettings,
    *,
    corpus: Any,
    pairs: tuple[PromptPairs, PromptPairs] | None,
    progress: Progress,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any], pd.DataFrame]:
    """Rows of heads, one row of each kind's top set, the metrics that ablation was judged by, and the items behind the
    means. With `pairs` (of the
    selecting and of the reported items) these are the prompts, and their own metric is the behaviour."""
    grid = head_grid(model)
    seed, n_kinds = settings.seed, settings.n_kinds
    measured = _measure_pairs(model, found, pairs) if pairs else _measure(model, found, settings, corpus, progress)
    frames, sets, metrics, items = [], [], {}, []
    for cause in dict.fromkeys(one.cause for one in found):
        group = [one for one in found if one.cause == cause]
        scores = {one.name: measured[one.name].select for one in group}
        plan = make_plan(
            grid,
            scores,
            top=settings.top,
            test_all=settings.screen == "none",
            n_random_sets=settings.n_random_sets,
            seed=seed,
        )
        if not plan.sets:  # nothing in these prompts that such heads attend to
            frames += [_frame(one, grid, measured[one.name], {}, seed) for one in group]
            continue
        behaviour = CAUSES[cause].make(model, settings.n, seed) if not pairs else None
        behaviour = behaviour or Behaviour(pairs[1], higher_is_better=True, in_shares=True)  # type: ignore[index]
        metric = "logit difference of the pairs" if pairs else CAUSES[cause].metric
        unit = "share of clean − corrupt" if pairs else CAUSES[cause].unit
        stage = f"ablating heads: {metric}"
        progress(stage, 0, len(plan.sets))
        tested = ablate_sets(
            model, behaviour, plan.sets, progress=lambda done, total, s=stage: progress(s, done, total)
        )
        tested = _tested_by_item(tested, pairs[1].items) if pairs else tested
        effects = _effects(plan, tested.harm, n_kinds, seed)
        frames += [_frame(one, grid, measured[one.name], effects, seed) for one in group]
        items += [_items(one, plan, measured[one.name], tested.harm, seed) for one in group]
        sets += [
            _set_row(one, plan, tested, measured[one.name], n_kinds, seed) | {"metric": metric, "unit": unit}
            for one in group
            if plan.tops[one.name]  # none where no prompt has what the kind attends to
        ]
        metrics[cause] = {
            "metric": metric,
            "unit": unit,
            "clean": float(tested.clean.mean()),
            "reference": float(tested.reference.mean()),
        }
    return pd.concat(frames, ignore_index=True), pd.DataFrame(sets), metrics, all_items(items)


def _items(
    one: Finder, plan: AblationPlan, measured: _Measured, harm: Mapping[HeadSet, np.ndarray], seed: int
) -> pd.DataFrame:
    """Score and harm of the heads tested alone, a row per prompt: each is an item of its own, those of the score are
    not those of the harm, and another seed has others. Of a kind that asks for no harm, the score of every head."""
    scored = list(plan.singles)
    if one.effect_cutoff is None:
        there = np.argwhere(~np.isnan(measured.report).all(axis=0)).tolist()
        scored = [Head(layer, head, "attn", plan.singles[0].stack) for layer, head in there]
    parts = []
    for name, heads in (("score", scored), ("ablation", plan.singles)):
        for head in heads:
            values = measured.report[:, head.layer, head.head] if name == "score" else harm[(head,)]
            parts.append(item_rows(one.name, head, name, [f"{name} {seed}:{i}" for i in range(len(values))], values))
    return all_items(parts)


def _measure(
    model: HookedTransformer, found: Sequence[Finder], settings: PatternSettings, corpus: Any, report: Progress
) -> dict[str, _Measured]:
    """Scores on the selecting and the reported half of 2n prompts, and without BOS; the writing on a few. Kinds that
    look at the same prompts share the passes."""
    measured, n, seed = {}, settings.n, settings.seed
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


def _measure_pairs(
    model: HookedTransformer, found: Sequence[Finder], pairs: tuple[PromptPairs, PromptPairs]
) -> dict[str, _Measured]:
    """Scores by item on the clean prompts of pairs; the writing on a few of one length."""
    rules = {one.name: one.rule for one in found}
    by_half = []
    for half in pairs:
        batch = pad_rows([list(row) for row in half.clean], _pad(model), "right", model.device)  # rules count from 0
        shares = attention_shares(model, batch, rules)
        by_half.append({name: _of_items(x.double().numpy(), half.items) for name, x in shares.items()})
    for one in found:
        if any(np.isnan(half[one.name]).all() for half in by_half):
            raise InputError(
                f"No token of these prompts has anything a {one.name} head would attend to ({one.definition}). "
                "Give pairs whose clean prompts have."
            )
    lengths = [len(row) for row in pairs[1].clean]
    usual = max(set(lengths), key=lengths.count)
    few = [list(row) for row in pairs[1].clean if len(row) == usual][:_WRITING_PROMPTS]
    batch = Batch(torch.tensor(few, device=model.device))
    return {
        one.name: _Measured(
            by_half[0][one.name],
            by_half[1][one.name],
            np.full_like(by_half[1][one.name], np.nan),
            one.writing.measure(model, batch).double().numpy() if one.writing is not None else None,
        )
        for one in found
    }


def _of_items(values: np.ndarray, items: Sequence[str]) -> np.ndarray:
    """Means of each item's prompts, `[prompt …]` to `[item …]`."""
    return item_means(values.reshape(len(values), -1), np.array(items)).reshape(-1, *values.shape[1:])


def _tested_by_item(tested: Ablations, items: Sequence[str]) -> Ablations:
    """The same with one value per item."""
    clean, reference = (_of_items(one[:, None], items)[:, 0] for one in (tested.clean, tested.reference))
    return replace(tested, clean=clean, reference=reference, ablated=_of_items(tested.ablated.T, items).T)


def _pad(model: HookedTransformer) -> int:
    return getattr(model.tokenizer, "pad_id", None) or 0


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
    scored = ~np.isnan(flat).all(axis=0)
    low, high = np.full((2, flat.shape[1]), np.nan)
    low[scored], high[scored] = bootstrap_interval(flat[:, scored], seed=seed)
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
            "score_no_bos": _mean(measured.no_bos[:, layer, head]),
            "writing": np.nan if measured.writing is None else measured.writing[layer, head],
        }
        rows.append(row | dict(effects.get(Head(layer, head, "attn", grid.stack), absent)))
    return pd.DataFrame(rows)


def _mean(values: np.ndarray) -> float:
    """The mean of what was measured; NaN where nothing was."""
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if len(measured) else float("nan")


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
