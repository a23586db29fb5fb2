"""How much of an answer survives on the edges of a graph alone: every other edge carries what it carries on average.

A head's output at a target is the sum over sources of A[target, source] · v_source. In it, the terms of edges outside
the graph are replaced by their mean over reference texts, position by position. What follows (attention patterns, MLPs,
norms) is computed afresh from that, so the measure is exact for the question it asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from interp.circuits.graph import written_values
from interp.circuits.prompts import prompts
from interp.errors import InputError
from interp.metrics import BoundMetric, bind_metric
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results.attention_graph import AttentionGraph
from interp.sites import Head

__all__ = ["graph_faithfulness"]

_MAX_BYTES = 2 << 30


@torch.no_grad()
def graph_faithfulness(
    model: HookedTransformer,
    graph: AttentionGraph,
    pairs: PromptPairs | None = None,
    *,
    answer: Any = None,
    foil: Any = None,
    reference: Any = None,
    metric: Any = None,
    mlps: Literal["keep", "mean"] = "keep",
    n_random: int = 10,
    seed: int = 0,
    read: int | None = None,
) -> AttentionGraph:
    """The graph with its measured faithfulness: (m − m_empty) / (m_full − m_empty) of the metric m, never clamped.

    m is measured with every edge outside the graph set to its mean over the `reference` (texts, rows of ids of at
    least as many tokens, or PromptPairs; the corrupt prompts of `pairs` unless given). `full` is the whole model: 1
    exactly. `empty` has every edge of attention replaced: 0 exactly; each token still has its residual stream and its
    MLPs. `random` are `n_random` graphs with as many edges in each layer as the shown one; `p` is the share that do as
    well, itself counted. `mlps="mean"` sets the MLPs' outputs to their mean too, in all but `full`. The question:
    `pairs` (one, of the graph's text), or `answer` and `foil` (the model's own top token unless given), read at `read`;
    `metric` as in `interp.patch`: "logit_diff" with a foil, else "log_prob".

    Cost: a pass over the reference, and n_random + 3 rows through the model.
    """
    model.need_unembed()
    if mlps not in ("keep", "mean"):
        raise InputError(f'mlps is {mlps!r}. Choose "keep" or "mean".')
    for name, value in (("n_random", n_random), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"{name} is {value!r}. Give a whole number, 0 or more.")
    asked = _question(model, graph, pairs, answer, foil, read)
    others, said = _reference(model, graph, asked, reference)
    bound = _bound(model, asked, metric)
    means = _Means.of(model, others)
    drawn = _masks(model, graph, means.seen, n_random, seed)
    masks = torch.stack([torch.ones_like(drawn[0]), torch.zeros_like(drawn[0]), *drawn])
    logits = _run(model, graph.about["tokens"], asked.read[0], masks, means, bound, mlps)
    if bound.needs_reference:
        bound = bound.with_reference(logits[:1])
    values = bound.scores(logits, torch.zeros(len(logits), dtype=torch.long)).double().cpu().numpy()
    table = _table(values, drawn, len(graph.edges), bound)
    about = {**graph.about, "faithfulness": {"reference": said, "mlps": mlps, "seed": seed, "n_random": n_random}}
    return AttentionGraph(graph.edges, graph.nodes, graph.patterns, about, table)


def _question(
    model: HookedTransformer, graph: AttentionGraph, pairs: PromptPairs | None, answer: Any, foil: Any, read: Any
) -> PromptPairs:
    """One prompt, the graph's own."""
    if pairs is None:
        return prompts(model, [graph.about["tokens"]], answer, foil, read=read)
    asked = prompts(model, pairs, answer, foil, read=read)
    if len(asked) != 1 or list(asked.clean[0]) != list(graph.about["tokens"]):
        raise InputError("The graph shows another text than these pairs. Make it of one of them: pairs[0].")
    return asked


