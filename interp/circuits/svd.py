"""Singular values and vectors of products that are never multiplied out."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.factored import FactoredMatrix

__all__ = ["factored_svd"]


def factored_svd(
    matrix: FactoredMatrix,
) -> tuple[Float[Tensor, "... left rank"], Float[Tensor, "... rank"], Float[Tensor, "... right rank"]]:
    """U, S (largest first) and V with A·B = U diag(S) Vᵀ. `rank` is the inner axis or, if shorter, an outer one.

    By QR of both factors, so that only a matrix of the inner size is decomposed, never one of left × right. Vectors are
    determined up to a common sign of each pair.
    """
    left_q, left_r = torch.linalg.qr(matrix.A)
    right_q, right_r = torch.linalg.qr(matrix.B.mT)
    u, s, vh = torch.linalg.svd(left_r @ right_r.mT, full_matrices=False)
    return left_q @ u, s, right_q @ vh.mT
