"""`find_heads`: score every head by its attention, see what it writes, and ablate the best against matched others."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from interp.errors import InputError
from interp.heads.ablation import AblatedLosses, HeadSet, ablate_sets, matched_set
from interp.heads.base import Finder, finder
from interp.heads.patterns import attention_shares
from interp.heads.streaming import HeadGrid, head_grid
from interp.model.transformer import HookedTransformer
from interp.results import HeadScores
from interp.sites import Head
from interp.stats import bootstrap_interval, sign_flip, smallest_p
from interp.tasks.repeated_tokens import single_repeats

__all__ = ["find_heads"]

Progress = Callable[[str, int, int], None]
_CONTROLS_PER_LAYER = 2


@dataclass(frozen=True)
class _Plan:
    """Which heads are ablated: alone, in the top set of each kind, and as controls."""

    tops: dict[str, list[Head]]
    singles: list[Head]
    controls: dict[int, list[Head]]  # layer -> other heads of it
    random_sets: dict[str, list[HeadSet]]

    @property
    def sets(self) -> list[HeadSet]:
        alone = [(head,) for head in self.singles] + [(head,) for heads in self.controls.values() for head in heads]
        joint = [tuple(heads) for heads in self.tops.values()]
        return list(dict.fromkeys([*alone, *joint, *(one for sets in self.random_sets.values() for one in sets)]))


def find_heads(
    model: HookedTransformer,
    kinds: Sequence[str] = ("previous_token", "induction"),
    *,
    n: int = 24,
    top: int = 8,
    n_random_sets: int = 10,
    alpha: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> HeadScores:
    """Find heads of some kinds and test them by ablation.

    1. Every head's attention score on `n` prompts; the best `top` of each kind are chosen by it.
    2. The score of all heads again on `n` other prompts, with 95% intervals, with and without BOS; what they write.
    3. The chosen heads are set to their mean output, each alone and all together; the effect is the rise of the
       loss (nats) on the copied part of `n` further random sequences. Controls: other heads of the same layers, and
       `n_random_sets` random sets from the same layers. p by sign flips over sequences, corrected over all heads
       tested by the max-statistic.

    A verdict names the kind only if score, writing and effect pass the kind's cutoffs, the effect exceeds the
    controls', and the corrected p is at most `alpha`. Cost: about 4 forward passes a kind, and one partial pass a
    set. Same seed, same numbers. Raises `InputError` for an unknown kind, or an `n` too small to reject anything.
    """
    found = [finder(kind) for kind in dict.fromkeys([kinds] if isinstance(kinds, str) else kinds)]
    _check(found, model, n=n, top=top, alpha=alpha)
    report = progress or (lambda stage, done, total: None)
    grid = head_grid(model)
    scores = {one.name: _scores(model, one, n, seed, report) for one in found}
    plan = _make_plan(grid, scores, top=top, n_random_sets=n_random_sets, seed=seed)
    data = single_repeats(model, n, seed=seed + 2)
    losses = ablate_sets(model, data, plan.sets, progress=lambda done, total: report("ablating", done, total))
    frame = _frame(found, grid, scores, plan, losses, alpha=alpha, seed=seed)
    sets = _set_table(found, plan, losses, seed=seed)
    frame["verdict"] = _verdicts(found, frame, sets, alpha)
    about = _about(model, found, losses, n=n, top=top, n_random_sets=n_random_sets, alpha=alpha, seed=seed)
    return HeadScores(frame, sets, about)


def _check(found: list[Finder], model: HookedTransformer, *, n: int, top: int, alpha: float) -> None:
    if not found:
        raise InputError("No kinds were asked for. Name at least one, e.g. kinds=['induction'].")
    for one in found:
        one.must_apply_to(model)
    if top < 1:
        raise InputError(f"top is {top}. Ablate at least one head of each kind.")
    reachable = smallest_p(n) if n > 0 else 1.0
    if not 0 < alpha < 1 or reachable > alpha:
        raise InputError(
            f"With n={n} sequences the smallest p that sign flips can reach is {reachable:.3g}, which is no less than "
            f"alpha={alpha:g}, so nothing could be found. Use n ≥ {max(2, math.ceil(-math.log2(max(alpha, 1e-4))))}."
        )


def _scores(model: HookedTransformer, one: Finder, n: int, seed: int, report: Progress) -> dict[str, np.ndarray]:
    """Per-prompt attention scores `[prompt layer head]` on the selecting and the reported prompts, and the writing."""
    measured = {}
    for i, (name, data_seed, bos) in enumerate(
        (("select", seed, True), ("report", seed + 1, True), ("no_bos", seed + 1, False))
    ):
        report(f"{one.name}: attention", i, 3)
        batch = one.make_data(model, n, data_seed, bos)
        measured[name] = attention_shares(model, batch, {"score": one.rule})["score"].double().numpy()
    if one.writing is not None:
        report(f"{one.name}: writing", 0, 1)
        few = one.make_data(model, min(n, 8), seed + 1, True)
        measured["writing"] = one.writing.measure(model, few).double().numpy()
    return measured


def _make_plan(
    grid: HeadGrid, scores: dict[str, dict[str, np.ndarray]], *, top: int, n_random_sets: int, seed: int
) -> _Plan:
    generator = np.random.default_rng(seed)
    tops = {}
    for kind, measured in scores.items():
        mean = np.nan_to_num(measured["select"].mean(axis=0), nan=-np.inf)
        best = np.argsort(-mean, axis=None, kind="stable")[:top]
        tops[kind] = [Head(int(i) // grid.n_heads, int(i) % grid.n_heads, "attn", grid.stack) for i in best]
    singles = list(dict.fromkeys(head for heads in tops.values() for head in heads))
    avoid = set(singles)
    controls = {}
    for layer in sorted({head.layer for head in singles}):
        one_layer = [Head(layer, 0, "attn", grid.stack)] * _CONTROLS_PER_LAYER
        controls[layer] = list(matched_set(one_layer, grid.n_heads, avoid, generator))
    random_sets = {
        kind: [s for _ in range(n_random_sets) if (s := matched_set(heads, grid.n_heads, set(heads), generator))]
        for kind, heads in tops.items()
    }
    return _Plan(tops, singles, controls, random_sets)


def _frame(
    found: list[Finder],
    grid: HeadGrid,
    scores: dict[str, dict[str, np.ndarray]],
    plan: _Plan,
    losses: AblatedLosses,
    *,
    alpha: float,
    seed: int,
) -> pd.DataFrame:
    effect = dict(zip(plan.sets, losses.effects, strict=True))
    tested = np.stack([effect[(head,)] for head in plan.singles], axis=1)  # [prompt, head]
    excess = np.stack([effect[(head,)] - _control(plan, effect, head) for head in plan.singles], axis=1)
    low, high = bootstrap_interval(tested, seed=seed)
    p, p_corrected = sign_flip(excess, side="greater", seed=seed)
    p_corrected = np.minimum(p_corrected * len(found), 1.0)  # several kinds were asked for
    of_single = {
        head: {
            "effect": tested[:, i].mean(),
            "effect_low": low[i],
            "effect_high": high[i],
            "control": tested[:, i].mean() - excess[:, i].mean(),
            "p": p[i],
            "p_corrected": p_corrected[i],
        }
        for i, head in enumerate(plan.singles)
    }
    rows = []
    for one in found:
        measured = scores[one.name]
        flat = measured["report"].reshape(len(measured["report"]), -1)
        score_low, score_high = bootstrap_interval(flat, seed=seed)
        for i in range(grid.n_layers * grid.n_heads):
            layer, head = divmod(i, grid.n_heads)
            if np.isnan(flat[:, i]).all():
                continue  # a layer with fewer heads
            row = {"kind": one.name, "stack": grid.stack, "sublayer": "attn", "layer": layer, "head": head}
            row |= {"score": np.nanmean(flat[:, i]), "score_low": score_low[i], "score_high": score_high[i]}
            row |= {f"score_{name}": np.nanmean(measured[name][:, layer, head]) for name in ("select", "no_bos")}
            row["writing"] = measured["writing"][layer, head] if "writing" in measured else np.nan
            row |= of_single.get(Head(layer, head, "attn", grid.stack), {})
            rows.append(row)
    return pd.DataFrame(rows)


def _control(plan: _Plan, effect: dict[HeadSet, np.ndarray], head: Head) -> np.ndarray:
    """Mean effect of other heads of the same layer, per prompt; 0 where the layer has no other."""
    others = plan.controls.get(head.layer, [])
    zero = np.zeros_like(next(iter(effect.values())))
    return np.mean([effect[(other,)] for other in others], axis=0) if others else zero


def _set_table(found: list[Finder], plan: _Plan, losses: AblatedLosses, *, seed: int) -> pd.DataFrame:
    effect = dict(zip(plan.sets, losses.effects, strict=True))
    rows = []
    for one in found:
        heads, randoms = plan.tops[one.name], plan.random_sets[one.name]
        joint = effect[tuple(heads)]
        control = np.mean([effect[s] for s in randoms], axis=0) if randoms else np.zeros_like(joint)
        low, high = bootstrap_interval(joint[:, None], seed=seed)
        _, p = sign_flip((joint - control)[:, None], side="greater", seed=seed)
        random_means = [effect[s].mean() for s in randoms]
        rows.append(
            {
                "kind": one.name,
                "heads": " ".join(str(head) for head in heads),
                "loss_fresh": losses.fresh.mean(),
                "loss": losses.clean.mean(),
                "loss_ablated": losses.clean.mean() + joint.mean(),
                "effect": joint.mean(),
                "effect_low": low[0],
                "effect_high": high[0],
                "random_mean": np.mean(random_means) if randoms else np.nan,
                "random_max": np.max(random_means) if randoms else np.nan,
                "p": min(p[0] * len(found), 1.0),
            }
        )
    return pd.DataFrame(rows)


def _verdicts(found: list[Finder], frame: pd.DataFrame, sets: pd.DataFrame, alpha: float) -> list[str]:
    by_name = {one.name: one for one in found}
    joint = sets.set_index("kind")
    verdicts = []
    for row in frame.to_dict("records"):
        one, kind = by_name[row["kind"]], row["kind"]
        attends = row["score"] >= one.score_at_least
        writes = one.writing is None or row["writing"] >= one.writing.at_least
        alone = row["effect"] >= one.effect_at_least and row["p_corrected"] <= alpha
        together = joint.loc[kind]
        in_set = str(Head(row["layer"], row["head"], "attn", row["stack"])) in str(together["heads"]).split()
        jointly = one.joint and in_set and together["effect"] >= one.effect_at_least and together["p"] <= alpha
        jointly = jointly and not together["effect"] <= together["random_max"]
        if attends and writes and (alone or jointly):
            verdicts.append(kind if alone else f"{kind} (jointly)")
        elif attends:
            verdicts.append(f"attends like {kind}")
        elif alone:
            verdicts.append("matters for the task")
        else:
            verdicts.append("")
    return verdicts


def _about(model: HookedTransformer, found: list[Finder], losses: AblatedLosses, **settings: object) -> dict:
    return {
        "model": model.cfg.model_name,
        "definitions": {one.name: one.definition for one in found},
        "writing": {one.name: one.writing.label for one in found if one.writing is not None},
        "data": {one.name: one.data for one in found},
        "bos": "one BOS in front; score_no_bos without it",
        "ablation": "mean over prompts at the same position, exact",
        "metric": "loss on the second copy of a random block (10 to 25 tokens, once repeated), nats",
        "loss": {"copies": float(losses.clean.mean()), "fresh tokens": float(losses.fresh.mean())},
        "cutoffs": {
            one.name: {
                "score": one.score_at_least,
                "effect": one.effect_at_least,
                **({one.writing.label: one.writing.at_least} if one.writing else {}),
            }
            for one in found
        },
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "threads": torch.get_num_threads(),
        **settings,
    }
