"""Hand examples and special cases of single rules."""

import math
from typing import Literal

import numpy as np
import oracles
import pytest
import torch
from aggregator_contract import RULES, VARIANTS, aggregate, assert_close, spread, streams
from inputs import unequal_vectors
from oracles.arithmetic import sum_of_distances

from pipeline.core.errors import UserError
from pipeline.core.vectors import squared_distances
from pipeline.defences.aggregators import AGGREGATORS, Aggregated
from pipeline.defences.aggregators.coordinatewise import Meamed, Median, Phocas, SignMajority
from pipeline.defences.aggregators.distance import Bulyan, Krum, MultiKrum, pick_by_krum
from pipeline.defences.aggregators.iterative import CenteredClipping, GeometricMedian
from pipeline.defences.aggregators.selection import CGE, MoNNA
from pipeline.defences.aggregators.spectral import CAF, DnC
from pipeline.defences.aggregators.subsets import MDA, SMEA


class StuckAtAVector(GeometricMedian):
    """Smoothed Weiszfeld with a stop at small steps: a vector at which it starts holds it."""

    def _aggregate(self, vectors, f, state, stream):
        z, moved = Median().aggregate(vectors, f).vector, math.inf
        while moved > 1e-4:
            weights = 1 / (vectors - z).norm(dim=-1, keepdim=True).clamp_min(1e-6)
            previous, z = z, (weights * vectors).sum(dim=-2) / weights.sum(dim=-2)
            moved = float((z - previous).norm())
        return Aggregated(z, state)


SHAPES = {
    "random": unequal_vectors(9, 3),
    "even": unequal_vectors(8, 2),
    "line": torch.outer(torch.tensor([0.0, 1.0, 3.0, 4.0, 9.0]), torch.tensor([1.0, 2.0])).double(),
    "even_line": torch.outer(torch.tensor([0.0, 1.0, 3.0, 4.0]), torch.tensor([1.0, 2.0])).double(),
    "start_at_a_vector": torch.tensor([[0, 0], [1, 0.05], [1, -0.05], [-0.05, 1], [-0.05, -1]], dtype=torch.float64),
    "minimum_at_a_vector": torch.tensor([[0, 0], [3, 0.1], [0.1, 3], [-0.1, -0.2], [-0.2, -0.1]], dtype=torch.float64),
    "minimum_at_two_equal_vectors": torch.tensor([[0, 0], [0, 0], [10, 1], [10, -1]], dtype=torch.float64),
    "minimum_near_two": torch.tensor([[0, 0], [0, 0], [1, 0.01], [1, -0.01], [1, 1]], dtype=torch.float64),
    "majority_equal": torch.tensor([[1e3, 1e3]] * 3 + [[5e3, 0.0], [-9.0, 4.0]], dtype=torch.float64),
}


@pytest.mark.parametrize("name", SHAPES)
def test_geometric_median_minimises_the_sum_of_distances(name):
    vectors = SHAPES[name]
    expected = oracles.twin("aggregators", "geometric_median")(vectors.tolist(), 0)
    least = sum_of_distances(vectors.tolist(), expected)
    found = GeometricMedian().aggregate(vectors, 0)
    assert not found.unconverged
    if name != "even_line":  # every point between the two middle ones is a minimiser
        assert_close(found.vector, torch.tensor(expected, dtype=torch.float64), 1e-7 * spread(vectors))
    assert sum_of_distances(vectors.tolist(), found.vector.tolist()) <= least * (1 + 1e-14)


def under_attack(attack, strength, n=17, b=5, d=2410, seed=0):
    honest = 0.3 + unequal_vectors(n - b, d, seed=seed)
    mean, sd = honest.mean(dim=0), honest.std(dim=0, correction=0)
    sent = mean - strength * sd if attack == "alie" else -strength * mean
    return torch.cat([honest, sent.expand(b, d)])


def residual(vectors, z):
    """max(|R| - c, 0) / n from the definition, in extended precision."""
    offsets = vectors.numpy().astype(np.longdouble) - z.numpy().astype(np.longdouble)
    distances = np.sqrt((offsets**2).sum(axis=1))
    apart = distances > 1e-12 * float(vectors.norm(dim=-1).median())
    pull = (offsets[apart] / distances[apart, None]).sum(axis=0)
    return float(max(np.sqrt((pull**2).sum()) - (~apart).sum(), 0) / len(offsets))


