"""The null of every kind of head: what a randomly initialised model of the same shape scores on the same prompts.

Nothing is exchanged or ablated there: such a model does no task, so there is no effect to take a share of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.circuits.streaming import head_grid
from interp.errors import InputError
from interp.heads.base import Finder, finder, finders
from interp.heads.patterns import attention_shares
from interp.heads.splits import halves
from interp.heads.syntax import SyntaxFinder
from interp.heads.task_finder import TaskFinder
from interp.model.tokens import Batch, pad_rows
from interp.model.transformer import HookedTransformer
from interp.report.claim import Claim, Measured, Missing
from interp.report.evidence import Evidence
from interp.report.intervals import from_items, of_items
from interp.results.heads import head_of
from interp.sites import Head
from interp.stats import item_means

__all__ = ["ABOUT", "CLAIMS", "TITLE", "random_twin", "table"]

TITLE = "Randomly initialised model of the same shape"
ABOUT = (
    "The same prompts read by a model of the same config with random weights (this library's initialisation). Its best "
    "head is chosen on these very prompts, which favours it; the model's own on other ones. No interventions: a model "
    "that does no task has no effect to share out, so its heads are held against the cutoffs of score (and margin over "
    "the baseline) and of writing only."
)
_WRITING_PROMPTS = 8
Grid = NDArray[np.floating]


@dataclass(frozen=True)
class _Seen:
    """A kind's score `[prompt head]` with the item of each prompt, and what each head writes (None: not known from
    passes alone); heads counted through the layers."""

    score: Grid
    items: list[str]
    writing: Grid | None
    baseline: float = math.nan


def random_twin(model: HookedTransformer, seed: int = 0) -> HookedTransformer:
    """A model of the same config and tokenizer with random weights; the same for the same seed."""
    cfg = replace(model.cfg, model_name=f"{model.cfg.model_name}, random weights")
    return HookedTransformer(cfg, tokenizer=model.tokenizer, seed=seed, dtype=model.dtype, device=model.device)


def _twin(evidence: Evidence) -> HookedTransformer:
    return evidence.shared("random twin", lambda: random_twin(evidence.model, evidence.seed))


def _compared(evidence: Evidence, kind: str) -> Mapping[str, Any]:
    """What the best heads of both models score, the difference by item, and how many heads pass."""
    rows = evidence.rows(kind)
    if isinstance(finder(kind), SyntaxFinder):
        raise Missing("its heads are named for relations of their own; the claim syntax.random compares them")
    if rows["score_select"].dropna().empty:
        raise Missing(f"no head has a {kind} score")

    def make() -> dict[str, Any]:
        one = finder(kind)
        read: Any = _read_task if isinstance(one, TaskFinder) else _read_pattern
        ours, random = read(evidence, one, evidence.model, False), read(evidence, one, _twin(evidence), True)
        row = rows.loc[rows["score_select"].idxmax()].to_dict()
        limits = evidence.found.about.get("cutoffs", {}).get(kind, {})
        mine = ours.score[:, _flat(evidence.model, row["layer"], row["head"])]
        means = _means(random)
        if np.isnan(means).all():
            raise Missing(f"no head of the random model has a {kind} score")
        best = int(np.nanargmax(means))
        theirs = random.score[:, best]
        options: dict[str, Any] = {"items": ours.items, "seed": evidence.seed}
        return {
            "head": head_of(row),
            "score": of_items(mine, **options),
            "random_head": _name(evidence.model, best),
            "random_score": of_items(theirs, **options),
            "difference": of_items(mine - theirs, **options, share=False),
            "n_heads": int((~np.isnan(means)).sum()),
            "passing": [
                _passing(one, rows["score"].to_numpy(float), ours.baseline, _written(one, evidence), limits),
                _passing(one, means, random.baseline, random.writing, limits),
            ],
        }

    return evidence.once(f"random model: {kind}", make)


def _read_task(evidence: Evidence, one: TaskFinder, model: HookedTransformer, writing_too: bool) -> _Seen:
    """From the passes over the task's reported prompts, which kinds of one task share."""
    if one.name == "backup":
        raise Missing("its score needs name movers to knock out, which a random model has none of")
    study = evidence.study(one.task, one.queries, corruption=one.corruptions[0] if evidence.pairs is None else "")
    if model is not evidence.model:
        ours = study
        study = evidence.shared(
            f"random study {one.task} {ours.corruption} {ours.queries}",
            lambda: replace(ours, model=model, memo={}),
        )
    behaviour = one.behaviour(study)
    writing = None
    if writing_too and one.writing is not None and one.writing.measure is not None and model.cfg.has_unembed:
        writing = _of_heads(study.by_item(one.writing.measure(study)))
    score = behaviour.score.reshape(len(behaviour.score), -1)
    return _Seen(score, list(study.main.items), writing, max(behaviour.baselines.values(), default=math.nan))


def _read_pattern(evidence: Evidence, one: Finder, model: HookedTransformer, writing_too: bool) -> _Seen:
    """From the kind's own prompts, the reported half of them; kinds that look at the same ones share the passes."""
    batch, few, items = evidence.shared(f"rows of {one.data}", lambda: _rows(evidence, one))
    data = [other for other in finders().values() if isinstance(other, Finder) and other.data == one.data]
    rules = {other.name: other.rule for other in data if other.name in evidence.found.kinds}
    which = "random" if model is not evidence.model else "own"
    shares = evidence.shared(f"{which} shares of {one.data}", lambda: attention_shares(model, batch, rules))
    score = shares[one.name].double().numpy()
    writing = None
    if writing_too and one.writing is not None:
        writing = one.writing.measure(model, few).double().numpy().ravel()
    return _Seen(score.reshape(len(score), -1), items, writing)


