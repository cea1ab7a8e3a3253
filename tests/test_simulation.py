"""The training loop against slow twins, and what must not matter: company, order, backend, interruption."""

from copy import deepcopy
from itertools import pairwise

import numpy as np
import oracles
import pytest
import torch
from support import CPU, assert_identical, blobs, cell, parameters, train
from torch.nn.functional import cross_entropy

from pipeline.attacks import DataAttack
from pipeline.core.rng import Stream
from pipeline.runs.plan import grid_row
from pipeline.simulator import loop as simulation
from pipeline.simulator.gradients import chain_gradients, loop_gradients
from pipeline.simulator.loop import step
from pipeline.simulator.metrics import EVALUATION_METRICS, STEP_METRICS
from pipeline.simulator.program import build
from pipeline.simulator.sampling import minibatch

DATASET = blobs()
DEFENCES = ["mean", "median", "trimmed_mean", "krum", "geometric_median", "nnm_trimmed_mean"]
ATTACKS = ["none", "sign_flip", "ipm", "alie", "label_flip"]
NO_BYZANTINE = {"threat.byzantine": 0, "search.studies": []}
LOGISTIC = {"model": {"name": "logistic"}}


def program_of(*cells, dataset=DATASET):
    return build(cells, dataset, chain_gradients, CPU)


def trajectory(program, state=None, first=0):
    """The parameters after each step."""
    state, params = state or program.start(), []
    for t in range(first, program.training.steps):
        state, _ = step(program, state, t)
        params.append(state.params)
    return params


# Slow twins


def slow_shares(cell, dataset):
    training = cell.training
    threat = cell.threat
    held = cell.partition.shares(dataset.train.labels, threat.workers, threat.byzantine, cell.seed)
    stream = Stream.of([cell.seed], "minibatches")
    drawn = [minibatch(stream.fork(t), held.sizes[None], training.batch_size)[0] for t in range(training.steps)]
    return held.samples.tolist(), [step.tolist() for step in drawn]


def slow_gradient(network, params, images, labels):
    leaf = torch.tensor(params, dtype=torch.float64, requires_grad=True)
    loss = cross_entropy(network.forward(leaf, images.double()), torch.tensor(labels))
    loss.backward()
    return leaf.grad.tolist(), loss.item()


def slow_aggregate(defence, sent, f):
    for stage in defence.before:
        sent = oracles.twin("preaggregators", stage.name)(sent, f)
    return oracles.twin("aggregators", defence.rule.name)(sent, f)


def slow_run(cell, dataset):
    """Return the parameters after each step and the honest losses of each step, by loops in float64."""
    threat, training, attack = cell.threat, cell.training, cell.attack
    network = cell.model.network(dataset.shape, dataset.classes)
    held, drawn = slow_shares(cell, dataset)
    params = network.initial(cell.seed).double().tolist()
    momenta = [[0.0] * len(params) for _ in range(threat.workers)]
    history, losses = [], []
    for t in range(training.steps):
        honest_losses, gradients = [], []
        for worker in range(threat.workers):
            samples = [held[worker][position] for position in drawn[t][worker]]
            labels = dataset.train.labels[samples].tolist()
            if worker >= threat.honest and isinstance(attack, DataAttack):
                labels = oracles.twin("attacks", attack.name)(labels, dataset.classes)
            gradient, loss = slow_gradient(network, params, dataset.train.inputs[samples], labels)
            gradients.append(gradient)
            beta = training.momentum
            momenta[worker] = [beta * m + (1 - beta) * g for m, g in zip(momenta[worker], gradient, strict=True)]
            honest_losses += [loss] if worker < threat.honest else []
        honest = momenta[: threat.honest]
        if isinstance(attack, DataAttack):
            sent = honest + slow_sent(attack, gradients[threat.honest :], momenta[threat.honest :])
        else:
            sent = honest + oracles.twin("attacks", attack.name)(honest, cell.strength, threat.byzantine)
        direction = slow_aggregate(cell.defence, sent, threat.tolerated)
        rate, decay = training.learning_rate * slow_factor(training.schedule, t), training.weight_decay
        params = [p - rate * (g + decay * p) for p, g in zip(params, direction, strict=True)]
        history.append(params)
        losses.append(sum(honest_losses) / len(honest_losses))
    return history, losses


def slow_sent(attack, gradients, momenta):
    """What the workers of a data attack send, of their gradients and momenta."""
    vectors = momenta if attack.content().get("momentum", True) else gradients
    return [[-number for number in vector] if attack.name == "bit_flip" else vector for vector in vectors]