@pytest.mark.parametrize("strength", [0.05, 0.25, 0.5, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("attack", ["alie", "ipm"])
def test_geometric_median_is_exact_under_attack_after_a_few_rounds(attack, strength):
    """Where several equal vectors pull at z, Weiszfeld's iteration alone takes hundreds of rounds."""
    vectors = under_attack(attack, strength)
    found = GeometricMedian(iterations=8).aggregate(vectors, 5)
    assert not found.unconverged
    assert residual(vectors, found.vector) <= 1e-8


@pytest.mark.parametrize("n", range(3, 18))
@pytest.mark.parametrize("kind", ["normal", "cauchy", "repeated", "integers", "clusters", "nearly_a_line", "far"])
def test_geometric_median_is_a_minimiser_of_any_input(kind, n):
    generator = np.random.default_rng(n)
    for d in (2, 3, 5):
        normal = generator.normal(size=(20, n, d))
        vectors = {
            "normal": normal,
            "cauchy": generator.standard_cauchy((20, n, d)),
            "repeated": np.take_along_axis(normal, generator.integers(0, 1 + n // 2, (20, n, 1)), axis=1),
            "integers": np.round(2 * normal),
            "clusters": normal[:, generator.integers(0, 3, n)] + 1e-3 * normal,
            "nearly_a_line": normal[..., :1] + 1e-4 * normal,
            "far": normal * np.where(np.arange(n) < (n - 1) // 2, 1e20, 1.0)[:, None],
        }[kind]
        found = GeometricMedian().aggregate(torch.from_numpy(vectors), 0)
        assert not found.unconverged.any()
        for replica, z in zip(torch.from_numpy(vectors), found.vector, strict=True):
            assert residual(replica, z) <= 1e-7


def test_geometric_median_of_an_even_number_on_a_line_is_the_middle_of_the_minimisers():
    direction = torch.tensor([1.0, -3.0, 0.5], dtype=torch.float64)
    found = aggregate(GeometricMedian(), torch.tensor([0.0, 1.0, 4.0, 9.0])[:, None] * direction, 0)
    assert_close(found, 2.5 * direction, 1e-14)


def test_geometric_median_says_where_it_ran_out_of_rounds():
    vectors = torch.stack([unequal_vectors(9, 3), torch.ones(9, 3, dtype=torch.float64)])
    assert GeometricMedian(iterations=1).aggregate(vectors, 2).unconverged.tolist() == [True, False]
    assert Median().aggregate(vectors, 2).unconverged is None


def test_geometric_median_is_not_stuck_at_the_vector_where_it_starts():
    vectors = SHAPES["start_at_a_vector"]
    assert torch.equal(Median().aggregate(vectors, 0).vector, vectors[0])
    assert aggregate(StuckAtAVector(), vectors, 0).norm() < 1e-3
    assert aggregate(GeometricMedian(), vectors, 0)[0] > 0.5


@pytest.mark.parametrize("factor", [1e-8, 1e6])
def test_geometric_median_of_tiny_and_large_float32_inputs(factor):
    vectors = unequal_vectors(9, 5)
    scaled = aggregate(GeometricMedian(), (factor * vectors).float(), 2).double() / factor
    assert_close(scaled, aggregate(GeometricMedian(), vectors, 2), 1e-6 * spread(vectors))


WEIGHTED = ["mean", "krum", "multi_krum", "monna", "cge", "mda", "smea", "caf", "dnc", "geometric_median"]


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_weighted_mean_tells_its_weights(name):
    assert RULES[name].aggregate(unequal_vectors(4, 9, 5), 2, stream=streams(0, 4)).weights is not None


def test_krum_ties_go_to_the_lowest_index():
    assert aggregate(RULES["krum"], torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]]), 1) == 2.0


def test_registering_a_rule_is_enough_to_be_parsed_by_name():
    with pytest.raises(UserError, match=r"rule.name = 'medain': unknown name; .*did you mean 'median'"):
        AGGREGATORS.parse({"name": "medain"}, "rule")
    with pytest.raises(ValueError, match="two classes for the aggregation rule 'krum'"):

        @AGGREGATORS.register
        class Twin(Krum):
            name: Literal["krum"] = "krum"


FAR = [1e4, 1e15, 1e20, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("far", FAR, ids=str)
@pytest.mark.parametrize("name", ["multi_krum", "monna", "cge", "mda", "smea", "dnc"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_far_vectors_are_dropped_and_no_other(name, far, dtype):
    vectors = 1 + 1e-3 * unequal_vectors(11, 40, dtype=dtype)
    vectors[7:10] = far * torch.tensor([1.0, 1.0, 3.0], dtype=dtype)[:, None]
    honest = torch.cat([vectors[:7], vectors[10:]]).mean(dim=0)
    assert_close(aggregate(RULES[name], vectors, 3), honest, 1e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("far", FAR[1:], ids=str)
@pytest.mark.parametrize("name", ["krum", "multi_krum", "mda", "smea", "bulyan", "meamed"])
def test_how_far_an_outlier_is_changes_nothing_among_the_others(name, far):
    """A second outlier is subtle: telling it from the rest needs the geometry that a far one could erase."""
    vectors = 1 + 1e-3 * unequal_vectors(11, 40)
    vectors[1] += 1e-3
    expected = vectors.clone()
    expected[4], vectors[4] = math.copysign(1e4, far), far
    assert_close(aggregate(RULES[name], vectors, 2), aggregate(RULES[name], expected, 2), 1e-15)


@pytest.mark.parametrize("size", [1e4, 1e10, 1e20])
def test_caf_filters_outliers_of_graded_sizes(size):
    vectors = 1 + 1e-3 * unequal_vectors(11, 40)
    for i in range(3):
        vectors[i, 10 * i] = size ** (1 - i / 3)
    found = aggregate(CAF(), vectors, 3)
    assert (found - vectors[3:].mean(dim=0)).norm() < spread(vectors)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_diverged_replica_crashes_no_rule_and_leaves_the_others(rule):
    vectors = unequal_vectors(3, 9, 5)
    alone = aggregate(rule, vectors[1], 1, first=1)
    vectors[0], vectors[2] = math.nan, math.inf
    found = aggregate(rule, vectors, 1)
    assert torch.equal(found[1], alone)


def test_caf_of_equal_vectors_keeps_their_value():
    assert torch.equal(aggregate(CAF(), torch.ones(5, 3), 2), torch.ones(3))


def test_caf_returns_the_mean_of_least_variance_not_the_last():
    vectors = torch.cat([unequal_vectors(20, 6), 4 + unequal_vectors(10, 6, seed=1)])
    weights = CAF().aggregate(vectors, 10).weights
    assert (weights > 0).sum() > 10


def test_bulyan_picks_again_after_every_removal():
    distances = squared_distances(column(0, 1, 2.1, 3.3, 4.6, 6, 100))
    # each of three, then two, then one nearest others; of mutually nearest ones the better placed comes first
    assert pick_by_krum(distances, 1, 5).tolist() == [2, 3, 1, 4, 5]


def test_bulyan_needs_its_second_stage_where_the_last_pick_is_byzantine():
    vectors = unequal_vectors(15, 5)
    vectors[:3] = 50.0
    picked = pick_by_krum(squared_distances(vectors), 3, 9)
    assert sum(i < 3 for i in picked.tolist()) == 1
    assert aggregate(Bulyan(), vectors, 3).abs().max() < 3


def test_mda_prefers_the_crowded_one_of_two_subsets_of_least_diameter():
    # 0 and 4 are the pair that decides, whichever of the two middle vectors, too far from each other, is taken
    vectors = torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 2.5], [2.0, -2.0], [2.0, 0.1]])
    found = aggregate(MDA(), vectors, 1)
    assert found.tolist() == [2.0, pytest.approx(-0.475)]
    assert torch.equal(aggregate(MDA(), vectors.flip(0), 1), found)


def test_monna_follows_its_pivot():
    vectors = column(0, 0, 0, 9, 9)
    assert aggregate(MoNNA(pivot=0), vectors, 2).item() == 0
    assert aggregate(MoNNA(pivot=4), vectors, 2).item() == 6
    assert MoNNA(pivot=4).tolerates(5, 2)
    assert not MoNNA(pivot=5).tolerates(5, 2)


def test_monna_counts_the_pivot_itself_before_its_copies():
    weights = MoNNA(pivot=3).aggregate(torch.ones(5, 2), 2).weights
    assert weights.nonzero().flatten().tolist() == [0, 1, 3]


def test_centered_clipping_starts_at_the_previous_aggregate():
    rule, vectors, start = CenteredClipping(tau=0.5, iterations=2), unequal_vectors(4, 9, 5), unequal_vectors(4, 5)
    vector, state, *_ = rule.aggregate(vectors, 2, state=start)
    for replica in range(4):
        fields = {"tau": 0.5, "iterations": 2, "start": start[replica].tolist()}
        expected = oracles.twin("aggregators", "centered_clipping")(vectors[replica].tolist(), 2, **fields)
        assert_close(vector[replica], torch.tensor(expected, dtype=torch.float64), 1e-12)
    assert torch.equal(state, vector)
    assert torch.equal(rule.init_state(start), torch.zeros_like(start))
    candidates = rule.aggregate(vectors.expand(3, 4, 9, 5), 2, state=start).vector
    assert torch.equal(candidates, vector.expand(3, 4, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_centered_clipping_moves_by_tau_towards_a_huge_vector_and_not_towards_nan(dtype):
    rule = CenteredClipping(tau=3.0)
    vectors = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 1e30], [math.nan, 1.0]], dtype=dtype)
    assert_close(aggregate(rule, vectors, 1), torch.tensor([0.0, 0.75], dtype=dtype), 1e-6)


def test_dnc_falls_back_to_the_last_kept_set():
    rule = DnC(niters=2, sub_dim=1, c=2)
    vectors = torch.tensor([[9.0, 0.0], [-9.0, 0.0], [0.0, 9.0], [0.0, -9.0]])
    seed = next(seed for seed in range(50) if sampled_first_coordinates(rule, seed) == [0, 1])
    weights = rule.aggregate(vectors[None], 1, stream=streams(seed, 1)).weights[0]
    assert weights.tolist() == [0.5, 0.5, 0.0, 0.0]


def sampled_first_coordinates(rule, seed):
    return [rule.sample(streams(seed, 1), number, 2)[0].item() for number in range(rule.niters)]


def test_dnc_samples_without_replacement_another_set_for_every_replica_and_round():
    rule = DnC(niters=2, sub_dim=30)
    sampled = [rule.sample(streams(0, 2), number, 100)[replica] for number in range(2) for replica in range(2)]
    assert all(len(set(coordinates.tolist())) == 30 for coordinates in sampled)
    assert len({tuple(sorted(coordinates.tolist())) for coordinates in sampled}) == 4


def test_dnc_gives_stacked_candidates_the_sample_of_their_replica():
    rule, vectors = VARIANTS["dnc_of_three_coordinates"], unequal_vectors(4, 2, 9, 5)
    together = rule.aggregate(vectors, 2, stream=streams(0, 2)).vector
    for candidate in range(4):
        assert torch.equal(together[candidate], rule.aggregate(vectors[candidate], 2, stream=streams(0, 2)).vector)
    with pytest.raises(ValueError, match="needs a stream"):
        rule.aggregate(vectors, 2)


@pytest.mark.parametrize(("c", "kept"), [(0.5, 6), (1.0, 5), (1.5, 4), (2.0, 3)])
def test_dnc_drops_c_times_f_rounded_down(c, kept):
    weights = DnC(c=c).aggregate(unequal_vectors(1, 7, 5), 2).weights
    assert int((weights > 0).sum()) == kept


def test_conditions_that_depend_on_a_field():
    assert MultiKrum(m=5).tolerates(7, 2)
    assert not MultiKrum(m=6).tolerates(7, 2)
    assert SMEA().tolerates(17, 5)
    assert not SMEA().tolerates(25, 5)
    assert SMEA(max_subsets=53_130).tolerates(25, 5)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"name": "krum", "power": 3}, r"rule.power = 3: should be 1, 2 or 4"),
        ({"name": "krum", "neighbours": "n"}, r"rule.neighbours = 'n': should be 'n-f-2' or 'n-f-1'"),
        ({"name": "multi_krum", "m": 0}, r"rule.m = 0: should be greater than or equal to 1"),
        ({"name": "monna", "pivot": -1}, r"rule.pivot = -1: should be greater than or equal to 0"),
        ({"name": "centered_clipping", "tau": 0.0}, r"rule.tau = 0.0: should be greater than 0"),
        ({"name": "centered_clipping", "iterations": 0}, r"rule.iterations = 0: should be greater than"),
        ({"name": "dnc", "c": 2.5}, r"rule.c = 2.5: should be less than or equal to 2"),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_a_field_out_of_range_is_refused(value, fault):
    with pytest.raises(UserError, match=fault):
        AGGREGATORS.parse(value, "rule")


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