def _reference(
    model: HookedTransformer, graph: AttentionGraph, asked: PromptPairs, reference: Any
) -> tuple[Tensor, str]:
    """Rows of the graph's length, and what they are."""
    n_pos, said = len(graph.about["tokens"]), "the texts given"
    if reference is None:
        if asked.corrupt == asked.clean:
            raise InputError(
                "The mean of an edge needs other texts. Give reference=, e.g. texts, or pairs with a corrupt prompt."
            )
        rows, said = [list(asked.corrupt[0])], "the corrupt prompt"
    elif isinstance(reference, PromptPairs):
        rows, said = [list(row) for row in reference.corrupt], "the corrupt prompts"
    elif not isinstance(reference, Sequence | Tensor):
        raise InputError(f"reference is {reference!r}. Give a list of texts, rows of token ids, or PromptPairs.")
    elif isinstance(reference, str):
        raise InputError("The reference is one text. Give a list of texts, so that there is something to average.")
    else:
        every: list[Any] = list(reference)
        is_text = len(every) > 0 and isinstance(every[0], str)
        given = [model.to_tokens(one, truncate=True)[0] for one in every] if is_text else every
        rows = [[int(token) for token in row] for row in given]
    both_ways = model.decoder is None
    fitting = [row[:n_pos] for row in rows if len(row) == n_pos or (len(row) > n_pos and not both_ways)]
    if not fitting:
        least = "exactly" if both_ways else "at least"
        raise InputError(f"No reference text has {least} the {n_pos} tokens of this graph's text. Give longer ones.")
    return torch.tensor(fitting, device=model.device), f"{said}: {len(fitting)} rows of {n_pos} tokens"


def _bound(model: HookedTransformer, asked: PromptPairs, metric: Any) -> BoundMetric:
    name = metric if metric is not None else "logit_diff" if asked.foil else "log_prob"
    bound = bind_metric(name, asked, n_vocab=model.cfg.d_vocab, device=model.device)
    if len(bound.rows) != 1 or bound.rows[0].continuation or len(bound.rows[0].reads) != 1:
        raise InputError("A graph is judged at one position, and this answer has several tokens. Give its first token.")
    return bound


@dataclass(frozen=True)
class _Means:
    """Per layer of the reference: patterns `[row head q_pos k_pos]`, values per query head `[row k_pos head d_head]`,
    the mean output of the MLP `[pos d_model]`, and which keys a query may see."""

    patterns: list[Tensor]
    values: list[Tensor]
    mlp: list[Tensor | None]
    seen: list[Bool[Tensor, "q_pos k_pos"]]

    @classmethod
    def of(cls, model: HookedTransformer, rows: Tensor) -> _Means:
        blocks, n_pos = model.main.config.blocks, rows.shape[1]
        n_bytes = 4 * n_pos * n_pos * sum(block.attn.n_heads for block in blocks) * len(rows)
        if n_bytes > _MAX_BYTES:
            raise InputError(
                f"Patterns of {len(rows)} reference rows of {n_pos} tokens would take {n_bytes / 1e9:.1f} GB. "
                "Give fewer rows, or a shorter text."
            )
        tails = ("attn.hook_pattern", "attn.hook_v", "hook_mlp_out")
        names = [name for name in model.sites.names if name.endswith(tails)]
        _, cache = model.run_with_cache(rows, names, return_type=None)
        layers = range(len(blocks))
        patterns = [cache[f"blocks.{layer}.attn.hook_pattern"] for layer in layers]
        values = [written_values(model.main.block(i).attn, cache[f"blocks.{i}.attn.hook_v"]) for i in layers]
        mlp = [None if blocks[i].mlp is None else cache[f"blocks.{i}.hook_mlp_out"].mean(0) for i in layers]
        return cls(patterns, values, mlp, [(pattern > 0).any(1).any(0) for pattern in patterns])

    def edges(self, layer: int) -> Float[Tensor, "head q_pos k_pos d_head"]:
        """What each edge carries on average."""
        terms = "row head q_pos k_pos, row k_pos head d_head -> head q_pos k_pos d_head"
        return einsum(self.patterns[layer], self.values[layer], terms) / len(self.patterns[layer])


