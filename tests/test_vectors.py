"""Linear algebra that arbitrary rows cannot break."""

import math

import numpy as np
import pytest
import torch
from inputs import unequal_vectors

from pipeline.core.kernels import basis
from pipeline.core.vectors import (
    distances_to_others,
    gram_around_median,
    lowest,
    mix,
    norms,
    products_around_mean,
    squared_distances,
    squared_distances_to,
    squared_norms,
    sum_over_columns,
    top_eigenvalue,
    top_eigenvector,
    usable_distances,
)

HOSTILE = {"none": None, "1e4": 1e4, "1e15": 1e15, "inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def in_float64(vectors):
    exact = vectors.double()
    return (exact[:, None] - exact[None, :]).square().sum(dim=-1)


def crowded(n, spread, hostile, d=200):
    """Float32 rows of norm about 1 that differ by ``spread``, two of them hostile."""
    direction = unequal_vectors(1, d)
    vectors = direction / direction.norm() + spread * unequal_vectors(n, d, seed=1) / d**0.5
    if hostile is not None:
        vectors[[2, n - 1]] = hostile
    return vectors.float()


@pytest.mark.parametrize("n", [24, 26, 40])
@pytest.mark.parametrize("spread", [1.0, 1e-1, 1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("hostile", HOSTILE)
def test_distances_agree_with_float64(n, spread, hostile):
    vectors = crowded(n, spread, HOSTILE[hostile])
    found = squared_distances(vectors).double()
    honest = [i for i in range(n) if hostile == "none" or i not in (2, n - 1)]
    expected = in_float64(vectors)[honest][:, honest]
    torch.testing.assert_close(found[honest][:, honest], expected, rtol=1e-5, atol=0.0)
    assert torch.equal(found, found.T)
    assert not found.diagonal().any()
    if hostile in ("inf", "-inf", "nan"):
        assert bool(found[2, honest].isinf().all())
        assert found[2, n - 1] == torch.inf


def test_the_distance_fixtures_refute_the_matrix_form():
    vectors = crowded(26, 1e-3, None)
    matrix_form = torch.cdist(vectors, vectors).square().double()
    off_diagonal = ~torch.eye(26, dtype=torch.bool)
    error = (matrix_form / in_float64(vectors) - 1)[off_diagonal].abs().max()
    assert error > 0.05


def test_a_square_that_overflows_is_infinite():
    distances = squared_distances(torch.tensor([[0.0, 1.0], [1e20, 1e20], [-1e38, 3e38]]))
    assert bool(distances[~torch.eye(3, dtype=torch.bool)].isinf().all())


def test_distances_of_a_batch_are_those_of_its_members():
    vectors = unequal_vectors(2, 3, 7, 5)
    vectors[1, 2, 0] = torch.nan
    together = squared_distances(vectors)
    assert all(torch.equal(together[i, j], squared_distances(vectors[i, j])) for i in range(2) for j in range(3))


@pytest.mark.company
@pytest.mark.parametrize("d", [0, 1, 1024, 2500, 100_000])
def test_a_sum_over_columns_does_not_depend_on_the_batch(d):
    values = unequal_vectors(2, 3, d, dtype=torch.float32)
    together = sum_over_columns(values)
    torch.testing.assert_close(together, values.double().sum(dim=-1).float(), rtol=1e-5, atol=1e-3)
    for i, j in [(0, 0), (0, 2), (1, 1)]:
        assert torch.equal(sum_over_columns(values[i, j]), together[i, j])
        assert torch.equal(sum_over_columns(values[i : i + 1, j : j + 1]), together[i : i + 1, j : j + 1])


@pytest.mark.parametrize("d", [1, 5, 512, 2500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernels_compute_what_the_expressions_say(d, dtype, monkeypatch):
    """Sums in two orders, float64: to 1e-6 of a float32 input, which one path subtracts before it converts."""
    vectors, weights = unequal_vectors(3, 9, d, dtype=dtype), unequal_vectors(3, 4, 9, seed=1, dtype=dtype)
    vectors[1, 2] = 1e15
    operations = {
        "distances": lambda: squared_distances(vectors),
        "to a point": lambda: squared_distances_to(vectors[:, 0], vectors),
        "norms": lambda: squared_norms(vectors),
        "products": lambda: gram_around_median(vectors)[0],
        "mix": lambda: mix(weights, vectors),
        "sum": lambda: sum_over_columns(vectors[[0, 2]].abs()),
    }
    found = {name: operation() for name, operation in operations.items()}
    monkeypatch.setattr(basis, "on_cpu", lambda vectors: False)
    for name, operation in operations.items():
        scale = found[name].abs().amax().item() if name in ("mix", "products") else 0.0
        torch.testing.assert_close(found[name], operation(), rtol=2e-6, atol=1e-6 * scale, msg=name)


@pytest.mark.company
@pytest.mark.parametrize("d", [1, 5, 512, 2500])
def test_sums_do_not_depend_on_the_batch(d):
    vectors, weights = unequal_vectors(3, 9, d, dtype=torch.float32), unequal_vectors(3, 4, 9, seed=1)
    for operation in (squared_distances, squared_norms, lambda x: gram_around_median(x)[0]):
        assert torch.equal(torch.stack([operation(replica) for replica in vectors]), operation(vectors))
    together = mix(weights, vectors)
    assert torch.equal(torch.stack([mix(*pair) for pair in zip(weights, vectors, strict=True)]), together)


def test_distances_to_others_leave_out_the_row_itself_only():
    vectors = torch.tensor([[0.0], [0.0], [3.0], [torch.nan]])
    expected = [[0, 9, math.inf], [0, 9, math.inf], [9, 9, math.inf], [math.inf] * 3]
    assert torch.equal(distances_to_others(vectors), torch.tensor(expected))


def test_norms():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], [-math.inf, math.nan]])
    assert norms(vectors).tolist() == [5.0, 0.0, math.inf, math.inf, math.inf]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_zero_weight_erases_a_row_and_any_other_spoils_the_sum(value):
    vectors = torch.tensor([[1.0, 2.0], [3.0, value], [5.0, 6.0]])
    mixed = mix(torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.5, -0.25, 0.75]]), vectors)
    assert mixed[0].tolist() == [3.0, 4.0]
    assert not mixed[1:, 1].isfinite().any()
    assert mixed[1:, 0].tolist() == [3.0, 3.5]