HAND = {
    # median 3: the four nearest of five are 1, 3, 4 and 5 (the smaller of 1 and 5 first, then the other)
    "meamed": (Meamed(), column(1, 3, 4, 5, -9), 1, 3.25),
    # trimmed mean (1 + 3 + 4) / 3 = 2.67
    "phocas": (Phocas(), column(1, 3, 4, 9, -9), 1, 4.25),
    # values 0 and 4 are equally far from the median 2
    "meamed_tie": (Meamed(), column(0, 2, 4), 1, 1.0),
    # two nearest others: 1 and 2 score 1 + 1, 3 and 0 score 1 + 4, 8 scores 25 + 36
    "krum": (Krum(), column(1, 2, 3, 8, 0), 1, 1.0),
    "multi_krum": (MultiKrum(), column(1, 2, 3, 8, 0), 1, 1.5),
    "multi_krum_of_one": (MultiKrum(m=1), column(1, 2, 3, 8, 0), 1, 1.0),
    "monna": (MoNNA(pivot=3), column(1, 2, 3, 8, 0), 2, 13 / 3),
    "cge": (CGE(), column(1, -2, 3, -8, 0.5), 2, -0.5 / 3),
    "mda": (MDA(), column(0, 3, 4, 5, 9), 2, 4.0),
    "mda_without_faults": (MDA(), column(0, 3, 4, 5, 9), 0, 4.2),
    "smea": (SMEA(), column(0, 3, 4, 5, 9), 2, 4.0),
    "caf_without_faults": (CAF(), column(0, 3, 4, 5, 9), 0, 4.2),
    # mean 2, t = 4, 4, 4, 36: 9 is gone after one round, the others keep equal weights
    "caf": (CAF(), column(0, 0, 0, 8), 1, 0.0),
    "dnc": (DnC(), column(0, 3, 4, 5, 29), 1, 3.0),
    "sign_majority": (SignMajority(), column(-1e9, -0.1, 2, 3, 1e-9), 2, 1.0),
    "sign_majority_tie": (SignMajority(), column(-5, 5, 0), 1, 0.0),
    "centered_clipping": (CenteredClipping(tau=2.0), column(1, -1, 2, 100), 1, 1.0),
    "centered_clipping_twice": (CenteredClipping(tau=2.0, iterations=2), column(1, -1, 2, 100), 1, 1.25),
}


