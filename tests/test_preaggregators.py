"""The contract of a pre-aggregation: every registered one, every check."""

import math

import conditions
import oracles
import pytest
import torch
from inputs import draw_from, examples, unequal_vectors
from robustness import hardest_kappa

from pipeline.core.errors import UserError
from pipeline.core.rng import Stream
from pipeline.defences.aggregators import AGGREGATORS
from pipeline.defences.preaggregators import PREAGGREGATORS, Mixed

DEFAULTS = examples(PREAGGREGATORS)
MAPS = {  # examples of other parameters besides, on which every check runs as well
    **DEFAULTS,
    "bucketing 1": PREAGGREGATORS["bucketing"](s=1),
    "bucketing 3": PREAGGREGATORS["bucketing"](s=3),
    "clipping 3": PREAGGREGATORS["clipping"](c=3.0),
}
SIZES = [(7, 0), (7, 1), (7, 3), (8, 2), (8, 3), (9, 2), (9, 4), (30, 4), (30, 14), (100, 33)]
EVERY_MAP = pytest.mark.parametrize("step", MAPS.values(), ids=MAPS)
EVERY_MAP_AND_SIZE = pytest.mark.parametrize(
    ("step", "n", "f"),
    [
        pytest.param(step, n, f, id=f"{label}-n{n}-f{f}")
        for label, step in MAPS.items()
        for n, f in SIZES
        if step.tolerates(n, f)
    ],
)


