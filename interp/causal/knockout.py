"""Attention knockout (Geva 2023, §4): some queries may not see some keys, in one layer after another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from interp.causal.analysis import Analysis
from interp.causal.bundles import Bundle, Op
from interp.causal.plan import Plan, Progress
from interp.causal.questions import Question, named_positions, pose
from interp.causal.reach import felt, start_of
from interp.causal.sweep import Sweep
from interp.causal.targets import targets_of
from interp.causal.texts import Text
from interp.errors import InputError
from interp.model.config import AttentionConfig
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.pairs.checks import is_index
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
    stack: Any = None,
    sublayer: Any = None,
    window: Any = 1,
    over: Any = ("layer",),
    metric: Any = "logit_diff",
    max_bytes: Any = None,
    progress: Progress = None,
) -> Plan:
    """Set the scores of `queries` at `keys` to −∞ in the clean prompts; the rest of the attention is renormalised.

    Queries and keys are named positions ("subject:last", or "read" for the one that answers), token indices (negative
    count from the end), or lists of these. `heads`: all, or a list such as ["23.4", "18.6"] (each layer blocks its
    own). `window` layers around each are blocked together. `over`: ("layer",), ("layer", "head"), ("head",) for a head
    number in all layers, or () for everything at once.

    Which attention: that of the predicted text to itself, unless `stack="encoder"` or `sublayer="cross_attn"` say
    otherwise, or heads such as "decoder.cross_attn.1.0". Cross-attention's queries count in the decoder's text and its
    keys in the encoder's, where named positions count too ("read" counts in the decoder's).

    Returns `Effects` `[prompt, *over]`. Exact. Raises `InputError` for a query that would be left with no key.
    """
    over = (over,) if isinstance(over, str) else tuple(over or ())
    if not is_index(window) or window < 1:
        raise InputError(f"window is {window!r}. Give the number of layers blocked together, at least 1.")
    if set(over) - {"layer", "head"} or len(set(over)) != len(over):
        raise InputError(f"over is {over}. Choose ('layer',), ('layer', 'head'), ('head',) or ().")
    question = pose(model, pairs, metric)
    texts = question.texts("clean")
    edges = _Edges.of(model, heads, stack, sublayer)
    cells = _Cells(edges, window, over)
    bundles, absent = [], np.zeros((len(texts), cells.n_cells), dtype=bool)
    for number, text in enumerate(texts):
        blocked = (
            _positions(question, number, queries, "queries", in_encoder=question.two_stacks and edges.asks_in_encoder),
            _positions(question, number, keys, "keys", in_encoder=question.two_stacks and edges.looks_in_encoder),
        )
        for flat, sets in cells.blocked():
            if not sets:
                absent[number, flat] = True
                continue
            ops = [op for layer, some in sets.items() for op in _ops(edges, text, number, layer, some, blocked)]
            start = start_of(model, ops)
            if ops and any(read >= start for read in text.reads):
                bundles.append(Bundle(number, torch.tensor([flat]), tuple(ops), start))
    sweep = Sweep(model, question.metric, texts, question.texts("corrupt"), bundles, absent, max_bytes=max_bytes)
    about = {
        "method": "attention knockout",
        "site": edges.name,
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


@dataclass(frozen=True)
class _Edges:
    """The attention whose edges are cut: a sublayer of one stack, and (layer, head) where only some are chosen."""

    model: HookedTransformer
    stack: str
    sublayer: str
    chosen: frozenset[tuple[int, int]] | None

    @classmethod
    def of(cls, model: HookedTransformer, heads: Any, stack: Any, sublayer: Any) -> _Edges:
        """What was asked for by name or by heads; raises `InputError` for another attention than the model has."""
        if stack is not None and stack not in (*model.cfg.stacks, model.main.name):
            ways = ", ".join(repr(one) for one in model.cfg.stacks if one) or "nothing: this model has one stack"
            raise InputError(f"There is no stack {stack!r}. Give {ways}.")
        if sublayer not in (None, "attn", "cross_attn"):
            raise InputError(f'sublayer is {sublayer!r}. Choose "attn" or "cross_attn".')
        chosen = None
        if heads is not None:
            parts = [part for target in targets_of(model, heads) for part in target.parts]
            odd = next((part for part in parts if part.unit is None or part.site.name != "hook_z"), None)
            if odd is not None:
                raise InputError(f'heads holds {odd.name}. Give heads such as "23.4" or "decoder.cross_attn.1.0".')
            kinds = {(part.site.stack, part.site.part) for part in parts}
            asked = {(one, sub) for one, sub in kinds if stack in (None, one) and sublayer in (None, sub)}
            if len(kinds) > 1 or not asked:
                names = " and ".join(sorted(f"{one}.{sub}" if one else sub for one, sub in kinds))
                raise InputError(f"The heads are those of {names}. Give heads of one kind, and its stack and sublayer.")
            ((stack, sublayer),) = kinds
            chosen = frozenset((part.site.layer, part.unit) for part in parts)
        edges = cls(model, model.main.name if stack is None else stack, sublayer or "attn", chosen)
        if all(edges.attention(layer) is None for layer in range(edges.n_layers)):
            raise InputError("There is no cross-attention here: only a decoder over an encoder has some.")
        return edges

    @property
    def n_layers(self) -> int:
        return self.model.cfg.stacks[self.stack].n_layers

    @property
    def name(self) -> str:
        """As `patch` takes the site."""
        parts = (self.stack, "cross_attn" if self.sublayer == "cross_attn" else "", "attn_scores")
        return ".".join(part for part in parts if part)

    @property
    def asks_in_encoder(self) -> bool:
        """Whether queries count in the encoder's text, in a model with two stacks."""
        return self.stack == "encoder"

    @property
    def looks_in_encoder(self) -> bool:
        """Whether keys do."""
        return self.stack == "encoder" or self.sublayer == "cross_attn"

    def attention(self, layer: int) -> AttentionConfig | None:
        block = self.model.cfg.stacks[self.stack].blocks[layer]
        return block.cross_attn if self.sublayer == "cross_attn" else block.attn

    def width(self, layer: int) -> int:
        attn = self.attention(layer)
        return attn.n_heads if attn is not None else 0