def test_mix_is_the_matrix_product_on_finite_rows():
    for shape in [(), (2,), (2, 3)]:
        weights, vectors = unequal_vectors(*shape, 4, 7), unequal_vectors(*shape, 7, 5, seed=1)
        expected = (weights[..., None] * vectors[..., None, :, :]).sum(dim=-2)
        torch.testing.assert_close(mix(weights, vectors), expected)


@pytest.mark.company
@pytest.mark.parametrize(("k", "n", "d"), [(1, 17, 2410), (17, 17, 2410), (9, 9, 5), (1, 7, 1)])
def test_mix_does_not_depend_on_the_place_in_the_batch(k, n, d):
    weights = unequal_vectors(12, k, n, dtype=torch.float32)
    vectors = unequal_vectors(12, n, d, seed=1, dtype=torch.float32)
    together = mix(weights, vectors)
    for i in range(12):
        assert torch.equal(together[i], mix(weights[i], vectors[i]))
        assert torch.equal(together[i : i + 3], mix(weights[i : i + 3], vectors[i : i + 3]))


def test_lowest():
    scores = torch.tensor([[3.0, 1.0, 1.0, 2.0], [math.inf, math.inf, 0.0, math.nan]])
    assert lowest(scores, 0).sum() == 0
    assert lowest(scores, 1).int().tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]
    assert lowest(scores, 2).int().tolist() == [[0, 1, 1, 0], [1, 0, 1, 0]]
    assert lowest(scores, 3).int().tolist() == [[0, 1, 1, 1], [1, 1, 1, 0]]


def from_products(products):
    """The squared distances that inner products stand for."""
    lengths = products.diagonal(dim1=-2, dim2=-1)
    return lengths[..., None, :] + lengths[..., None] - 2 * products


@pytest.mark.parametrize("hostile", [None, 1e4, 1e15, 1e20])
@pytest.mark.parametrize(("n", "d"), [(9, 200), (26, 200), (9, 3), (9, 1)])
def test_the_products_around_the_median_keep_distances_beside_huge_rows(hostile, n, d):
    vectors = unequal_vectors(1, d) + 1e-3 * unequal_vectors(n, d, seed=1)
    if hostile is not None:
        vectors[[0, n - 1]] = hostile
    honest = slice(1, n - 1)
    products, usable = gram_around_median(vectors.float())
    assert products.dtype == torch.float64
    assert usable.all()
    expected = in_float64(vectors.float().double()[honest])
    torch.testing.assert_close(from_products(products[honest, honest]), expected, rtol=1e-5, atol=1e-12)


