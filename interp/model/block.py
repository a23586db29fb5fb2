"""One layer: sublayers that read the residual stream through a norm and add to it.

Each kind of block can be entered and left at its residual cuts, so a pass may resume in the middle of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

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
    """What all kinds share. `norm_inputs` says which residual cut each norm reads."""

    norm_inputs: ClassVar[dict[str, str]] = {"ln1": "hook_resid_pre"}

    def __init__(self, config: BlockConfig, d_model: int, address: str):
        super().__init__()
        self.config, self.address = config, address
        self.ln1 = Norm(config.norm, d_model, f"{address}ln1.")
        self.attn = Attention(config.attn, d_model, f"{address}attn.")

    def forward(
        self, resid: Resid, rows: Rows, tap: Tap, *, past: KeysValues | None = None, memory: Memory | None = None
    ) -> tuple[Kept, KeysValues]:
        """The residual stream after this layer, and the layer's keys and values."""
        raise NotImplementedError

    @classmethod
    def tensors(cls, config: BlockConfig) -> list[str]:
        """Paths of the block's sites, in the order the forward pass reaches them."""
        raise NotImplementedError


class SequentialBlock(Block):
    """Attention, then the MLP on what attention left."""

    norm_inputs: ClassVar[dict[str, str]] = {"ln1": "hook_resid_pre", "ln2": "hook_resid_mid"}

    def __init__(self, config: BlockConfig, d_model: int, address: str):
        super().__init__(config, d_model, address)
        assert config.mlp is not None
        self.ln2 = Norm(config.norm, d_model, f"{address}ln2.")
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
        resid = tap(self.address + "hook_resid_pre", resid)
        attn_out, keys_values = self.attn(self.ln1(resid, tap), rows, tap, past=past)
        attn_out = tap(self.address + "hook_attn_out", attn_out)
        return tap(self.address + "hook_resid_mid", rows.keep(resid) + attn_out), keys_values

    def mlp_half(self, resid_mid: Resid, tap: Tap) -> Resid:
        """resid_mid (already tapped) to resid_post."""
        mlp_out = tap(self.address + "hook_mlp_out", self.mlp(self.ln2(resid_mid, tap), tap))
        return tap(self.address + "hook_resid_post", resid_mid + mlp_out)

    @classmethod
    def tensors(cls, config: BlockConfig) -> list[str]:
        return [
            "hook_resid_pre",
            *_norm("ln1", config),
            *_attention("attn", config.attn),
            "hook_attn_out",
            "hook_resid_mid",
            *_norm("ln2", config),
            *_mlp(config),
            "hook_mlp_out",
            "hook_resid_post",
        ]


class AttentionOnlyBlock(Block):
    """Attention and nothing else, as in Elhage 2021 and most toy models."""

    def forward(
        self, resid: Resid, rows: Rows, tap: Tap, *, past: KeysValues | None = None, memory: Memory | None = None
    ) -> tuple[Kept, KeysValues]:
        resid = tap(self.address + "hook_resid_pre", resid)
        attn_out, keys_values = self.attn(self.ln1(resid, tap), rows, tap, past=past)
        attn_out = tap(self.address + "hook_attn_out", attn_out)
        return tap(self.address + "hook_resid_post", rows.keep(resid) + attn_out), keys_values

    @classmethod
    def tensors(cls, config: BlockConfig) -> list[str]:
        attention = _attention("attn", config.attn)
        return ["hook_resid_pre", *_norm("ln1", config), *attention, "hook_attn_out", "hook_resid_post"]