class _Cells:
    """The cells of a knockout, each with the heads that it blocks, by layer (None: all of them)."""

    def __init__(self, edges: _Edges, window: int, over: Sequence[str]):
        self.edges, self.n_layers = edges, edges.n_layers
        self.widths = [edges.width(layer) for layer in range(self.n_layers)]
        self.window, self.over = window, tuple(over)
        names = {"layer": list(range(self.n_layers)), "head": list(range(max(self.widths)))}
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
        return [one for one in wanted if self.edges.chosen is None or (layer, one) in self.edges.chosen]


def _positions(question: Question, text: int, asked: Any, what: str, *, in_encoder: bool) -> tuple[int, ...]:
    """Positions of one text from names and indices."""
    pair, n_prompt = question.metric.rows[text].pair, question.prompt_length(text, in_encoder)
    found: set[int] = set()
    if not isinstance(asked, (str, int, Iterable)):
        raise InputError(f"{what} is {asked!r}. Give a named position such as 'subject:last', or an index.")
    for one in [asked] if isinstance(asked, (str, int, np.integer)) else list(asked):
        if isinstance(one, str):
            found.update(named_positions(question.pairs, one, pair, in_encoder=in_encoder))
        elif not is_index(one) or not -n_prompt <= one < n_prompt:
            raise InputError(f"{what} holds {one!r}. Give a named position, or an index of the {n_prompt} tokens.")
        else:
            found.add(int(one) % n_prompt)
    if not found:
        raise InputError(f"{what} is empty. Give a named position such as 'subject:last', or an index.")
    return tuple(sorted(found))


def _ops(
    edges: _Edges,
    text: Text,
    number: int,
    layer: int,
    heads: list[int],
    blocked: tuple[tuple[int, ...], tuple[int, ...]],
) -> list[Op]:
    """The scores that one layer loses; queries that see none of the keys anyway are left out."""
    attn = edges.attention(layer)
    assert attn is not None
    queries, keys = blocked
    site = Site("hook_attn_scores", edges.sublayer, layer, edges.stack)
    units = None if len(heads) == attn.n_heads else torch.tensor([heads])
    n_keys = len(text.in_stack(bool(text.encoder) and edges.looks_in_encoder))
    ops = []
    for query in felt(edges.model, text, site, queries):
        seen = range(n_keys) if edges.sublayer == "cross_attn" else _seen(attn, query, n_keys)
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
