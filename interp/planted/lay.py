"""From a circuit diagram to a model: with or without norms, in any basis of the residual space, with weight noise.

The coordinates of the diagram are the rows of an orthonormal basis of the residual space, so what is written along a
row is read along it, whatever the basis. Three things have to be true for this to survive a norm:

*Scale.* A norm divides by the length of the residual, which differs between tokens. With norms, every token carries a
*ballast*: a constant of 100 along a row of its own, that nothing reads. It makes the length of all residuals equal to
some 1 in 1,000, and the gain of each norm is set to that length: what a head reads is what was written, to 1 in 1,000.

*Centre.* A LayerNorm subtracts the mean, so with one all rows are orthogonal to the vector of ones (the basis is that
of a reflection which takes the last axis to the ones, or a random rotation of it). Nothing written has a mean.

*Rotation.* Gains are equal in all coordinates and there are no biases, so a rotation commutes with an RMSNorm, and one
that leaves the vector of ones alone with a LayerNorm: logits stay as they are to rounding.

*Noise* ε adds to every weight a normal number times ε times the root mean square of the hand-set (non-zero) weights of
its matrix. It is drawn in the diagram's coordinates, so that a rotated model has the same noise. The ballast has none:
it stands for the size of a residual, and 100 × noise would be no small change of the circuit.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor

from interp.errors import InputError
from interp.model.config import AttentionConfig, BlockConfig, MLPConfig, ModelConfig, NormConfig, StackConfig
from interp.model.mlp import MLP
from interp.model.transformer import HookedTransformer
from interp.planted.wiring import Wiring
from interp.sites import Head

__all__ = ["BALLAST", "NormKind", "build_model"]

NormKind = Literal["none", "rms", "layer"]
BALLAST = 100.0
_USUAL = 6.0  # squared length of an ordinary residual without its ballast: token, position, a few flags
_EPS = 1e-5


def build_model(
    wiring: Wiring, name: str, *, norm: NormKind, rotate: bool, noise: float, seed: int, dtype: torch.dtype
) -> HookedTransformer:
    """The model of a diagram. Weights are made in float64 and rounded once, to `dtype`."""
    if norm not in ("none", "rms", "layer"):
        raise InputError(f'norm is {norm!r}. Choose "none", "rms" or "layer".')
    if isinstance(noise, bool) or not 0 <= noise < 1:
        raise InputError(f"noise is {noise!r}. Give a share of the weights' size, e.g. 0.01.")
    d_model = wiring.width + 2  # the ballast, and the ones that a LayerNorm takes away
    model = HookedTransformer(_config(wiring, name, d_model, norm), dtype=torch.float64, seed=seed)
    drawn = torch.Generator().manual_seed(seed)
    rows = _basis(d_model, norm, drawn if rotate else None)
    stirred = _Noise(noise, torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        _embed(wiring, model, rows, stirred, norm)
        for layer in range(wiring.n_layers):
            _attention(wiring, model, layer, rows, stirred)
            if wiring.d_mlp:
                _neurons(wiring, model, layer, rows, stirred)
        out = torch.zeros(len(rows), wiring.n_tokens, dtype=torch.float64)
        for space, table in wiring.outputs:
            out[wiring.span(space)] += table
        assert model.unembed is not None
        model.unembed.weight.copy_((rows.T @ stirred(out)).T)
        if norm != "none":
            gain = ((BALLAST**2 + _USUAL) / d_model + _EPS) ** 0.5
            for part, parameter in model.named_parameters():
                if part.rpartition(".")[0].rpartition(".")[2] in ("ln1", "ln2", "ln_final"):
                    parameter.fill_(gain)
    return model.to(dtype)


class _Noise:
    """Adds noise to a matrix, `[row of the basis, …]` or its transpose; the ballast's row is left as it is."""

    def __init__(self, size: float, generator: torch.Generator):
        self.size, self.generator = size, generator

    def __call__(self, weights: Tensor, *, ballast: int = 0) -> Tensor:
        """`ballast` is the axis along which the basis runs."""
        drawn = torch.randn(weights.shape, generator=self.generator, dtype=weights.dtype)
        set_by_hand = weights[weights != 0]
        if not self.size or not len(set_by_hand):
            return weights
        drawn.select(ballast, weights.shape[ballast] - 1).zero_()
        return weights + self.size * set_by_hand.square().mean().sqrt() * drawn


def _config(wiring: Wiring, name: str, d_model: int, norm: NormKind) -> ModelConfig:
    attn = AttentionConfig(wiring.n_heads, wiring.d_head, wiring.n_kv_heads, 1.0)
    mlp = MLPConfig(wiring.d_mlp, "relu", gated=False, bias=True) if wiring.d_mlp else None
    kind = NormConfig(norm, _EPS)
    stack = StackConfig(
        (BlockConfig(attn, mlp, kind),) * wiring.n_layers,
        None if norm == "none" else kind,
        learned_positions=wiring.n_ctx,
    )
    return ModelConfig(d_model, wiring.n_tokens, wiring.n_ctx, decoder=stack, model_name=f"planted-{name}")


