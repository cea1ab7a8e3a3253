"""Pre-aggregations and a rule, composed."""

from typing import ClassVar, Literal

import oracles
import pytest
import torch
from aggregator_contract import RULES, slow_aggregate, streams
from inputs import unequal_vectors
from robustness import hardest_kappa

from pipeline.core.component import parse
from pipeline.core.errors import UserError
from pipeline.defences.aggregators import AGGREGATORS
from pipeline.defences.aggregators.coordinatewise import Mean
from pipeline.defences.defence import Defence
from pipeline.defences.preaggregators import Mixed, PreAggregator
from pipeline.defences.preaggregators.mixing import NearestNeighbourMixing

NNM = NearestNeighbourMixing()
ROBUST = {name: rule for name, rule in RULES.items() if "breakdown" not in rule.exceptions}
SIZES = [(7, 0), (7, 1), (7, 2), (8, 2), (9, 3), (9, 4)]


def defence(rule, *before):
    return parse(Defence, {"before": [{"name": name} for name in before], "rule": {"name": rule}}, "defences.mine")


def compose(rule, *before):
    return Defence.model_construct(before=before, rule=rule)


def tolerated(rule, n, most):
    """The largest f up to ``most`` that the rule tolerates."""
    return next(f for f in range(most, -1, -1) if rule.tolerates(n, f))


def combinations_that_tolerate():
    for name, rule in RULES.items():
        for n, f in SIZES:
            composed = compose(rule, NNM)
            if composed.unmet(n, f) is None and composed.kappa(n, f) is not None:
                yield pytest.param(composed, n, f, id=f"nnm+{name}-n{n}-f{f}")


