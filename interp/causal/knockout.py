"""Attention knockout (Geva 2023, §4): some queries may not see some keys, in one layer after another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from interp.causal.analysis import Analysis
from interp.causal.bundles import Bundle, Op
from interp.causal.plan import Plan, Progress
from interp.causal.questions import Question, pose
from interp.causal.reach import felt, start_of
from interp.causal.sweep import Sweep
from interp.causal.texts import Text
from interp.errors import InputError
from interp.model.config import AttentionConfig
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.sites import Site

__all__ = ["knockout"]


@Analysis
def knockout(
    model: HookedTransformer,
    pairs: PromptPairs,
    queries: Any,
    keys: Any,
    *,
    heads: Any = None,
    window: Any = 1,
    over: Any = ("layer",),
    metric: Any = "logit_diff",
    max_bytes: int | None = None,
    progress: Progress = None,
) -> Plan:
    """Set the scores of `queries` at `keys` to −∞ in the clean prompts; the rest of the attention is renormalised.

    Queries and keys are named positions ("subject:last"), token indices (negative count from the end), or lists of
    these. `heads`: all, or a list such as ["23.4", "18.6"] (each layer blocks its own). `window` layers around each
    are blocked together. `over`: ("layer",), ("layer", "head"), ("head",) for a head number in all layers, or () for
    everything at once. Self-attention of the predicted text.

    Returns `Effects` `[prompt, *over]`. Exact. Raises `InputError` for a query that would be left with no key.
    """
    over = (over,) if isinstance(over, str) else tuple(over)
    if not isinstance(window, int) or window < 1:
        raise InputError(f"window is {window!r}. Give the number of layers blocked together, at least 1.")
    if set(over) - {"layer", "head"} or len(set(over)) != len(over):
        raise InputError(f"over is {over}. Choose ('layer',), ('layer', 'head'), ('head',) or ().")
    question = pose(model, pairs, metric)
    texts = question.texts("clean")
    cells = _Cells(model, heads, window, over)
    bundles, absent = [], np.zeros((len(texts), cells.n_cells), dtype=bool)
    for number, text in enumerate(texts):
        blocked = _positions(question, number, queries, "queries"), _positions(question, number, keys, "keys")
        for flat, sets in cells.blocked():
            if not sets:
                absent[number, flat] = True
                continue
            ops = [op for layer, some in sets.items() for op in _ops(model, text, number, layer, some, blocked)]
            start = start_of(model, ops)
            if ops and any(read >= start for read in text.reads):
                bundles.append(Bundle(number, torch.tensor([flat]), tuple(ops), start))
    sweep = Sweep(model, question.metric, texts, question.texts("corrupt"), bundles, absent, max_bytes=max_bytes)
    about = {
        "method": "attention knockout",
        "site": "attn_scores",
        "queries": str(queries),
        "keys": str(keys),
        "heads": "all" if heads is None else str(heads),
        "window": window,
        "base": "clean",
        "source": "corrupt",
        "metric": question.metric.name,
        "unit": question.metric.unit,
        "exact": True,
        "model": model.cfg.model_name,
    }
    return Plan(sweep, cells.axes, question.items, pairs.templates, about, progress)


class _Cells:
    """The cells of a knockout, each with the heads that it blocks, by layer (None: all of them)."""

    def __init__(self, model: HookedTransformer, heads: Any, window: int, over: Sequence[str]):
        blocks = model.main.config.blocks
        self.n_layers, self.n_heads = len(blocks), max(block.attn.n_heads for block in blocks)
        self.widths = [block.attn.n_heads for block in blocks]
        self.chosen = None if heads is None else _chosen(model, heads)
        self.window, self.over = window, tuple(over)
        names = {"layer": list(range(self.n_layers)), "head": list(range(self.n_heads))}
        self.axes = {axis: names[axis] for axis in over}

    @property
    def n_cells(self) -> int:
        return int(np.prod([len(one) for one in self.axes.values()], dtype=int))

    def blocked(self) -> list[tuple[int, dict[int, list[int]]]]:
        """(flat number, layer -> heads) of each cell; a cell without heads does not exist."""
        found = []
        for flat, place in enumerate(np.ndindex(*(len(one) for one in self.axes.values()))):
            at = dict(zip(self.axes, place, strict=True))
            layers = range(self.n_layers)
            if "layer" in at:
                low, high = at["layer"] - self.window // 2, at["layer"] + (self.window + 1) // 2
                layers = range(max(low, 0), min(high, self.n_layers))
            sets = {layer: self._heads(layer, at.get("head")) for layer in layers}
            found.append((flat, {layer: some for layer, some in sets.items() if some}))
        return found

    def _heads(self, layer: int, head: int | None) -> list[int]:
        wanted = range(self.widths[layer]) if head is None else [head] if head < self.widths[layer] else []
        return [one for one in wanted if self.chosen is None or (layer, one) in self.chosen]


def _chosen(model: HookedTransformer, heads: Any) -> set[tuple[int, int]]:
    from interp.causal.targets import targets_of

    found = set()
    for target in targets_of(model, heads):
        for part in target.parts:
            if part.unit is None or part.site.name != "hook_z" or part.site.part != "attn":
                raise InputError(f'heads holds {part.name}. Give self-attention heads such as "23.4".')
            found.add((part.site.layer, part.unit))
    return found


def _positions(question: Question, text: int, asked: Any, what: str) -> tuple[int, ...]:
    """Positions of one text from names and indices."""
    pair, n_prompt = question.metric.rows[text].pair, question.prompt_length(text, in_encoder=False)
    found: set[int] = set()
    if not isinstance(asked, (str, int, Iterable)):
        raise InputError(f"{what} is {asked!r}. Give a named position such as 'subject:last', or an index.")
    for one in [asked] if isinstance(asked, (str, int)) else list(asked):
        if isinstance(one, str):
            if question.two_stacks:
                raise InputError(
                    f"{what} holds {one!r}, a position in the encoder's text; knockout blocks the decoder's "
                    "self-attention. Give indices of the decoder's tokens."
                )
            found.update(question.pairs.span(one, pair))
        elif isinstance(one, bool) or not isinstance(one, int) or not -n_prompt <= one < n_prompt:
            raise InputError(f"{what} holds {one!r}. Give a named position, or an index of the {n_prompt} tokens.")
        else:
            found.add(one % n_prompt)
    if not found:
        raise InputError(f"{what} is empty. Give a named position such as 'subject:last', or an index.")
    return tuple(sorted(found))


def _ops(
    model: HookedTransformer,
    text: Text,
    number: int,
    layer: int,
    heads: list[int],
    blocked: tuple[tuple[int, ...], tuple[int, ...]],
) -> list[Op]:
    """The scores that one layer loses; queries that see none of the keys anyway are left out."""
    stack, attn = model.main, model.main.config.blocks[layer].attn
    queries, keys = blocked
    site = Site("hook_attn_scores", "attn", layer, stack.name)
    units = None if len(heads) == attn.n_heads else torch.tensor([heads])
    ops = []
    for query in felt(model, text, site, queries):
        seen = _seen(attn, query, len(text.tokens))
        lost = tuple(key for key in keys if key in seen)
        if len(lost) == len(seen):
            raise InputError(
                f"In prompt {number} the query at position {query} would be left with no key in layer {layer}. "
                "Leave it some, e.g. the first token."
            )
        if lost:
            ops.append(Op(site, (query,), units, kind="block", keys=lost))
    return ops


def _seen(attn: AttentionConfig, query: int, n_tokens: int) -> range:
    """Keys that a query may see."""
    reach = attn.window or n_tokens
    last = query if attn.mask == "causal" else min(n_tokens - 1, query + reach - 1)
    return range(max(0, query - reach + 1), last + 1)