def _rows(evidence: Evidence, one: Finder) -> tuple[Batch, Batch, list[str]]:
    """The prompts that were reported on, a few of one length for what heads write, and the items."""
    model, n = evidence.model, evidence.n
    if evidence.pairs is None:
        batch = one.make_data(model, 2 * n, evidence.seed, True, evidence.corpus)
        whole, few = _part(batch, slice(n, None)), _part(batch, slice(n, n + _WRITING_PROMPTS))
        return whole, few, [f"{i:05}" for i in range(len(whole.tokens))]
    first = next(iter(evidence.pairs.values()))
    mine = first.select(halves(first, evidence.seed)[1])
    rows = [list(row) for row in mine.clean]
    usual = max((len(row) for row in rows), key=[len(row) for row in rows].count)
    pad, device = getattr(model.tokenizer, "pad_id", None) or 0, model.device
    alike = [row for row in rows if len(row) == usual][:_WRITING_PROMPTS]
    return pad_rows(rows, pad, "left", device), pad_rows(alike, pad, "left", device), list(mine.items)


def _part(batch: Batch, rows: slice) -> Batch:
    return Batch(batch.tokens[rows], None if batch.mask is None else batch.mask[rows])


def _means(seen: _Seen) -> Grid:
    return _of_heads(item_means(seen.score, np.array(seen.items)))


def _of_heads(by_item: Grid) -> Grid:
    """Means over items; NaN for a head that a layer does not have."""
    counted = ~np.isnan(by_item).all(axis=0)
    found = np.full(by_item.shape[1], np.nan)
    found[counted] = np.nanmean(by_item[:, counted], axis=0)
    return found


def _written(one: Finder | TaskFinder, evidence: Evidence) -> Grid | None:
    """What the report found heads to write, unless only an intervention shows it."""
    known = one.writing is not None and (isinstance(one, Finder) or one.writing.measure is not None)
    return evidence.rows(one.name)["writing"].to_numpy(float) if known else None


def _passing(
    one: Finder | TaskFinder, scores: Grid, baseline: float, writing: Grid | None, limits: Mapping[str, float]
) -> list[int | None]:
    """How many heads reach the cutoff of the score, and how many that of writing too; None where no score is asked
    for, and where what a head writes is known by an intervention only, or plays no part."""
    if "score" not in limits:
        return [None, None]
    good = scores >= limits["score"]
    if "margin" in limits:
        good &= scores >= baseline + limits["margin"]
    both = None
    if one.writing is not None and writing is not None:
        writes = [one.writing.passes(float(x), limits["writing"]) for x in writing]
        both = int((good & np.array(writes)).sum())
    return [int(good.sum()), both]


def _flat(model: HookedTransformer, layer: int, head: int) -> int:
    return int(layer) * head_grid(model).n_heads + int(head)


def _name(model: HookedTransformer, flat: int) -> str:
    return str(Head(*divmod(flat, head_grid(model).n_heads), "attn", model.main.name))


def _above_random(kind: str) -> Callable[[Evidence], Measured]:
    def measure(evidence: Evidence) -> Measured:
        found = _compared(evidence, kind)
        mine, theirs = found["score"], found["random_score"]
        note = f"{found['head']} {mine[0]:.2f}; random model's best {found['random_head']} {theirs[0]:.2f}"
        return from_items(found["difference"], "difference of scores", note)

    return measure


def table(evidence: Evidence) -> pd.DataFrame:
    """One row per kind that was found: both models' best heads, and how many heads pass; `why` where it could not be
    measured."""
    rows = []
    for kind in evidence.found.kinds:
        row: dict[str, Any] = {"kind": kind, "why": ""}
        try:
            found = _compared(evidence, kind)
        except (Missing, InputError) as error:
            rows.append({**row, "why": str(error)})
            continue
        for name in ("score", "random_score", "difference"):
            value, low, high, n_items = found[name]
            row |= {name: value, f"{name}_low": low, f"{name}_high": high, "n_items": n_items}
        row |= {"head": found["head"], "random_head": found["random_head"], "n_heads": found["n_heads"]}
        for who, (score, both) in zip(("", "random_"), found["passing"], strict=True):
            counts = (math.nan if one is None else one for one in (score, both))
            row |= dict(zip((f"{who}passing", f"{who}passing_and_writing"), counts, strict=True))
        rows.append(row)
    return pd.DataFrame(rows, columns=_COLUMNS)


_COLUMNS = ["kind", "n_items", "n_heads"]
_COLUMNS += [
    f"{who}{name}"
    for who in ("", "random_")
    for name in ("head", "score", "score_low", "score_high", "passing", "passing_and_writing")
]
_COLUMNS += ["difference", "difference_low", "difference_high", "why"]
CLAIMS = tuple(
    Claim(
        f"{kind}.above_random",
        kind,
        "The best head's score lies above that of the best head of a randomly initialised model of the same shape.",
        _above_random(kind),
        "≥",
        0.0,
    )
    for kind, one in finders().items()
    if not isinstance(one, SyntaxFinder)
)
