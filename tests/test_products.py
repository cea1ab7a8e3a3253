"""Products of matrices in one order."""

import pytest
import torch
from inputs import unequal_vectors
from torch.func import vmap

from pipeline.core.kernels.products import matmul, multiply


@pytest.mark.company
@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 17, 2410), (192, 64, 32), (3, 5, 1), (16, 7, 10)])
def test_a_product_does_not_depend_on_the_batch(rows, inner, columns):
    left = unequal_vectors(12, rows, inner, dtype=torch.float32)
    right = unequal_vectors(12, inner, columns, seed=1, dtype=torch.float32)
    together = matmul(left, right)
    torch.testing.assert_close(together, (left.double() @ right.double()).float(), rtol=1e-4, atol=1e-5)
    for i in range(12):
        assert torch.equal(together[i], matmul(left[i], right[i]))
        assert torch.equal(together[i, :1], matmul(left[i, :1], right[i]))
    assert torch.equal(together, vmap(multiply)(left, right))


def test_the_terms_of_an_entry_are_added_in_their_order():
    """With terms that swallow each other any other order gives another sum."""
    terms = [1.0, 1.0, 1e16, 1.0, 3.0, -1e16, 0.3, 1e-17, 7e15]
    expected = 0.0
    for term in terms:
        expected += term
    left, ones = torch.tensor([terms], dtype=torch.float64), torch.ones(len(terms), 1, dtype=torch.float64)
    assert matmul(left, ones).item() == expected
    assert matmul(left.flip(-1), ones).item() != expected