@pytest.mark.parametrize("name", HAND)
def test_by_hand(name):
    rule, vectors, f, expected = HAND[name]
    assert aggregate(rule, vectors, f).item() == pytest.approx(expected)


def test_the_weiszfeld_kernel_computes_what_the_expressions_say(monkeypatch):
    """Also where z meets a point, where points coincide, and where some do not count."""
    vectors = unequal_vectors(6, 9, 4)
    vectors[1, 2:] = vectors[1, 2]
    vectors[2, [3, 5]], vectors[3, :4], vectors[4] = 1e9, torch.nan, 0.0
    vectors[5, 4:] = vectors[5, :4].mean(dim=0) + 1e-9 * vectors[5, 4:]
    rules = GeometricMedian(), GeometricMedian(iterations=1)
    compiled = [rule.aggregate(vectors, 2) for rule in rules]
    monkeypatch.setattr("pipeline.core.kernels.basis.on_cpu", lambda vectors: False)
    for rule, found in zip(rules, compiled, strict=True):
        expected = rule.aggregate(vectors, 2)
        torch.testing.assert_close(found.vector, expected.vector, rtol=1e-9, atol=1e-9)
        assert torch.equal(found.unconverged, expected.unconverged)
    assert compiled[1].unconverged.any()
    assert not compiled[0].unconverged.any()
