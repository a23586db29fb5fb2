"""Normalisation: divide by a scale, then apply a gain. The scale is a site, so it can be frozen or patched."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from interp.model.config import NormConfig
from interp.model.taps import Tap

__all__ = ["Norm", "norm_scale", "normalize"]


class Norm(nn.Module):
    """RMSNorm (Zhang & Sennrich 2019) or LayerNorm (Ba 2016), by its config; `none` passes x on."""

    def __init__(self, config: NormConfig, d_model: int, address: str):
        super().__init__()
        self.config, self.address = config, address
        if config.kind != "none":
            self.w = nn.Parameter(torch.empty(d_model))
            self.b = nn.Parameter(torch.empty(d_model)) if config.bias else None
            self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Unit gain, no bias."""
        if self.config.kind != "none":
            self.w.fill_(1.0 - self.config.gain_offset)
            if self.b is not None:
                self.b.zero_()

    def forward(self, x: Float[Tensor, "*batch d_model"], tap: Tap) -> Float[Tensor, "*batch d_model"]:
        if self.config.kind == "none":
            return x
        if not tap.wants(self.address + "hook_scale", self.address + "hook_normalized"):
            return self._fused(x)
        scale = tap(self.address + "hook_scale", norm_scale(x, self.config))
        normalized = tap(self.address + "hook_normalized", normalize(x, scale, self.config))
        normalized = (normalized * self.gain).to(x.dtype)
        return normalized if self.b is None else normalized + self.b

    @property
    def gain(self) -> Float[Tensor, " d_model"]:
        """What the normalized vector is multiplied by. At least float32 where an offset is added: one plus a small
        number has few digits left in half precision."""
        if not self.config.gain_offset:
            return self.w
        return self.w.to(torch.promote_types(self.w.dtype, torch.float32)) + self.config.gain_offset

    def _fused(self, x: Tensor) -> Tensor:
        if self.config.kind == "layer":
            return F.layer_norm(x, x.shape[-1:], self.gain, self.b, self.config.eps)
        gain = self.gain
        y = F.rms_norm(x.to(gain.dtype), x.shape[-1:], gain, self.config.eps).to(x.dtype)
        return y if self.b is None else y + self.b


def norm_scale(x: Float[Tensor, "*batch d_model"], config: NormConfig) -> Float[Tensor, "*batch one"]:
    """What x is divided by: the root of its mean square (`rms`) or of its variance (`layer`), plus eps inside.
    At least float32 inside, x's dtype outside."""
    wide = x if x.dtype == torch.float64 else x.float()
    if config.kind == "layer":
        wide = wide - wide.mean(-1, keepdim=True)
    return (wide.pow(2).mean(-1, keepdim=True) + config.eps).sqrt().to(x.dtype)


def normalize(
    x: Float[Tensor, "*batch d_model"], scale: Float[Tensor, "*batch one"], config: NormConfig
) -> Float[Tensor, "*batch d_model"]:
    """x (less its mean, for `layer`) over the scale, before the gain."""
    if config.kind == "layer":
        x = x - x.mean(-1, keepdim=True)
    return x / scale
