"""Logistic regression of many problems on the same rows at once: labels, λ, and which rows each is fitted on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.fitting.lbfgs import lbfgs

__all__ = ["Fits", "Turned", "fit_logistic", "turned"]

_CHUNK = 10_000_000  # rows × problems × classes held at once
_NULL = 1e-12  # of the largest eigenvalue: directions in which the rows do not differ


@dataclass(frozen=True, eq=False)
class Turned:
    """Rows about their mean in the basis of their principal directions, which no L2 penalty sees. There the Hessian is
    nearly diagonal, which makes L-BFGS fast; directions without variance have weight 0 and are left out."""

    z: Float[Tensor, "row r"]
    basis: Float[Tensor, "d r"]
    mean: Float[Tensor, " d"]
    variance: Float[Tensor, " r"]


@dataclass(frozen=True, eq=False)
class Fits:
    """Weights and intercepts by problem; of two classes one column, the log-odds of the second."""

    coef: Float[Tensor, "problem d column"]
    intercept: Float[Tensor, "problem column"]
    converged: Bool[Tensor, " problem"]
    n_iter: int


def turned(x: Float[Tensor, "row d"], *, dtype: torch.dtype = torch.float64) -> Turned:
    """The rows in the basis of their principal directions; `dtype` is that of the fit."""
    mean = x.double().mean(dim=0)
    centred = x.double() - mean
    if len(x) < x.shape[1]:
        _, values, basis = torch.linalg.svd(centred, full_matrices=False)
        variance, basis = values.square() / len(x), basis.mT
    else:
        variance, basis = torch.linalg.eigh(centred.mT @ centred / len(x))
    kept = variance > _NULL * variance.max().clamp(min=torch.finfo(torch.float64).tiny)
    variance, basis = variance[kept], basis[:, kept]
    return Turned((centred @ basis).to(dtype), basis, mean, variance.to(dtype))


def fit_logistic(
    data: Turned,
    labels: Int[Tensor, "problem row"],
    alpha: Float[Tensor, " problem"],
    weights: Float[Tensor, "problem row"],
    n_classes: int,
    *,
    tol: float = 1e-8,
    max_iter: int = 500,
) -> Fits:
    """The minimum of Σ weight · cross-entropy (nats) + α/2 ‖w‖², the intercept free, for each problem.

    `tol` bounds the gradient, scaled by the square root of a bound of the Hessian's diagonal, over √(rows): of the size
    of the step that Newton's method would still make."""
    columns = 1 if n_classes == 2 else n_classes
    size = max(1, _CHUNK // max(1, len(data.z) * columns))
    parts = [
        _fit(data, labels[i : i + size], alpha[i : i + size], weights[i : i + size], columns, tol, max_iter)
        for i in range(0, len(labels), size)
    ]
    coef, intercept, converged, n_iter = zip(*parts, strict=True)
    return Fits(torch.cat(coef), torch.cat(intercept), torch.cat(converged), max(n_iter))


def _fit(
    data: Turned, labels: Tensor, alpha: Tensor, weights: Tensor, columns: int, tol: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    dtype, (n_problems, _) = data.z.dtype, labels.shape
    weights, alpha, total = weights.to(dtype), alpha.to(dtype), weights.sum(dim=1).to(dtype)
    curve = 0.25 if columns == 1 else (columns - 1) / columns**2
    hessian = curve * total[:, None] * data.variance + alpha[:, None]
    scale = torch.cat([hessian, curve * total[:, None]], dim=1).rsqrt()[..., None]  # problem r+1 1
    with_one = torch.cat([data.z, torch.ones(len(data.z), 1, dtype=dtype)], dim=1)
    wanted = labels.mT if columns == 1 else torch.nn.functional.one_hot(labels.mT, columns)
    wanted = wanted.reshape(len(data.z), n_problems, columns).to(dtype)
    row_weight = weights.mT[..., None]

    def objective(v: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        everyone = len(which) == n_problems
        w = v.reshape(len(which), -1, columns) * (scale if everyone else scale[which])
        logits = (with_one @ w.permute(1, 0, 2).reshape(w.shape[1], -1)).reshape(-1, len(which), columns)
        y, m = (wanted, row_weight) if everyone else (wanted[:, which], row_weight[:, which])
        if columns == 1:
            loss = torch.nn.functional.softplus(logits) - y * logits
            residual = torch.sigmoid(logits) - y
        else:
            log_p = logits.log_softmax(dim=-1)
            loss, residual = -(y * log_p), log_p.exp() - y
        penalty = alpha[which, None, None] * w
        penalty[:, -1] = 0
        value = (m * loss).sum(dim=(0, 2)) + (penalty * w).sum(dim=(1, 2)) / 2
        gradient = with_one.mT @ (m * residual).reshape(len(data.z), -1)
        gradient = gradient.reshape(-1, len(which), columns).permute(1, 0, 2) + penalty
        return value, (gradient * (scale if everyone else scale[which])).reshape(len(which), -1)

    start = torch.zeros(n_problems, with_one.shape[1] * columns, dtype=dtype)
    found, converged, n_iter = lbfgs(objective, start, tol=tol * float(total.max()) ** 0.5, max_iter=max_iter)
    w = (found.reshape(n_problems, -1, columns) * scale).double()
    if columns > 1:  # the softmax does not see what all classes share
        w[:, -1] -= w[:, -1].mean(dim=-1, keepdim=True)
    coef = torch.einsum("dr,prc->pdc", data.basis, w[:, :-1])
    return coef, w[:, -1] - torch.einsum("d,pdc->pc", data.mean, coef), converged, n_iter