class ParallelBlock(SequentialBlock):
    """Attention and MLP side by side on the same residual (GPT-J, GPT-NeoX). There is no resid_mid."""

    norm_inputs: ClassVar[dict[str, str]] = {"ln1": "hook_resid_pre", "ln2": "hook_resid_pre"}

    def __init__(self, config: BlockConfig, d_model: int, address: str):
        super().__init__(config, d_model, address)
        if config.shared_norm:
            del self.ln2

    def forward(
        self, resid: Resid, rows: Rows, tap: Tap, *, past: KeysValues | None = None, memory: Memory | None = None
    ) -> tuple[Kept, KeysValues]:
        resid = tap(self.address + "hook_resid_pre", resid)
        for_attn = self.ln1(resid, tap)
        attn_out, keys_values = self.attn(for_attn, rows, tap, past=past)
        attn_out = tap(self.address + "hook_attn_out", attn_out)
        resid = rows.keep(resid)
        for_mlp = rows.keep(for_attn) if self.config.shared_norm else self.ln2(resid, tap)
        mlp_out = tap(self.address + "hook_mlp_out", self.mlp(for_mlp, tap))
        return tap(self.address + "hook_resid_post", resid + attn_out + mlp_out), keys_values

    @classmethod
    def tensors(cls, config: BlockConfig) -> list[str]:
        names = [name for name in super().tensors(config) if name != "hook_resid_mid"]
        return [name for name in names if not (config.shared_norm and name.startswith("ln2."))]


class CrossBlock(SequentialBlock):
    """A decoder's layer over an encoder: attention to its own text, then to the other, then the MLP."""

    norm_inputs: ClassVar[dict[str, str]] = {
        "ln1": "hook_resid_pre",
        "ln2": "hook_resid_mid",
        "ln3": "hook_resid_mid_cross",
    }

    def __init__(self, config: BlockConfig, d_model: int, address: str):
        super().__init__(config, d_model, address)
        assert config.cross_attn is not None
        self.cross_attn = Attention(config.cross_attn, d_model, f"{address}cross_attn.")
        self.ln3 = Norm(config.norm, d_model, f"{address}ln3.")

    def forward(
        self, resid: Resid, rows: Rows, tap: Tap, *, past: KeysValues | None = None, memory: Memory | None = None
    ) -> tuple[Kept, KeysValues]:
        resid, keys_values = self.attention_half(resid, rows, tap, past=past)
        resid = self.cross_half(resid, rows.asking, tap, memory)
        mlp_out = tap(self.address + "hook_mlp_out", self.mlp(self.ln3(resid, tap), tap))
        return tap(self.address + "hook_resid_post", resid + mlp_out), keys_values

    def cross_half(self, resid_mid: Resid, rows: Rows, tap: Tap, memory: Memory | None) -> Resid:
        """resid_mid to resid_mid_cross."""
        assert memory is not None
        across = rows.across(memory.rows)
        out, _ = self.cross_attn(self.ln2(resid_mid, tap), across, tap, memory=memory.resid)
        out = tap(self.address + "hook_cross_attn_out", out)
        return tap(self.address + "hook_resid_mid_cross", resid_mid + out)

    @classmethod
    def tensors(cls, config: BlockConfig) -> list[str]:
        assert config.cross_attn is not None
        names = super().tensors(config)
        cross = [*_attention("cross_attn", config.cross_attn), "hook_cross_attn_out", "hook_resid_mid_cross"]
        after_ln2 = max(i for i, name in enumerate(names) if name == "hook_resid_mid" or name.startswith("ln2.")) + 1
        return names[:after_ln2] + cross + _norm("ln3", config) + names[after_ln2:]


def block_kind(config: BlockConfig) -> type[Block]:
    """The class whose parts a block config describes."""
    if config.cross_attn is not None:
        return CrossBlock
    if config.mlp is None:
        return AttentionOnlyBlock
    return ParallelBlock if config.residual == "parallel" else SequentialBlock


def make_block(config: BlockConfig, d_model: int, address: str) -> Block:
    return block_kind(config)(config, d_model, address)


def _norm(part: str, config: BlockConfig) -> list[str]:
    return [f"{part}.hook_scale", f"{part}.hook_normalized"] if config.norm.kind != "none" else []


def _attention(part: str, config: AttentionConfig) -> list[str]:
    rotated = ["hook_rot_q", "hook_rot_k"] if config.rotary is not None else []
    names = ["hook_q", "hook_k", "hook_v", *rotated, "hook_attn_scores", "hook_pattern", "hook_z", "hook_result"]
    return [f"{part}.{name}" for name in names]


def _mlp(config: BlockConfig) -> list[str]:
    assert config.mlp is not None
    return ["mlp.hook_pre", *(["mlp.hook_pre_linear"] if config.mlp.gated else []), "mlp.hook_post"]