def tolerated(step, n):
    """An f of about a third of n, or the largest that the map tolerates."""
    return next(f for f in range((n - 1) // 3, -1, -1) if step.tolerates(n, f))


def mapped(step, vectors, f, first=0):
    """``step.apply``; ``first`` is the replica with which the vectors begin."""
    replicas = vectors.shape[-3] if vectors.dim() > 2 else 1
    stream = Stream.of(range(first, first + replicas), "defence")
    if vectors.dim() > 2 or not step.random:
        return step.apply(vectors, f, stream)
    return type(step.apply(vectors[None], f, stream))(*(part[0] for part in step.apply(vectors[None], f, stream)))


def apply(step, vectors, f, first=0):
    return mapped(step, vectors, f, first).vectors


def close(actual, expected, tolerance=1e-9):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def fields(step):
    """What the slow twin of ``step`` takes besides the vectors and f."""
    return {name: value for name, value in step.content().items() if name != "name"}


@EVERY_MAP_AND_SIZE
def test_oracle(step, n, f):
    given = {**fields(step), **({"draw": draw_from(Stream.of([0], "defence"))} if step.random else {})}
    for d in (1, 2, 5):
        for seed in range(4):
            vectors = unequal_vectors(n, d, seed=seed)
            slow = oracles.twin("preaggregators", step.name)(vectors.tolist(), f, **given)
            expected = torch.tensor(slow, dtype=torch.float64)
            close(apply(step, vectors, f), expected, 1e-12)
            close(apply(step, vectors.float(), f).double(), expected, 1e-5)


@EVERY_MAP
def test_an_f_that_is_not_tolerated_is_refused_by_the_call(step):
    for n, f in [(17, -1), (17, 17), *((17, f) for f in range(17))]:
        if not step.tolerates(n, f):
            with pytest.raises(UserError, match=f"^{step.name} needs .*, got n = {n}, f = {f}(, |$)"):
                step.apply(torch.zeros(1, n, 3), f, Stream.of([0], "defence"))


@EVERY_MAP_AND_SIZE
def test_shapes_and_batch(step, n, f):
    out = step.transforms(n, f)[0]
    for batch in [(1,), (2,), (2, 3)]:
        result = mapped(step, unequal_vectors(*batch, n, 5), f)
        assert isinstance(result, Mixed), "_apply should return Mixed(vectors, mixing)"
        assert result.vectors.shape == (*batch, out, 5), "of vectors [..., n, d] it should make [..., n', d]"
        assert result.mixing is None or result.mixing.shape == (*batch, out, n), "the mixing should be [..., n', n]"
    vectors = unequal_vectors(2, 3, n, 5, dtype=torch.float32)
    together = apply(step, vectors, f)
    for i in range(2):
        for j in range(3):
            assert torch.equal(together[i, j], apply(step, vectors[i, j : j + 1], f, first=j)[0])
            assert step.random or torch.equal(together[i, j], apply(step, vectors[i, j], f))


@pytest.mark.company
@EVERY_MAP
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_result_does_not_depend_on_batch_mates(step, dtype):
    vectors, f = unequal_vectors(60, 17, 1410, dtype=dtype), tolerated(step, 17)
    together = apply(step, vectors, f)
    for first, size in [(0, 1), (0, 3), (5, 3), (59, 1)]:
        alone = apply(step, vectors[first : first + size], f, first)
        assert torch.equal(alone, together[first : first + size])


@EVERY_MAP
def test_only_a_declared_map_draws(step):
    vectors = unequal_vectors(1, 12, 5)
    one, other = (apply(step, vectors, tolerated(step, 12), first) for first in (0, 1))
    assert torch.equal(one, other) is not step.random


BAD = [1e20, -1e20, math.inf, -math.inf, math.nan]


def by_first_coordinate(vectors):
    return vectors[vectors[:, 0].argsort(stable=True)]


def check_permutation(step, n, f):
    """Permuted inputs give the same outputs, in some order."""
    vectors = unequal_vectors(n, 5)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    close(by_first_coordinate(apply(step, vectors[order], f)), by_first_coordinate(apply(step, vectors, f)))


def check_translation(step, n, f):
    vectors = unequal_vectors(n, 5)
    close(apply(step, vectors + 40.0, f), apply(step, vectors, f) + 40.0)


def check_scale(step, n, f):
    vectors = unequal_vectors(n, 5)
    close(apply(step, 7.0 * vectors, f), 7.0 * apply(step, vectors, f))


def check_negation(step, n, f):
    vectors = unequal_vectors(n, 5)
    close(apply(step, -vectors, f), -apply(step, vectors, f))


def check_unanimity(step, n, f):
    vector = unequal_vectors(1, 5)
    close(apply(step, vector.repeat(n, 1), f), vector.repeat(step.transforms(n, f)[0], 1), 1e-12)


def check_breakdown(step, n, f):
    """At most f' outputs leave the range of the honest vectors."""
    for dtype in (torch.float32, torch.float64):
        for value in BAD:
            vectors = unequal_vectors(n, 5, dtype=dtype) + 3.0
            vectors[n - f :] = value
            low, high = vectors[: n - f].amin(dim=0) - 1e-5, vectors[: n - f].amax(dim=0) + 1e-5
            outputs = apply(step, vectors, f)
            inside = ((low <= outputs) & (outputs <= high)).all(dim=-1)
            assert int((~inside).sum()) <= step.transforms(n, f)[1]


def check_weights(step, n, f):
    """The weights of every output sum to one."""
    mixing = mapped(step, unequal_vectors(n, 5), f).mixing
    close(mixing.sum(dim=-1), torch.ones(step.transforms(n, f)[0], dtype=torch.float64))


CHECKS = {
    "permutation": check_permutation,
    "translation": check_translation,
    "scale": check_scale,
    "negation": check_negation,
    "unanimity": check_unanimity,
    "breakdown": check_breakdown,
    "weights": check_weights,
}


def passes(check, step, n, f):
    try:
        CHECKS[check](step, n, f)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("check", CHECKS)
@EVERY_MAP_AND_SIZE
def test_contract(step, check, n, f):
    if check not in step.exceptions:
        CHECKS[check](step, n, f)


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_declared_exception_is_needed(name):
    exceptions = DEFAULTS[name].exceptions
    assert set(exceptions) <= set(CHECKS)
    variants = [step for step in MAPS.values() if step.name == name]
    for check in exceptions:
        sizes = [(step, n, f) for step in variants for n, f in SIZES if step.tolerates(n, f)]
        assert not all(passes(check, *where) for where in sizes), check


@pytest.mark.parametrize("step", [MAPS["clipping"], MAPS["clipping 3"], MAPS["arc"]], ids=["1", "3", "arc"])
@pytest.mark.parametrize(("n", "f"), SIZES, ids=[f"n{n}-f{f}" for n, f in SIZES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("value", BAD)
def test_a_clipped_output_is_finite_and_no_longer_than_allowed(step, n, f, dtype, value):
    vectors = unequal_vectors(n, 5, dtype=dtype)
    longest = step.c if step.name == "clipping" else float(vectors[: n - f].norm(dim=-1).max())
    vectors[n - f :] = value
    outputs, mixing = mapped(step, vectors, f)
    assert outputs.isfinite().all()
    assert outputs.norm(dim=-1).max() <= longest * (1 + 1e-6)
    assert ((mixing >= 0) & (mixing <= 1)).all()


@EVERY_MAP
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_purity(step, dtype):
    vectors = unequal_vectors(2, 9, 5, dtype=dtype)
    before = vectors.clone()
    outputs, mixing = mapped(step, vectors, tolerated(step, 9))
    for output in [outputs] if mixing is None else [outputs, mixing]:
        assert output.dtype == dtype
        assert output.device == vectors.device
        output.fill_(123.0)
    assert torch.equal(vectors, before)


@EVERY_MAP_AND_SIZE
def test_mixing_reproduces_the_outputs(step, n, f):
    vectors = unequal_vectors(n, 5)
    outputs, mixing = mapped(step, vectors, f)
    if mixing is None:
        pytest.skip("its outputs are not weighted sums")
    close((mixing[..., None] * vectors).sum(dim=-2), outputs)


@EVERY_MAP
def test_tolerates_is_the_condition(step):
    conditions.check(step)


@EVERY_MAP
def test_metadata(step):
    assert step.formula
    assert step.reference
    assert step.condition
    assert PREAGGREGATORS.parse(step.content(), "step") == step


@pytest.mark.parametrize(
    ("name", "field", "wrong"),
    [("bucketing", "s", 0), ("bucketing", "s", 1.5), ("clipping", "c", 0.0), ("clipping", "c", math.inf)],
)
def test_a_wrong_field_is_told(name, field, wrong):
    with pytest.raises(UserError, match=rf"^step\.{field} = "):
        PREAGGREGATORS.parse({"name": name, field: wrong}, "step")


def test_nnm_keeps_n_and_f_and_multiplies_kappa():
    nnm = MAPS["nnm"]
    assert nnm.transforms(9, 3) == (9, 3)
    assert nnm.kappa(9, 3, 2.0) == pytest.approx(8 * 3 / 6 * 3)


def test_nnm_counts_the_vector_itself_and_breaks_ties_by_the_lowest_index():
    vectors = torch.tensor([[0.0], [2.0], [0.0], [-2.0], [0.0]])
    mapped, mixing = MAPS["nnm"].apply(vectors, 2)
    assert mapped.flatten().tolist() == pytest.approx([0.0, 2 / 3, 0.0, -2 / 3, 0.0])
    assert mixing[1].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.0, 0.0])
    equal = MAPS["nnm"].apply(torch.ones(5, 1), 2).mixing
    assert bool((equal.diagonal() > 0).all())
    assert equal[4].tolist() == pytest.approx([1 / 3, 1 / 3, 0.0, 0.0, 1 / 3])


@pytest.mark.parametrize(("n", "s", "expected"), [(25, 2, 13), (24, 2, 12), (7, 3, 3), (7, 1, 7), (7, 9, 1)])
def test_bucketing_counts_its_buckets(n, s, expected):
    step = PREAGGREGATORS["bucketing"](s=s)
    assert step.transforms(n, 2) == (expected, 2)
    assert step.kappa(n, 2, 1.0) is None
    mixing = mapped(step, unequal_vectors(1, n, 2), 2).mixing[0]
    assert ((mixing > 0).sum(dim=0) == 1).all()  # every vector in one bucket
    assert (mixing > 0).sum(dim=1).tolist() == [min(s, n - k * s) for k in range(expected)]


def test_every_replica_and_pair_meets_in_a_bucket_equally_often():
    """Which of 5 others shares the bucket of vector 0, over 5000 replicas. False alarm: 1e-3."""
    mixing = mapped(PREAGGREGATORS["bucketing"](s=2), torch.zeros(5000, 6, 1), 1).mixing
    bucket = (mixing > 0).int().argmax(dim=-2)
    partners = (bucket[:, 1:] == bucket[:, :1]).sum(dim=0)
    expected = 5000 / 5
    assert float(((partners - expected) ** 2 / expected).sum()) < 18.467  # chi-square, 4 degrees of freedom


def test_arc_by_hand():
    """N = 10, f = 2: floor(2 * 0.2 * 8) = 3 vectors are shortened to the fourth largest norm, 7."""
    vectors = torch.arange(1.0, 11.0)[:, None] * torch.tensor([0.6, -0.8])
    outputs = apply(MAPS["arc"], vectors, 2)
    close(outputs.norm(dim=-1), torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 7, 7, 7]), 1e-5)
    assert torch.equal(outputs[:7], vectors[:7])


