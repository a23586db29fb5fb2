"""Probes that are solved from sufficient statistics: ridge, LDA, difference of means. Many columns at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from probes.fitting.moments import Centred
from probes.fitting.tasks import Columns

__all__ = ["Linear", "difference_of_means", "lda", "ridge"]

_NEVER = -1e30  # the score of a class without training rows
_MANY = 8  # λ
_LARGE = 256  # features


@dataclass(frozen=True, eq=False)
class Linear:
    """Weights and intercepts of linear probes: score = x · coef + intercept. `alpha` runs along the λ asked for."""

    coef: Float[Tensor, "alpha head d column"]
    intercept: Float[Tensor, "alpha head column"]

    def scores(self, x: Float[Tensor, "row head d"]) -> Float[Tensor, "alpha head row column"]:
        return torch.einsum("rhd,ahdc->ahrc", x, self.coef) + self.intercept[:, :, None]


def ridge(data: Centred, columns: Columns, alphas: Sequence[float]) -> Linear:
    """Least squares on the columns with α‖w‖² added, α = λ · n · mean variance of a feature; the intercept is free."""
    coef = _solved(data, data.cross, alphas)
    return Linear(coef, data.y_mean - torch.einsum("hd,ahdc->ahc", data.mean, coef))


def lda(data: Centred, columns: Columns, alphas: Sequence[float]) -> Linear:
    """Linear discriminant analysis, log-odds in nats: the pooled covariance within classes plus λ · mean variance (of
    all rows) on its diagonal. As the total Gram differs from the one within classes by the class means alone, the
    factors that serve ridge serve every target here too (Woodbury)."""
    solved = torch.empty(len(alphas), *data.cross.shape, dtype=data.cross.dtype)
    intercept = torch.empty(len(alphas), len(data.mean), data.cross.shape[-1], dtype=data.cross.dtype)
    deviation, count = _class_deviations(data)
    whole = _solved(data, deviation, alphas)  # (total + α)⁻¹ of each class mean's deviation
    for n_classes, _, columns_of in columns.kinds:
        for at in columns_of:
            if n_classes == 2:
                other = deviation[..., at] * (-count[at] / (data.n - count[at]).clamp(min=1))
                gap = deviation[..., at] - other
                ratio = 1 + count[at] / (data.n - count[at]).clamp(min=1)  # gap = ratio · deviation
                u, c = whole[..., at] * ratio, count[at] * (data.n - count[at]) / data.n
                coef = data.n * u / (1 - c * (gap * u).sum(dim=-2, keepdim=True))
                middle = data.mean[..., None] + (deviation[..., at] + other) / 2
                odds = torch.log(count[at].clamp(min=0.5) / (data.n - count[at]).clamp(min=0.5))
                solved[..., at] = coef
                intercept[..., at] = odds - (middle * coef).sum(dim=-2)
            else:
                m, u, n_k = deviation[..., at], whole[..., at], count[at]
                inner = torch.eye(len(at), dtype=u.dtype) - n_k[:, None] * (m.mT @ u)
                coef = data.n * torch.linalg.solve(inner, u, left=False)
                prior = torch.where(n_k > 0, torch.log(n_k.clamp(min=0.5) / data.n), torch.full_like(n_k, _NEVER))
                solved[..., at] = coef
                half = (m * coef).sum(dim=-2) / 2 + (data.mean[..., None] * coef).sum(dim=-2)
                intercept[..., at] = prior - half
    return Linear(solved, intercept)


def difference_of_means(data: Centred, columns: Columns, alphas: Sequence[float] = (0.0,)) -> Linear:
    """The nearest class mean: of two classes, μ₁ − μ₀ with the cut half-way. There is no λ."""
    deviation, count = _class_deviations(data)
    coef, intercept = torch.empty_like(deviation), torch.empty(len(data.mean), len(count), dtype=deviation.dtype)
    for n_classes, _, columns_of in columns.kinds:
        at = columns_of.flatten()
        own, n_k = deviation[..., at], count[at]
        if n_classes == 2:
            other = own * (-n_k / (data.n - n_k).clamp(min=1))
            coef[..., at] = own - other
            middle = data.mean[..., None] + (own + other) / 2
            intercept[..., at] = -(middle * coef[..., at]).sum(dim=-2)
        else:
            coef[..., at] = own
            half = (own * own).sum(dim=-2) / 2 + (data.mean[..., None] * own).sum(dim=-2)
            intercept[..., at] = torch.where(n_k > 0, -half, torch.full_like(half, _NEVER))
    return Linear(coef[None], intercept[None])


def _solved(data: Centred, right: Tensor, alphas: Sequence[float]) -> Tensor:
    """(gram + α)⁻¹ right for each λ `[alpha head d column]`."""
    # Measured at 576 features and six λ: Cholesky factors 30 ms, eigendecomposition 36 ms before its products. The
    # latter serves any number of λ.
    if len(alphas) > _MANY:
        values, vectors = torch.linalg.eigh(data.gram)
        turned = vectors.mT @ right
        return torch.stack([vectors @ (turned / (values + a * data.scale[:, None])[..., None]) for a in alphas])
    parts, gram, own = [], data.gram.clone(), data.gram.diagonal(dim1=-2, dim2=-1)
    for alpha in alphas:
        gram.diagonal(dim1=-2, dim2=-1).copy_(own + alpha * data.scale[:, None])
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed.any():
            raise InputError(f"λ = {alpha:g} is too small for features that depend on each other. Give larger alphas.")
        if len(gram[0]) > _LARGE:  # measured: there two triangular solves are faster than cholesky_solve
            half = torch.linalg.solve_triangular(factor, right, upper=False)
            parts.append(torch.linalg.solve_triangular(factor.mT, half, upper=True))
        else:
            parts.append(torch.cholesky_solve(right, factor))
    return torch.stack(parts)


def _class_deviations(data: Centred) -> tuple[Tensor, Tensor]:
    """Class mean − mean of all `[head d column]`, and rows of the class `[column]`, from columns of −1 and 1."""
    count = data.n * (1 + data.y_mean) / 2
    return data.cross / 2 / count.clamp(min=0.5), count
