"""A product of two matrices, never multiplied out: OV and QK circuits are d_model × d_model of rank d_head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from interp.errors import InputError

__all__ = ["FactoredMatrix"]


@dataclass(frozen=True, eq=False)
class FactoredMatrix:
    """A·B with `A` `[… left inner]` and `B` `[… inner right]` kept apart; leading axes broadcast."""

    A: Float[Tensor, "..."]
    B: Float[Tensor, "..."]

    def __post_init__(self) -> None:
        if min(self.A.ndim, self.B.ndim) < 2 or self.A.shape[-1] != self.B.shape[-2]:
            raise InputError(
                f"Matrices of shape {tuple(self.A.shape)} and {tuple(self.B.shape)} have no product. "
                "The last axis of A must be as long as the last but one of B."
            )

    @property
    def AB(self) -> Float[Tensor, "..."]:
        """The product, multiplied out."""
        return self.A @ self.B

    @property
    def shape(self) -> torch.Size:
        """The product's."""
        leading = torch.broadcast_shapes(self.A.shape[:-2], self.B.shape[:-2])
        return torch.Size((*leading, self.A.shape[-2], self.B.shape[-1]))

    @property
    def T(self) -> FactoredMatrix:
        return FactoredMatrix(self.B.mT, self.A.mT)

    @property
    def eigenvalues(self) -> Complex[Tensor, "..."]:
        """Of BA: those of AB but for zeros."""
        if self.shape[-1] != self.shape[-2]:
            raise InputError(f"Only square products have eigenvalues; this one is {tuple(self.shape)}.")
        return torch.linalg.eigvals(self.B @ self.A)

    def norm(self) -> Float[Tensor, "..."]:
        """The Frobenius norm: the root of the trace of (AᵀA)(BBᵀ)."""
        squares = ((self.A.mT @ self.A) * (self.B @ self.B.mT)).sum((-2, -1))
        return squares.clamp(min=0).sqrt()

    def __matmul__(self, other: Tensor | FactoredMatrix) -> FactoredMatrix:
        """With another matrix on the right, kept apart on the narrow side."""
        if isinstance(other, FactoredMatrix):
            return FactoredMatrix(self.A, self.B @ other.A @ other.B)
        return FactoredMatrix(self.A, self.B @ other)

    def __rmatmul__(self, other: Tensor) -> FactoredMatrix:
        return FactoredMatrix(other @ self.A, self.B)
