"""One layer: sublayers that read the residual stream through a norm and add to it.

Each kind of block can be entered and left at its residual cuts, so a pass may resume in the middle of a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

from jaxtyping import Float
from torch import Tensor, nn

from interp.model.attention import Attention
from interp.model.config import AttentionConfig, BlockConfig
from interp.model.mlp import make_mlp
from interp.model.norms import Norm
from interp.model.positions import Rows
from interp.model.taps import Tap

__all__ = [
    "AttentionOnlyBlock",
    "Block",
    "CrossBlock",
    "Memory",
    "ParallelBlock",
    "SequentialBlock",
    "block_kind",
    "make_block",
]

Resid = Float[Tensor, "batch pos d_model"]
Kept = Float[Tensor, "batch some_pos d_model"]  # of the tokens that go on: all, unless the rows say otherwise
KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Memory:
    """What a decoder's cross-attention reads: an encoder's output and the rows it belongs to."""

    resid: Resid
    rows: Rows


class Block(nn.Module):
    """What all kinds share: sublayers numbered from 1, and where their norms stand.

    A sublayer n reads the residual (`_read`), what it makes is prepared (`_written`) and added, and the sum may be
    normed (`_settled`); the config's `norms` says which of the three has a norm.
    """

    sublayers: ClassVar[tuple[str, ...]] = ("attn",)  # each sublayer's kind, in order

    def __init__(self, config: BlockConfig, d_model: int, address: str):
        super().__init__()
        self.config, self.address = config, address
        self.attn = Attention(config.attn, d_model, f"{address}attn.")
        for part in self.norm_parts(config):
            setattr(self, part, Norm(config.norm, d_model, f"{address}{part}."))

    def forward(
        self, resid: Resid, rows: Rows, tap: Tap, *, past: KeysValues | None = None, memory: Memory | None = None
    ) -> tuple[Kept, KeysValues]:
        """The residual stream after this layer, and the layer's keys and values."""
        raise NotImplementedError

    @classmethod
    def tensors(cls, config: BlockConfig) -> list[str]:
        """Paths of the block's sites, in the order the forward pass reaches them."""
        names = ["hook_resid_pre"]
        for n, kind in enumerate(cls.sublayers, start=1):
            made, added, cut = _SUBLAYERS[kind]
            cut = "hook_resid_post" if n == len(cls.sublayers) else cut
            names += _norm(f"ln{n}", config) if config.norms in ("pre", "both") else []
            names += made(config)
            if config.norms in ("output", "both"):
                names += [f"ln{n}_post.hook_in", *_norm(f"ln{n}_post", config)]
            names.append(added)
            names += _norm(f"ln{n}", config) if config.norms == "post" else []
            names.append(cut)
        return names

    @classmethod
    def norm_parts(cls, config: BlockConfig) -> list[str]:
        """The names of the block's norms."""
        numbers = range(1, len(cls.sublayers) + 1)
        own = [f"ln{n}" for n in numbers] if config.norms != "output" else []
        return own + ([f"ln{n}_post" for n in numbers] if config.norms in ("output", "both") else [])

    @classmethod
    def norm_inputs(cls, config: BlockConfig) -> dict[str, tuple[str, ...]]:
        """Each norm -> the sites that its input is the sum of."""
        found: dict[str, tuple[str, ...]] = {}
        before = "hook_resid_pre"
        for n, kind in enumerate(cls.sublayers, start=1):
            _, added, cut = _SUBLAYERS[kind]
            if config.norms in ("pre", "both"):
                found[f"ln{n}"] = (before,)
            if config.norms == "post":
                found[f"ln{n}"] = (before, added)
            if config.norms in ("output", "both"):
                found[f"ln{n}_post"] = (f"ln{n}_post.hook_in",)
            before = cut
        return found

    def _norm_of(self, part: str) -> Norm:
        return cast(Norm, getattr(self, part))

    def _read(self, n: int, resid: Resid, tap: Tap) -> Resid:
        return self._norm_of(f"ln{n}")(resid, tap) if self.config.norms in ("pre", "both") else resid

    def _written(self, n: int, out: Kept, tap: Tap) -> Kept:
        if self.config.norms in ("output", "both"):
            out = self._norm_of(f"ln{n}_post")(tap(f"{self.address}ln{n}_post.hook_in", out), tap)
        return out if self.config.residual_scale == 1.0 else out * self.config.residual_scale

    def _settled(self, n: int, total: Kept, tap: Tap) -> Kept:
        return self._norm_of(f"ln{n}")(total, tap) if self.config.norms == "post" else total

    def _attended(
        self, resid: Resid, rows: Rows, tap: Tap, cut: str, past: KeysValues | None
    ) -> tuple[Kept, KeysValues]:
        """The first sublayer: from resid_pre to the cut behind attention to the own text."""
        resid = tap(self.address + "hook_resid_pre", resid)
        out, keys_values = self.attn(self._read(1, resid, tap), rows, tap, past=past)
        out = tap(self.address + "hook_attn_out", self._written(1, out, tap))
        return tap(self.address + cut, self._settled(1, rows.keep(resid) + out, tap)), keys_values


