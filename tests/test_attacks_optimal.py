"""The attacks that choose their strength against the defence."""

import pytest
import torch
from inputs import examples, unequal_vectors
from test_attacks import context_of

from pipeline.attacks import ATTACKS, optimal
from pipeline.core.rng import Stream
from pipeline.defences.aggregators import AGGREGATORS
from pipeline.defences.preaggregators import PREAGGREGATORS

N, F = 17, 3
ATTACK = {
    "optimal_alie": ATTACKS["optimal_alie"](),
    "optimal_alie plus": ATTACKS["optimal_alie"](sign=1),
    "optimal_ipm": ATTACKS["optimal_ipm"](),
}
EVERY_ATTACK = pytest.mark.parametrize("attack", ATTACK.values(), ids=ATTACK)
RULES, MAPS = examples(AGGREGATORS), examples(PREAGGREGATORS)


def defending(rule, before=None):
    """A defence of two replicas with the memory of one step."""
    previous = unequal_vectors(2, 40, seed=8, dtype=torch.float32)

    def defend(vectors):
        f, stream = F, Stream.of([0, 1], "defence")
        if before is not None:
            f = before.transforms(N, F)[1]
            vectors = before.apply(vectors, F, stream).vectors
        return rule.aggregate(vectors, f, rule.init_state(previous), stream).vector

    return defend


def error(attack, honest, context, strength):
    """|F - mu|^2 of the plain twin at one strength for every replica."""
    crafted = attack.twin.craft(honest, context_of(honest, F, strength)).vectors
    sent = torch.cat([honest, crafted], dim=-2)
    return (context.defence(sent) - honest.mean(dim=-2)).square().sum(dim=-1)


def check(attack, defence):
    """The chosen strength is at least as bad as the twin's default and as any strength of the first grid."""
    honest = unequal_vectors(2, N - F, 40, dtype=torch.float32)
    context = context_of(honest, F, defence=defence)
    best = attack.strongest(honest, context)
    reached = error(attack, honest, context, best.tolist())
    low, high = attack.twin.strengths
    grid = (torch.logspace(0, 1, 15, base=high / low, dtype=torch.float64).float() * low).tolist()
    for strength in [*attack.twin.literature(N, F), *grid][:: len(attack.twin.literature(N, F))]:
        assert (reached >= error(attack, honest, context, [strength, strength])).all()
    sent = attack.craft(honest, context).vectors
    assert torch.equal(sent, attack.twin.craft(honest, context_of(honest, F, best.tolist())).vectors)


@EVERY_ATTACK
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_never_below_its_start_against_every_rule(attack, rule):
    if not rule.tolerates(N, F):
        pytest.skip(rule.unmet(N, F))
    check(attack, defending(rule))


@EVERY_ATTACK
@pytest.mark.parametrize("before", MAPS.values(), ids=MAPS)
def test_never_below_its_start_behind_every_pre_aggregation(attack, before):
    if not before.tolerates(N, F):
        pytest.skip(before.unmet(N, F))
    check(attack, defending(RULES["median"], before))


def catches_beyond(limits):
    """A mean that drops the Byzantine vectors of replica r if they are farther than limits[r] from the honest mean."""

    def defend(vectors):
        honest = vectors[..., : N - F, :].mean(dim=-2)
        far = (vectors[..., -1, :] - honest).norm(dim=-1) > limits
        return torch.where(far[..., None], honest, vectors.mean(dim=-2))

    return defend


@EVERY_ATTACK
def test_the_search_goes_down_and_up_to_the_limit_of_each_replica(attack):
    """The largest strength that is not caught is best: 0.3 and 30 times the default, and beyond the range."""
    honest = unequal_vectors(3, N - F, 40)
    default = attack.twin.literature(N, F)[0]
    low, high = attack.twin.strengths
    mu = honest.mean(dim=-2)
    wanted = torch.tensor([0.3 * default, 30 * default, 2 * high], dtype=torch.float64)
    at_limit = attack.twin.craft(honest, context_of(honest, F, wanted.tolist())).vectors[:, -1]
    limits = (at_limit - mu).norm(dim=-1)
    best = attack.strongest(honest, context_of(honest, F, defence=catches_beyond(limits)))
    assert best[0] < default < best[1] <= high
    assert best[2] == pytest.approx(high)
    ratio = best / wanted.clamp(low, high)
    assert (ratio <= 1 + 1e-9).all()
    assert (ratio > 0.9).all()


@EVERY_ATTACK
def test_the_default_stays_where_nothing_is_better(attack):
    honest = unequal_vectors(2, N - F, 5)
    for defence in (lambda v: torch.zeros_like(v[..., 0, :]), lambda v: torch.full_like(v[..., 0, :], torch.nan)):
        best = attack.strongest(honest, context_of(honest, F, defence=defence))
        assert best.tolist() == pytest.approx([attack.twin.literature(N, F)[0]] * 2)


def test_without_a_default_the_search_starts_at_1():
    honest = unequal_vectors(1, 18, 5)
    assert ATTACK["optimal_alie"].twin.literature(20, 2) == ()
    context = context_of(honest, 2, defence=lambda v: torch.zeros_like(v[..., 0, :]))
    assert ATTACK["optimal_alie"].strongest(honest, context).tolist() == [1.0]


@EVERY_ATTACK
def test_an_aggregate_that_overflows_is_the_worst_of_all(attack):
    def defend(vectors):
        """Infinite for a vector farther from the mean than 0.5, the mean of all otherwise."""
        honest = vectors[..., : N - F, :].mean(dim=-2)
        far = (vectors[..., -1, :] - honest).norm(dim=-1, keepdim=True) > 0.5
        return torch.where(far, torch.inf, vectors.mean(dim=-2))

    honest = unequal_vectors(1, N - F, 6)
    sent = attack.craft(honest, context_of(honest, F, defence=defend)).vectors
    assert torch.isinf(defend(torch.cat([honest, sent], dim=-2))).all()


@EVERY_ATTACK
def test_memory_is_bounded_and_changes_nothing(attack, monkeypatch):
    honest = unequal_vectors(2, N - F, 40, dtype=torch.float32)
    calls = []

    def defend(vectors):
        calls.append(vectors.numel())
        return RULES["krum"].aggregate(vectors, F).vector

    context = context_of(honest, F, defence=defend)
    at_once = attack.craft(honest, context).vectors
    assert len(calls) == 4
    calls.clear()
    monkeypatch.setattr(optimal, "NUMBERS_AT_ONCE", 4 * 2 * N * 40)
    assert torch.equal(attack.craft(honest, context).vectors, at_once)
    assert max(calls) <= 4 * 2 * N * 40
    assert len(calls) == 1 + 4 + 2 + 2


@EVERY_ATTACK
def test_without_byzantine_workers_the_defence_is_not_asked(attack):
    def defend(vectors):
        raise AssertionError

    assert attack.craft(
        unequal_vectors(2, 5, 3), context_of(unequal_vectors(2, 5, 3), 0, defence=defend)
    ).vectors.shape == (2, 0, 3)
