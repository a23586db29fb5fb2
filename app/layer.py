"""What all heads of one layer attend to on a prompt, how much each value carries, and small pictures of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st
import torch
from einops import rearrange
from numpy.typing import NDArray

import interp
from app import models
from interp.circuits.ov import written
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.sites import Head, Site

__all__ = ["MAX_TOKENS", "THUMB", "LayerAttention", "edges", "habits", "layer_attention", "pooled"]

MAX_TOKENS = 1024  # shown at once: the pattern of one head is then two megabytes
THUMB = 128  # cells of a small picture, each way


@dataclass(frozen=True)
class LayerAttention(models.ReadPrompt):
    """A prompt and the heads of one layer on it: `weights[head, q_pos, k_pos]`, rows sum to 1, and
    `carried[head, k_pos]`, the norm of what each value becomes in the residual stream (v W_O)."""

    weights: NDArray[np.float16]
    carried: NDArray[np.float32]

    def of(self, head: int, *, weighted: bool = False) -> NDArray[np.float32]:
        """One head's attention `[q_pos, k_pos]`; `weighted`, times what each value carries."""
        found = self.weights[head].astype(np.float32)
        return found * self.carried[head] if weighted else found


def layer_attention(name: str, head: Head, prompt: str, *, bos: bool) -> LayerAttention:
    """One forward pass up to the head's layer, kept for the other heads of the layer.

    Raises `InputError` for a prompt that cannot be read, or a head the model does not have.
    """
    model = models.loaded(name)
    if str(head) not in models.heads_of(model):
        stack = model.main.config
        raise InputError(
            f"{name} has no head {head}: it has layers 0 to {stack.n_layers - 1} with "
            f"{stack.blocks[0].attn.n_heads} heads each. Choose another."
        )
    read = models.read_prompt(name, prompt, bos=bos, limit=MAX_TOKENS)
    weights, carried = _layer(models.content_hash(name), head.stack, head.layer, read.ids, _model=model)
    return LayerAttention(read.ids, read.tokens, read.has_bos, read.n_left_out, weights, carried)


@st.cache_resource(max_entries=6, show_spinner=False)
@torch.no_grad()
def _layer(
    content: str, stack: str, layer: int, ids: tuple[int, ...], *, _model: HookedTransformer
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Attention `[head q_pos k_pos]` and norms of what is carried `[head k_pos]`; 19 MB at 1,024 tokens and 9 heads."""
    pattern, values = (str(Site(site, "attn", layer, stack)) for site in ("hook_pattern", "hook_v"))
    tokens = torch.tensor([ids], device=_model.device)
    _, cache = _model.run_with_cache(tokens, [pattern, values], stop_at_layer=layer + 1)
    weights = rearrange(cache[pattern], "1 head q_pos k_pos -> head q_pos k_pos").to(torch.float16).cpu().numpy()
    carried = []
    for number in range(len(weights)):
        own = interp.ov(_model, Head(layer, number, "attn", stack))
        made = cache[values][0, :, own.place.kv_head].to(own.W_O.dtype) @ own.W_O
        carried.append(written(own.place.stack, layer, made).norm(dim=-1).float().cpu().numpy())
    return weights, np.stack(carried)


def pooled(weights: NDArray[np.floating], most: int = THUMB) -> tuple[NDArray[np.floating], int]:
    """`[q_pos, k_pos]` in at most `most` cells each way, each the largest weight among its tokens; and how many tokens
    a cell holds each way."""
    n = len(weights)
    by = -(-n // most)
    if by == 1:
        return weights, 1
    starts = np.arange(0, n, by)
    return np.maximum.reduceat(np.maximum.reduceat(weights, starts, axis=0), starts, axis=1), by


def edges(found: LayerAttention, head: int) -> pd.DataFrame:
    """A row per edge of one head, with its attention and what it carries; edges that a mask hides are left out."""
    one = found.of(head)
    query, key = np.nonzero(one > 0)
    named = np.array(found.tokens, dtype=object)
    columns = {"destination": query, "destination token": named[query], "source": key, "source token": named[key]}
    attention = one[query, key]
    return pd.DataFrame(
        {**columns, "attention": attention, "attention × carried": attention * found.carried[head][key]}
    )


def habits(found: LayerAttention, layer: int) -> pd.DataFrame:
    """One row per head: how much it attends on average to the first token, to the token before, to itself and to all
    others, and the heaviest edge that is none of these. A mean over all destinations but the first."""
    n = len(found.tokens)
    rows = []
    for head in range(len(found.weights)):
        one = found.of(head)
        first, itself, before = one[1:, 0].copy(), np.diagonal(one)[1:], np.diagonal(one, -1)
        row = {"head": f"{layer}.{head}"}
        if n > 2:
            shares = {"first token": first[1:], "token before": before[1:], "itself": itself[1:]}
            row |= {name: f"{float(share.mean()):.2f}" for name, share in shares.items()}
            rest = one[2:].copy()
            rest[:, 0] = 0
            q = np.arange(2, n)
            rest[q - 2, q], rest[q - 2, q - 1] = 0, 0
            row["elsewhere"] = f"{float(rest.sum(1).mean()):.2f}"
            query, key = np.unravel_index(int(rest.argmax()), rest.shape)
            edge = f"{int(query) + 2} {found.tokens[int(query) + 2]!r} ← {int(key)} {found.tokens[int(key)]!r}"
            row["heaviest edge elsewhere"] = f"{edge}: {float(rest.max()):.2f}" if rest.max() > 0 else "–"
        rows.append(row)
    return pd.DataFrame(rows)
