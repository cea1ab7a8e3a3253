"""What a worker computes at a step, and the training modes as a whole."""

import numpy as np
import oracles
import pytest
import torch
from inputs import example, examples
from support import CPU, assert_identical, blobs, cell, train
from torch.nn.functional import cross_entropy

from pipeline.attacks import ATTACKS
from pipeline.core.errors import UserError
from pipeline.simulator.gradients import BACKENDS, loop_gradients, vmap_gradients
from pipeline.simulator.local_updates import LOCAL_UPDATES
from pipeline.simulator.local_updates.sgd import LocalSGD
from pipeline.simulator.loop import step
from pipeline.simulator.metrics import STEP_METRICS
from pipeline.simulator.program import build
from pipeline.simulator.worker import clipped, with_momentum

DATASET = blobs(sizes=(120, 30, 20))
UPDATE = examples(LOCAL_UPDATES)
LOCAL = {"name": "local_sgd", "steps": 3, "learning_rate": 0.2}
NO_BYZANTINE = {
    "threat": {"workers": 7, "byzantine": 0, "tolerated": 0, "sampled": None},
    "attacks.alie.strength": 1.0,
    "search.studies": [],
}
SAMPLED = {"threat": {"workers": 9, "byzantine": 2, "tolerated": 2, "sampled": 7}}


def networks(samples=6):
    here = cell()
    network = here.model.network(DATASET.shape, DATASET.classes)
    params = torch.stack([network.initial(0), network.initial(1)])
    count = 2 * 5 * samples
    inputs = DATASET.train.inputs[:count].view(2, 5, samples, *DATASET.shape)
    return network, params, inputs, DATASET.train.labels[:count].view(2, 5, samples)


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize("update", UPDATE.values(), ids=UPDATE)
def test_every_local_update_is_its_slow_twin_for_each_worker_alone(update, backend):
    network, params, inputs, labels = networks(samples=2 * update.minibatches)

    def loss(parameters, images, targets):
        return cross_entropy(network.forward(parameters, images), targets)

    twin, fields = oracles.twin("local_updates", update.name), update.model_dump(exclude={"name"})
    sent, losses = update.vectors(backend, network, params, inputs, labels)
    for r in range(2):
        for w in range(5):
            vector, mean_loss = twin(loss, params[r], inputs[r, w], labels[r, w], **fields)
            torch.testing.assert_close(sent[r, w], vector, rtol=0, atol=1e-6)
            assert losses[r, w].item() == pytest.approx(mean_loss, rel=1e-5)


def test_one_local_step_is_the_gradient_times_its_rate():
    network, params, inputs, labels = networks()
    sent, losses = LocalSGD(steps=1, learning_rate=0.5).vectors(vmap_gradients, network, params, inputs, labels)
    gradients, expected = vmap_gradients(network, params, inputs, labels)
    torch.testing.assert_close(sent, 0.5 * gradients, rtol=0, atol=1e-6)
    torch.testing.assert_close(losses, expected)


def test_fedavg_with_the_mean_is_the_mean_of_the_local_models():
    changes = {**NO_BYZANTINE, "training.local_update": LOCAL, "training.learning_rate": 1.0, "training.momentum": 0.0}
    program = build([cell("none", "mean", changes=changes)], DATASET, vmap_gradients, CPU)
    state = program.start()
    inputs, labels = program.batch(0, None, honest=7)
    assert labels.shape == (1, 7, 9)
    sent, _ = LocalSGD(steps=3, learning_rate=0.2).vectors(
        loop_gradients, program.network, state.params, inputs, labels
    )
    after, _ = step(program, state, 0)
    torch.testing.assert_close(after.params, (state.params[:, None] - sent).mean(dim=1), rtol=0, atol=1e-6)


def test_clipping_bounds_the_norm_and_keeps_the_direction():
    network, params, inputs, labels = networks()
    gradients, losses = vmap_gradients(network, params, inputs, labels)
    limit = float(gradients.norm(dim=-1).median())
    short, same_losses = clipped(vmap_gradients, limit)(network, params, inputs, labels)
    assert torch.equal(losses, same_losses)
    norms = gradients.norm(dim=-1)
    torch.testing.assert_close(short.norm(dim=-1), norms.clamp_max(limit))
    torch.testing.assert_close(short * norms[..., None], gradients * short.norm(dim=-1)[..., None])
    assert clipped(vmap_gradients, None) is vmap_gradients


def test_undamped_momentum_is_damped_momentum_scaled():
    generator, beta = torch.Generator().manual_seed(0), 0.8
    damped = undamped = torch.zeros(2, 3, 4)
    for _ in range(5):
        new = torch.randn(2, 3, 4, generator=generator)
        damped = with_momentum(damped, new, beta, damped=True)
        undamped = with_momentum(undamped, new, beta, damped=False)
    torch.testing.assert_close((1 - beta) * undamped, damped)


def test_a_rate_scaled_with_it_makes_undamped_training_the_same():
    slow = {"training.damped": False, "training.learning_rate": 0.5 * (1 - 0.9)}
    (damped,), (undamped,) = (train([cell("alie", "median", changes=c)], DATASET) for c in (None, slow))
    np.testing.assert_allclose(damped.steps["train_loss"], undamped.steps["train_loss"], rtol=1e-4)


