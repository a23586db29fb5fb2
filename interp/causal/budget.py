"""What a sweep needs of time and memory: estimates that a plan prints, and the limits that its waves keep."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from interp.causal.bundles import Bundle
from interp.causal.texts import Text
from interp.errors import InputError
from interp.model.config import BlockConfig
from interp.model.transformer import HookedTransformer
from interp.sites import Site

__all__ = ["Budget", "weights_per_token", "working_rate"]

_DEFAULT_BYTES = 1 << 30
_MAX_TOKENS = 4_096  # of one wave: matrices get no faster beyond, and progress comes and cancels take effect sooner


@dataclass(frozen=True)
class Budget:
    """Bytes of a token that is stored (unedited recordings) and of one that a wave carries; half of `limit` is for
    either."""

    limit: int
    stored_token: int
    live_token: int
    wave_tokens: int

    @classmethod
    def of(cls, model: HookedTransformer, texts: Sequence[Text], bundles: Sequence[Bundle], max_bytes: Any) -> Budget:
        """Raises `InputError` for a bound that does not even hold one cell."""
        if max_bytes is not None and (isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1):
            raise InputError(f"max_bytes is {max_bytes!r}. Give bytes, e.g. max_bytes=512 << 20, or None.")
        size, limit = model.dtype.itemsize, max_bytes or _DEFAULT_BYTES
        stored = size * _stored_numbers(model, texts, bundles)
        live = size * _live_numbers(model, texts, bundles)
        longest = max((carried(model, texts[bundle.text], bundle) for bundle in bundles), default=1)
        tokens = limit // 2 // live
        if max_bytes is not None and tokens < longest:
            raise InputError(
                f"max_bytes={max_bytes:,} is too little for one cell of {longest} tokens. "
                f"Give {2 * longest * live:,} or more."
            )
        return cls(limit, stored, live, max(min(tokens, _MAX_TOKENS), longest))

    def groups(self, texts: Sequence[Text]) -> list[list[int]]:
        """Texts whose unedited recordings fit into half of the memory together."""
        groups: list[list[int]] = []
        used = 0
        for number, text in enumerate(texts):
            size = (len(text.tokens) + len(text.encoder)) * self.stored_token
            if not groups or used + size > self.limit // 2:
                groups.append([])
                used = 0
            groups[-1].append(number)
            used += size
        return groups

    def peak(self, texts: Sequence[Text], live_tokens: int) -> int:
        """Bytes while cells of these texts are computed."""
        stored = sum(len(text.tokens) + len(text.encoder) for text in texts)
        return stored * self.stored_token + min(live_tokens, self.wave_tokens) * self.live_token


def carried(model: HookedTransformer, text: Text, bundle: Bundle) -> int:
    """Tokens of one cell, in the longer of the stacks that it goes through."""
    if bundle.stack == model.main.name:
        return len(text.tokens) - bundle.start
    return max(len(text.tokens), len(text.encoder))


def working_rate(model: HookedTransformer) -> float:
    """Operations per second of this machine on matrices of this model's width, measured once."""
    return _measured_rate(model.cfg.d_model, model.dtype, model.device, torch.get_num_threads())


def weights_per_token(block: BlockConfig, d_model: int) -> int:
    """Multiplications of one token in one layer, attention scores left out."""
    attn, mlp = block.attn, block.mlp
    count = 2 * d_model * attn.d_head * (attn.n_heads + attn.n_key_value_heads)
    return count + ((3 if mlp.gated else 2) * d_model * mlp.d_mlp if mlp is not None else 0)


def _stored_numbers(model: HookedTransformer, texts: Sequence[Text], bundles: Sequence[Bundle]) -> int:
    """Residuals where cells join, keys and values, and the sites copied from."""
    numbers = len({bundle.first_layer for bundle in bundles}) * model.cfg.d_model
    numbers += sum(2 * block.attn.n_key_value_heads * block.attn.d_head for block in model.main.config.blocks)
    longest = max((len(text.tokens) + len(text.encoder) for text in texts), default=1)
    taken = {(op.site, op.bank) for bundle in bundles for op in bundle.ops if op.bank not in ("zero", "mean")}
    return numbers + sum(_width(site, model, longest) for site, _ in taken)


def _live_numbers(model: HookedTransformer, texts: Sequence[Text], bundles: Sequence[Bundle]) -> int:
    """The residual before, between and after the halves, q, k, v and z, and the MLP's inner tensors."""
    attn, mlp = model.main.config.blocks[0].attn, model.main.config.blocks[0].mlp
    width = attn.n_heads * attn.d_head
    numbers = 6 * model.cfg.d_model + 6 * width + (4 * mlp.d_mlp if mlp is not None else 0)
    ops = {(bundle.stack, op.in_memory, op.in_attention) for bundle in bundles for op in bundle.ops}
    if any(stack != model.main.name or in_memory for stack, in_memory, _ in ops):
        numbers += 2 * model.cfg.d_model + 4 * width  # each cell has an encoding of its own
    n_keys = max((len(text.tokens) for text in texts), default=1)
    if any(in_attention for _, _, in_attention in ops) or attn.softcap is not None:
        numbers += 4 * attn.n_heads * n_keys
    if attn.scoring == "additive":
        numbers += 3 * width * n_keys
    return numbers


def _width(site: Site, model: HookedTransformer, n_keys: int) -> int:
    """Numbers that a site holds for each token."""
    if site.layer is None:
        return model.cfg.d_model
    block = model.cfg.stacks[site.stack].blocks[site.layer]
    attn = block.cross_attn if site.part == "cross_attn" else block.attn
    sizes = {
        "head": attn.n_heads if attn else 0,
        "kv_head": attn.n_key_value_heads if attn else 0,
        "d_head": attn.d_head if attn else 0,
        "d_mlp": block.mlp.d_mlp if block.mlp else 0,
        "d_model": model.cfg.d_model,
        "k_pos": n_keys,
    }
    return math.prod(sizes[axis] for axis in site.axes if axis in sizes)


@cache
def _measured_rate(width: int, dtype: torch.dtype, device: torch.device, n_threads: int) -> float:
    a, b = torch.ones(512, width, dtype=dtype, device=device), torch.ones(width, 4 * width, dtype=dtype, device=device)
    c = a @ b  # the first product pays for setting up
    began = time.perf_counter()
    for _ in range(3):
        c = a @ b
    float(c[0, 0])
    return 3 * 2 * 512 * 4 * width**2 / max(time.perf_counter() - began, 1e-9)
