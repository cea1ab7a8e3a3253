"""The contract of an aggregation rule: the checks that every registered rule passes or declares an exception to."""

import math

import oracles
import pytest
import torch
from inputs import draw_from, examples, unequal_vectors
from robustness import hardest_kappa

from pipeline.core.rng import Stream
from pipeline.defences.aggregators import AGGREGATORS, Aggregated

RULES = examples(AGGREGATORS)
SIZES = [(7, 0), (7, 1), (7, 2), (7, 3), (8, 1), (8, 2), (8, 3), (9, 2), (9, 4), (30, 4), (30, 14)]
HOSTILE = {"1e20": 1e20, "-1e20": -1e20, "inf": math.inf, "-inf": -math.inf, "nan": math.nan}
# Examples of other parameters, on which the whole contract runs as well.
VARIANTS = {
    "krum_one_neighbour_more": AGGREGATORS["krum"](neighbours="n-f-1"),
    "krum_plain_distance": AGGREGATORS["krum"](power=1),
    "krum_fourth_power": AGGREGATORS["krum"](power=4),
    "multi_krum_of_two": AGGREGATORS["multi_krum"](m=2, neighbours="n-f-1"),
    "monna_around_the_last": AGGREGATORS["monna"](pivot=6),
    "dnc_of_three_coordinates": AGGREGATORS["dnc"](niters=3, sub_dim=3),
    "centered_clipping_tight": AGGREGATORS["centered_clipping"](tau=2.0, iterations=3),
}
CHECKS = {}


def check(function):
    CHECKS[function.__name__.removeprefix("check_")] = function
    return function


def spread(vectors):
    return float((vectors - vectors.median(dim=-2, keepdim=True).values).norm(dim=-1).median())


def assert_close(actual, expected, tolerance):
    assert actual.shape == expected.shape
    assert bool(actual.isfinite().all())
    error = float((actual - expected).abs().max())
    assert error <= tolerance


def streams(first, replicas):
    return Stream.of(range(first, first + replicas), "test")


def aggregate(rule, vectors, f, first=0):
    """The aggregate of ``[n, d]`` or ``[..., R, n, d]``; replica r draws the random numbers of seed ``first`` + r."""
    if not rule.random:
        return rule.aggregate(vectors, f).vector
    if vectors.ndim == 2:
        return rule.aggregate(vectors[None], f, stream=streams(first, 1)).vector[0]
    return rule.aggregate(vectors, f, stream=streams(first, vectors.shape[-3])).vector


@check
def check_shapes(rule, n, f):
    for batch in [(2,), (2, 3)] if rule.random else [(), (2,), (2, 3)]:
        stream = streams(0, batch[-1] if batch else 1)
        result = rule.aggregate(unequal_vectors(*batch, n, 5), f, stream=stream)
        assert isinstance(result, Aggregated), "_aggregate should return Aggregated(vector, state, weights)"
        assert result.vector.shape == (*batch, 5), "the aggregate of vectors [..., n, d] should be [..., d]"
        assert result.weights is None or result.weights.shape == (*batch, n), "the weights should be [..., n]"


@check
def check_weights(rule, n, f):
    """The weights of a rule that gives them reproduce the aggregate."""
    vectors = unequal_vectors(4, n, 5)
    vector, _, weights = rule.aggregate(vectors, f, stream=streams(0, 4))
    if weights is not None:
        assert_close((weights[..., None] * vectors).sum(dim=-2), vector, 1e-5 * spread(vectors))
        assert_close(weights.sum(dim=-1), torch.ones(4, dtype=torch.float64), 1e-12)
        assert bool((weights >= 0).all())


@check
def check_batch(rule, n, f):
    """A replica's result is bit for bit that of the replica alone."""
    for dtype in (torch.float32, torch.float64):
        vectors = unequal_vectors(2, 3, n, 5, dtype=dtype)
        vectors[0, 1] *= 1e6
        together = aggregate(rule, vectors, f)
        for i, j in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]:
            assert torch.equal(together[i, j], aggregate(rule, vectors[i, j], f, first=j))
            assert torch.equal(together[i : i + 1, j], aggregate(rule, vectors[i : i + 1, j], f, first=j))


@check
def check_permutation(rule, n, f):
    for seed in range(5):
        vectors = unequal_vectors(n, 5, seed=seed)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        assert_close(aggregate(rule, vectors[order], f), aggregate(rule, vectors, f), 1e-9)


@check
def check_translation(rule, n, f):
    vectors, offset = unequal_vectors(n, 5), torch.tensor([3.0, -40.0, 0.0, 1.0, 7.0], dtype=torch.float64)
    assert_close(aggregate(rule, vectors + offset, f), aggregate(rule, vectors, f) + offset, 1e-9)


@check
def check_scale(rule, n, f):
    vectors = unequal_vectors(n, 5)
    for factor in (1e-8, 1e-3, 7.0, 1e6):
        assert_close(aggregate(rule, factor * vectors, f), factor * aggregate(rule, vectors, f), factor * 1e-9)


