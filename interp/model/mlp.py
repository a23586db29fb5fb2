"""The two feed-forward layers: gated (Shazeer 2020) and plain."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from interp.errors import UnsupportedModelError
from interp.model.config import MLPConfig
from interp.model.taps import Tap

__all__ = ["ACTIVATIONS", "MLP", "GatedMLP", "PlainMLP", "activation", "make_mlp"]

_tanh_gelu = partial(F.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "swish": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu2": lambda x: F.relu(x).square(),
    "tanh": torch.tanh,
    "linear": lambda x: x,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function that a config's `act_fn` names."""
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UnsupportedModelError(f"The activation function {name!r} is not implemented. Known are {known}.")
    return ACTIVATIONS[name]


class MLP(nn.Module):
    """What both kinds share: W_in `[d_model d_mlp]` and W_out `[d_mlp d_model]`, as views of the stored weights."""

    def __init__(self, config: MLPConfig, d_model: int, address: str):
        super().__init__()
        self.config, self.address = config, address
        self.act = activation(config.act_fn)
        self.up = nn.Linear(d_model, config.d_mlp, bias=config.bias)
        self.down = nn.Linear(config.d_mlp, d_model, bias=config.bias)

    @property
    def W_in(self) -> Float[Tensor, "d_model d_mlp"]:
        return rearrange(self.up.weight, "d_mlp d_model -> d_model d_mlp")

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        return rearrange(self.down.weight, "d_model d_mlp -> d_mlp d_model")

    @property
    def b_in(self) -> Float[Tensor, " d_mlp"]:
        return self.up.bias if self.config.bias else self.up.weight.new_zeros(self.config.d_mlp)

    @property
    def b_out(self) -> Float[Tensor, " d_model"]:
        return self.down.bias if self.config.bias else self.down.weight.new_zeros(len(self.down.weight))


class PlainMLP(MLP):
    """act(x W_in + b_in) W_out + b_out"""

    def forward(self, x: Float[Tensor, "batch pos d_model"], tap: Tap) -> Float[Tensor, "batch pos d_model"]:
        pre = tap(self.address + "hook_pre", self.up(x))
        post = tap(self.address + "hook_post", self.act(pre))
        return self.down(post)


class GatedMLP(MLP):
    """(act(x W_gate) ⊙ (x W_in)) W_out"""

    def __init__(self, config: MLPConfig, d_model: int, address: str):
        super().__init__(config, d_model, address)
        self.gate = nn.Linear(d_model, config.d_mlp, bias=config.bias)

    def forward(self, x: Float[Tensor, "batch pos d_model"], tap: Tap) -> Float[Tensor, "batch pos d_model"]:
        pre = tap(self.address + "hook_pre", self.gate(x))
        pre_linear = tap(self.address + "hook_pre_linear", self.up(x))
        post = tap(self.address + "hook_post", self.act(pre) * pre_linear)
        return self.down(post)

    @property
    def W_gate(self) -> Float[Tensor, "d_model d_mlp"]:
        return rearrange(self.gate.weight, "d_mlp d_model -> d_model d_mlp")


def make_mlp(config: MLPConfig, d_model: int, address: str) -> MLP:
    return (GatedMLP if config.gated else PlainMLP)(config, d_model, address)
