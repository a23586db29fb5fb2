"""Attention, in the order it happens: queries, keys and values; scores; bias and mask; pattern; what heads write.

Scores are q·k × scale, or v·tanh(q + k) × scale with a learned vector v of each head: additive scoring, the first
attention there was (Bahdanau 2015, §3.1 and A.1.2). Positions enter by rotating q and k, or as a bias on the scores: in
proportion to the distance (ALiBi, Press 2022), or learned for buckets of distances (Raffel 2020). A softcap bounds
scores. The mask hides what a query may not see: later keys (causal), keys beyond a window, padding. Without positions,
bidirectional self-attention does not know the order of its tokens.

Axes: `pos` (or `q_pos`) runs over the queries' text, `k_pos` over the keys', `kv_head` over key/value heads, which
several query heads share when the model groups its queries (Ainslie 2023). Self-attention has one text for both.
"""

from __future__ import annotations

import math

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from interp.model.config import AttentionConfig
from interp.model.norms import Norm
from interp.model.positions import Rows, rotate
from interp.model.taps import Tap

__all__ = [
    "Attention",
    "alibi_slopes",
    "attention_pattern",
    "attention_scores",
    "distance_bias",
    "distance_buckets",
    "head_results",
]

Projected = Float[Tensor, "batch pos head d_head"]
KeyOrValue = Float[Tensor, "batch k_pos kv_head d_head"]
Scores = Float[Tensor, "batch head q_pos k_pos"]


class Attention(nn.Module):
    """One attention layer over its own text or, given `memory`, over another (cross-attention)."""

    def __init__(self, config: AttentionConfig, d_model: int, address: str):
        super().__init__()
        self.config, self.address = config, address
        width, kv_width = config.n_heads * config.d_head, config.n_key_value_heads * config.d_head
        self.q = nn.Linear(d_model, width, bias=config.bias_qkv)
        self.k = nn.Linear(d_model, kv_width, bias=config.bias_qkv)
        self.v = nn.Linear(d_model, kv_width, bias=config.bias_qkv)
        self.o = nn.Linear(width, d_model, bias=config.bias_out)
        if config.qk_norm is not None:
            over_all = config.qk_norm_over == "all"
            sizes = (width, kv_width) if over_all else (config.d_head, config.d_head)
            self.q_norm = Norm(config.qk_norm, sizes[0], f"{address}q_norm.")
            self.k_norm = Norm(config.qk_norm, sizes[1], f"{address}k_norm.")
        if config.scoring == "additive":
            self.v_a = nn.Parameter(torch.empty(config.n_heads, config.d_head))

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        rows: Rows,
        tap: Tap,
        *,
        memory: Float[Tensor, "batch k_pos d_model"] | None = None,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Float[Tensor, "batch some_pos d_model"], tuple[Tensor, Tensor]]:
        """What the heads write together, and this layer's keys and values (stored ones in front)."""
        source, asking = (x, rows.asking) if memory is None else (memory, rows)
        q = tap(self.address + "hook_q", self._split(self.q(rows.keep(x) if memory is None else x)))
        k = tap(self.address + "hook_k", self._split(self.k(source)))
        v = tap(self.address + "hook_v", self._split(self.v(source)))
        if self.config.qk_norm is not None:
            q, k = self._normed(q, self.q_norm, tap), self._normed(k, self.k_norm, tap)
        if self.config.rotary is not None:
            q = tap(self.address + "hook_rot_q", rotate(q, asking, self.config.rotary))
            k = tap(self.address + "hook_rot_k", rotate(k, rows, self.config.rotary))
        z, keys_values = asking.attend(self.attend, q, k, v, tap, past)
        return self._write(tap(self.address + "hook_z", z), tap), keys_values

    def attend(self, q: Projected, k: KeyOrValue, v: KeyOrValue, rows: Rows, tap: Tap) -> Projected:
        """From queries, keys and values to z: the values averaged by the pattern. Scores and pattern are made only if
        this call asks for them."""
        needs_scores = tap.wants(self.address + "hook_attn_scores", self.address + "hook_pattern")
        if not needs_scores and self.config.softcap is None and self.config.scoring == "dot":
            return _fused(q, k, v, rows, self.config)
        scores = tap(self.address + "hook_attn_scores", self.scores(q, k, rows))
        pattern = tap(self.address + "hook_pattern", attention_pattern(scores))
        v = repeat(v, "batch k_pos kv_head d_head -> batch k_pos (kv_head group) d_head", group=self._group)
        return einsum(pattern, v, "batch head q_pos k_pos, batch k_pos head d_head -> batch q_pos head d_head")

    def scores(self, q: Projected, k: KeyOrValue, rows: Rows) -> Scores:
        """What the pattern is the softmax of, from queries and keys as they meet (normed, rotated)."""
        return attention_scores(q, k, rows, self.config, self.v_a if self.config.scoring == "additive" else None)

    def _write(self, z: Projected, tap: Tap) -> Float[Tensor, "batch pos d_model"]:
        name = self.address + "hook_result"
        if tap.wants(name):
            result = tap(name, head_results(z, self.W_O))
            if tap.edits(name):
                return result.sum(dim=2) + self.b_O
        return self.o(rearrange(z, "batch pos head d_head -> batch pos (head d_head)"))

    def _normed(self, x: Float[Tensor, "batch pos heads d_head"], norm: Norm, tap: Tap) -> Tensor:
        if self.config.qk_norm_over == "head":
            return norm(x, tap)
        return self._split(norm(rearrange(x, "batch pos head d_head -> batch pos (head d_head)"), tap))

    def _split(self, x: Float[Tensor, "batch pos width"]) -> Float[Tensor, "batch pos heads d_head"]:
        return rearrange(x, "batch pos (head d_head) -> batch pos head d_head", d_head=self.config.d_head)

    @property
    def _group(self) -> int:
        return self.config.n_heads // self.config.n_key_value_heads

    # Weights in the shapes of the papers, as views: row vectors, x W_Q.

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:
        return rearrange(self.q.weight, "(head d_head) d_model -> head d_model d_head", d_head=self.config.d_head)

    @property
    def W_K(self) -> Float[Tensor, "kv_head d_model d_head"]:
        return rearrange(self.k.weight, "(head d_head) d_model -> head d_model d_head", d_head=self.config.d_head)

    @property
    def W_V(self) -> Float[Tensor, "kv_head d_model d_head"]:
        return rearrange(self.v.weight, "(head d_head) d_model -> head d_model d_head", d_head=self.config.d_head)

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        return rearrange(self.o.weight, "d_model (head d_head) -> head d_head d_model", d_head=self.config.d_head)

    @property
    def b_Q(self) -> Float[Tensor, "head d_head"]:
        return self._bias(self.q)

    @property
    def b_K(self) -> Float[Tensor, "kv_head d_head"]:
        return self._bias(self.k)

    @property
    def b_V(self) -> Float[Tensor, "kv_head d_head"]:
        return self._bias(self.v)

    @property
    def b_O(self) -> Float[Tensor, " d_model"]:
        return self.o.bias if self.o.bias is not None else self.o.weight.new_zeros(len(self.o.weight))

    def _bias(self, linear: nn.Linear) -> Tensor:
        bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(len(linear.weight))
        return rearrange(bias, "(head d_head) -> head d_head", d_head=self.config.d_head)


