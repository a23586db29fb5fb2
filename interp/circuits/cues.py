"""Cue competition: which heads carry which cue, and how their contributions add up to the outcome.

Every item is written in every combination of its cues, so the outcome and each head's part in it are regressed on the
cues item by item; what is reported is the mean over items, which are what intervals and p-values resample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.causal.attribution import attribute
from interp.causal.patching import patch
from interp.circuits.cue_prompts import DESIGNS, CuePrompt
from interp.circuits.logit_attribution import logit_attribution
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results.cues import CueCompetition
from interp.sites import Head
from interp.stats import bootstrap_interval, sign_flip

__all__ = ["cue_competition"]

Grid = NDArray[np.floating]
_LEAST = 4  # items: fewer cannot both choose and test


def cue_competition(
    model: HookedTransformer,
    task: Literal["coreference", "agreement"] = "coreference",
    *,
    n: int = 32,
    heads: Sequence[Head | str] | Literal["all"] | None = None,
    top: int = 4,
    seed: int = 0,
    progress: Any = None,
) -> CueCompetition:
    """How cues that conflict or agree decide an answer, and which heads carry which.

    "coreference": whom a pronoun means; gender × the name that stands nearer × the name that is the subject, and the
    last two where the pronoun fits both names. "agreement": the number of the verb; the subject's number × that of a
    noun in a prepositional phrase, in both orders, so that the noun nearest to the verb is a cue of its own. `n` items,
    12 or 8 prompts each.

    A cue's effect is the change of the logit difference, in logits, as it turns from the foil to the answer. "direct":
    each head's and MLP's direct part (`interp.logit_attribution`) regressed on the cues, which sums exactly to the
    outcome's. "exchange": each tested head's z, at all positions, taken from the prompt with every cue turned round
    (same tokens elsewhere); half of what that takes away, regressed on the cues: what the head carries, through
    whatever follows. Tested are `heads`, or for each cue the `top` by direct part and the `top` by a first-order
    estimate of the exchange, chosen on half of the items and tested on the other; with `heads` given or "all" every
    item tests.

    For a decoder with a tokenizer. Cost: 2 passes and a backward one per prompt, and one per prompt and tested head.
    """
    _check(model, task, n, top)
    design = DESIGNS[task]
    prompts = design.make(model.tokenizer, n, seed)
    pairs = _pairs(model, prompts)
    cues = tuple(design.cues)
    found = logit_attribution(model, pairs, by="head")
    fit = _Fit(prompts, cues)
    kinds = found.frame.drop_duplicates("part").set_index("part")["kind"]
    labels = [str(one) for one in found.values["part"].values]
    sorts = [{"head": "head", "mlp": "mlp"}.get(str(kinds[one]), "other") for one in labels]
    direct = fit.slopes(found.values.values)  # [item part cue]
    outcome = fit.slopes(found.check["logit"].to_numpy()[:, None])[:, 0]
    tables = [_table("direct", labels, sorts, cues, direct, seed)]
    tested, chosen_on = _tested(model, pairs, fit, heads, top, direct, labels, sorts)
    rows = fit.rows(~chosen_on)
    if tested:
        effects = patch(model, pairs.select(rows), list(tested), over=("target",), direction="noise", progress=progress)
        part = _Fit([prompts[i] for i in rows], cues)
        exchange = -part.slopes(effects.values.values) / 2
        tables.append(_table("exchange", list(tested), ["head"] * len(tested), cues, exchange, seed))
    about = {
        "model": model.cfg.model_name,
        "task": task,
        "answer": f"Logit difference: {design.answer}",
        "cues": dict(design.cues),
        "n_items": n,
        "prompts_per_item": len(prompts) // n,
        "fit": fit.explained(found.check["logit"].to_numpy()),
        "sum_apart": float(np.abs(found.check["difference"].to_numpy()).max()),
        "tested": list(tested),
        "n_tested": int((~chosen_on).sum()),
        "seed": seed,
    }
    return CueCompetition(
        _outcome(cues, outcome, direct, np.array(sorts), seed),
        pd.concat(tables, ignore_index=True),
        _prompt_table(prompts, found.check["logit"].to_numpy()),
        about,
    )


class _Fit:
    """Least squares of each item's prompts on their cues, those of each kind together."""

    def __init__(self, prompts: Sequence[CuePrompt], cues: Sequence[str]):
        self.prompts, self.cues = prompts, cues
        self.items = list(dict.fromkeys(one.item for one in prompts))
        self._index = {item: i for i, item in enumerate(self.items)}
        groups: dict[tuple[str, str], list[int]] = {}
        for i, one in enumerate(prompts):
            groups.setdefault((one.item, one.kind), []).append(i)
        self._groups = [(self._index[item], rows, self._design(rows)) for (item, _), rows in groups.items()]

    def slopes(self, values: Grid) -> Grid:
        """`[item part cue]` of values `[prompt part]`."""
        found = np.full((len(self.items), values.shape[1], len(self.cues)), np.nan)
        for item, rows, (names, design) in self._groups:
            solved = np.linalg.lstsq(design, values[rows], rcond=None)[0]
            for k, name in enumerate(names):
                found[item, :, self.cues.index(name)] = solved[1 + k]
        return found

    def explained(self, values: Grid) -> float:
        """Share of the variance within items and kinds that the cues explain."""
        left = total = 0.0
        for _, rows, (_, design) in self._groups:
            y = values[rows]
            left += float(((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum())
            total += float(((y - y.mean()) ** 2).sum())
        return 1 - left / total if total else float("nan")

    def rows(self, items: NDArray[np.bool_]) -> list[int]:
        """The prompts of some items."""
        return [i for i, one in enumerate(self.prompts) if items[self._index[one.item]]]

    def _design(self, rows: Sequence[int]) -> tuple[list[str], Grid]:
        names = list(self.prompts[rows[0]].cues)
        nuisance = list(self.prompts[rows[0]].nuisance)
        columns = [[self.prompts[i].cues[name] for i in rows] for name in names]
        columns += [[self.prompts[i].nuisance[name] for i in rows] for name in nuisance]
        return names, np.column_stack([np.ones(len(rows)), *columns])


def _check(model: HookedTransformer, task: str, n: int, top: int) -> None:
    if task not in DESIGNS:
        raise InputError(f"task is {task!r}. Choose {' or '.join(DESIGNS)}.")
    for name, value, least in (("n", n, _LEAST), ("top", top, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{name} is {value!r}. Give a whole number, {least} or more.")
    if model.encoder is not None or model.decoder is None:
        raise InputError("Cues are asked of a model that predicts the next word: a decoder without an encoder.")
    if model.tokenizer is None:
        raise InputError("This model has no tokenizer, so it can read no prompts in English.")
    model.need_unembed()


def _pairs(model: HookedTransformer, prompts: Sequence[CuePrompt]) -> PromptPairs:
    """Each prompt, and the one with every cue turned round."""
    return PromptPairs.from_text(
        model,
        [one.text for one in prompts],
        [one.turned for one in prompts],
        [one.answer for one in prompts],
        [one.foil for one in prompts],
        items=[one.item for one in prompts],
        templates=[one.template for one in prompts],
    )


def _tested(
    model: HookedTransformer,
    pairs: PromptPairs,
    fit: _Fit,
    heads: Any,
    top: int,
    direct: Grid,
    labels: Sequence[str],
    sorts: Sequence[str],
) -> tuple[list[str], NDArray[np.bool_]]:
    """The heads that are exchanged, and the items that chose them."""
    all_items = np.zeros(len(fit.items), dtype=bool)
    blocks = model.main.config.blocks
    every = [f"{layer}.{head}" for layer, one in enumerate(blocks) for head in range(one.attn.n_heads)]
    if isinstance(heads, str) and heads != "all":
        heads = [heads]
    if heads is not None:
        return (every if isinstance(heads, str) else [_name(one) for one in heads]), all_items
    choosing = all_items.copy()
    choosing[::2] = True
    rows = fit.rows(choosing)
    part = _Fit([fit.prompts[i] for i in rows], fit.cues)
    estimate = attribute(model, pairs.select(rows), "z", over=("layer", "head"), direction="noise").values.values
    places = [divmod(i, estimate.shape[2]) for i in range(estimate.shape[1] * estimate.shape[2])]
    estimated = np.nan_to_num(np.abs(part.slopes(np.nan_to_num(estimate.reshape(len(rows), -1))).mean(0)))
    heads_only = [i for i, one in enumerate(sorts) if one == "head"]
    written = np.abs(direct[choosing][:, heads_only].mean(0))
    chosen: dict[Any, Any] = {}
    for cue in range(len(fit.cues)):
        best = np.argsort(-written[:, cue], kind="stable")[:top]
        chosen |= dict.fromkeys(labels[heads_only[i]] for i in best)
        best = np.argsort(-estimated[:, cue], kind="stable")[:top]
        chosen |= dict.fromkeys(f"{places[i][0]}.{places[i][1]}" for i in best)
    return sorted(chosen, key=every.index), choosing


def _name(head: Head | str) -> str:
    one = Head.parse(head) if isinstance(head, str) else head
    return f"{one.layer}.{one.head}"


def _table(
    measure: str, labels: Sequence[str], sorts: Sequence[str], cues: Sequence[str], slopes: Grid, seed: int
) -> pd.DataFrame:
    """One row per part and cue: mean over items, interval, p, and p corrected over the parts of its kind."""
    tables = []
    for sort in dict.fromkeys(sorts):
        members = [i for i, one in enumerate(sorts) if one == sort]
        flat = slopes[:, members].reshape(len(slopes), -1)
        low, high = bootstrap_interval(flat, seed=seed)
        p, corrected = sign_flip(flat, side="two", seed=seed)
        names = [labels[i] for i in members]
        columns = {"value": flat.mean(0), "low": low, "high": high, "p": p, "p_corrected": corrected}
        where = {"part": np.repeat(names, len(cues)), "cue": list(cues) * len(names)}
        tables.append(pd.DataFrame({"measure": measure, "kind": sort, **where, **columns}))
    return pd.concat(tables, ignore_index=True)


def _outcome(cues: Sequence[str], outcome: Grid, direct: Grid, sorts: NDArray, seed: int) -> pd.DataFrame:
    low, high = bootstrap_interval(outcome, seed=seed)
    p, _ = sign_flip(outcome, side="two", seed=seed)
    sums = direct.mean(0)
    split = {name: sums[sorts == key].sum(0) for name, key in (("heads", "head"), ("mlps", "mlp"), ("other", "other"))}
    return pd.DataFrame({"cue": list(cues), "value": outcome.mean(0), "low": low, "high": high, "p": p, **split})


def _prompt_table(prompts: Sequence[CuePrompt], logits: Grid) -> pd.DataFrame:
    rows = [
        {"item": one.item, "kind": one.kind, "template": one.template, "text": one.text, "turned": one.turned,
         "answer": one.answer, "foil": one.foil, **one.cues, "logit_diff": float(value)}
        for one, value in zip(prompts, logits, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)