class Halving(PreAggregator):
    """Every output is the mean of two neighbouring inputs; a toy whose f', too, is half of f, and kappa moves by n."""

    name: Literal["halving"] = "halving"
    condition: ClassVar[str] = "n even"

    def transforms(self, n, f):
        return n // 2, f // 2

    def tolerates(self, n, f):
        return n % 2 == 0

    def kappa(self, n, f, kappa):
        return kappa + n

    def _apply(self, vectors, f, stream):
        n = vectors.shape[-2]
        mixing = torch.zeros(n // 2, n, dtype=vectors.dtype)
        for i in range(n):
            mixing[i // 2, i] = 0.5
        mixing = mixing.expand(*vectors.shape[:-2], n // 2, n)
        return Mixed(mixing @ vectors, mixing)


class Unweighted(Halving):
    def _apply(self, vectors, f, stream):
        return Mixed(super()._apply(vectors, f, stream).vectors, None)


class Recording(Mean):
    """A mean that remembers which f reached it, in its state."""

    def _aggregate(self, vectors, f, state, stream):
        return super()._aggregate(vectors, f, state, stream)._replace(state=(vectors.shape[-2], f, state))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_without_pre_aggregation_it_is_the_rule(rule):
    vectors, f, stream = unequal_vectors(2, 11, 5), tolerated(rule, 11, 2), streams(0, 2)
    plain = compose(rule).aggregate(vectors, f, stream=stream)
    alone = rule.aggregate(vectors, f, stream=stream.fork(0))
    assert torch.equal(plain.vector, alone.vector)
    assert (plain.weights is None) == (alone.weights is None)
    assert plain.weights is None or torch.equal(plain.weights, alone.weights)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_nnm_then_rule_is_the_composition_of_the_oracles(rule):
    vectors, f = unequal_vectors(11, 3), tolerated(rule, 11, 2)
    mixed = torch.tensor(oracles.twin("preaggregators", "nnm")(vectors.tolist(), f), dtype=torch.float64)
    found = compose(rule, NNM).aggregate(vectors[None], f, stream=streams(0, 1)).vector[0]
    expected, tolerance = slow_aggregate(rule, mixed, f, streams(0, 1).fork(1)), rule.stops_within or 1e-12
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def test_pre_aggregations_apply_in_the_order_given():
    vectors = unequal_vectors(12, 3)
    first = compose(Mean(), NNM, Halving()).aggregate(vectors, 2).vector
    torch.testing.assert_close(first, Halving().apply(NNM.apply(vectors, 2).vectors, 2).vectors.mean(dim=0))
    second = compose(Mean(), Halving(), NNM).aggregate(vectors, 2).vector
    torch.testing.assert_close(second, NNM.apply(Halving().apply(vectors, 2).vectors, 1).vectors.mean(dim=0))
    assert not torch.allclose(first, second)


def test_every_stage_gets_the_transformed_n_and_f():
    chain = compose(Recording(), NNM, Halving(), NNM)
    assert [(n, f) for _, n, f in chain.stages(12, 2)] == [(12, 2), (12, 2), (6, 1), (6, 1)]
    state = chain.aggregate(unequal_vectors(12, 3), 2, "before").state
    assert state == (6, 1, "before")


@pytest.mark.parametrize(
    ("before", "rule", "n", "f", "message"),
    [
        ((), "krum", 12, 5, "krum needs n >= 2f + 3, got n = 12, f = 5"),
        (("nnm",), "krum", 12, 5, "krum needs n >= 2f + 3, got n = 12, f = 5"),
        (("nnm",), "mean", 10, 5, "nnm needs n > 2f, got n = 10, f = 5"),
        (("nnm", "nnm"), "median", 11, 5, None),
        ((), "krum", 13, 5, None),
        ((), "mean", 10, 9, None),
    ],
)
def test_the_first_unmet_condition_is_named(before, rule, n, f, message):
    assert defence(rule, *before).unmet(n, f) == message


def test_conditions_are_checked_on_the_transformed_n_and_f():
    chain = compose(AGGREGATORS["krum"](), Halving())
    assert chain.unmet(18, 3) is None
    assert chain.unmet(16, 6) == "krum needs n >= 2f + 3, got n = 8, f = 3"
    assert chain.unmet(17, 3) == "halving needs n even, got n = 17, f = 3"


@pytest.mark.parametrize("name", ["mean", "krum", "geometric_median"])
@pytest.mark.parametrize("before", [(), ("nnm",), ("nnm", "nnm")], ids=["plain", "nnm", "nnm-nnm"])
def test_weights_times_received_vectors_are_the_aggregate(name, before):
    vectors = unequal_vectors(4, 9, 5)
    vector, _, weights, _ = defence(name, *before).aggregate(vectors, 2)
    torch.testing.assert_close((weights[..., None] * vectors).sum(dim=-2), vector, rtol=0, atol=1e-5)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(4, dtype=torch.float64))


def test_weights_of_the_mean_after_nnm():
    """Vector j weighs (in how many neighbourhoods it is) / (n (n - f))."""
    vectors = unequal_vectors(9, 4)
    weights = defence("mean", "nnm").aggregate(vectors, 3).weights
    distances = torch.cdist(vectors, vectors)
    neighbourhoods = [set(row.argsort()[:6].tolist()) for row in distances]
    expected = [sum(j in members for members in neighbourhoods) / (9 * 6) for j in range(9)]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64))
    assert len(set(expected)) > 1


def test_weights_are_unknown_where_a_stage_has_none():
    vectors = unequal_vectors(12, 5)
    assert defence("median").aggregate(vectors, 2).weights is None
    assert defence("trimmed_mean", "nnm").aggregate(vectors, 2).weights is None
    assert compose(Mean(), Unweighted()).aggregate(vectors, 2).weights is None
    assert compose(Mean(), NNM, Halving()).aggregate(vectors, 2).weights.shape == (12,)