def test_server_momentum_changes_training():
    fast = {"training.server_momentum": 0.5}
    (plain,), (heavy,) = (train([cell("none", "mean", changes=c)], DATASET) for c in (None, fast))
    assert plain.steps["train_loss"][0] == heavy.steps["train_loss"][0]
    assert plain.steps["train_loss"][-1] != heavy.steps["train_loss"][-1]


@pytest.mark.parametrize("attack", ["none", "sign_flip", "label_flip"])
def test_sampling_everyone_is_no_sampling(attack):
    everyone = {"threat": {"workers": 7, "byzantine": 2, "tolerated": 2, "sampled": 7}}
    all_of_them = {"threat": {"workers": 7, "byzantine": 2, "tolerated": 2, "sampled": None}}
    with_, without = (train([cell(attack, "median", changes=c)], DATASET) for c in (everyone, all_of_them))
    assert_identical(with_[0], without[0])


def test_only_the_sampled_workers_move_their_momentum():
    here = cell("label_flip", "median", changes=SAMPLED)
    program = build([here], DATASET, vmap_gradients, CPU)
    state, seen = program.start(), set()
    for t in range(here.training.steps):
        after, _ = step(program, state, t)
        moved = (after.momentum != state.momentum).any(dim=-1)[0].nonzero().flatten().tolist()
        assert moved == program.present(t)[0].tolist()
        assert program.counts(t) == (sum(w < 7 for w in moved), sum(w >= 7 for w in moved))
        seen |= set(moved)
        state = after
    assert seen == set(range(9))


SAMPLING = [name for name, attack in examples(ATTACKS).items() if attack.unmet(5, sampled=True) is None]


@pytest.mark.parametrize("attack", SAMPLING)
def test_every_attack_runs_in_every_mode_whatever_its_batch(attack):
    modes = {**SAMPLED, "training.local_update": LOCAL, "training.clip": 1.0, "training.server_momentum": 0.3}
    changes = {**modes, "training.damped": False, f"attacks.{attack}": example(ATTACKS[attack]).content()}
    defences = [(defence, partition) for defence in ("krum", "geometric_median") for partition in ("iid", "alpha_03")]
    cells = [cell(attack, *where, changes=changes) for where in defences]
    together = train(cells, DATASET)
    for here, result in zip(cells, together, strict=True):
        assert_identical(result, train([here], DATASET)[0])
    assert set(together[0].steps) == set(STEP_METRICS)


FEDERATED = {
    "threat": {"workers": 100, "byzantine": 10, "tolerated": 2, "sampled": 10},
    "attacks.alie.strength": 1.0,  # its formula gives none for n = 10, f = 2
    "search.studies": [],
}
MANY = blobs(sizes=(500, 30, 20))


@pytest.mark.parametrize("attack", sorted(set(ATTACKS.names) - {"mimic"}))
def test_more_byzantine_workers_than_a_round_holds_are_sampled(attack):
    given = {"strength": 1.0} if attack in ("alie", "rop") else {}
    changes = {**FEDERATED, f"attacks.{attack}": {"name": attack, **given}, "training.steps": 3}
    if attack == "alie":
        del changes["attacks.alie.strength"]
    (result,) = train([cell(attack, "trimmed_mean", changes=changes)], MANY)
    assert np.isfinite(result.steps["aggregate_error"]).all()


def test_rounds_with_more_byzantine_workers_than_tolerated_happen_and_are_counted():
    """Of the mean, each Byzantine vector -10 mu of 10 vectors takes 1.1 mu away."""
    changes = {**FEDERATED, "training.steps": 60}
    counts = []
    for seed in (0, 1):
        (result,) = train([cell("sign_flip", "mean", seed=seed, changes=changes)], MANY)
        counts.append(result.steps["byzantine_workers"])
        expected = 1.1 * counts[-1] * result.steps["honest_norm"]
        np.testing.assert_allclose(result.steps["aggregate_error"], expected, rtol=1e-12, atol=1e-12)
    assert (counts[0] > 2).any()
    assert (counts[0] != counts[1]).any()


def test_without_sampling_all_byzantine_workers_are_counted():
    assert train([cell()], DATASET)[0].steps["byzantine_workers"].tolist() == [2] * 6


@pytest.mark.parametrize(
    ("byzantine", "sampled", "message"),
    [
        (2, 10, "sampled = 10 is more than the 9 workers"),
        (2, 2, "sampled = 2: should be greater than or equal to 3"),
        (8, 5, "byzantine = 8 leaves less than 2 of 9 workers honest"),
        (8, None, "byzantine = 8 leaves less than 2 of 9 workers honest"),
    ],
)
def test_an_impossible_sample_is_refused(byzantine, sampled, message):
    with pytest.raises(UserError, match=message):
        cell(changes={"threat": {"workers": 9, "byzantine": byzantine, "tolerated": 1, "sampled": sampled}})


def test_a_defence_must_fit_the_workers_of_a_round():
    with pytest.raises(UserError, match=r"defences.krum: krum needs n >= 2f \+ 3, got n = 6, f = 2"):
        cell(changes={"threat": {"workers": 9, "byzantine": 2, "tolerated": 2, "sampled": 6}})
