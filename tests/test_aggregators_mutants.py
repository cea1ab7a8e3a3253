"""The contract catches known defects: each plausible wrong rule fails the checks that are named beside it."""

import math

import pytest
import torch
from aggregator_contract import CHECKS, SIZES, applies

from pipeline.core.order import mean_around_median
from pipeline.core.vectors import lowest, norms, squared_distances
from pipeline.defences.aggregators import Aggregated
from pipeline.defences.aggregators.base import mean_of
from pipeline.defences.aggregators.coordinatewise import Meamed, Median, Phocas, SignMajority, TrimmedMean
from pipeline.defences.aggregators.distance import Bulyan, Krum, MultiKrum, krum_scores
from pipeline.defences.aggregators.iterative import CenteredClipping, GeometricMedian
from pipeline.defences.aggregators.selection import CGE, MoNNA
from pipeline.defences.aggregators.spectral import CAF, DnC, principal
from pipeline.defences.aggregators.subsets import MDA, SMEA


class OneNeighbourMore(Krum):
    def _aggregate(self, vectors, f, state, stream):
        chosen = krum_scores(vectors, vectors.shape[-2] - f - 1).argmin(dim=-1)
        return Aggregated(vectors.gather(-2, chosen[..., None, None].expand_as(vectors[..., :1, :]))[..., 0, :], state)


class SumMinusExtremes(TrimmedMean):
    def _aggregate(self, vectors, f, state, stream):
        ordered, n = vectors.sort(dim=-2).values, vectors.shape[-2]
        extremes = ordered[..., :f, :].sum(dim=-2) + ordered[..., n - f :, :].sum(dim=-2)
        return Aggregated((vectors.sum(dim=-2) - extremes) / (n - 2 * f), state)


class LowerMedian(Median):
    def _aggregate(self, vectors, f, state, stream):
        return Aggregated(vectors.median(dim=-2).values, state)


class OneSidedTrimming(TrimmedMean):
    def _aggregate(self, vectors, f, state, stream):
        n = vectors.shape[-2]
        return Aggregated(vectors.sort(dim=-2).values[..., : n - 2 * f, :].mean(dim=-2), state)


class StartAtZeroWithAbsoluteNu(GeometricMedian):
    def _aggregate(self, vectors, f, state, stream):
        z = torch.zeros_like(vectors[..., 0, :])
        for _ in range(self.iterations):
            weights = 1 / (vectors - z[..., None, :]).norm(dim=-1, keepdim=True).clamp_min(0.1)
            z = (weights * vectors).sum(dim=-2) / weights.sum(dim=-2)
        return Aggregated(z, state)


class NearestOfTooFew(Meamed):
    def _aggregate(self, vectors, f, state, stream):
        return Aggregated(mean_around_median(vectors, vectors.shape[-2] - 2 * f), state)


class AroundTheMedian(Phocas):
    def _aggregate(self, vectors, f, state, stream):
        return Meamed().aggregate(vectors, f)


class SignOfTheMean(SignMajority):
    def _aggregate(self, vectors, f, state, stream):
        return Aggregated(vectors.mean(dim=-2).sign(), state)


class SumOfTheBest(MultiKrum):
    def _aggregate(self, vectors, f, state, stream):
        return Aggregated(super()._aggregate(vectors, f, state, stream).vector * (vectors.shape[-2] - f), state)


class OneShot(Bulyan):
    def _aggregate(self, vectors, f, state, stream):
        n = vectors.shape[-2]
        order = krum_scores(vectors, n - f - 2).argsort(dim=-1)[..., : n - 2 * f, None]
        chosen = vectors.take_along_dim(order, dim=-2)
        return Aggregated(mean_around_median(chosen, n - 4 * f), state)


class NearestOthers(MoNNA):
    def _aggregate(self, vectors, f, state, stream):
        others = vectors[..., 1:, :]
        distances = (others - vectors[..., :1, :]).norm(dim=-1)
        return mean_of(lowest(distances, vectors.shape[-2] - f - 1), others)