@pytest.mark.parametrize("value", [1.0, math.inf, math.nan])
def test_arc_without_tolerance_changes_nothing(value):
    vectors = unequal_vectors(9, 5)
    vectors[3] = value
    assert torch.equal(apply(MAPS["arc"], vectors, 0).nan_to_num(nan=7.0), vectors.nan_to_num(nan=7.0))


def test_arc_adds_to_kappa():
    assert MAPS["arc"].transforms(9, 2) == (9, 2)
    assert MAPS["arc"].kappa(9, 2, 3.0) == pytest.approx(3.0 + 2 * 2 / 5)


@EVERY_MAP
@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "krum"])
@pytest.mark.parametrize(("n", "f"), [(7, 1), (7, 2), (9, 3)])
def test_no_input_is_found_that_breaks_the_kappa(step, rule, n, f):
    rule, reached = AGGREGATORS[rule](), step.transforms(n, f)
    bound = step.kappa(n, f, rule.kappa(*reached)) if rule.tolerates(*reached) and step.tolerates(n, f) else None
    if bound is None:
        pytest.skip("no kappa is claimed")
    found = hardest_kappa(lambda vectors: rule.aggregate(apply(step, vectors, f), reached[1]).vector, n, f)
    assert found <= bound
    assert found > f / (n - 2 * f) * (1 - 1e-6)  # the search finds what breaks every rule
