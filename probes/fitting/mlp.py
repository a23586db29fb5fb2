"""Small networks with one hidden layer, many of them on the same rows at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Networks", "fit_networks"]

_RATE = 0.01


@dataclass(frozen=True, eq=False)
class Networks:
    """score = relu((x − mean) / std · first + first_bias) · second + second_bias, by head and network."""

    mean: Float[Tensor, "head network d"]
    std: Float[Tensor, "head network d"]
    first: Float[Tensor, "head network d hidden"]
    first_bias: Float[Tensor, "head network one hidden"]
    second: Float[Tensor, "head network hidden column"]
    second_bias: Float[Tensor, "head network one column"]

    def scores(self, x: Float[Tensor, "row head d"], which: slice = slice(None)) -> Tensor:
        """`[head network row column]` of some networks."""
        rows = _standardised(x, self.mean[:, which], self.std[:, which], self.first.dtype)
        inner = torch.relu(rows @ self.first[:, which] + self.first_bias[:, which])
        return inner @ self.second[:, which] + self.second_bias[:, which]


def fit_networks(
    x: Float[Tensor, "row head d"],
    y: Tensor,
    weights: Float[Tensor, "network row"],
    decay: Float[Tensor, " network"],
    *,
    n_classes: int,
    hidden: int = 64,
    steps: int = 200,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Networks:
    """Adam on all rows at once, `steps` steps, cross-entropy (squared error if `n_classes` is 0) plus decay/2 ·
    the squared norm of the weights. `y [network row]`: codes or numbers. Features are standardised with the network's
    own training rows. All networks start from the same seeded weights."""
    rows = x.double().movedim(0, 1)  # head row d
    n, (heads, _, d) = weights.sum(dim=1, keepdim=True), rows.shape
    mean = weights @ rows / n
    std = (weights @ rows.square() / n - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std > 1e-9 * mean.abs().clamp(min=1e-30), std, torch.ones_like(std))
    columns = n_classes if n_classes > 2 else 1
    parameters = [
        one.expand(heads, len(weights), *one.shape).to(dtype).clone().requires_grad_()
        for one in _start(((d, hidden), (1, hidden), (hidden, columns), (1, columns)), seed)
    ]
    scaled, share = _standardised(x, mean, std, dtype), (weights / n).to(dtype)
    decay = decay.to(dtype)[:, None, None] / 2
    with torch.enable_grad():
        optimiser = torch.optim.Adam(parameters, lr=_RATE)
        for _ in range(steps):
            first, first_bias, second, second_bias = parameters
            scores = torch.relu(scaled @ first + first_bias) @ second + second_bias
            loss = (share * _loss(scores, y.expand(heads, *y.shape), n_classes)).sum()
            loss = loss + (decay * first.square()).sum() + (decay * second.square()).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return Networks(mean.to(dtype), std.to(dtype), *(one.detach() for one in parameters))


def _start(shapes: tuple[tuple[int, int], ...], seed: int) -> list[Tensor]:
    """Seeded weights, uniform within 1/√(inputs); biases 0."""
    generator = torch.Generator().manual_seed(seed)
    bounds = [shape[0] ** -0.5 if i % 2 == 0 else 0.0 for i, shape in enumerate(shapes)]
    return [
        (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1) * bound
        for shape, bound in zip(shapes, bounds, strict=True)
    ]


def _standardised(x: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
    """`[head network row d]`."""
    rows = x.movedim(0, 1)[:, None].to(mean.dtype)
    return ((rows - mean[:, :, None]) / std[:, :, None]).to(dtype)


def _loss(scores: Tensor, y: Tensor, n_classes: int) -> Tensor:
    if n_classes == 0:
        return (scores[..., 0] - y.to(scores.dtype)).square()
    if n_classes == 2:
        wanted = y.to(scores.dtype)
        return torch.nn.functional.binary_cross_entropy_with_logits(scores[..., 0], wanted, reduction="none")
    return torch.nn.functional.cross_entropy(scores.movedim(-1, 1), y.long(), reduction="none")
