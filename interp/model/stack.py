"""A stack of blocks over one text: embed, run any range of layers, finish."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from interp.errors import InputError
from interp.model.block import Block, Memory, block_kind, make_block
from interp.model.config import NormConfig, StackConfig
from interp.model.norms import Norm
from interp.model.positions import KeyValues, Rows
from interp.model.taps import NO_TAPS, Tap
from interp.model.weights import StackedWeights
from interp.sites import Site

__all__ = ["Embedding", "Stack", "stack_sites"]


class Embedding(nn.Module):
    """A table with one row per token (or per position)."""

    def __init__(self, n_rows: int, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_rows, d_model))

    def forward(self, index: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        return F.embedding(index, self.weight)

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        return self.weight

    @property
    def device(self) -> torch.device:
        return self.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype


class Stack(StackedWeights, nn.Module):
    """Blocks over one text. `name` is "" in a model with one stack, else "encoder" or "decoder"."""

    def __init__(self, config: StackConfig, d_model: int, d_vocab: int, name: str):
        super().__init__()
        self.config, self.name = config, name
        self.address = f"{name}." if name else ""
        width = config.embed_width or d_model
        self.embed = Embedding(d_vocab, width)
        self.embed_project = nn.Linear(config.embed_width, d_model) if config.embed_width else None
        self.type_embed = Embedding(config.token_types, width) if config.token_types else None
        heads = max(block.attn.n_heads for block in config.blocks) if config.blocks else 0
        self.relative = Embedding(config.relative.n_buckets, heads) if config.relative else None
        self.embed_norm = Norm(config.embed_norm, width, "") if config.embed_norm else None
        self.pos_embed = Embedding(config.learned_positions, width) if config.learned_positions else None
        blocks = (make_block(block, d_model, f"{self.address}blocks.{i}.") for i, block in enumerate(config.blocks))
        self.blocks = nn.ModuleList(blocks)
        self.ln_final = Norm(config.final_norm or NormConfig("none"), d_model, f"{self.address}ln_final.")

    @property
    def only(self) -> Stack:
        return self

    def block(self, layer: int) -> Block:
        """One layer, typed."""
        return cast(Block, self.blocks[layer])

    def rows(self, n_tokens: int, mask: Bool[Tensor, "batch pos"] | None = None, past: KeyValues | None = None) -> Rows:
        """The bookkeeping for a pass over `n_tokens` new tokens after the stored ones."""
        rows = Rows.of(n_tokens, mask, past, self.embed.device)
        return rows if self.relative is None else replace(rows, **self.distances)

    @property
    def distances(self) -> dict[str, Any]:
        """What rows need to know of the stack's bias of distances."""
        if self.relative is None or self.config.relative is None:
            return {}
        return {"relative": self.relative.weight, "max_distance": self.config.relative.max_distance}

    def embed_tokens(
        self, tokens: Int[Tensor, "batch pos"], rows: Rows, tap: Tap
    ) -> Float[Tensor, "batch pos d_model"]:
        """Tokens, and learned positions where the model has them, to the first residual."""
        resid = self.embed(tokens)
        if self.config.embed_scale != 1.0:
            scale = self.config.embed_scale
            resid = resid * (resid.new_tensor(scale) if self.config.embed_scale_rounded else scale)
        resid = tap(self.address + "hook_embed", resid)
        if self.pos_embed is not None:
            positions = rows.positions.expand(len(tokens), -1)
            resid = resid + tap(self.address + "hook_pos_embed", self.pos_embed(positions))
        if self.type_embed is not None:
            resid = resid + self.type_embed.weight[0]
        if self.embed_norm is not None:
            resid = self.embed_norm(resid, NO_TAPS)
        return resid if self.embed_project is None else self.embed_project(resid)

    def forward(
        self,
        resid: Float[Tensor, "batch pos d_model"],
        rows: Rows,
        tap: Tap,
        *,
        start: int = 0,
        stop: int | None = None,
        past: KeyValues | None = None,
        memory: Memory | None = None,
        keep_keys: bool = False,
    ) -> tuple[Float[Tensor, "batch some_pos d_model"], KeyValues | None]:
        """Layers `start` up to `stop` (not included); with `keep_keys` also their keys and values."""
        layers: dict[int, tuple[Tensor, Tensor]] = {}
        for layer in range(start, self.config.n_layers if stop is None else stop):
            stored = _stored(past, layer)
            resid, keys_values = self.blocks[layer](resid, rows, tap, past=stored, memory=memory)
            if keep_keys:
                layers[layer] = keys_values
        return resid, KeyValues(layers, rows.n_keys, rows.key_mask) if keep_keys else None

    def finish(self, resid: Float[Tensor, "batch pos d_model"], tap: Tap) -> Float[Tensor, "batch pos d_model"]:
        """The final norm."""
        return self.ln_final(resid, tap)


def stack_sites(name: str, config: StackConfig) -> list[Site]:
    """The sites of one stack, in the order the forward pass reaches them."""
    sites = [Site("hook_embed", stack=name)]
    if config.learned_positions:
        sites.append(Site("hook_pos_embed", stack=name))
    for layer, block in enumerate(config.blocks):
        for path in block_kind(block).tensors(block):
            part, _, tensor = path.rpartition(".")
            sites.append(Site(tensor, part, layer, name))
    if config.final_norm is not None and config.final_norm.kind != "none":
        sites += [Site("hook_scale", "ln_final", None, name), Site("hook_normalized", "ln_final", None, name)]
    return sites


def _stored(past: KeyValues | None, layer: int) -> tuple[Tensor, Tensor] | None:
    if past is None or past.n_keys == 0:
        return None
    if layer not in past.layers:
        held = ", ".join(str(held) for held in list(past.layers)[:4]) or "none"
        raise InputError(
            f"The stored keys hold no layer {layer} (they hold {held}). Store them with a pass that runs it."
        )
    return past.layers[layer]