def _basis(d_model: int, norm: NormKind, generator: torch.Generator | None) -> Tensor:
    """Orthonormal rows `[coordinate, d_model]`: one for each coordinate of the diagram, and the ballast's last. The row
    left over is the direction of ones for a LayerNorm."""
    n = d_model - 1
    turn = torch.eye(n, dtype=torch.float64)
    if generator is not None:
        q, r = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
        turn = q * r.diagonal().sign()  # uniform over rotations and reflections (Mezzadri 2007)
    rows = torch.eye(d_model, dtype=torch.float64)[:n]
    if norm == "layer":
        mirror = torch.full((d_model,), d_model**-0.5, dtype=torch.float64)
        mirror[-1] -= 1.0
        mirror /= mirror.norm()
        rows = rows - 2 * torch.outer(rows @ mirror, mirror)
    return turn @ rows


def _embed(wiring: Wiring, model: HookedTransformer, rows: Tensor, stirred: _Noise, norm: NormKind) -> None:
    stack = model.main
    tokens = torch.zeros(wiring.n_tokens, len(rows), dtype=torch.float64)
    for space, table in wiring.tokens.items():
        tokens[:, wiring.span(space)] += table
    places = torch.zeros(wiring.n_ctx, len(rows), dtype=torch.float64)
    for space, table in wiring.places.items():
        places[:, wiring.span(space)] += table
    tokens, places = stirred(tokens, ballast=1), stirred(places, ballast=1)
    if norm != "none":
        tokens[:, -1] = BALLAST
    stack.embed.weight.copy_(tokens @ rows)
    assert stack.pos_embed is not None
    stack.pos_embed.weight.copy_(places @ rows)


def _attention(wiring: Wiring, model: HookedTransformer, layer: int, rows: Tensor, stirred: _Noise) -> None:
    attn = model.main.block(layer).attn
    group = wiring.n_heads // wiring.n_kv_heads
    shape = len(rows), wiring.d_head
    q = torch.zeros(wiring.n_heads, *shape, dtype=torch.float64)
    o = torch.zeros(wiring.n_heads, *shape[::-1], dtype=torch.float64)
    k, v = torch.zeros(2, wiring.n_kv_heads, *shape, dtype=torch.float64)
    shared: dict[int, tuple[Tensor, Tensor]] = {}
    for head, (matches, moves) in wiring.heads.items():
        if head.layer != layer:
            continue
        keys, values = torch.zeros(2, *shape, dtype=torch.float64)
        channel = 0
        for one in matches:
            width = wiring.spaces[one.key]
            table = torch.eye(width, dtype=torch.float64) if one.table is None else one.table.double()
            q[head.head, wiring.span(one.query), channel : channel + width] += one.score * table
            keys[wiring.span(one.key), channel : channel + width] = torch.eye(width, dtype=torch.float64)
            channel += width
        channel = 0
        for one in moves:
            width = wiring.spaces[one.read]
            table = torch.eye(width, dtype=torch.float64) if one.table is None else one.table.double()
            values[wiring.span(one.read), channel : channel + width] = torch.eye(width, dtype=torch.float64)
            o[head.head, channel : channel + width, wiring.span(one.write)] += one.gain * table
            channel += width
        _share(shared, head, group, keys, values)
    for kv_head, (keys, values) in shared.items():
        k[kv_head], v[kv_head] = keys, values
    for ours, weights in ((attn.W_Q, q), (attn.W_K, k), (attn.W_V, v)):
        ours.copy_(rows.T @ stirred(weights, ballast=1))
    attn.W_O.copy_(stirred(o, ballast=2) @ rows)


def _share(shared: dict[int, tuple[Tensor, Tensor]], head: Head, group: int, keys: Tensor, values: Tensor) -> None:
    """Give a key/value head its weights; heads of one group have to agree about them."""
    before = shared.setdefault(head.head // group, (keys, values))
    if not all(torch.equal(a, b) for a, b in zip(before, (keys, values), strict=True)):
        raise InputError(
            f"{head} shares key/value head {head.head // group} of its layer with a head that matches other keys or "
            "moves other features. Give them the same, or n_kv_heads = n_heads."
        )


def _neurons(wiring: Wiring, model: HookedTransformer, layer: int, rows: Tensor, stirred: _Noise) -> None:
    mlp = cast(MLP, model.main.block(layer).mlp)
    into = torch.zeros(len(rows), wiring.d_mlp, dtype=torch.float64)
    out = torch.zeros(wiring.d_mlp, len(rows), dtype=torch.float64)
    bias = torch.zeros(wiring.d_mlp, dtype=torch.float64)
    first = 0
    for one in wiring.neurons.get(layer, ()):
        here = slice(first, first + one.n)
        into[wiring.span(one.read), here] = one.into.double()
        out[here, wiring.span(one.write)] = one.out.double()
        bias[here] = one.bias
        first += one.n
    mlp.up.weight.copy_((rows.T @ stirred(into)).T)
    mlp.down.weight.copy_((stirred(out, ballast=1) @ rows).T)
    mlp.up.bias.copy_(bias)
