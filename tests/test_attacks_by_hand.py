"""Attacks on small numbers, their bounds, and what their draws look like.

Statistical tests run on fixed seeds; their false-alarm probability is for a fresh one.
"""

import math

import pytest
import torch
from inputs import unequal_vectors
from scipy import stats
from support import cell, parameters
from test_attacks import ALL, context_of, craft, expected_vectors

from pipeline.attacks import ATTACKS
from pipeline.core.errors import UserError


def make(name, **fields):
    return ATTACKS.parse({"name": name, **fields}, "attack")


def test_sign_flip_own_reverses_one_honest_vector_each_and_starts_again():
    honest = torch.tensor([[[1.0], [5.0], [-3.0]]])
    assert craft(make("sign_flip", own=True), honest, 5, 2.0).flatten().tolist() == [-2, -10, 6, -2, -10]


def test_alie_on_either_side():
    honest = torch.tensor([[[1.0], [2.0], [3.0]]])
    assert craft(make("alie"), honest, 1, 1.5).item() == 0.5
    assert craft(make("alie", sign=1), honest, 1, 1.5).item() == 3.5


@pytest.mark.parametrize(
    ("honest", "low", "high"),
    [
        ([3.0, 5.0], 1.0, 3.0),  # mu > 0, minimum > 0: down to minimum / theta
        ([-2.0, 5.0], -6.0, -2.0),  # mu > 0, minimum < 0: down to theta minimum
        ([-5.0, -3.0], -3.0, -1.0),  # mu < 0, maximum < 0: up to maximum / theta
        ([-5.0, 2.0], 2.0, 6.0),  # mu < 0, maximum > 0: up to theta maximum
        ([-1.0, 1.0], 0.0, 0.0),  # no direction
        ([0.0, 4.0], 0.0, 0.0),  # the extreme is 0, and so is every multiple of it
    ],
)
def test_fang_is_uniform_between_the_extreme_and_a_multiple_of_it(honest, low, high):
    """Kolmogorov-Smirnov over 3000 coordinates. False alarm: 1e-3 for each of the four intervals."""
    vectors = torch.tensor(honest, dtype=torch.float64)[None, :, None].expand(1, 2, 1500).clone()
    sent = craft(make("fang"), vectors, 2, 3.0)
    assert low <= sent.min() <= sent.max() <= high
    assert low == high or stats.kstest(sent.flatten().numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_fang_with_theta_1_sends_the_extremes():
    honest = torch.tensor([[[1.0, -2.0], [3.0, -6.0]]])
    assert craft(make("fang"), honest, 1, 1.0).flatten().tolist() == [1.0, -2.0]


@pytest.mark.parametrize("dev", ["unit", "sign", "sd"])
@pytest.mark.parametrize("name", ["min_max", "min_sum"])
def test_the_bound_is_met_and_no_larger_gamma_meets_it(name, dev):
    for seed in range(5):
        honest = unequal_vectors(1, 7, 5, seed=seed)
        distances = torch.cdist(honest, honest).square()[0]
        bound = distances.max() if name == "min_max" else distances.sum(dim=1).max()

        def reach(strength, honest=honest):
            to_honest = (craft(make(name, dev=dev), honest, 1, strength)[0] - honest[0]).square().sum(dim=-1)
            return to_honest.max() if name == "min_max" else to_honest.sum()

        assert reach(1.0) == pytest.approx(float(bound), rel=1e-9)
        assert reach(1.0 - 1e-6) < bound < reach(1.0 + 1e-6)


def test_min_max_by_hand():
    """Honest 0 and 2: mu = 1, dev = -1; from 2 the bound 2 reaches down to 0, so gamma = 1."""
    honest = torch.tensor([[[0.0], [2.0]]])
    assert craft(make("min_max"), honest, 2).flatten().tolist() == [0.0, 0.0]
    assert craft(make("min_max"), honest, 1, 1.5).item() == -0.5


def test_min_sum_by_hand():
    """Honest 0 and 2: the worst sum is 4; at b = 0 the sum is 4, too, so gamma = 1."""
    assert craft(make("min_sum"), torch.tensor([[[0.0], [2.0]]]), 1).item() == 0.0


def test_gaussian_draws_are_normal_and_each_worker_has_its_own():
    """Kolmogorov-Smirnov over 8000 numbers, correlation over 4000. False alarm: 2e-3."""
    sent = craft(make("gaussian"), torch.zeros(1, 5, 4000, dtype=torch.float64), 2, 3.0)[0]
    assert stats.kstest(sent.flatten().numpy() / 3.0, stats.norm.cdf).pvalue > 1e-3
    assert stats.pearsonr(sent[0].numpy(), sent[1].numpy()).pvalue > 1e-3


def test_a_workers_draws_do_not_depend_on_how_many_there_are():
    honest = unequal_vectors(2, 5, 6)
    for name in ("gaussian", "fang"):
        few, many = (craft(make(name), honest, b, 2.0) for b in (2, 4))
        assert torch.equal(few, many[:, :2])


def run(attack, history, byzantine=2):
    """The vectors and the state after each step of a history of honest vectors."""
    state, sent = attack.init_state(history[0]), []
    for t, honest in enumerate(history):
        vectors, state = attack.craft(honest, context_of(honest, byzantine, step=t), state)
        sent.append(vectors)
    return sent, state


def chosen(sent, honest):
    """Which honest vector the Byzantine ones are."""
    return (honest == sent[:, :1]).all(dim=-1).int().argmax(dim=-1).tolist()


def test_mimic_copies_its_target_without_a_warm_up():
    honest = unequal_vectors(1, 5, 3)
    assert torch.equal(craft(make("mimic", warmup=0, target=3), honest, 2), honest[:, [3, 3]])


@pytest.mark.parametrize("warmup", [1, 2, 4])
def test_mimic_is_its_slow_twin_over_steps(warmup):
    attack = make("mimic", warmup=warmup)
    history = [unequal_vectors(1, 6, 5, seed=seed) for seed in range(5)]
    sent, _ = run(attack, history)
    for t, honest in enumerate(history):
        earlier = [past[0].tolist() for past in history[:t]]
        expected = expected_vectors(attack, honest, 2, 1.0, earlier=earlier)
        torch.testing.assert_close(sent[t], expected, rtol=1e-12, atol=1e-12)


def test_mimic_finds_the_direction_of_largest_variance_and_then_stays_with_one_worker():
    """Workers 1 and 4 stand out along the third axis, on either side; noise elsewhere is 20 times smaller."""
    centres = torch.zeros(6, 8, dtype=torch.float64)
    centres[1, 2], centres[4, 2] = 10.0, -10.0
    history = [centres[None] + 0.5 * unequal_vectors(3, 6, 8, seed=seed) for seed in range(12)]
    sent, state = run(make("mimic", warmup=8), history)
    assert (state.direction[:, 2].abs() > 0.99).all()
    last = chosen(sent[7], history[7])
    assert set(last) <= {1, 4}
    assert all(chosen(sent[t], history[t]) == last for t in range(8, 12))


def test_a_mimic_of_a_worker_that_is_not_there_is_refused():
    assert ALL["mimic target"].unmet(2, sampled=False) is None
    assert "threat.sampled should be null" in ALL["mimic target"].unmet(2, sampled=True)
    assert ALL["mimic target"].unmet(1, sampled=False) == "target = 1: there are 1 honest workers, counted from 0"
    wrong = {"attacks.ipm": {"name": "mimic", "warmup": 0, "target": 5}, "search.studies": []}
    with pytest.raises(UserError, match=r"attacks\.ipm\.target = 5: there are 5 honest workers"):
        parameters(wrong)


def test_rop_is_orthogonal_to_its_reference_and_of_length_theta():
    honest, previous = unequal_vectors(2, 5, 30), unequal_vectors(2, 30, seed=1)
    sent = craft(make("rop"), honest, 1, 7.0, step=3, previous=previous)[:, 0]
    push = sent - previous
    reference = 0.9 * previous + 0.1 * honest.mean(dim=1)
    torch.testing.assert_close(push.norm(dim=-1), torch.full((2,), 7.0, dtype=torch.float64))
    assert (push * reference).sum(dim=-1).abs().max() < 1e-12 * 7 * 30
    assert (push.sum(dim=-1) < 0).all()  # 270 degrees: against the vector of ones


@pytest.mark.parametrize(("angle", "cosine"), [(0, 1.0), (60, 0.5), (90, 0.0), (180, -1.0), (270, 0.0)])
def test_rop_turns_by_its_angle(angle, cosine):
    honest, previous = unequal_vectors(1, 5, 30), unequal_vectors(1, 30, seed=1)
    attack = make("rop", angle=float(angle), pi=0.0, lambda_=1.0)
    push = craft(attack, honest, 1, 2.0, step=1, previous=previous)[0, 0] - honest.mean(dim=1)[0]
    found = torch.cosine_similarity(push, previous[0], dim=0)
    assert math.isclose(float(found), cosine, abs_tol=1e-9)


@pytest.mark.parametrize("fields", [{}, {"pi": 0.25, "lambda_": 0.0}, {"angle": 10.0}], ids=str)
@pytest.mark.parametrize("step", [0, 1])
def test_rop_is_its_slow_twin_with_a_previous_aggregate(fields, step):
    honest, previous = unequal_vectors(1, 5, 6), unequal_vectors(1, 6, seed=1)
    sent = craft(make("rop", **fields), honest, 2, 1.7, step=step, previous=previous)
    expected = expected_vectors(make("rop", **fields), honest, 2, 1.7, step=step, previous=previous[0].tolist())
    torch.testing.assert_close(sent, expected, rtol=1e-12, atol=1e-12)


def test_an_attack_without_a_strength_trains_at_strength_1():
    raw = {"attacks.ipm": {"name": "zero"}, "search.studies": []}
    assert cell("ipm", changes=raw).strength == 1.0
