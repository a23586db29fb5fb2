"""Queries, keys and values of every attention layer, one layer at a time, in a single pass that stores none of them.

Patterns are made in chunks of queries, so that long texts fit: the pattern of 4,096 tokens is never held whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import InputError
from interp.model.attention import Attention, attention_pattern
from interp.model.positions import Rows
from interp.model.taps import Taps, Write, active_writes
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer

__all__ = ["HeadGrid", "LayerHeads", "head_grid", "key_share", "stream_heads"]

_CHUNK_BYTES = 64 << 20  # of one chunk of patterns


@dataclass(frozen=True)
class LayerHeads:
    """The heads of one layer on one batch: rotated queries and keys, values, and the weights they came from.
    `out_scale` is what the norm behind attention divides by, where the layer has one (Gemma 2, OLMo 2)."""

    stack: str
    sublayer: str
    layer: int
    q: Float[Tensor, "batch pos head d_head"]
    k: Float[Tensor, "batch k_pos kv_head d_head"]
    v: Float[Tensor, "batch k_pos kv_head d_head"]
    attn: Attention
    rows: Rows
    out_scale: Float[Tensor, "batch pos one"] | None = None

    def patterns(self) -> Iterator[tuple[Int[Tensor, " q_pos"], Float[Tensor, "batch head q_pos k_pos"]]]:
        """Chunks of queries (their positions) with their attention over all keys."""
        batch, n_queries, n_heads, _ = self.q.shape
        per_query = batch * n_heads * self.k.shape[1] * self.q.element_size()
        step = max(1, _CHUNK_BYTES // per_query)
        for start in range(0, n_queries, step):
            index = torch.arange(start, min(start + step, n_queries), device=self.q.device)
            rows = self.rows.at(index)
            yield index, attention_pattern(self.attn.scores(self.q[:, index], self.k, rows))


@dataclass(frozen=True)
class HeadGrid:
    """The self-attention heads of one stack, and how an array `[layer head]` over them is laid out."""

    stack: str
    n_layers: int
    n_heads: int  # of the widest layer
    widths: tuple[int, ...] = ()  # heads of each layer


def head_grid(model: HookedTransformer) -> HeadGrid:
    """The grid of the stack whose text is predicted."""
    stack = model.main
    widths = tuple(block.attn.n_heads for block in stack.config.blocks)
    return HeadGrid(stack.name, stack.config.n_layers, max(widths), widths)


@torch.no_grad()
def stream_heads(
    model: HookedTransformer,
    batch: Batch,
    visit: Callable[[LayerHeads], None],
    *,
    writes: Sequence[Write] = (),
) -> Float[Tensor, "batch pos d_model"]:
    """Call `visit` for every self-attention layer of the predicted text's stack, in order, under some `writes`; the
    last residual comes back. Cost: one forward pass without logits.

    Raises `InputError` inside `with model.hooks(…)`: patterns made anew from q and k would not show what hooks do."""
    if any(owner == id(model) for owner, _ in active_writes.get()):
        raise InputError("This would run without the hooks of `with model.hooks(…)` around it. Call it outside.")
    stack = model.main
    rows = stack.rows(batch.tokens.shape[1], batch.mask)
    waiting: dict[int, dict[str, Tensor]] = {}
    wanted: dict[str, tuple[int, str]] = {}
    parts: dict[int, int] = {}
    for layer, block in enumerate(stack.config.blocks):
        address = f"{stack.address}blocks.{layer}."
        names = ("rot_q", "rot_k", "v") if block.attn.rotary else ("q", "k", "v")
        of_layer = {f"{address}attn.hook_{name}": (layer, name[-1]) for name in names}
        if block.norms in ("output", "both") and block.norm.kind != "none":
            of_layer[f"{address}ln1_post.hook_scale"] = (layer, "scale")
        wanted |= of_layer
        parts[layer] = len(of_layer)

    def collect(name: str, x: Tensor) -> Tensor:
        layer, part = wanted[name]
        found = waiting.setdefault(layer, {})
        found[part] = x
        if len(found) == parts[layer]:
            attn, scale = stack.block(layer).attn, found.get("scale")
            visit(LayerHeads(stack.name, "attn", layer, found["q"], found["k"], found["v"], attn, rows, scale))
            del waiting[layer]
        return x if part == "scale" else x[:0]

    resid = stack.embed_tokens(batch.tokens, rows, taps := Taps(wanted, writes, keep=collect))
    return stack(resid, rows, taps)[0]


def key_share(
    pattern: Float[Tensor, "batch head q_pos k_pos"], keys: Bool[Tensor, "batch q_pos k_pos"]
) -> Float[Tensor, "batch head q_pos"]:
    """How much of each query's attention falls on its marked keys."""
    return torch.einsum("bhqk,bqk->bhq", pattern, keys.to(pattern.dtype))
