"""What may stand beside a product that is kept apart: matrices, vectors, numbers, other such products."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from interp.circuits.factored import FactoredMatrix
from interp.errors import InputError


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_matrices_on_either_side_and_other_products() -> None:
    pair, wide = FactoredMatrix(draw(3, 12, 4), draw(3, 4, 9)), FactoredMatrix(draw(9, 2), draw(2, 7))
    left, right = draw(5, 12, seed=1), draw(9, 6, seed=2)
    for found, expected, inner in (
        (left @ pair, left @ pair.AB, 4),
        (pair @ right, pair.AB @ right, 4),
        (pair @ wide, pair.AB @ wide.AB, 2),
        (wide.T @ pair.T, wide.AB.mT @ pair.AB.mT, 2),
        (left @ pair @ right, left @ pair.AB @ right, 4),
    ):
        assert isinstance(found, FactoredMatrix) and found.A.shape[-1] == inner
        assert_close(found.AB, expected)
        assert_close(found.T.AB, expected.mT)


def test_a_vector_gives_a_vector() -> None:
    pair = FactoredMatrix(draw(3, 12, 4), draw(3, 4, 9))
    assert_close(pair @ draw(9, seed=1), pair.AB @ draw(9, seed=1))
    assert_close(draw(12, seed=1) @ pair, draw(12, seed=1) @ pair.AB)


@pytest.mark.parametrize("number", [2.5, -3, torch.tensor(0.5), torch.tensor([2.0])])
def test_a_number_scales_the_product(number: float | Tensor) -> None:
    pair = FactoredMatrix(draw(3, 12, 4), draw(3, 4, 9))
    for found, expected in (
        (pair * number, pair.AB * number),
        (number * pair, pair.AB * number),
        (pair / number, pair.AB / number),
        (-pair, -pair.AB),
    ):
        assert isinstance(found, FactoredMatrix)
        assert_close(found.AB, expected)
    assert "(3, 12, 9), rank ≤ 4" in repr(pair)


def test_what_has_no_product_is_refused() -> None:
    pair = FactoredMatrix(draw(12, 4), draw(4, 9))
    for other in (draw(5, 6), draw(5), FactoredMatrix(draw(5, 2), draw(2, 3))):
        with pytest.raises(InputError, match="have no product"):
            pair @ other
    with pytest.raises(InputError, match="have no product"):
        draw(5, 6) @ pair
    with pytest.raises(InputError, match="by one number"):
        pair * draw(3)
    for nonsense in ("two", None):
        with pytest.raises(TypeError):
            pair * nonsense
        with pytest.raises(TypeError):
            pair @ nonsense