def attention_scores(
    q: Projected,
    k: KeyOrValue,
    rows: Rows,
    config: AttentionConfig,
    v_a: Float[Tensor, "head d_head"] | None = None,
) -> Scores:
    """q·k × scale, or with `v_a` v_a·tanh(q + k) × scale; softcapped where the model does so, plus the bias of
    distances; −∞ where a query may not see a key."""
    assert (v_a is not None) == (config.scoring == "additive")
    scores = _dot(q * config.scale, k) if v_a is None else _additive(q, k, v_a) * config.scale
    if config.softcap is not None:
        scores = config.softcap * torch.tanh(scores / config.softcap)
    bias, mask = distance_bias(rows, config, scores.dtype), rows.mask(config, q.shape[1])
    scores = scores if bias is None else scores + bias
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


def _dot(q: Projected, k: KeyOrValue) -> Scores:
    grouped = rearrange(q, "batch q_pos (kv_head group) d_head -> batch q_pos kv_head group d_head", kv_head=k.shape[2])
    scores = einsum(
        grouped,
        k,
        "batch q_pos kv_head group d_head, batch k_pos kv_head d_head -> batch kv_head group q_pos k_pos",
    )
    return rearrange(scores, "batch kv_head group q_pos k_pos -> batch (kv_head group) q_pos k_pos")