class SequentialBlock(Block):
    """Attention, then the MLP on what attention left."""

    sublayers: ClassVar[tuple[str, ...]] = ("attn", "mlp")

    def __init__(self, config: BlockConfig, d_model: int, address: str):
        super().__init__(config, d_model, address)
        assert config.mlp is not None
        self.mlp = make_mlp(config.mlp, d_model, f"{address}mlp.")

    def forward(
        self, resid: Resid, rows: Rows, tap: Tap, *, past: KeysValues | None = None, memory: Memory | None = None
    ) -> tuple[Kept, KeysValues]:
        resid_mid, keys_values = self.attention_half(resid, rows, tap, past=past)
        return self.mlp_half(resid_mid, tap), keys_values

    def attention_half(
        self, resid: Resid, rows: Rows, tap: Tap, *, past: KeysValues | None = None
    ) -> tuple[Kept, KeysValues]:
        """resid_pre to resid_mid."""
        return self._attended(resid, rows, tap, "hook_resid_mid", past)

    def mlp_half(self, resid_mid: Resid, tap: Tap) -> Resid:
        """The last cut before the MLP (already tapped) to resid_post."""
        n = len(self.sublayers)
        out = self._written(n, self.mlp(self._read(n, resid_mid, tap), tap), tap)
        out = tap(self.address + "hook_mlp_out", out)
        return tap(self.address + "hook_resid_post", self._settled(n, resid_mid + out, tap))


class AttentionOnlyBlock(Block):
    """Attention and nothing else, as in Elhage 2021 and most toy models."""

    def forward(
        self, resid: Resid, rows: Rows, tap: Tap, *, past: KeysValues | None = None, memory: Memory | None = None
    ) -> tuple[Kept, KeysValues]:
        return self._attended(resid, rows, tap, "hook_resid_post", past)


class ParallelBlock(SequentialBlock):
    """Attention and MLP side by side on the same residual (GPT-J, GPT-NeoX). There is no resid_mid."""

    def forward(
        self, resid: Resid, rows: Rows, tap: Tap, *, past: KeysValues | None = None, memory: Memory | None = None
    ) -> tuple[Kept, KeysValues]:
        resid = tap(self.address + "hook_resid_pre", resid)
        for_attn = self._read(1, resid, tap)
        attn_out, keys_values = self.attn(for_attn, rows, tap, past=past)
        attn_out = tap(self.address + "hook_attn_out", self._written(1, attn_out, tap))
        resid = rows.keep(resid)
        for_mlp = rows.keep(for_attn) if self.config.shared_norm else self._read(2, resid, tap)
        mlp_out = tap(self.address + "hook_mlp_out", self._written(2, self.mlp(for_mlp, tap), tap))
        return tap(self.address + "hook_resid_post", resid + attn_out + mlp_out), keys_values

    @classmethod
    def tensors(cls, config: BlockConfig) -> list[str]:
        names = [name for name in super().tensors(config) if name != "hook_resid_mid"]
        return [name for name in names if not (config.shared_norm and name.startswith("ln2."))]

    @classmethod
    def norm_parts(cls, config: BlockConfig) -> list[str]:
        return ["ln1"] if config.shared_norm else super().norm_parts(config)

    @classmethod
    def norm_inputs(cls, config: BlockConfig) -> dict[str, tuple[str, ...]]:
        return {part: ("hook_resid_pre",) for part in cls.norm_parts(config)}


