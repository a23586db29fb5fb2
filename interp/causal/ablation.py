"""Ablation: replace what heads or sublayers write by zero, by its mean, or by what they wrote elsewhere.

The choice is the question (METHODS of this project, §1): zero asks about absence far off the distribution, the mean
about what varies between prompts, resampling about the information itself (Chan 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.causal.analysis import Analysis
from interp.causal.bundles import Bundle, Op, in_order
from interp.causal.grid import asked_positions, chosen_positions
from interp.causal.plan import Plan, Progress
from interp.causal.questions import Asked, ask, reference_texts
from interp.causal.reach import felt, start_of
from interp.causal.shelf import record
from interp.causal.sweep import Sweep
from interp.causal.targets import Target, targets_of
from interp.causal.texts import Text
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.sites import Site

__all__ = ["ablate"]

_ROWS_AT_ONCE = 16
How = Literal["zero", "mean", "resample"]


@Analysis
def ablate(
    model: HookedTransformer,
    data: Any,
    targets: Any = "heads",
    how: How = "zero",
    *,
    reference: Any = None,
    mean_axes: Any = ("prompt",),
    joint: bool = False,
    at: Any = None,
    metric: Any = None,
    counted: Any = None,
    seed: Any = 0,
    max_bytes: Any = None,
    progress: Progress = None,
) -> Plan:
    """Ablate each target by itself (with `joint` all of them together) and measure what that does.

    `data`: PromptPairs, whose clean prompts are run and judged by `metric` ("logit_diff" unless given); or texts or
    token ids, judged by their mean next-token loss (of the tokens `counted [batch pos]`, if given). `targets`: heads
    ("23.4"), tensors of a layer ("mlp_out.3", ("attn_out", 5)), lists of them as sets ablated together, or "heads" for
    every head by itself: with two stacks those of the encoder, of the decoder and its cross-attention ("encoder.heads",
    "decoder.heads", "decoder.cross_attn.heads" choose). `how`: "zero"; "mean" over the `reference` prompts, over the
    axes `mean_axes`: ("prompt",) position by position over prompts of the same template and length, ("prompt", "pos")
    one mean for all positions; "resample": what was written on a random reference prompt of the same template and
    length. The reference is, unless given, the corrupt prompts of the pairs, or the texts themselves. `at={"pos": …}`
    ablates at some positions only (indices, or names of the pairs' positions, "read" being that of the metric), in
    models of one stack.

    Returns `Effects` `[prompt, target]`. With pairs, `.source` is the corrupt run's metric, so that
    `normalize="pooled"` gives shares of clean − corrupt with the sign of harm. Exact. Cost: 2 to 3 passes, and for
    each target the layers from its first on.
    """
    asked = ask(model, data, metric, counted)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed is {seed!r}. Give a whole number, 0 or more.")
    mean_axes = (mean_axes,) if isinstance(mean_axes, str) else tuple(mean_axes or ())
    if how not in ("zero", "mean", "resample"):
        raise InputError(f'how is {how!r}. Choose "zero", "mean" or "resample".')
    wanted = targets_of(model, targets)
    if joint:
        parts = tuple(dict.fromkeys(part for target in wanted for part in target.parts))
        wanted = [Target(parts, " + ".join(part.name for part in parts))]
    sites = list(dict.fromkeys(site for target in wanted for site in target.by_site()))
    _check(sites, how, tuple(mean_axes))
    others = reference_texts(model, asked, reference) if how != "zero" else None
    values = _Values(model, asked, sites, how, others, tuple(mean_axes), seed)
    allowed = _allowed(model, asked, data, at)
    bundles = []
    for text, one in enumerate(asked.texts):
        for number, target in enumerate(wanted):
            ops = in_order(
                op
                for site, units in target.by_site().items()
                for op in values.ops(text, one, site, units, allowed[text])
            )
            if ops:
                bundles.append(Bundle(text, torch.tensor([number]), ops, start_of(model, ops)))
    sweep = Sweep(
        model,
        asked.metric,
        asked.texts,
        asked.corrupt,
        bundles,
        np.zeros((len(asked.texts), len(wanted)), dtype=bool),
        banks=values.banks,
        donors=values.donors,
        max_bytes=max_bytes,
    )
    about = {
        "method": f"{how} ablation",
        "site": ", ".join(dict.fromkeys(site.row.short[0] for site in sites)),
        "base": "clean",
        "source": "corrupt" if asked.corrupt else None,
        "at": {name: str(value) for name, value in (at or {}).items()},
        "reference": "none" if others is None else others.name,
        "mean_axes": list(mean_axes) if how == "mean" else None,
        "metric": asked.metric.name,
        "unit": asked.metric.unit,
        "seed": seed if how == "resample" else None,
        "exact": True,
        "model": model.cfg.model_name,
    }
    return Plan(sweep, {"target": [target.name for target in wanted]}, asked.items, asked.templates, about, progress)


def _check(sites: Sequence[Site], how: str, axes: tuple[str, ...]) -> None:
    """Refuse what cannot be asked, before anything runs."""
    if how == "mean" and (not axes or set(axes) - {"prompt", "pos"}):
        raise InputError(f'mean_axes is {axes}. Choose ("prompt",), ("pos",) or ("prompt", "pos").')
    for site in sites:
        if how == "mean" and site.name in ("hook_attn_scores", "hook_pattern"):
            raise InputError(f"{site} has no mean over prompts. Choose how='zero' or 'resample'.")
        if how == "zero" and site.name == "hook_attn_scores":
            raise InputError(f"Zero in {site} would let queries see keys that are masked. Zero the pattern or z.")


def _allowed(model: HookedTransformer, asked: Asked, data: Any, at: Any) -> list[tuple[int, ...] | None]:
    """Of each text the positions that may be ablated; None for all."""
    if at is None:
        return [None] * len(asked.texts)
    if not isinstance(at, Mapping) or set(at) != {"pos"}:
        raise InputError(f'at is {at!r}. Give positions: at={{"pos": "END"}}, at={{"pos": [0, -1]}}.')
    if len(model.cfg.stacks) > 1:
        raise InputError("at= chooses positions in models of one stack. Leave it out for an encoder-decoder.")
    wanted = asked_positions(at, "pos")
    if not isinstance(data, PromptPairs):
        if names := [one for one in wanted if isinstance(one, str)]:
            raise InputError(f"Plain texts have no position named {names[0]!r}. Give indices, or PromptPairs.")
        rows = tuple(text.tokens for text in asked.texts)
        data = PromptPairs(rows, rows)
    pairs = _pairs_of(asked)
    return [chosen_positions(wanted, data, pair, len(data.clean[pair]), in_encoder=False) for pair in pairs]


@dataclass(frozen=True)
class _Table:
    """Means of one class of prompts: where its positions begin in the bank, and how many there are (1: one for all)."""

    start: int
    n_pos: int


class _Values:
    """Where an ablation takes its values from."""

    def __init__(
        self,
        model: HookedTransformer,
        asked: Asked,
        sites: Sequence[Site],
        how: str,
        others: Asked | None,
        axes: tuple[str, ...],
        seed: int,
    ):
        self.model, self.how = model, how
        self.banks: Mapping[str, Mapping[str, Tensor]] = {}
        self.donors: Mapping[str, Sequence[Text]] = {}
        if how == "mean":
            assert others is not None
            self._keys, self._tables, means = _means(model, asked, others, sites, axes)
            self.banks = {"mean": means}
        if how == "resample":
            assert others is not None
            self.donors = {"donor": _drawn(asked, others, seed)}

    def ops(
        self, text: int, one: Text, site: Site, units: list[int] | None, allowed: tuple[int, ...] | None
    ) -> list[Op]:
        """The ops of one site of a target on one text, at all positions or the allowed ones."""
        in_encoder = site.stack == "encoder" or Op(site, ()).in_memory
        positions = felt(self.model, one, site, range(len(one.in_stack(in_encoder and bool(one.encoder)))))
        positions = positions if allowed is None else tuple(pos for pos in positions if pos in allowed)
        if not positions:
            return []
        chosen = None if units is None else torch.tensor([sorted(units)])
        if self.how == "zero":
            return [Op(site, positions, chosen, "zero")]
        if self.how == "resample":
            return [Op(site, positions, chosen, "donor")]
        table = self._tables[self._keys[text], "encoder" if Op(site, ()).in_memory else site.stack]
        index = torch.tensor([table.start + (pos if table.n_pos > 1 else 0) for pos in positions])
        return [Op(site, positions, chosen, "mean", index)]


def _means(
    model: HookedTransformer, asked: Asked, others: Asked, sites: Sequence[Site], axes: tuple[str, ...]
) -> tuple[list[object], dict[tuple[object, str], _Table], dict[str, Float[Tensor, "place *rest"]]]:
    """The class of each text, each class' table, and the banks of means by site."""
    keys, there = _classes(asked, others, axes)
    missing = [text for text, key in enumerate(keys) if key not in set(there)]
    if missing and "pos" in axes:
        template = asked.templates[_pairs_of(asked)[missing[0]]]
        raise InputError(
            f"No reference prompt has the template {template!r} of prompt {missing[0]}. Give one that has."
        )
    if missing:
        length = len(asked.texts[missing[0]].tokens)
        raise InputError(
            f"No reference prompt has the template and length ({length} tokens) of prompt {missing[0]}, so it has no "
            'mean position by position. Give a reference that has, or mean_axes=("prompt", "pos").'
        )
    tables: dict[tuple[object, str], _Table] = {}
    sizes: dict[str, int] = {}
    for key, text in zip(there, others.texts, strict=True):
        for stack in model.cfg.stacks:
            if (key, stack) not in tables:
                n_pos = 1 if "pos" in axes else len(text.in_stack(stack == "encoder"))
                tables[key, stack] = _Table(sizes.get(stack, 0), n_pos)
                sizes[stack] = sizes.get(stack, 0) + n_pos
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    with torch.no_grad():
        for start in range(0, len(others.texts), _ROWS_AT_ONCE):
            part = range(start, min(start + _ROWS_AT_ONCE, len(others.texts)))
            made = record(model, [others.texts[i] for i in part], sites={str(one) for one in sites}, logits=False)
            for site in sites:
                name, stack = str(site), "encoder" if Op(site, ()).in_memory else site.stack
                places = []
                for i in part:
                    table = tables[there[i], stack]
                    n_tokens = len(others.texts[i].in_stack(stack == "encoder"))
                    places += [table.start + (pos if table.n_pos > 1 else 0) for pos in range(n_tokens)]
                index, x = torch.tensor(places, device=model.device), made.values[name].double()
                if name not in sums:
                    sums[name] = x.new_zeros(sizes[stack], *x.shape[1:])
                    counts[name] = x.new_zeros(sizes[stack])
                sums[name].index_add_(0, index, x)
                counts[name].index_add_(0, index, x.new_ones(len(index)))
    means = {
        name: (total / counts[name].reshape(-1, *(1,) * (total.ndim - 1))).to(model.dtype)
        for name, total in sums.items()
    }
    return keys, tables, means


def _classes(asked: Asked, others: Asked, axes: tuple[str, ...]) -> tuple[list[object], list[object]]:
    """What prompts have to share to be averaged together: for each text, and for each of the reference. Templates
    count where both name them; a mean over positions alone pairs prompts by their number."""
    if "prompt" in axes:
        named = bool(asked.templates and others.templates)

        def key(one: Asked, text: int) -> object:
            template = one.templates[_pairs_of(one)[text]] if named else ""
            tokens, encoder = one.texts[text].tokens, one.texts[text].encoder
            return template if "pos" in axes else (template, len(tokens), len(encoder))

        return [key(asked, i) for i in range(len(asked.texts))], [key(others, i) for i in range(len(others.texts))]
    numbers: list[object] = list(range(len(asked.texts)))
    if len(others.texts) == len(asked.texts):
        return numbers, numbers
    pairs = _pairs_of(asked)
    if len(others.texts) != max(pairs) + 1:
        raise InputError(
            f'With mean_axes=("pos",) each prompt has its own mean: {max(pairs) + 1} prompts, and a reference of '
            f'{len(others.texts)}. Give as many, or average over "prompt" too.'
        )
    return list(pairs), list(range(len(others.texts)))


def _pairs_of(asked: Asked) -> list[int]:
    """The prompt that each text belongs to: a metric may read an answer's and a foil's text for one."""
    if len(asked.metric.rows) != len(asked.texts):
        return list(range(len(asked.texts)))
    return [row.pair for row in asked.metric.rows]


def _drawn(asked: Asked, others: Asked, seed: int) -> list[Text]:
    """For each text another one of the same template and length; the texts of one prompt get those of one."""
    generator = np.random.default_rng([seed, *b"resample"])
    keys, there = _classes(asked, others, ("prompt",))
    groups = _grouped(others)
    drawn: dict[int, Text] = {}
    for mine in _grouped(asked):
        fitting = []
        for group in groups:
            donors = group if len(group) == len(mine) else group[:1] * len(mine)
            if all(there[donor] == keys[text] for text, donor in zip(mine, donors, strict=True)) and all(
                _words(others.texts[donor]) != _words(asked.texts[text])
                for text, donor in zip(mine, donors, strict=True)
            ):
                fitting.append(donors)
        if not fitting:
            raise InputError(
                f"Prompt {mine[0]} ({len(asked.texts[mine[0]].tokens)} tokens) has no other reference prompt of its "
                "template and length to resample from. Give a larger reference, or choose how='mean' or 'zero'."
            )
        chosen = fitting[int(generator.integers(len(fitting)))]
        drawn |= {text: others.texts[donor] for text, donor in zip(mine, chosen, strict=True)}
    return [drawn[text] for text in range(len(asked.texts))]


def _grouped(asked: Asked) -> list[list[int]]:
    """The texts of each prompt."""
    found: dict[int, list[int]] = {}
    for text, pair in enumerate(_pairs_of(asked)):
        found.setdefault(pair, []).append(text)
    return list(found.values())


def _words(text: Text) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return text.tokens, text.encoder
