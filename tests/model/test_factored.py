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


@pytest.mark.parametrize("inner", [1, 4, 20])
def test_its_singular_values_are_those_of_the_product(inner: int) -> None:
    generator = torch.Generator().manual_seed(2)
    A, B = (torch.randn(*shape, generator=generator).double() for shape in ((3, 12, inner), (3, inner, 7)))
    pair = FactoredMatrix(A, B)
    u, s, v = pair.svd()
    assert_close(u @ torch.diag_embed(s) @ v.mT, pair.AB)
    assert_close(s, torch.linalg.svdvals(pair.AB)[..., : s.shape[-1]])
    assert_close(u.mT @ u, torch.eye(s.shape[-1]).double().expand(3, -1, -1))
    assert_close(pair.Vh, pair.V)
    assert_close(pair.make_even().AB, pair.AB)
    assert_close(pair.make_even().A.norm(dim=(-2, -1)), pair.make_even().B.norm(dim=(-2, -1)))
    assert_close(pair.collapse_l().mT @ pair.collapse_l(), pair.AB.mT @ pair.AB)
    assert_close(pair.collapse_r() @ pair.collapse_r().mT, pair.AB @ pair.AB.mT)


def test_indices_and_corners_are_those_of_the_product() -> None:
    pair = _pair()
    whole = pair.AB
    assert pair.ndim == 3 and pair.pair[0] is pair.A
    assert_close(pair.get_corner(2), whole[..., :2, :2])
    assert_close(pair[1].AB, whole[1])
    assert_close(pair[..., 2:5, :].AB, whole[..., 2:5, :])
    assert_close(pair[0, 3, -1].AB, whole[0, 3:4, -1:])
    assert_close(pair[:2, :, 4:].AB, whole[:2, :, 4:])
    assert_close(pair.unsqueeze(0).AB, whole[None])
    with pytest.raises(InputError, match="too many"):
        pair[0, 0, 0, 0]
    with pytest.raises(InputError, match="none of the leading"):
        pair.unsqueeze(3)
