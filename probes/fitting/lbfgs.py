"""L-BFGS for many smooth convex problems at once (Liu & Nocedal 1989)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["lbfgs"]

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
_ARMIJO = 1e-4
_HALVINGS = 30


def lbfgs(
    objective: Objective, start: Float[Tensor, "problem n"], *, tol: float, max_iter: int = 500, memory: int = 10
) -> tuple[Float[Tensor, "problem n"], Bool[Tensor, " problem"], int]:
    """The minimum of each problem, whether its gradient's norm came below `tol`, and the steps that the slowest took.

    `objective(x, which)` gives values `[problem]` and gradients `[problem n]` of the problems `which`. A problem that
    is done leaves the batch, so that the slow ones do not cost the others.
    """
    best, done = start.clone(), torch.zeros(len(start), dtype=torch.bool)
    which = torch.arange(len(start))
    x, (value, gradient) = start.clone(), objective(start, which)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []  # s, y, 1 / s·y
    for taken in range(max_iter):
        close = gradient.norm(dim=-1) <= tol
        if close.any():
            best[which[close]], done[which[close]] = x[close], True
            on = ~close
            which, x, value, gradient = which[on], x[on], value[on], gradient[on]
            steps = [(s[on], y[on], r[on]) for s, y, r in steps]
        if not len(which):
            return best, done, taken
        direction = -_inverse_hessian(gradient, steps)
        slope = (direction * gradient).sum(dim=-1)
        uphill = slope >= 0
        direction[uphill], slope[uphill] = -gradient[uphill], -(gradient[uphill] ** 2).sum(dim=-1)
        x_new, value_new, gradient_new, moved = _step(objective, which, x, value, gradient, direction, slope)
        s, y = x_new - x, gradient_new - gradient
        curved = (s * y).sum(dim=-1)
        steps = [*steps[-memory + 1 :], (s, y, torch.where(curved > 0, 1 / curved, torch.zeros_like(curved)))]
        x, value, gradient = x_new, value_new, gradient_new
        if not moved.all():  # nothing lower along the line: as good as this precision gives
            best[which[~moved]] = x[~moved]
            which, x, value, gradient = which[moved], x[moved], value[moved], gradient[moved]
            steps = [(s[moved], y[moved], r[moved]) for s, y, r in steps]
    best[which] = x
    return best, done, max_iter


def _inverse_hessian(gradient: Tensor, steps: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The two-loop recursion."""
    q, kept = gradient.clone(), []
    for s, y, r in reversed(steps):
        a = r * (s * q).sum(dim=-1)
        q = q - a[:, None] * y
        kept.append(a)
    if steps:
        s, y, r = steps[-1]
        size = (y * y).sum(dim=-1)
        q = q * torch.where((r > 0) & (size > 0), 1 / (r * size), torch.ones_like(r))[:, None]
    for (s, y, r), a in zip(steps, reversed(kept), strict=True):
        q = q + (a - r * (y * q).sum(dim=-1))[:, None] * s
    return q


def _step(
    objective: Objective, which: Tensor, x: Tensor, value: Tensor, gradient: Tensor, direction: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backtracking until the value has fallen enough; problems that accept a step wait for the others."""
    x_new, value_new, gradient_new = x.clone(), value.clone(), gradient.clone()
    open_, t = torch.arange(len(which)), 1.0
    slack = 4 * torch.finfo(x.dtype).eps * value.abs()
    for _ in range(_HALVINGS):
        tried = x[open_] + t * direction[open_]
        v, g = objective(tried, which[open_])
        good = v <= value[open_] + _ARMIJO * t * slope[open_] + slack[open_]
        at = open_[good]
        x_new[at], value_new[at], gradient_new[at] = tried[good], v[good], g[good]
        open_, t = open_[~good], t / 2
        if not len(open_):
            break
    moved = torch.ones(len(which), dtype=torch.bool)
    moved[open_] = False
    return x_new, value_new, gradient_new, moved
