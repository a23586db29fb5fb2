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
    """score = relu((x − mean) / std · first + first_bias) · second + second_bias, by network."""

    mean: Float[Tensor, "network d"]
    std: Float[Tensor, "network d"]
    first: Float[Tensor, "network d hidden"]
    first_bias: Float[Tensor, "network one hidden"]
    second: Float[Tensor, "network hidden column"]
    second_bias: Float[Tensor, "network one column"]

    def scores(self, x: Float[Tensor, "row d"]) -> Float[Tensor, "network row column"]:
        rows = (x.to(self.first.dtype) - self.mean[:, None]) / self.std[:, None]
        return torch.relu(rows @ self.first + self.first_bias) @ self.second + self.second_bias


def fit_networks(
    x: Float[Tensor, "row d"],
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
    n, (_, d) = weights.sum(dim=1, keepdim=True), x.shape
    mean = weights @ x.double() / n
    std = (weights @ x.double().square() / n - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std > 1e-9 * mean.abs().clamp(min=1e-30), std, torch.ones_like(std))
    columns = n_classes if n_classes > 2 else 1
    generator = torch.Generator().manual_seed(seed)
    shapes = ((d, hidden), (1, hidden), (hidden, columns), (1, columns))
    parameters = []
    for shape in shapes:
        bound = shape[0] ** -0.5 if shape[0] > 1 else 0.0
        one = (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1) * bound
        parameters.append(one.expand(len(weights), *shape).to(dtype).clone().requires_grad_())
    rows = ((x.double() - mean[:, None]) / std[:, None]).to(dtype)
    share = (weights / n).to(dtype)
    with torch.enable_grad():
        optimiser = torch.optim.Adam(parameters, lr=_RATE)
        for _ in range(steps):
            first, first_bias, second, second_bias = parameters
            scores = torch.relu(rows @ first + first_bias) @ second + second_bias
            loss = (share * _loss(scores, y, n_classes)).sum()
            loss = loss + (decay.to(dtype)[:, None, None] / 2 * first.square()).sum()
            loss = loss + (decay.to(dtype)[:, None, None] / 2 * second.square()).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    first, first_bias, second, second_bias = (one.detach() for one in parameters)
    return Networks(mean.to(dtype), std.to(dtype), first, first_bias, second, second_bias)


def _loss(scores: Tensor, y: Tensor, n_classes: int) -> Tensor:
    if n_classes == 0:
        return (scores[..., 0] - y.to(scores.dtype)).square()
    if n_classes == 2:
        return torch.nn.functional.binary_cross_entropy_with_logits(
            scores[..., 0], y.to(scores.dtype), reduction="none"
        )
    return torch.nn.functional.cross_entropy(scores.movedim(-1, 1), y.long(), reduction="none")