def test_no_weight_reaches_a_vector_that_is_not_finite():
    vectors = unequal_vectors(9, 5)
    vectors[4], vectors[8] = torch.nan, torch.inf
    for name in ("krum", "geometric_median"):
        vector, _, weights, _ = defence(name, "nnm").aggregate(vectors, 2)
        assert bool(vector.isfinite().all())
        assert weights[[4, 8]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("rule", ROBUST.values(), ids=ROBUST)
@pytest.mark.parametrize("value", [1e20, torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_breakdown_with_nnm(rule, value, dtype):
    composed, f = compose(rule, NNM), tolerated(rule, 13, 5)
    vectors = unequal_vectors(2, 13, 5, dtype=dtype)
    vectors[:, 13 - f :] = value
    honest = vectors[:, : 13 - f]
    error = (composed.aggregate(vectors, f, stream=streams(0, 2)).vector - honest.mean(dim=1)).square().sum(dim=-1)
    variance = (honest - honest.mean(dim=1, keepdim=True)).square().sum(dim=-1).mean(dim=-1)
    assert bool((error <= (composed.kappa(13, f) or 100.0) * variance).all())


@pytest.mark.parametrize(("composed", "n", "f"), list(combinations_that_tolerate()))
def test_kappa_by_enumeration(composed, n, f):
    def aggregate(vectors):
        return composed.aggregate(vectors, f, stream=streams(0, len(vectors))).vector

    found = hardest_kappa(aggregate, n, f, 1e-5 if composed.rule.stops_within else 1e-12)
    assert found <= composed.kappa(n, f) * (1 + 1e-6)


def test_the_enumeration_refutes_a_wrong_kappa():
    """For n = 9, f = 2 no defence is better than 2/5; half of it is refuted."""
    for name in ("krum", "median", "trimmed_mean", "geometric_median"):
        composed = defence(name, "nnm")
        found = hardest_kappa(lambda vectors, d=composed: d.aggregate(vectors, 2).vector, 9, 2)
        assert found > 0.999 * 2 / 5 > 0.5 * 2 / 5


def test_kappa_of_compositions():
    assert defence("trimmed_mean", "nnm").kappa(9, 3) == pytest.approx(8 * 3 / 6 * (6 * 1 * 2 + 1))
    once = 8 * 2 / 7 * (6 * (1 + 2 / 5) + 1)
    assert defence("krum", "nnm").kappa(9, 2) == pytest.approx(once)
    assert defence("krum", "nnm", "nnm").kappa(9, 2) == pytest.approx(8 * 2 / 7 * (once + 1))
    assert defence("mean", "nnm").kappa(9, 3) is None
    chain = compose(AGGREGATORS["krum"](), Halving(), NNM)
    assert chain.kappa(22, 4) == pytest.approx(8 * 2 / 9 * (6 * (1 + 2 / 7) + 1) + 22)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"rule": {"name": "krumm"}}, "defences.mine.rule.name = 'krumm': unknown name; .*did you mean 'krum'"),
        ({"before": [{"name": "nm"}], "rule": {"name": "mean"}}, r"defences.mine.before.0.name = 'nm': .*'nnm'"),
        ({"before": [{"name": "nnm"}]}, "defences.mine.rule: missing"),
        ({"rule": "mean"}, "defences.mine.rule = 'mean': should be a mapping with a name; one of"),
        ({"rule": {"name": "mean"}, "befor": []}, "defences.mine.befor = .*: unknown key; .*did you mean 'before'"),
        ({"rule": {"name": "mean", "f": 3}}, "defences.mine.rule.f = 3: unknown key; one of 'name'"),
        ("mean", "defences.mine = 'mean'"),
    ],
)
def test_a_wrong_defence_is_explained(value, message):
    with pytest.raises(UserError, match=f"^{message}"):
        parse(Defence, value, "defences.mine")


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_input_is_left_alone(rule):
    vectors = unequal_vectors(1, 11, 5)
    before = vectors.clone()
    compose(rule, NNM).aggregate(vectors, tolerated(rule, 11, 2), stream=streams(0, 1)).vector.fill_(1.0)
    assert torch.equal(vectors, before)


@pytest.mark.company
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_replica_does_not_depend_on_its_batch_mates(rule):
    vectors, f = unequal_vectors(12, 17, 501, dtype=torch.float32), tolerated(rule, 17, 3)
    together = compose(rule, NNM).aggregate(vectors, f, stream=streams(0, 12))
    alone = compose(rule, NNM).aggregate(vectors[7:8], f, stream=streams(7, 1))
    assert torch.equal(together.vector[7], alone.vector[0])
    assert alone.weights is None or torch.equal(together.weights[7], alone.weights[0])