def slow_factor(schedule, t):
    return oracles.twin("schedules", schedule.name)(t, **schedule.model_dump(exclude={"name"}))


@pytest.mark.parametrize("name", ["bit_flip", "label_flip"])
@pytest.mark.parametrize("momentum", [True, False])
def test_byzantine_workers_send_what_they_computed_on_data_of_their_own(name, momentum):
    attack = {"attacks.ipm": {"name": name, "momentum": momentum}, "search.studies": []}
    here = cell("ipm", "mean", changes={"model.hidden": [2], "training.steps": 4, **attack})
    expected, _ = slow_run(here, DATASET)
    for params, slow in zip(trajectory(program_of(here)), expected, strict=True):
        torch.testing.assert_close(params[0].double(), torch.tensor(slow).double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("defence", DEFENCES)
def test_the_loop_is_its_slow_twin_for_every_defence_and_attack(defence, attack):
    changes = {"training.weight_decay": 0.05, "model.hidden": [2], "training.steps": 4}
    changes["training.schedule"] = {"name": "milestones", "at": [2], "factor": 0.5}
    here = cell(attack, defence, changes=changes)
    expected, losses = slow_run(here, DATASET)
    for params, slow in zip(trajectory(program_of(here)), expected, strict=True):
        np.testing.assert_allclose(params[0].numpy(), slow, rtol=0, atol=5e-6)
    np.testing.assert_allclose(train([here], DATASET)[0].steps["train_loss"], losses, rtol=5e-5)


def softmax_gradient(weight, bias, images, labels):
    """The gradient of the mean cross-entropy of logistic regression, by its formula."""
    scores = images @ weight.T + bias
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    error = (shares - np.eye(len(bias))[labels]) / len(labels)
    return error.T @ images, error.sum(axis=0)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_mean_without_byzantine_workers_is_sgd_on_the_union_of_the_minibatches(momentum, weight_decay):
    changes = {**NO_BYZANTINE, **LOGISTIC, "training.momentum": momentum, "training.weight_decay": weight_decay}
    here = cell("none", "mean", changes=changes)
    network = here.model.network(DATASET.shape, DATASET.classes)
    flat = network.initial(here.seed).double().numpy()
    weight, bias = flat[:-3].reshape(3, -1), flat[-3:]
    velocity = np.zeros_like(weight), np.zeros_like(bias)
    held, drawn = slow_shares(here, DATASET)
    for t, params in enumerate(trajectory(program_of(here))):
        union = [held[worker][position] for worker in range(7) for position in drawn[t][worker]]
        images = DATASET.train.inputs[union].flatten(start_dim=1).double().numpy()
        gradient = softmax_gradient(weight, bias, images, DATASET.train.labels[union].numpy())
        velocity = tuple(momentum * v + (1 - momentum) * g for v, g in zip(velocity, gradient, strict=True))
        weight = weight - 0.5 * (velocity[0] + weight_decay * weight)
        bias = bias - 0.5 * (velocity[1] + weight_decay * bias)
        np.testing.assert_allclose(params[0].numpy(), np.append(weight, bias), rtol=0, atol=2e-6)


def test_the_schedule_scales_every_later_step():
    constant = {**LOGISTIC, "training.momentum": 0.0}
    milestones = {**constant, "training.schedule": {"name": "milestones", "at": [1, 3], "factor": 0.1}}
    rates = program_of(cell("none", "mean", changes=milestones)).rates
    np.testing.assert_allclose(rates.flatten(), [0.5, 0.05, 0.05, 0.005, 0.005, 0.005], rtol=1e-6)
    plain, slowed = (
        trajectory(program_of(cell("none", "mean", changes=changes))) for changes in (constant, milestones)
    )
    assert torch.equal(plain[0], slowed[0])
    first, second = slowed[0], slowed[1]
    torch.testing.assert_close(second - first, 0.1 * (plain[1] - plain[0]), rtol=1e-3, atol=1e-6)


# Company does not matter


@pytest.mark.company
@pytest.mark.parametrize("attack", ["alie", "label_flip"])
def test_replicas_together_are_each_alone_bit_for_bit(attack):
    """Workers, model and images as in params.yaml; several defences, partitions and seeds in one batch."""
    changes = {
        "threat": {"workers": 17, "byzantine": 5, "tolerated": 5, "sampled": None},
        "model.hidden": [32],
        "training.steps": 5,
    }
    dataset = blobs((1, 8, 8), 10, (340, 270, 60))
    params = parameters({**changes, "training.batch_size": 16, "grid.seeds": [0, 4], "grid.defences": DEFENCES})
    cells = [item.cell for item in grid_row(params, attack)]
    assert len(cells) == 24
    together = train(cells, dataset)
    assert len({tuple(result.steps["train_loss"]) for result in together}) == 24
    for here, result in list(zip(cells, together, strict=True))[:: 3 if attack == "alie" else 5]:
        assert_identical(train([here], dataset)[0], result)


@pytest.mark.company
def test_order_and_chunks_do_not_matter():
    params = parameters({"grid.seeds": [0, 4], "grid.defences": DEFENCES})
    cells = [item.cell for item in grid_row(params, "sign_flip")]
    together = train(cells, DATASET)
    shuffled = np.random.default_rng(0).permutation(len(cells)).tolist()
    for position, result in zip(shuffled, train([cells[p] for p in shuffled], DATASET), strict=True):
        assert_identical(result, together[position])
    in_chunks = [result for start in range(0, len(cells), 5) for result in train(cells[start : start + 5], DATASET)]
    for result, other in zip(in_chunks, together, strict=True):
        assert_identical(result, other)


@pytest.mark.company
@pytest.mark.parametrize("parameter", ["attacks.sign_flip.strength", "training.learning_rate"])
def test_strengths_and_learning_rates_may_differ_inside_a_batch(parameter):
    cells = [cell(changes={parameter: value}) for value in (0.5, 2.0, 40.0)]
    for here, result in zip(cells, train(cells, DATASET), strict=True):
        assert_identical(train([here], DATASET)[0], result)


def test_cells_that_cannot_share_a_batch_are_refused():
    with pytest.raises(ValueError, match="cannot share a batch"):
        train([cell("alie"), cell("ipm")], DATASET)


@pytest.mark.parametrize("defence", DEFENCES)
def test_without_byzantine_workers_the_attack_does_not_matter(defence):
    results = [train([cell(attack, defence, changes=NO_BYZANTINE)], DATASET)[0] for attack in ATTACKS]
    for result in results[1:]:
        assert_identical(result, results[0])


def test_the_two_gradient_backends_agree():
    """Float32 sums in another order: 1e-5 relative after 6 steps."""
    cells = [cell("alie", defence) for defence in ("mean", "median", "nnm_trimmed_mean")]
    for fast, slow in zip(train(cells, DATASET), train(cells, DATASET, loop_gradients), strict=True):
        np.testing.assert_allclose(fast.steps["train_loss"], slow.steps["train_loss"], rtol=1e-5)
        np.testing.assert_allclose(fast.steps["aggregate_error"], slow.steps["aggregate_error"], rtol=1e-4)
        np.testing.assert_allclose(fast.evaluations["validation_loss"], slow.evaluations["validation_loss"], rtol=1e-5)


@pytest.mark.parametrize("attack", ATTACKS)
def test_training_resumed_from_a_state_is_training_uninterrupted(attack):
    cells = [cell(attack, defence) for defence in DEFENCES]
    uninterrupted = trajectory(program_of(*cells))
    state = program_of(*cells).start()
    for t in range(3):
        state, _ = step(program_of(*cells), state, t)
    for params, expected in zip(trajectory(program_of(*cells), deepcopy(state), 3), uninterrupted[3:], strict=True):
        assert torch.equal(params, expected)


def test_a_step_leaves_the_state_it_was_given():
    program = program_of(*[cell("alie", defence) for defence in DEFENCES])
    state = program.start()
    before = deepcopy(state)
    step(program, state, 0)
    assert torch.equal(state.params, before.params)
    assert torch.equal(state.momentum, before.momentum)
    assert torch.equal(state.previous, before.previous)


@pytest.mark.usefixtures("global_generators_untouched")
def test_a_run_leaves_the_global_generators_alone():
    train([cell("label_flip", "krum")], DATASET)


def test_the_global_generators_have_no_influence():
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        results += train([cell("alie", "nnm_trimmed_mean")], DATASET)
    assert_identical(*results)


# Who trains on what


def test_what_honest_workers_read_does_not_depend_on_the_attack():
    programs = [program_of(cell(attack, seed=0), cell(attack, seed=3)) for attack in ATTACKS]
    for one, other in pairwise(programs):
        assert torch.equal(one.held[:, :5], other.held[:, :5])
        assert torch.equal(one.sizes[:, :5], other.sizes[:, :5])
        for t in range(6):
            read = zip(one.batch(t, None, honest=5), other.batch(t, None, honest=5), strict=True)
            assert all(torch.equal(a[:, :5], b[:, :5]) for a, b in read)


def test_what_honest_workers_read_does_not_depend_on_how_many_are_byzantine():
    few, many = (program_of(cell("none", changes={"threat.byzantine": b})) for b in (1, 2))
    assert torch.equal(few.batch(2, None, honest=5)[0], many.batch(2, None, honest=5)[0])


def test_a_defence_and_an_attack_see_the_data_of_the_same_seed():
    program = program_of(*[cell(defence=defence, seed=seed) for seed in (3, 0) for defence in ("mean", "krum")])
    inputs, labels = program.batch(1, None, honest=5)
    assert torch.equal(inputs[0], inputs[1])
    assert torch.equal(labels[2], labels[3])
    assert not torch.equal(inputs[0], inputs[2])
    assert torch.equal(program.initial[0], program.initial[1])
    assert not torch.equal(program.initial[0], program.initial[2])


def test_label_flipping_poisons_the_byzantine_workers_and_no_other():
    clean, poisoned = program_of(cell("none")), program_of(cell("label_flip"))
    for t in range(6):
        (inputs, labels), (same, flipped) = clean.batch(t, None, honest=5), poisoned.batch(t, None, honest=5)
        assert torch.equal(inputs, same)
        assert torch.equal(flipped[:, :5], labels[:, :5])
        assert torch.equal(flipped[:, 5:], 2 - labels[:, 5:])


def test_the_reported_loss_is_that_of_the_honest_workers():
    clean, poisoned = (train([cell(attack, changes=LOGISTIC)], DATASET)[0].steps for attack in ("none", "label_flip"))
    assert clean["train_loss"][0] == poisoned["train_loss"][0]


# Divergence, evaluation, the device


def test_a_run_that_diverges_ends_at_chance_level_without_an_error():
    changes = {"training.learning_rate": 1e38, "attacks.sign_flip.strength": 100, "training.steps": 12}
    cells = [cell("sign_flip", defence, changes=changes) for defence in DEFENCES]
    results = train(cells, DATASET)
    final = results[0].final
    assert final["diverged"] == 1
    assert final["validation_accuracy"] == final["test_accuracy"] == pytest.approx(1 / 3)
    assert results[0].evaluations["validation_accuracy"][0] != pytest.approx(1 / 3)
    for here, result in zip(cells, results, strict=True):
        assert_identical(train([here], DATASET)[0], result)


def test_a_run_that_stays_finite_has_not_diverged():
    assert train([cell("none")], DATASET)[0].final["diverged"] == 0


@pytest.mark.parametrize(("steps", "every", "expected"), [(6, 4, [0, 4, 6]), (6, 3, [0, 3, 6]), (2, 9, [0, 2])])
def test_evaluations_come_at_the_start_at_every_interval_and_at_the_end(steps, every, expected):
    seen = {}
    cells = [cell(seed=seed, changes={"training.steps": steps, "training.evaluate_every": every}) for seed in (0, 1)]
    results = train(cells, DATASET, watch=seen.__setitem__)
    assert list(seen) == results[0].evaluated == expected
    assert list(seen[0]) == list(EVALUATION_METRICS)
    for position, done in enumerate(expected):
        for replica, result in enumerate(results):
            for name in EVALUATION_METRICS:
                assert seen[done][name][replica] == result.evaluations[name][position]
            for name in STEP_METRICS if done else []:
                np.testing.assert_equal(seen[done][name][replica], result.steps[name][done - 1])
    assert results[0].final["validation_accuracy"] == results[0].evaluations["validation_accuracy"][-1]
    assert all(len(series) == steps for series in results[0].steps.values())


def test_the_test_split_is_read_once_after_the_last_step(monkeypatch):
    events = []

    def evaluate(network, params, split):
        events.append(len(split.labels))
        return original(network, params, split)

    def counted(*arguments):
        events.append("step")
        return original_step(*arguments)

    original, original_step = simulation.evaluate, simulation.step
    monkeypatch.setattr(simulation, "evaluate", evaluate)
    monkeypatch.setattr(simulation, "step", counted)
    train([cell()], DATASET)
    training, validation, test = (len(s.labels) for s in (DATASET.train, DATASET.validation, DATASET.test))
    assert events.count(test) == 1
    assert events[-1] == test
    assert events.count("step") == 6
    assert training not in events
    assert events.count(validation) == 4  # at 0, 4 and 6 steps, and for the final metrics