def test_the_products_around_the_median_say_which_rows_are_usable():
    vectors = unequal_vectors(9, 20)
    expected = in_float64(vectors[3:])
    vectors[0, 3], vectors[1], vectors[2] = math.nan, math.inf, 1e200
    products, usable = gram_around_median(vectors)
    assert usable.tolist() == [False] * 3 + [True] * 6
    assert not products[:3].any()
    torch.testing.assert_close(from_products(products[3:, 3:]), expected)
    products, usable = gram_around_median(torch.full((4, 2), math.nan))
    assert usable.all()
    assert not products.any()


@pytest.mark.company
def test_the_products_around_the_median_do_not_depend_on_the_batch():
    vectors = unequal_vectors(2, 3, 9, 65)
    together = gram_around_median(vectors)[0]
    assert all(torch.equal(together[i, j], gram_around_median(vectors[i, j])[0]) for i in range(2) for j in range(3))


def test_products_around_the_mean_are_those_of_centred_rows():
    points, weights = unequal_vectors(3, 7, 20), unequal_vectors(3, 7, seed=1).abs()
    weights = weights / weights.sum(dim=-1, keepdim=True)
    around = points - (weights[..., None] * points).sum(dim=-2, keepdim=True)
    found = products_around_mean(squared_distances(points), weights)
    torch.testing.assert_close(found, around @ around.mT)


def test_usable_distances_leave_out_rows_that_are_infinitely_far():
    vectors = unequal_vectors(9, 20)
    expected = in_float64(vectors[3:])
    vectors[0, 3], vectors[1], vectors[2] = math.nan, math.inf, 1e200
    distances, usable = usable_distances(vectors)
    assert usable.tolist() == [False] * 3 + [True] * 6
    assert not distances[:3].any()
    torch.testing.assert_close(distances[3:, 3:], expected)
    distances, usable = usable_distances(torch.full((4, 2), math.nan))
    assert usable.all()
    assert not distances.any()


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)], ids=str)
def test_squared_distances_to_a_point(shape):
    vectors, point = unequal_vectors(*shape, 7, 5), unequal_vectors(*shape, 5, seed=1)
    vectors[..., 2, 1], vectors[..., 3, 0] = math.nan, -math.inf
    expected = (vectors - point[..., None, :]).square().sum(dim=-1).nan_to_num(nan=math.inf, posinf=math.inf)
    torch.testing.assert_close(squared_distances_to(point, vectors), expected)
    assert bool(squared_distances_to(point * math.nan, vectors).isinf().all())


@pytest.mark.parametrize("d", [5, 100_000])
def test_a_square_that_overflows_in_float32_is_exact_and_changes_no_other_row(d):
    vectors = unequal_vectors(2, 7, d, dtype=torch.float32)
    point = unequal_vectors(2, d, seed=1, dtype=torch.float32)
    huge = vectors.clone()
    huge[0, 3], huge[1, 5, 0] = 1e25, math.nan
    expected = (huge.double() - point[..., None, :].double()).square().sum(dim=-1).nan_to_num(nan=math.inf)
    found = squared_distances_to(point, huge)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(squared_norms(huge)[0], huge[0].double().square().sum(dim=-1), rtol=1e-6, atol=0)
    unchanged = torch.ones(2, 7, dtype=torch.bool)
    unchanged[0, 3] = unchanged[1, 5] = False
    assert torch.equal(found[unchanged], squared_distances_to(point, vectors)[unchanged])


@pytest.mark.parametrize("n", [1, 2, 5, 12, 17])
def test_the_top_eigenvalue_and_vector(n):
    points = unequal_vectors(3, n, 7)
    matrices = points @ points.mT
    values, vectors = top_eigenvector(matrices)
    expected = np.linalg.svd(points.numpy(), compute_uv=False)[:, 0] ** 2
    torch.testing.assert_close(values, torch.from_numpy(expected))
    torch.testing.assert_close(top_eigenvalue(matrices), values)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close((matrices @ vectors[..., None])[..., 0], values[:, None] * vectors)


@pytest.mark.company
@pytest.mark.parametrize("n", [3, 7, 12, 17, 30])
def test_eigenvectors_do_not_depend_on_the_batch(n):
    points = unequal_vectors(12, n, 40)
    matrices = points @ points.mT
    values, vectors = top_eigenvector(matrices)
    for i in range(12):
        value, vector = top_eigenvector(matrices[i])
        assert torch.equal(value, values[i])
        assert torch.equal(vector, vectors[i])
        assert torch.equal(top_eigenvalue(matrices[i]), top_eigenvalue(matrices[i : i + 3])[0])