class CrossBlock(SequentialBlock):
    """A decoder's layer over an encoder: attention to its own text, then to the other, then the MLP."""

    sublayers: ClassVar[tuple[str, ...]] = ("attn", "cross_attn", "mlp")

    def __init__(self, config: BlockConfig, d_model: int, address: str):
        super().__init__(config, d_model, address)
        assert config.cross_attn is not None
        self.cross_attn = Attention(config.cross_attn, d_model, f"{address}cross_attn.")

    def forward(
        self, resid: Resid, rows: Rows, tap: Tap, *, past: KeysValues | None = None, memory: Memory | None = None
    ) -> tuple[Kept, KeysValues]:
        resid, keys_values = self.attention_half(resid, rows, tap, past=past)
        return self.mlp_half(self.cross_half(resid, rows.asking, tap, memory), tap), keys_values

    def cross_half(self, resid_mid: Resid, rows: Rows, tap: Tap, memory: Memory | None) -> Resid:
        """resid_mid to resid_mid_cross."""
        assert memory is not None
        across = rows.across(memory.rows)
        out, _ = self.cross_attn(self._read(2, resid_mid, tap), across, tap, memory=memory.resid)
        out = tap(self.address + "hook_cross_attn_out", self._written(2, out, tap))
        return tap(self.address + "hook_resid_mid_cross", self._settled(2, resid_mid + out, tap))


def block_kind(config: BlockConfig) -> type[Block]:
    """The class whose parts a block config describes."""
    if config.cross_attn is not None:
        return CrossBlock
    if config.mlp is None:
        return AttentionOnlyBlock
    return ParallelBlock if config.residual == "parallel" else SequentialBlock


def make_block(config: BlockConfig, d_model: int, address: str) -> Block:
    return block_kind(config)(config, d_model, address)


# Each kind of sublayer: its own tensors, what it adds to the residual, and the cut behind it (unless it is the last).
_SUBLAYERS: dict[str, tuple[Callable[[BlockConfig], list[str]], str, str]] = {
    "attn": (lambda config: _attention("attn", config.attn), "hook_attn_out", "hook_resid_mid"),
    "cross_attn": (
        lambda config: _attention("cross_attn", cast(AttentionConfig, config.cross_attn)),
        "hook_cross_attn_out",
        "hook_resid_mid_cross",
    ),
    "mlp": (lambda config: _mlp(config), "hook_mlp_out", "hook_resid_post"),
}


def _norm(part: str, config: BlockConfig) -> list[str]:
    return [f"{part}.hook_scale", f"{part}.hook_normalized"] if config.norm.kind != "none" else []


def _attention(part: str, config: AttentionConfig) -> list[str]:
    rotated = ["hook_rot_q", "hook_rot_k"] if config.rotary is not None else []
    names = ["hook_q", "hook_k", "hook_v", *rotated, "hook_attn_scores", "hook_pattern", "hook_z", "hook_result"]
    return [f"{part}.{name}" for name in names]


def _mlp(config: BlockConfig) -> list[str]:
    assert config.mlp is not None
    return ["mlp.hook_pre", *(["mlp.hook_pre_linear"] if config.mlp.gated else []), "mlp.hook_post"]
