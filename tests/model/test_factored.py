"""A product kept apart has the properties of the product."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from interp.circuits.factored import FactoredMatrix
from interp.errors import InputError


def _pair() -> FactoredMatrix:
    generator = torch.Generator().manual_seed(0)
    return FactoredMatrix(
        torch.randn(3, 12, 4, generator=generator).double(), torch.randn(3, 4, 12, generator=generator).double()
    )


def test_it_has_the_norm_shape_and_eigenvalues_of_the_product() -> None:
    pair = _pair()
    whole = pair.AB
    assert pair.shape == whole.shape
    assert_close(pair.norm(), torch.linalg.matrix_norm(whole))
    found, want = pair.eigenvalues.abs().sort(-1).values, torch.linalg.eigvals(whole).abs().sort(-1).values
    assert_close(found, want[..., -4:])
    assert_close(pair.T.AB, whole.mT)


def test_products_stay_factored() -> None:
    pair, other = _pair(), torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(1)).double()
    assert_close((pair @ other).AB, pair.AB @ other)
    assert_close((pair @ pair).AB, pair.AB @ pair.AB)
    assert_close(pair.__rmatmul__(other).AB, other @ pair.AB)


def test_matrices_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(3, 4\) and \(3, 4\) have no product"):
        FactoredMatrix(torch.ones(3, 4), torch.ones(3, 4))
    with pytest.raises(InputError, match="Only square products"):
        _ = FactoredMatrix(torch.ones(3, 4), torch.ones(4, 5)).eigenvalues