@check
def check_negation(rule, n, f):
    for seed in range(5):
        vectors = unequal_vectors(n, 5, seed=seed)
        assert_close(aggregate(rule, -vectors, f), -aggregate(rule, vectors, f), 1e-9)


@check
def check_unanimity(rule, n, f):
    vector = unequal_vectors(1, 5)
    assert_close(aggregate(rule, vector.repeat(n, 1), f), vector[0], 1e-12)


@check
def check_fault_free(rule, n, f):
    """With f = 0 the bound holds for the one subset there is: all vectors."""
    vectors = unequal_vectors(n, 5)
    error = (aggregate(rule, vectors, 0) - vectors.mean(dim=0)).square().sum()
    variance = (vectors - vectors.mean(dim=0)).square().sum(dim=-1).mean()
    assert float(error) <= rule.kappa(n, 0) * float(variance) + 1e-20


def hostile_rows(f, d, dtype):
    """Per kind, f rows: one value throughout, all values within each row, or another value in each row."""
    values = torch.tensor(list(HOSTILE.values()), dtype=dtype)
    mixed = torch.cat([values, torch.ones(1, dtype=dtype)]).repeat(f * d)[: f * d].view(f, d)
    rows = {name: torch.full((f, d), value, dtype=dtype) for name, value in HOSTILE.items()}
    return rows | {"mixed": mixed, "different": values.repeat(f)[:f, None].expand(f, d)}


def hostile_places(rule, n, f):
    """The first, the last and every second of the workers that the rule does not trust."""
    untrusted = [i for i in range(n) if i != getattr(rule, "pivot", None)]
    return untrusted[:f], untrusted[len(untrusted) - f :], untrusted[: 2 * f : 2]


@check
def check_breakdown(rule, n, f):
    """The aggregate stays where the honest vectors are: within sqrt(kappa) of their root mean square distance."""
    kappa = rule.kappa(n, f) or 100.0
    for dtype in (torch.float32, torch.float64):
        for rows in hostile_rows(f, 5, dtype).values():
            for places in hostile_places(rule, n, f):
                vectors = unequal_vectors(n, 5, dtype=dtype)
                honest = vectors[[i for i in range(n) if i not in places]]
                vectors[list(places)] = rows
                error = (aggregate(rule, vectors, f) - honest.mean(dim=0)).square().sum()
                variance = (honest - honest.mean(dim=0)).square().sum(dim=-1).mean()
                assert float(error) <= 1.001 * kappa * float(variance)


@check
def check_divergence(rule, n, f):
    """Where no vector holds a number, neither does the aggregate: that training has diverged is seen."""
    for value in (math.nan, math.inf):
        assert not aggregate(rule, torch.full((n, 5), value), f).isfinite().any()


@check
def check_purity(rule, n, f):
    for dtype in (torch.float32, torch.float64):
        vectors = unequal_vectors(2, n, 5, dtype=dtype)
        before = vectors.clone()
        vector, state, weights = rule.aggregate(vectors, f, stream=streams(0, 2))
        before_state = None if state is None else state.clone()
        for output in [vector] if weights is None else [vector, weights]:
            assert output.dtype == dtype
            assert output.device == vectors.device
            output.fill_(123.0)
        assert torch.equal(vectors, before)
        assert state is None or torch.equal(state, before_state)


@check
def check_kappa(rule, n, f):
    rounding = 1e-5 if rule.stops_within else 1e-12
    found = hardest_kappa(lambda vectors: aggregate(rule, vectors, f), n, f, rounding)
    assert found <= rule.kappa(n, f) * (1 + 1e-6)


def slow_aggregate(rule, vectors, f, stream=None):
    """What the slow twin of the rule says for ``vectors [n, d]``, float64."""
    fields = rule.model_dump(exclude={"name"}, exclude_unset=True)
    draw = {"draw": draw_from(stream or streams(0, 1))} if rule.random else {}
    slow = oracles.twin("aggregators", rule.name)(vectors.tolist(), f, **fields, **draw)
    return torch.tensor(slow, dtype=torch.float64)


def assert_is_its_twin(rule, vectors, f):
    expected, exact = slow_aggregate(rule, vectors, f), (rule.stops_within or 1e-12) * spread(vectors)
    rounding = getattr(oracles.twin("aggregators", rule.name), "float32_error", 1e-5)
    assert_close(aggregate(rule, vectors, f), expected, exact)
    assert_close(aggregate(rule, vectors.float(), f).double(), expected, exact + rounding)


@check
def check_oracle(rule, n, f):
    unanswered = []
    for d in (1, 2, 5):
        try:
            for seed in range(4):
                assert_is_its_twin(rule, unequal_vectors(n, d, seed=seed), f)
        except oracles.NoAnswer as reason:
            unanswered.append(reason)
    if len(unanswered) == 3:
        pytest.skip(str(unanswered[-1]))


def applies(rule, name, n, f):
    """Whether a check says something about this rule at this size."""
    if not rule.tolerates(n, f):
        return False
    bounded = rule.kappa(n, f) is not None
    say = {"breakdown": f > 0, "fault_free": f == 0 and bounded, "kappa": n < 10 and bounded}
    return say.get(name, True)
