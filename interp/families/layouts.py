"""How checkpoints lay their tensors out: tables of names by kind of part, and the shapes that several parts share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from interp.errors import CheckpointError
from interp.families.base import Join, Split, WeightRule, WeightTable
from interp.model.config import ModelConfig

__all__ = [
    "GATED",
    "LLAMA_LINEARS",
    "LLAMA_NORMS",
    "QKV",
    "decoder_table",
    "grouped_qkv",
    "halves",
    "joined_groups",
    "joined_rows",
    "retransposed_qkv",
    "stacked_qkv",
    "transposed",
    "transposed_qkv",
]

QKV = ("attn.q", "attn.k", "attn.v")
GATED = ("mlp.gate", "mlp.up")
LLAMA_LINEARS = {
    "self_attn.q_proj": "attn.q",
    "self_attn.k_proj": "attn.k",
    "self_attn.v_proj": "attn.v",
    "self_attn.o_proj": "attn.o",
    "mlp.gate_proj": "mlp.gate",
    "mlp.up_proj": "mlp.up",
    "mlp.down_proj": "mlp.down",
}
LLAMA_NORMS = {"input_layernorm": "ln1", "post_attention_layernorm": "ln2"}


def decoder_table(
    *,
    root: str = "model.",
    layers: str = "layers",
    linears: Mapping[str, str] = LLAMA_LINEARS,
    norms: Mapping[str, str] = LLAMA_NORMS,
    fused: Mapping[str, tuple[tuple[str, ...], Split, Join]] | None = None,
    turned: bool = False,
    embed: str = "embed_tokens",
    others: tuple[WeightRule, ...] = (),
    final: str = "norm",
    head: str = "lm_head",
    harmless: tuple[str, ...] = ("self_attn.rotary_emb.inv_freq",),
) -> WeightTable:
    """The names of a decoder's tensors from those of its parts: the hub's part -> ours.

    `fused` holds parts that become several, how, and how they become one again; `turned` says that linear weights
    are stored `[in, out]` (Conv1D). Names in `harmless` are buffers inside a layer. A part's bias is
    taken wherever there is one.
    """
    layer, ours = f"{root}{layers}.{{l}}.", "decoder.blocks.{l}."
    rules = list(others)
    for hub, part in linears.items():
        turn, back = (transposed, retransposed) if turned else (None, None)
        rules.append(WeightRule(f"{layer}{hub}.weight", (f"{ours}{part}.weight",), turn, join=back))
        rules.append(WeightRule(f"{layer}{hub}.bias", (f"{ours}{part}.bias",)))
    for hub, (parts, split, join) in (fused or {}).items():
        rules += [
            WeightRule(f"{layer}{hub}.{kind}", tuple(f"{ours}{part}.{kind}" for part in parts), split, join=join)
            for kind in ("weight", "bias")
        ]
    places = {f"{layer}{hub}": f"{ours}{part}" for hub, part in norms.items()} | {f"{root}{final}": "decoder.ln_final"}
    for hub, part in places.items():
        rules += [WeightRule(f"{hub}.weight", (f"{part}.w",)), WeightRule(f"{hub}.bias", (f"{part}.b",))]
    rules.append(WeightRule(f"{root}{embed}.weight", ("decoder.embed.weight",)))
    rules += [WeightRule(f"{head}.{kind}", (f"unembed.{kind}",)) for kind in ("weight", "bias")]
    return WeightTable(tuple(rules), tuple(layer + name for name in harmless), root)


def transposed(tensor: Tensor, config: ModelConfig) -> tuple[Tensor]:
    """A Conv1D's weight `[in, out]` as a linear map's `[out, in]`."""
    return (rearrange(tensor, "d_in d_out -> d_out d_in").contiguous(),)


def retransposed(parts: Sequence[Tensor], config: ModelConfig) -> Tensor:
    return transposed(parts[0], config)[0]


def grouped_qkv(tensor: Tensor, config: ModelConfig) -> tuple[Tensor, ...]:
    """Rows in groups, one for each key/value head: its queries, its key, its value (GPT-NeoX, BLOOM, Falcon)."""
    _check_rows(tensor, config)
    groups = rearrange(
        tensor, "(kv_head part d_head) ... -> kv_head part d_head ...", kv_head=_kv(config), d_head=config.d_head
    )
    q = rearrange(groups[:, :-2], "kv_head group d_head ... -> (kv_head group d_head) ...")
    k, v = (rearrange(groups[:, part], "kv_head d_head ... -> (kv_head d_head) ...") for part in (-2, -1))
    return q.contiguous(), k.contiguous(), v.contiguous()


def joined_groups(parts: Sequence[Tensor], config: ModelConfig) -> Tensor:
    """The inverse of `grouped_qkv`."""
    split = "(kv_head group d_head) ... -> kv_head group d_head ..."
    groups = [rearrange(part, split, kv_head=_kv(config), d_head=config.d_head) for part in parts]
    return rearrange(torch.cat(groups, dim=1), "kv_head part d_head ... -> (kv_head part d_head) ...")


def stacked_qkv(tensor: Tensor, config: ModelConfig) -> tuple[Tensor, ...]:
    """All rows of the queries, then of the keys, then of the values (Phi-3)."""
    _check_rows(tensor, config)
    kv = _kv(config) * config.d_head
    return tuple(part.contiguous() for part in tensor.split([config.n_heads * config.d_head, kv, kv]))


def joined_rows(parts: Sequence[Tensor], config: ModelConfig) -> Tensor:
    """The inverse of `stacked_qkv` and of `halves`."""
    return torch.cat(list(parts))


def transposed_qkv(tensor: Tensor, config: ModelConfig) -> tuple[Tensor, ...]:
    """The same as columns of a Conv1D (GPT-2); its bias has no other axis."""
    return stacked_qkv(tensor if tensor.ndim == 1 else transposed(tensor, config)[0], config)


def retransposed_qkv(parts: Sequence[Tensor], config: ModelConfig) -> Tensor:
    """The inverse of `transposed_qkv`."""
    rows = joined_rows(parts, config)
    return rows if rows.ndim == 1 else transposed(rows, config)[0]


def halves(tensor: Tensor, config: ModelConfig) -> tuple[Tensor, ...]:
    """Two parts of equal size, one after the other."""
    if len(tensor) % 2:
        raise CheckpointError(f"A tensor of {len(tensor)} rows is no pair of equal parts. Get a sound copy.")
    return tuple(part.contiguous() for part in tensor.chunk(2))


def _kv(config: ModelConfig) -> int:
    return config.n_key_value_heads


def _check_rows(tensor: Tensor, config: ModelConfig) -> None:
    expected: Any = (config.n_heads + 2 * _kv(config)) * config.d_head
    if len(tensor) != expected:
        raise CheckpointError(
            f"A fused q/k/v tensor has {len(tensor)} rows, but {config.n_heads} heads over {_kv(config)} key/value "
            f"heads of {config.d_head} need {expected}. Get a sound copy."
        )