class SmallestDropped(CGE):
    def _aggregate(self, vectors, f, state, stream):
        return mean_of(lowest(-norms(vectors), vectors.shape[-2] - f), vectors, state)


class Greedy(MDA):
    """Drops, f times, the vector that is farthest from any other."""

    def _aggregate(self, vectors, f, state, stream):
        left = torch.ones(vectors.shape[:-1], dtype=torch.bool)
        for _ in range(f):
            distances = squared_distances(vectors).masked_fill(~(left[..., None] & left[..., None, :]), 0.0)
            left = left.scatter(-1, distances.amax(dim=-1).argmax(dim=-1, keepdim=True), False)
        return mean_of(left, vectors, state)


class LeastTrace(SMEA):
    def _aggregate(self, vectors, f, state, stream):
        subsets = torch.combinations(torch.arange(vectors.shape[-2]), vectors.shape[-2] - f)
        members = vectors[..., subsets, :]
        spreads = (members - members.mean(dim=-2, keepdim=True)).square().sum(dim=(-1, -2)).nan_to_num(nan=math.inf)
        best = subsets[spreads.argmin(dim=-1)]
        return mean_of(torch.zeros(vectors.shape[:-1], dtype=torch.bool).scatter(-1, best, True), vectors, state)


class LastMean(CAF):
    """Returns the mean after the last round, not that of the least variance."""

    def _weights(self, points, c, f):
        for _ in range(2 * f):
            _, t = principal(points, c / c.sum(dim=-1, keepdim=True))
            filtered = c * (1 - t / t.amax(dim=-1, keepdim=True))
            c = filtered.where(c.sum(dim=-1, keepdim=True) > c.shape[-1] - 2 * f, c)
        return c / c.sum(dim=-1, keepdim=True)


class NotCentred(DnC):
    def _keep(self, vectors, f):
        direction = torch.linalg.svd(vectors.nan_to_num(), full_matrices=False).Vh[..., :1, :]
        scores = (vectors * direction).sum(dim=-1).square()
        return lowest(scores, vectors.shape[-2] - f)


class ClippedAroundZero(CenteredClipping):
    def _aggregate(self, vectors, f, state, stream):
        clipped = vectors * (self.tau / vectors.norm(dim=-1, keepdim=True)).clamp_max(1.0)
        return Aggregated(clipped.mean(dim=-2), state)


def caught(mutant, label):
    for n, f in SIZES:
        if applies(mutant, label, n, f):
            try:
                CHECKS[label](mutant, n, f)
            except (AssertionError, RuntimeError):
                return True
            except pytest.skip.Exception:
                continue
    return False


DEFECTS = [
    (OneNeighbourMore(), {"oracle"}),
    (SumMinusExtremes(), {"breakdown"}),
    (LowerMedian(), {"negation", "oracle"}),
    (OneSidedTrimming(), {"kappa", "negation", "oracle"}),
    (StartAtZeroWithAbsoluteNu(), {"scale", "breakdown"}),
    (NearestOfTooFew(), {"oracle"}),
    (AroundTheMedian(), {"oracle"}),
    (SignOfTheMean(), {"oracle"}),
    (SumOfTheBest(), {"oracle", "unanimity"}),
    (OneShot(), {"oracle"}),
    (NearestOthers(), {"oracle"}),
    (SmallestDropped(), {"oracle", "breakdown"}),
    (Greedy(), {"oracle"}),
    (LeastTrace(), {"oracle"}),
    (LastMean(), {"oracle"}),
    (NotCentred(), {"oracle", "translation"}),
    (ClippedAroundZero(tau=2.0, iterations=3), {"oracle", "breakdown"}),
]


@pytest.mark.parametrize(("mutant", "checks"), DEFECTS, ids=[type(mutant).__name__ for mutant, _ in DEFECTS])
def test_the_contract_catches_a_known_defect(mutant, checks):
    assert [label for label in checks if not caught(mutant, label)] == []