def _masks(
    model: HookedTransformer, graph: AttentionGraph, seen: Sequence[Tensor], n_random: int, seed: int
) -> list[Tensor]:
    """`[layer head q_pos k_pos]`, True for edges that are left alone: the graph's own, then random ones, as many in
    each layer, drawn from the edges that could have been shown."""
    blocks, n_pos = model.main.config.blocks, len(graph.about["tokens"])
    if list(graph.about["n_heads"]) != [block.attn.n_heads for block in blocks]:
        raise InputError(f"This graph is of {graph.about.get('model')}, which has other heads than this model.")
    most = max(block.attn.n_heads for block in blocks)
    together = graph.about["combine"] is not None
    named = graph.about["heads"]
    allowed = [
        [head for head in range(block.attn.n_heads) if named is None or str(Head(layer, head)) in named]
        for layer, block in enumerate(blocks)
    ]
    shape = (len(blocks), most, n_pos, n_pos)
    own, counts = torch.zeros(shape, dtype=torch.bool), [0] * len(blocks)
    edges: Any = graph.edges.itertuples(index=False)
    for row in edges:
        layer = int(row.layer)
        heads = allowed[layer] if together else [int(row.head)]
        own[layer, heads, int(row.target), int(row.source)] = True
        counts[layer] += 1
    generator = np.random.default_rng([seed, *b"random graph"])
    found, to = [own], graph.about["to"]
    for _ in range(n_random):
        mask = torch.zeros(shape, dtype=torch.bool)
        for layer, count in enumerate(counts):
            places = seen[layer].cpu().nonzero()
            if to is not None and layer == len(blocks) - 1:
                places = places[places[:, 0] == to]
            n_choices = len(places) if together else len(places) * len(allowed[layer])
            drawn = generator.choice(n_choices, size=min(count, n_choices), replace=False)
            for one in drawn:
                target, source = places[one % len(places)].tolist()
                heads = allowed[layer] if together else [allowed[layer][one // len(places)]]
                mask[layer, heads, target, source] = True
        found.append(mask)
    return found


def _run(
    model: HookedTransformer,
    tokens: Sequence[int],
    read: int,
    masks: Tensor,
    means: _Means,
    bound: BoundMetric,
    mlps: str,
) -> Float[Tensor, "row token"]:
    """Logits at the read position, one row for each mask; the first one is the whole model."""
    n_rows, now, hooks = len(masks), {}, []

    def keep(x: Tensor, hook: Any) -> None:
        now[hook.name] = x

    for layer in range(masks.shape[1]):
        address = f"blocks.{layer}.attn.hook_"

        def replace_edges(z: Tensor, hook: Any, layer: int = layer, address: str = address) -> Tensor:
            outside = (~masks[:, layer, : z.shape[2]]).to(z)
            v = written_values(model.main.block(layer).attn, now.pop(address + "v"))
            pattern = now.pop(address + "pattern")
            lost = einsum(outside * pattern, v, "row head q k, row k head d_head -> row q head d_head")
            put = einsum(outside, means.edges(layer), "row head q k, head q k d_head -> row q head d_head")
            return z + (put - lost)

        hooks += [(address + "v", keep), (address + "pattern", keep), (address + "z", replace_edges)]
        mean = means.mlp[layer]
        if mlps == "mean" and mean is not None:

            def replace_mlp(out: Tensor, hook: Any, mean: Tensor = mean) -> Tensor:
                return torch.cat([out[:1], mean.expand(len(out) - 1, -1, -1)])

            hooks.append((f"blocks.{layer}.hook_mlp_out", replace_mlp))
    rows = torch.tensor([list(tokens)], device=model.device).expand(n_rows, -1)
    some = None if bound.tokens is None else bound.tokens
    return model.run_with_hooks(rows, fwd_hooks=hooks, unembed_pos=[read], unembed_tokens=some)[:, 0]


def _table(values: np.ndarray, masks: Sequence[Tensor], n_edges: int, bound: BoundMetric) -> pd.DataFrame:
    full, empty, shown, random = values[0], values[1], values[2], values[3:]
    gap = full - empty

    def share(value: Any) -> Any:
        return (value - empty) / gap + 0.0 if gap != 0 else np.full_like(np.asarray(value, float), np.nan)

    rows = [("full", np.nan, full), ("empty", 0, empty), ("shown", n_edges, shown)]
    table = [{"graph": name, "edges": n, "value": float(v), "faithfulness": float(share(v))} for name, n, v in rows]
    if len(random):
        shares = share(random)
        ahead = random >= shown if gap > 0 else random <= shown
        drawn = {
            "graph": "random",
            "edges": n_edges,
            "value": float(random.mean()),
            "faithfulness": float(shares.mean()),
        }
        drawn |= {"lowest": float(shares.min()), "highest": float(shares.max())}
        table.append(drawn)
        table[2]["p"] = float((1 + ahead.sum()) / (1 + len(random)))
    found = pd.DataFrame(table).reindex(columns=["graph", "edges", "value", "faithfulness", "lowest", "highest", "p"])
    found["metric"] = f"{bound.name} ({bound.unit})" if bound.unit else bound.name
    return found
