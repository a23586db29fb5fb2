"""One task's prompts on one split, and what single passes over them show of every head: where it looks from the named
positions, and what it writes there. Passes are made once and shared by all kinds that ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest
from typing import Any, cast

import numpy as np
import torch
from einops import einsum, repeat
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp.circuits.direct import effective_unembedding, final_scale
from interp.circuits.streaming import LayerHeads, head_grid, stream_heads
from interp.errors import InputError
from interp.model.attention import attention_pattern
from interp.model.kinds import attention_kind
from interp.model.norms import Norm
from interp.model.taps import Write, make_writes
from interp.model.tokens import Batch, pad_rows
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.sites import Head, Site
from interp.stats import item_means

__all__ = ["END", "SHARED", "Study"]

END = "END"  # the position whose logits are read
_WHOLE = ""  # all keys
_ROWS_AT_ONCE = 16
SHARED = ("movers", "function_means")  # of a memo: what is found on the selecting prompts and holds for all
Grid = NDArray[np.floating]


@dataclass
class Study:
    """Prompts of one task (or of the user's) on one split.

    `pairs` holds them by corruption: the same clean prompts, in the same order, against each. `queries` are the named
    positions whose attention is read; what is asked of other ones raises. `labels` has one value per prompt, `about`
    what the task says of itself.
    """

    model: HookedTransformer
    pairs: Mapping[str, PromptPairs]
    queries: tuple[str, ...]
    labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    metric: Any = "logit_diff"
    metric_of: Callable[[Sequence[int]], Any] | None = None  # of some of the prompts, where it is made for these
    memo: dict[str, Any] = field(default_factory=dict)  # what kinds find out and share, by name
    reference: PromptPairs | None = None  # whose clean prompts means and resamples are taken from; None: the corrupt
    knocked_out: tuple[Head, ...] = ()  # whose output is replaced in all passes
    by: str = ""  # by "zero", or by the "mean" over corrupt prompts

    @property
    def corruption(self) -> str:
        """The one that decides: the first."""
        return next(iter(self.pairs))

    @property
    def main(self) -> PromptPairs:
        return self.pairs[self.corruption]

    @property
    def answers(self) -> list[tuple[int, ...]]:
        """The first token of each alternative of each prompt's answer."""
        return [tuple(one[0] for one in alternatives) for alternatives in self.main.answer]

    @property
    def foils(self) -> list[tuple[int, ...]]:
        """The same of the foil."""
        return [tuple(one[0] for one in alternatives) for alternatives in self.main.foil]

    @property
    def items(self) -> np.ndarray:
        """The item of each prompt."""
        return np.array(self.main.items)

    @property
    def n_items(self) -> int:
        return len(set(self.main.items))

    def by_item(self, values: Grid) -> Grid:
        """Means of each item's prompts, over a flattened grid: `[prompt …]` to `[item cell]`."""
        return item_means(values.reshape(len(values), -1), self.items)

    def span(self, name: str, prompt: int) -> tuple[int, ...]:
        """Token positions of a name; END is the read position where the pairs do not name it themselves."""
        if name == END and END not in self.main.positions:
            return (self.main.read[prompt],)
        return self.main.span(name, prompt)

    def attention(self, query: str, key: str) -> Grid:
        """Attention of each head from the last token of `query` to all tokens of `key`, `[prompt layer head]`."""
        return self._seen(query).share[self._key(key)]

    def looks_at(self, query: str, *, first: bool = True) -> NDArray[np.integer]:
        """The token that the last token of `query` attends to most in each head, by its place in the prompt,
        `[prompt layer head]`; among all tokens, or without the prompt's first one, where heads rest. −1 for a head that
        a layer does not have."""
        return self._seen(query).strongest[0 if first else 1]

    def outputs(self, query: str) -> Float[Tensor, "prompt layer head d_head"]:
        """What each head puts out (z) at `query`; 0 for a head that a layer does not have."""
        return self._seen(query).z[self._key(_WHOLE)]

    def writes(
        self,
        query: str,
        key: str = _WHOLE,
        *,
        up: Sequence[Sequence[int]],
        down: Sequence[Sequence[int]] | None = None,
    ) -> Grid:
        """Direct logit of what each head writes at `query` (all of it, or what it moves there from `key`),
        `[prompt layer head]`: the mean over each prompt's tokens `up`, less the mean over its tokens `down`. Scales of
        the norms behind it are those of the prompt's own pass."""
        self.model.need_unembed()
        seen, stack = self._seen(query), self.model.main
        z, directions = seen.z[self._key(key)], self._directions(up, down)
        found = np.full(z.shape[:3], np.nan)
        with torch.no_grad():
            for layer, config in enumerate(stack.config.blocks):
                attn, n_heads = stack.block(layer).attn, config.attn.n_heads
                mine = z[:, layer, :n_heads, : config.attn.d_head].to(self.model.device, attn.W_O.dtype)
                out = einsum(mine, attn.W_O, "prompt head d_head, head d_head d_model -> prompt head d_model")
                if not seen.out_scales[layer].isnan().any():
                    norm = cast(Norm, stack.block(layer).ln1_post)
                    out = out - out.mean(-1, keepdim=True) if norm.config.kind == "layer" else out
                    out = out / seen.out_scales[layer].to(out)[:, None, None] * norm.gain
                value = einsum(out, directions, "prompt head d_model, prompt d_model -> prompt head")
                value = value * config.residual_scale / seen.final.to(out)[:, None]
                found[:, layer, :n_heads] = value.double().cpu().numpy()
        return found

    def _directions(
        self, up: Sequence[Sequence[int]], down: Sequence[Sequence[int]] | None
    ) -> Float[Tensor, "prompt d_model"]:
        """What raises the mean logit of each prompt's tokens `up` over that of its tokens `down`."""
        known: dict[tuple[int, ...], Tensor] = {}

        def mean(tokens: Sequence[int]) -> Tensor:
            key = tuple(tokens)
            if key not in known:
                index = torch.tensor(key, device=self.model.device)
                known[key] = effective_unembedding(self.model, index).mean(-1)
            return known[key]

        with torch.no_grad():
            rows = [mean(one) for one in up]
            if down is not None:
                rows = [row - mean(one) for row, one in zip(rows, down, strict=True)]
            return torch.stack(rows)

    def thinned(self, per_item: int = 2, n_items: int | None = None) -> Study:
        """At most some prompts of each item, spread over the item's own in turn, and at most some items, drawn at
        random: enough for interventions, which cost far more than the passes that attention is read from. Of a quartet:
        one of each order."""
        members: dict[str, list[int]] = {}
        for prompt, item in enumerate(self.main.items):
            members.setdefault(item, []).append(prompt)
        if n_items is not None and len(members) > n_items:
            drawn = np.random.default_rng([n_items, *b"items"]).permutation(list(members))[:n_items].tolist()
            members = {item: members[item] for item in members if item in set(drawn)}
        elif max(map(len, members.values())) <= per_item:
            return self
        chosen, met = [], Counter[str]()
        for number, mine in enumerate(members.values()):
            template = self.main.templates[mine[0]]
            chosen += self._spread(mine, per_item, number, met[template])
            met[template] += 1
        return replace(self.some(sorted(chosen)), reference=self.main.swapped())

    def _spread(self, prompts: list[int], n: int, number: int, turn: int) -> list[int]:
        """Some prompts of an item, drawn at random, the named positions in as many different orders as can be; which
        order comes first goes by `turn`, so that items of one template take turns."""
        drawn = np.random.default_rng([number, *b"thinned"]).permutation(prompts).tolist()
        by_order: dict[tuple, list[int]] = {}
        for prompt in drawn:
            order = tuple(sorted(self.main.positions, key=lambda name: (self.main.span(name, prompt), name)))
            by_order.setdefault(order, []).append(prompt)
        orders = [by_order[order] for order in sorted(by_order)]
        turned = [*orders[turn % len(orders) :], *orders[: turn % len(orders)]]
        return [prompt for tier in zip_longest(*turned) for prompt in tier if prompt is not None][:n]

    def shuffled(self, seed: int) -> Study:
        """The same prompts and passes with the answers of others: what a score of answers is without a reason."""
        main = self.main
        turn = np.random.default_rng([seed, *b"shuffled"]).permutation(len(main))
        rank = {item: i for i, item in enumerate(np.random.default_rng([seed, 1]).permutation(sorted(set(main.items))))}
        by_item = sorted(turn.tolist(), key=lambda i: rank[main.items[i]])
        widest = max(main.items.count(item) for item in rank)
        given = dict(zip(by_item, [*by_item[widest:], *by_item[:widest]], strict=True))  # never to the item's own
        order = [given[i] for i in range(len(main))]
        other = replace(
            main,
            answer=tuple(main.answer[i] for i in order),
            foil=tuple(main.foil[i] for i in order) if main.foil else (),
        )
        labels = {name: tuple(values[i] for i in order) for name, values in self.labels.items()}
        study = replace(self, pairs={self.corruption: other}, labels=labels, memo={})
        study.__dict__["_passes"] = self._passes
        return study

    def some(self, prompts: Sequence[int]) -> Study:
        """Some of the prompts as a study of its own."""
        chosen = list(prompts)
        return replace(
            self,
            pairs={name: pairs.select(chosen) for name, pairs in self.pairs.items()},
            labels={name: tuple(values[i] for i in chosen) for name, values in self.labels.items()},
            metric=self.metric if self.metric_of is None else self.metric_of(chosen),
            metric_of=None if self.metric_of is None else (lambda some: self.metric_of([chosen[i] for i in some])),  # type: ignore[misc]
            memo={name: value for name, value in self.memo.items() if name in SHARED},
        )

    def without(self, heads: tuple[Head, ...], by: str) -> Study:
        """The same prompts read while some heads write, at each query, nothing (by "zero") or their "mean" over the
        corrupt prompts."""
        known = self.memo.setdefault("without", {})
        if (heads, by) not in known:
            known[heads, by] = replace(self, knocked_out=heads, by=by, memo={})
        return known[heads, by]

    def _key(self, name: str) -> int:
        names = self._names
        if name not in names:
            raise InputError(f"There is no position named {name!r}. These pairs have {', '.join(names[1:])}.")
        return names.index(name)

    @cached_property
    def _names(self) -> list[str]:
        return [_WHOLE, *dict.fromkeys((*self.main.positions, END))]

    def _seen(self, query: str) -> _Seen:
        if query not in self.queries:
            raise InputError(f"This study reads attention from {', '.join(self.queries)}, not from {query!r}.")
        return self._passes[query]

    @cached_property
    def _passes(self) -> dict[str, _Seen]:
        grid, stack = head_grid(self.model), self.model.main
        shape = (len(self.main), grid.n_layers, grid.n_heads)
        d_head = max(block.attn.d_head for block in stack.config.blocks)
        seen = {query: _Seen.empty(len(self._names), shape, d_head) for query in self.queries}
        carriers = self._carriers()
        rows = sorted(set(carriers), key=lambda i: (len(self.main.clean[i]), i))  # alike in length, so little padding
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            self._one_pass(some, [i for i, carrier in enumerate(carriers) if carrier in some], carriers, seen)
        return seen

    def _carriers(self) -> list[int]:
        """Of each prompt, the one whose pass shows it too: the longest that begins with all its tokens, where later
        tokens are not seen and nothing is edited; else itself."""
        rows = self.main.clean
        if self.knocked_out or attention_kind(self.model) != "decoder":
            return list(range(len(rows)))
        found, order = list(range(len(rows))), sorted(range(len(rows)), key=lambda i: (rows[i], i))
        for one, longer in zip(reversed(order[:-1]), reversed(order[1:]), strict=True):
            if rows[longer][: len(rows[one])] == rows[one]:
                found[one] = found[longer]
        return found

    def _one_pass(
        self, carriers: Sequence[int], prompts: Sequence[int], carrier_of: Sequence[int], seen: Mapping[str, _Seen]
    ) -> None:
        """Read some prompts in one padded batch of those that carry them."""
        batch, pads = _batch(self.model, [list(self.main.clean[i]) for i in carriers])
        row = torch.tensor([carriers.index(carrier_of[i]) for i in prompts], device=self.model.device)
        shift = [pads[i] for i in row.tolist()]
        at = {
            query: [self.span(query, i)[-1] + pad for i, pad in zip(prompts, shift, strict=True)]
            for query in self.queries
        }
        keys = torch.zeros(len(self._names), len(prompts), batch.tokens.shape[1], device=self.model.device)
        keys[0] = 1.0
        for number, name in enumerate(self._names[1:], start=1):
            for place, (i, pad) in enumerate(zip(prompts, shift, strict=True)):
                keys[number, place, [pos + pad for pos in self.span(name, i)]] = 1.0
        mine = np.array(prompts)

        def visit(heads: LayerHeads) -> None:
            n_heads = heads.q.shape[2]
            group = n_heads // heads.v.shape[2]
            values = repeat(heads.v, "row k_pos kv_head d_head -> row k_pos (kv_head group) d_head", group=group)[row]
            for query, places in at.items():
                pattern = _rows_of(heads, row, places)
                for number, one in enumerate((pattern, _without_first(pattern, shift))):
                    strongest = one.argmax(-1).cpu() - torch.tensor(shift)[:, None]
                    seen[query].strongest[number, mine, heads.layer, :n_heads] = strongest.numpy()
                weights = pattern[None] * keys[:, :, None]  # [name prompt head k_pos]
                z = einsum(
                    weights,
                    values.to(weights),
                    "name prompt head k_pos, prompt k_pos head d_head -> name prompt head d_head",
                )
                seen[query].share[:, mine, heads.layer, :n_heads] = weights.sum(-1).double().cpu().numpy()
                seen[query].z[:, mine, heads.layer, :n_heads, : z.shape[-1]] = z.float().cpu()
                if heads.out_scale is not None:
                    scale = heads.out_scale[row, places, 0]
                    seen[query].out_scales[heads.layer, mine] = scale.float().cpu()

        resid = stream_heads(self.model, batch, visit, writes=self._knockout(at))
        for query, places in at.items():
            seen[query].final[mine] = final_scale(self.model, resid[row, places])[:, 0].float().cpu()

    def _knockout(self, at: Mapping[str, Sequence[int]]) -> list[Write]:
        """Writes that put the mean of each knocked-out head at the queries of a batch."""
        if not self.knocked_out:
            return []
        known = self.memo.setdefault("means", {})
        if self.by == "mean" and not known:
            corrupt = replace(self, pairs={"": self.main.swapped()}, knocked_out=(), memo={})
            known |= {query: corrupt._seen(query).z[0].mean(0) for query in self.queries}
        hooks: list[tuple[Any, Any]] = []
        for head in self.knocked_out:
            site = Site("hook_z", "attn", head.layer, head.stack)

            def put(x: Tensor, hook: object, head: Head = head) -> Tensor:
                x = x.clone()
                for query, places in at.items():
                    mean = known[query][head.layer, head.head, : x.shape[-1]].to(x) if known else 0.0
                    x[torch.arange(len(places)), places, head.head] = mean
                return x

            hooks.append((str(site), put))
        return make_writes(self.model.sites, hooks)


@dataclass(frozen=True)
class _Seen:
    """What a query position saw: attention to each name and the part of z that came from it, by head; and what the
    norms behind divided by."""

    share: Grid  # [name prompt layer head]
    z: Float[Tensor, "name prompt layer head d_head"]
    out_scales: Float[Tensor, "layer prompt"]  # NaN without a norm behind attention
    final: Float[Tensor, " prompt"]
    strongest: NDArray[np.integer]  # [which prompt layer head]: the place attended to most, of all and but the first

    @classmethod
    def empty(cls, n_names: int, shape: tuple[int, int, int], d_head: int) -> _Seen:
        n_prompts, n_layers, _ = shape
        share = np.full((n_names, *shape), np.nan)  # a layer may have fewer heads than the widest
        return cls(
            share,
            torch.zeros(n_names, *shape, d_head),
            torch.full((n_layers, n_prompts), torch.nan),
            torch.ones(n_prompts),
            np.full((2, *shape), -1),
        )


def _batch(model: HookedTransformer, rows: list[list[int]]) -> tuple[Batch, list[int]]:
    """Rows padded on the left, and how much of it each has."""
    longest = max(len(row) for row in rows)
    pads = [longest - len(row) for row in rows]
    pad_id = getattr(model.tokenizer, "pad_id", None) or 0
    return pad_rows(rows, pad_id, "left", model.device), pads


def _rows_of(heads: LayerHeads, row: Tensor, at: Sequence[int]) -> Float[Tensor, "prompt head k_pos"]:
    """The pattern of one query of each prompt, whose pass is a `row`; no other query's is made."""
    index = torch.tensor(sorted(set(at)), device=heads.q.device)
    scores = heads.attn.scores(heads.q[:, index], heads.k, heads.rows.at(index))
    place = torch.searchsorted(index, torch.tensor(list(at), device=index.device))
    return attention_pattern(scores)[row, :, place]


def _without_first(
    pattern: Float[Tensor, "prompt head k_pos"], pads: Sequence[int]
) -> Float[Tensor, "prompt head k_pos"]:
    """The same with nothing on each prompt's first token."""
    pattern = pattern.clone()
    pattern[torch.arange(len(pads)), :, torch.tensor(pads)] = -1.0
    return pattern
