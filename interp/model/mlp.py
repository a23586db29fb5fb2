"""The two feed-forward layers: gated (Shazeer 2020) and plain."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from interp.model.activations import activation
from interp.model.config import MLPConfig
from interp.model.taps import Tap

__all__ = ["MLP", "GatedMLP", "PlainMLP", "make_mlp"]


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
