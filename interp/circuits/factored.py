"""A product of two matrices, never multiplied out: OV and QK circuits are d_model × d_model of rank d_head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        return self.A, self.B

    def svd(
        self,
    ) -> tuple[Float[Tensor, "... left rank"], Float[Tensor, "... rank"], Float[Tensor, "... right rank"]]:
        """U, S and V with AB = U diag(S) Vᵀ, of as many singular values as the inner axis allows, largest first.

        From QR decompositions of A and Bᵀ, so that only an inner × inner matrix is decomposed. As in TransformerLens
        `.Vh` is V: right singular vectors as columns.
        """
        q_left, r_left = torch.linalg.qr(self.A)
        q_right, r_right = torch.linalg.qr(self.B.mT)
        u, s, vh = torch.linalg.svd(r_left @ r_right.mT, full_matrices=False)
        return q_left @ u, s, q_right @ vh.mT

    @property
    def U(self) -> Float[Tensor, "... left rank"]:
        return self.svd()[0]

    @property
    def S(self) -> Float[Tensor, "... rank"]:
        """Singular values, largest first."""
        return self.svd()[1]

    @property
    def V(self) -> Float[Tensor, "... right rank"]:
        """Right singular vectors as columns."""
        return self.svd()[2]

    @property
    def Vh(self) -> Float[Tensor, "... right rank"]:
        return self.svd()[2]

    def make_even(self) -> FactoredMatrix:
        """The same product as U√S times √S Vhᵀ: its two sides of one size."""
        u, s, vh = self.svd()
        root = s.sqrt()
        return FactoredMatrix(u * root[..., None, :], root[..., :, None] * vh.mT)

    def collapse_l(self) -> Float[Tensor, "... rank right"]:
        """S Vhᵀ: all products of rows with rows are those of AB, without its long left axis."""
        _, s, vh = self.svd()
        return s[..., :, None] * vh.mT

    def collapse_r(self) -> Float[Tensor, "... left rank"]:
        """U S: the same for columns."""
        u, s, _ = self.svd()
        return u * s[..., None, :]

    def get_corner(self, k: int = 3) -> Float[Tensor, "... k k"]:
        """The first k rows and columns of the product, without making the rest."""
        return self.A[..., :k, :] @ self.B[..., :, :k]

    def unsqueeze(self, k: int) -> FactoredMatrix:
        """One more leading axis, at place k."""
        leading = max(self.A.ndim, self.B.ndim) - 2
        if not -leading - 1 <= k <= leading:
            raise InputError(f"An axis at {k} is none of the leading ones. Choose {-leading - 1} to {leading}.")
        A, B = self._expanded()
        at = k if k >= 0 else leading + 1 + k
        return FactoredMatrix(A.unsqueeze(at), B.unsqueeze(at))

    def __getitem__(self, index: Any) -> FactoredMatrix:
        """Some of the product, still as factors: leading axes of both, then rows of A and columns of B. A number in
        the place of the rows or columns keeps the axis, as a product needs it."""
        parts = index if isinstance(index, tuple) else (index,)
        if Ellipsis in [part if part is Ellipsis else None for part in parts]:
            at = next(i for i, part in enumerate(parts) if part is Ellipsis)
            parts = (*parts[:at], *[slice(None)] * (self.ndim - len(parts) + 1), *parts[at + 1 :])
        if len(parts) > self.ndim:
            raise InputError(f"{len(parts)} indices are too many for a product of {self.ndim} axes.")
        leading, (rows, columns) = parts[: self.ndim - 2], [*parts[self.ndim - 2 :], slice(None), slice(None)][:2]
        A, B = self._expanded()
        every = slice(None)
        some_rows = A[(..., _kept(rows), every)][leading] if leading else A[(..., _kept(rows), every)]
        some_columns = B[(..., every, _kept(columns))][leading] if leading else B[(..., every, _kept(columns))]
        return FactoredMatrix(some_rows, some_columns)

    def _expanded(self) -> tuple[Tensor, Tensor]:
        leading = self.shape[:-2]
        return self.A.expand(*leading, *self.A.shape[-2:]), self.B.expand(*leading, *self.B.shape[-2:])

    def norm(self) -> Float[Tensor, "..."]:
        """The Frobenius norm: the root of the trace of (AᵀA)(BBᵀ)."""
        squares = ((self.A.mT @ self.A) * (self.B @ self.B.mT)).sum((-2, -1))
        return squares.clamp(min=0).sqrt()

    def __matmul__(self, other: Any) -> Any:
        """With another matrix on the right, kept apart on the narrow side; with a vector, the vector."""
        if isinstance(other, FactoredMatrix):
            self._must_meet(self.shape, other.shape)
            middle = self.B @ other.A
            if self.A.shape[-1] <= other.A.shape[-1]:
                return FactoredMatrix(self.A, middle @ other.B)
            return FactoredMatrix(self.A @ middle, other.B)
        if not isinstance(other, Tensor):
            return NotImplemented
        self._must_meet(self.shape, other.shape if other.ndim > 1 else (*other.shape, 1))
        if other.ndim == 1:
            return (self.A @ (self.B @ other)[..., None])[..., 0]
        return FactoredMatrix(self.A, self.B @ other)

    def __rmatmul__(self, other: Any) -> Any:
        if not isinstance(other, Tensor):
            return NotImplemented
        self._must_meet(other.shape if other.ndim > 1 else (1, *other.shape), self.shape)
        if other.ndim == 1:
            return ((other @ self.A)[..., None, :] @ self.B)[..., 0, :]
        return FactoredMatrix(other @ self.A, self.B)

    def __mul__(self, factor: Any) -> Any:
        """Times a number, which A takes."""
        if isinstance(factor, Tensor) and factor.numel() != 1:
            raise InputError(f"A product of matrices is scaled by one number; these are {tuple(factor.shape)}.")
        if isinstance(factor, Tensor):
            return FactoredMatrix(self.A * factor.reshape(()), self.B)
        return FactoredMatrix(self.A * factor, self.B) if isinstance(factor, int | float) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, factor: Any) -> Any:
        return self * (1 / factor)

    def __neg__(self) -> FactoredMatrix:
        return FactoredMatrix(-self.A, self.B)

    def __repr__(self) -> str:
        return f"FactoredMatrix({tuple(self.shape)}, rank ≤ {min(self.A.shape[-1], *self.shape[-2:])})"

    @staticmethod
    def _must_meet(left: Any, right: Any) -> None:
        if left[-1] != right[-2]:
            raise InputError(f"Matrices of shape {tuple(left)} and {tuple(right)} have no product.")


def _kept(index: Any) -> Any:
    """A number as the slice that holds it alone."""
    return slice(index, index + 1 or None) if isinstance(index, int) else index
