"""Where the tokens of a pass stand: which are real, which key each query may see, and how positions enter.

`Rows` is made once per stack and pass; every layer reads the same masks and rotary tables from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import InputError
from interp.model.config import AttentionConfig, RotaryConfig

__all__ = ["KeyValues", "Rows", "rotary_frequencies", "rotate"]


@dataclass(frozen=True)
class KeyValues:
    """Keys (rotated) and values of tokens already read, so that a later pass can go on after them.

    `layers[l]` holds two tensors `[batch k_pos kv_head d_head]`. `key_mask` marks real tokens (None: all are).
    """

    layers: dict[int, tuple[Tensor, Tensor]]
    n_keys: int
    key_mask: Bool[Tensor, "batch k_pos"] | None = None

    def upto(self, pos: int) -> KeyValues:
        """Only the first `pos` keys (views)."""
        if not 0 <= pos <= self.n_keys:
            raise InputError(f"Cannot keep {pos} of {self.n_keys} stored keys. Choose 0 to {self.n_keys}.")
        layers = {layer: (k[:, :pos], v[:, :pos]) for layer, (k, v) in self.layers.items()}
        return KeyValues(layers, pos, None if self.key_mask is None else self.key_mask[:, :pos])

    def select(self, rows: Int[Tensor, " row"]) -> KeyValues:
        """The keys and values of some rows of the batch, which may repeat."""
        layers = {layer: (k[rows], v[rows]) for layer, (k, v) in self.layers.items()}
        return KeyValues(layers, self.n_keys, None if self.key_mask is None else self.key_mask[rows])


@dataclass(frozen=True)
class Rows:
    """The tokens of one stack in one pass.

    `positions` count real tokens from 0 (padding takes its neighbour's number); the batch axis is 1 where all rows
    agree. `key_mask` covers stored keys and new ones; None means that every token is real. `past` is the number of
    keys that stand before the first query.
    """

    positions: Int[Tensor, "rows pos"]
    key_mask: Bool[Tensor, "batch k_pos"] | None = None
    past: int = 0
    n_keys: int = 0
    queries: Int[Tensor, " pos"] | None = None  # places of the queries among the keys; None: in order after `past`
    kept: Int[Tensor, " pos"] | None = None  # tokens that ask in this layer and go on after it; None: all of them
    relative: Float[Tensor, "bucket head"] | None = None  # the stack's bias of distances, for its self-attention
    max_distance: int = 128  # beyond which all distances share the last bucket
    _memo: dict[object, Tensor | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        n_tokens: int,
        mask: Bool[Tensor, "batch pos"] | None,
        past: KeyValues | None,
        device: torch.device,
    ) -> Rows:
        """Rows for `n_tokens` new tokens of which `mask` are real, after the stored ones."""
        before = past.n_keys if past else 0
        old = past.key_mask if past else None
        if mask is None and old is None:
            positions = torch.arange(before, before + n_tokens, device=device)[None]
            return cls(positions, None, before, before + n_tokens)
        batch = len(mask) if mask is not None else len(old)  # type: ignore[arg-type]
        full = [
            old if old is not None else torch.ones(batch, before, dtype=torch.bool, device=device),
            mask if mask is not None else torch.ones(batch, n_tokens, dtype=torch.bool, device=device),
        ]
        if len(full[0]) == 1 < batch:
            full[0] = full[0].expand(batch, -1)
        key_mask = torch.cat(full, dim=1)
        positions = (key_mask.long().cumsum(1) - 1).clamp(min=0)[:, before:]
        return cls(positions, key_mask, before, before + n_tokens)

    def at(self, pos: Int[Tensor, " pos"]) -> Rows:
        """The same keys, seen from some of the queries only (indices into these rows)."""
        places = self.queries if self.queries is not None else torch.arange(self.past, self.n_keys, device=pos.device)
        return replace(self, positions=self.positions[:, pos], queries=places[pos], kept=None, _memo={})

    def keeping(self, pos: Int[Tensor, " pos"]) -> Rows:
        """The same rows, of which only some tokens ask and go on: the others serve as keys and end with the layer."""
        return replace(self, kept=pos, _memo={})

    def keep(self, x: Float[Tensor, "batch pos *rest"]) -> Float[Tensor, "batch some_pos *rest"]:
        """A tensor of all tokens, cut to those that go on."""
        return x if self.kept is None else x[:, self.kept]

    @cached_property
    def asking(self) -> Rows:
        """The rows of the tokens that go on, as queries over all keys."""
        return self if self.kept is None else self.at(self.kept)

    def attend(
        self,
        function: Callable[..., Tensor],
        q: Float[Tensor, "batch pos head d_head"],
        k: Float[Tensor, "batch k_pos kv_head d_head"],
        v: Float[Tensor, "batch k_pos kv_head d_head"],
        tap: Callable[..., Tensor],
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Float[Tensor, "batch pos head d_head"], tuple[Tensor, Tensor]]:
        """What `function(q, k, v, rows, tap)` makes of the queries and all keys; and these keys and values."""
        if past is not None:
            k, v = _append(past[0], k), _append(past[1], v)
        return function(q, k, v, self, tap), (k, v)

    def select(self, batch: Int[Tensor, " row"]) -> Rows:
        """Some rows of the batch."""
        positions = self.positions if len(self.positions) == 1 else self.positions[batch]
        key_mask = None if self.key_mask is None else self.key_mask[batch]
        return replace(self, positions=positions, key_mask=key_mask, _memo={})

    def to(self, device: torch.device | str) -> Rows:
        moved = {
            name: None if (x := getattr(self, name)) is None else x.to(device)
            for name in ("positions", "key_mask", "queries", "relative")
        }
        return replace(self, **moved, _memo={})

    def across(self, memory: Rows) -> Rows:
        """The same queries over the keys of another text, as cross-attention has them."""
        return replace(self, key_mask=memory.key_mask, past=0, n_keys=memory.n_keys, relative=None, _memo={})

    def mask(self, config: AttentionConfig, n_queries: int) -> Bool[Tensor, "rows 1 q_pos k_pos"] | None:
        """True where a query may see a key; None where every query sees every key. Order, not position number,
        decides what is later, so padding does not matter to it."""
        key = ("mask", config.mask, config.window)
        if key not in self._memo:
            self._memo[key] = self._make_mask(config, n_queries)
        return self._memo[key]

    def distances(self) -> Int[Tensor, "rows q_pos k_pos"]:
        """How far each key stands behind (negative) or before its query, in real tokens."""
        places = self.queries
        if places is None:
            places = torch.arange(self.past, self.past + self.positions.shape[1], device=self.positions.device)
        if self.key_mask is None:
            return (torch.arange(self.n_keys, device=places.device)[None] - places[:, None])[None]
        counted = (self.key_mask.long().cumsum(1) - 1).clamp(min=0)
        return counted[:, None, :] - counted[:, places, None]

    def _make_mask(self, config: AttentionConfig, n_queries: int) -> Tensor | None:
        device = self.positions.device
        places = self.queries
        query = (torch.arange(self.past, self.past + n_queries, device=device) if places is None else places)[:, None]
        key = torch.arange(self.n_keys, device=device)[None, :]
        seen = None
        if config.mask == "causal" and (n_queries > 1 or places is not None):
            seen = key <= query
        if config.window is not None and self.n_keys > config.window:
            near = key > query - config.window
            if config.mask == "bidirectional":
                near = near & (key < query + config.window)
            seen = near if seen is None else seen & near
        seen = seen[None, None] if seen is not None else None
        if self.key_mask is not None:
            real = self.key_mask[:, None, None, :]
            seen = real.expand(-1, -1, n_queries, -1) if seen is None else seen & real
        return seen

    def plain_causal(self, config: AttentionConfig) -> bool:
        """Whether the mask is the bare lower triangle, which fused kernels know by themselves."""
        windowed = config.window is not None and self.n_keys > config.window
        whole = self.key_mask is None and self.past == 0 and self.queries is None
        return config.mask == "causal" and whole and not windowed

    def rotary(self, config: RotaryConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines `[rows pos 1 dim/2]` of these positions, computed in float32."""
        if ("cos", config, dtype) not in self._memo:
            angle = self.positions[..., None].float() * rotary_frequencies(config).to(self.positions.device)
            self._memo["cos", config, dtype] = angle.cos()[:, :, None].to(dtype)
            self._memo["sin", config, dtype] = angle.sin()[:, :, None].to(dtype)
        cos, sin = self._memo["cos", config, dtype], self._memo["sin", config, dtype]
        assert cos is not None and sin is not None
        return cos, sin


def rotate(
    x: Float[Tensor, "batch pos head d_head"], rows: Rows, config: RotaryConfig
) -> Float[Tensor, "batch pos head d_head"]:
    """Turn each pair of coordinates by an angle proportional to its position (Su 2021, §3.4)."""
    cos, sin = rows.rotary(config, x.dtype)
    turned, kept = (x, None) if config.dim == x.shape[-1] else x.split([config.dim, x.shape[-1] - config.dim], dim=-1)
    if config.interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
        both = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1).flatten(-2)
    else:
        first, second = turned.chunk(2, dim=-1)
        both = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return both if kept is None else torch.cat([both, kept], dim=-1)


def rotary_frequencies(config: RotaryConfig) -> Float[Tensor, " pair"]:
    """Radians per position of each pair of coordinates."""
    frequency = 1.0 / config.base ** (torch.arange(0, config.dim, 2).float() / config.dim)
    scaling = config.scaling
    if scaling is None:
        return frequency
    if scaling.kind == "linear":
        return frequency / scaling.factor
    # llama3: leave what turns fast, slow down what turns slowly, blend between
    turns = scaling.original_n_ctx * frequency / (2 * torch.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return keep * frequency + (1 - keep) * frequency / scaling.factor


def _append(old: Tensor, new: Tensor) -> Tensor:
    if len(old) == 1 < len(new):
        old = old.expand(len(new), *old.shape[1:])
    return torch.cat([old, new], dim=1)