def _additive(q: Projected, k: KeyOrValue, v_a: Float[Tensor, "head d_head"]) -> Scores:
    """Every query with every key takes d_head numbers: memory grows with q_pos × k_pos × d_head."""
    k = repeat(k, "batch k_pos kv_head d_head -> batch k_pos (kv_head group) d_head", group=q.shape[2] // k.shape[2])
    met = torch.tanh(
        rearrange(q, "batch q_pos head d_head -> batch head q_pos 1 d_head")
        + rearrange(k, "batch k_pos head d_head -> batch head 1 k_pos d_head")
    )
    return einsum(met, v_a, "batch head q_pos k_pos d_head, head d_head -> batch head q_pos k_pos")


def distance_bias(
    rows: Rows, config: AttentionConfig, dtype: torch.dtype
) -> Float[Tensor, "rows head q_pos k_pos"] | None:
    """What is added to the scores for the distance between query and key; None where nothing is."""
    if config.alibi is not None:
        slopes = alibi_slopes(config.n_heads).to(rows.positions.device)
        return (config.alibi * slopes[:, None, None] * rows.distances()[:, None]).to(dtype)
    if rows.relative is None:
        return None
    buckets = distance_buckets(
        rows.distances(), len(rows.relative), rows.max_distance, both_ways=config.mask == "bidirectional"
    )
    return rearrange(rows.relative[buckets], "rows q_pos k_pos head -> rows head q_pos k_pos").to(dtype)


def alibi_slopes(n_heads: int) -> Float[Tensor, " head"]:
    """2^(−8/n), 2^(−16/n), … for n a power of two; else those of the next smaller one, and every other one of the next
    larger (Press 2022, §3 and its code)."""
    n = 2 ** math.floor(math.log2(n_heads))
    slopes = 2.0 ** (-8.0 / n * torch.arange(1, n + 1))
    between = 2.0 ** (-4.0 / n * (2 * torch.arange(n_heads - n) + 1))
    return torch.cat([slopes, between])


def distance_buckets(
    distances: Int[Tensor, "rows q_pos k_pos"], n_buckets: int, max_distance: int, *, both_ways: bool
) -> Int[Tensor, "rows q_pos k_pos"]:
    """The bucket of each distance (Raffel 2020): half of them exact, half logarithmic up to `max_distance`; where keys
    may stand on both sides, half of either for each side."""
    n, offset = n_buckets, torch.zeros_like(distances)
    if both_ways:
        n //= 2
        offset = (distances > 0).long() * n
        far = distances.abs()
    else:
        far = (-distances).clamp(min=0)
    exact = n // 2
    ratio = torch.log(far.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    wide = (exact + (ratio * (n - exact)).long()).clamp(max=n - 1)
    return offset + torch.where(far < exact, far, wide)


def attention_pattern(scores: Scores) -> Scores:
    """Softmax over the keys, in float32 or wider. A query that may see no key (padding) gets zeros, not NaN."""
    wide = scores if scores.dtype == torch.float64 else scores.float()
    empty = wide.amax(dim=-1, keepdim=True) == -torch.inf
    pattern = wide.masked_fill(empty, 0.0).softmax(dim=-1).masked_fill(empty, 0.0)
    return pattern.to(scores.dtype)


def head_results(z: Projected, W_O: Float[Tensor, "head d_head d_model"]) -> Float[Tensor, "batch pos head d_model"]:
    """What each head adds to the residual stream; with b_O they sum to attn_out."""
    return einsum(z, W_O, "batch pos head d_head, head d_head d_model -> batch pos head d_model")


def _fused(q: Projected, k: KeyOrValue, v: KeyOrValue, rows: Rows, config: AttentionConfig) -> Projected:
    """The same as scores, pattern and averaging, in one kernel that never stores the pattern."""
    bias = distance_bias(rows, config, q.dtype)
    causal = bias is None and rows.plain_causal(config)
    mask = None if causal else rows.mask(config, q.shape[1])
    blind = None
    if mask is not None and rows.key_mask is not None:  # kernels differ on queries that see nothing
        blind = ~mask.any(dim=-1, keepdim=True)
        mask = mask | blind
    if bias is not None:
        mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
    z = F.scaled_dot_product_attention(
        *(rearrange(x, "batch pos head d_head -> batch head pos d_head") for x in (q, k, v)),
        attn_mask=mask,
        is_causal=causal and q.shape[1] > 1,
        scale=config.scale,
        enable_gqa=config.n_heads != config.n_key_value_heads,
    )
    if blind is not None:
        z = z.masked_fill(blind, 0.0)
    return rearrange(z, "batch head pos d_head -> batch pos head d_head")
