"""Copying whole targets from one run of a pair into the other: heads or sublayers, alone or several together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from interp.causal.bundles import Bundle, Op, in_order
from interp.causal.questions import Question, named_positions
from interp.causal.reach import felt, is_causal, start_of
from interp.causal.sweep import Sweep
from interp.causal.targets import Target, targets_of
from interp.causal.texts import Text, encoders_differ, first_difference
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.pairs.checks import is_index
from interp.sites import Site

__all__ = ["shared_prefix", "target_sweep"]


def target_sweep(
    model: HookedTransformer,
    pairs: PromptPairs,
    question: Question,
    texts: tuple[list[Text], list[Text]],
    targets: Any,
    *,
    at: Mapping[str, Any] | None,
    reference: str,
    max_bytes: Any,
) -> tuple[Sweep, list[str], str]:
    """The sweep of one cell for each target, the targets' names, and their sites. `texts`: of the run edited and of
    the run copied from; `at={"pos": …}` restricts the positions: indices, or named positions."""
    base, source = texts
    wanted = targets_of(model, targets)
    sites = list(dict.fromkeys(site for target in wanted for site in target.by_site()))
    if at is not None and set(at) - {"pos"}:
        raise InputError(f"at={dict(at)}: targets are whole heads or tensors, so only their 'pos' can be restricted.")
    bundles = []
    for text in range(len(base)):
        for number, target in enumerate(wanted):
            ops = _ops(model, pairs, question, base[text], source[text], text, target, at)
            start = start_of(model, ops)
            if ops and any(read >= start for read in base[text].reads):
                bundles.append(Bundle(text, torch.tensor([number]), ops, start))
    sweep = Sweep(
        model,
        question.metric,
        base,
        source,
        bundles,
        np.zeros((len(base), len(wanted)), dtype=bool),
        reference=reference,
        max_bytes=max_bytes,
    )
    return sweep, [target.name for target in wanted], ", ".join(dict.fromkeys(site.row.short[0] for site in sites))


def _ops(
    model: HookedTransformer,
    pairs: PromptPairs,
    question: Question,
    base: Text,
    source: Text,
    text: int,
    target: Target,
    at: Mapping[str, Any] | None,
) -> tuple[Op, ...]:
    made = []
    for site, units in target.by_site().items():
        in_encoder = question.counts_in_encoder(site)
        same = shared_prefix(model, question, base, source, site)
        chosen = _positions(pairs, question, text, in_encoder, at, len(base.in_stack(in_encoder)))
        positions = felt(model, base, site, tuple(pos for pos in chosen if pos >= same))
        if positions:
            made.append(Op(site, positions, None if units is None else torch.tensor([sorted(units)]), "source"))
    return in_order(made)


def _positions(
    pairs: PromptPairs, question: Question, text: int, in_encoder: bool, at: Mapping[str, Any] | None, n_text: int
) -> Sequence[int]:
    if not at:
        return range(n_text)
    pair, n_prompt = question.metric.rows[text].pair, question.prompt_length(text, in_encoder)
    listed = at["pos"] if isinstance(at["pos"], (list, tuple)) else [at["pos"]]
    chosen: set[int] = set()
    for one in listed:
        if isinstance(one, str):
            chosen.update(named_positions(pairs, one, pair, in_encoder=in_encoder))
        elif not is_index(one) or not -n_prompt <= one < n_prompt:
            raise InputError(f"at has position {one!r}; the text of pair {pair} has {n_prompt} tokens.")
        else:
            chosen.add(one % n_prompt)
    return sorted(chosen)


def shared_prefix(model: HookedTransformer, question: Question, base: Text, source: Text, site: Site) -> int:
    """Leading positions at which both runs hold the same tensors, since they have read the same."""
    if question.counts_in_encoder(site):
        return 0 if encoders_differ(base, source) else len(base.encoder)
    differ = first_difference(base, source)
    return differ if differ == len(base.tokens) or is_causal(model, site.stack) else 0
