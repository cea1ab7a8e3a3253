"""Every worker's gradient."""

import pytest
import torch
from test_models import CLASSES, MODEL, SHAPE, network
from torch.nn.functional import cross_entropy

from pipeline.core.errors import UserError
from pipeline.core.kernels import perceptron
from pipeline.simulator.gradients import BACKENDS, chain_gradients, loop_gradients, vmap_gradients
from pipeline.simulator.models import MODELS
from pipeline.simulator.precision import backend

EVERY_MODEL = pytest.mark.parametrize("name", MODEL)
SMALL = [name for name in MODEL if network(name).size < 2_000_000]
EVERY_SMALL_MODEL_AND_BACKEND = pytest.mark.parametrize(
    ("name", "gradients"),
    [
        pytest.param(name, gradients, id=f"{backend}-{name}")
        for name in SMALL
        for backend, gradients in BACKENDS.items()
        if backend != "chain" or MODEL[name].cpu_gradients == "chain"
    ],
)
EVERY_LEVEL_OF_LAYERS = pytest.mark.parametrize("hidden", [[], [5], [70, 33]], ids=["logistic", "one", "two"])
EVERY_BACKEND = pytest.mark.parametrize("gradients", BACKENDS.values(), ids=BACKENDS)


def problem(name, replicas=2, workers=3, batch=4, dtype=torch.float64):
    stream = torch.Generator().manual_seed(0)
    model = network(name)
    params = torch.stack([model.initial(seed) for seed in range(replicas)]).to(dtype)
    inputs = torch.rand(replicas, workers, batch, *SHAPE, generator=stream).to(dtype)
    labels = torch.randint(CLASSES, (replicas, workers, batch), generator=stream)
    return model, params, inputs, labels


@pytest.mark.parametrize("name", ["logistic", "mlp"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
def test_the_chain_rule_equals_the_loop(name, dtype, tolerance):
    given = problem(name, dtype=dtype)
    for fast, slow in zip(chain_gradients(*given), loop_gradients(*given), strict=True):
        assert fast.dtype == slow.dtype == dtype
        torch.testing.assert_close(fast, slow, rtol=tolerance, atol=tolerance)


def test_the_chain_rule_is_refused_where_it_does_not_hold():
    with pytest.raises(ValueError, match="linear layers with ReLU"):
        chain_gradients(*problem("cnn_mnist"))
    with pytest.raises(UserError, match=r"gradients = .chain.*cnn_mnist"):
        backend("chain", MODELS.parse({"name": "cnn_mnist"}, "model"), torch.device("cpu"))


@EVERY_MODEL
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
def test_vmap_equals_the_loop(name, dtype, tolerance):
    sizes = {} if name in SMALL else {"replicas": 2, "workers": 2, "batch": 2}
    given = problem(name, **sizes, dtype=dtype)
    for fast, slow in zip(vmap_gradients(*given), loop_gradients(*given), strict=True):
        assert fast.dtype == slow.dtype == dtype
        torch.testing.assert_close(fast, slow, rtol=tolerance, atol=tolerance)


@EVERY_SMALL_MODEL_AND_BACKEND
def test_shapes(name, gradients):
    model, *rest = problem(name)
    found, losses = gradients(model, *rest)
    assert found.shape == (2, 3, model.size)
    assert losses.shape == (2, 3)
    assert not found.requires_grad
    assert not losses.requires_grad


@pytest.mark.parametrize("gradients", [vmap_gradients, loop_gradients])
def test_dropout_acts_in_training_alone(gradients):
    _, *given = problem("cnn_bucketing")
    plain, dropping = (MODELS["cnn_bucketing"](dropout=kind).network(SHAPE, CLASSES) for kind in ("none", "shared"))
    found, losses = gradients(dropping, *given)
    params, inputs, labels = (values[1] for values in given)
    torch.testing.assert_close(losses[1, 2], cross_entropy(dropping.forward(params, inputs[2], True), labels[2]))
    assert not torch.allclose(found, gradients(plain, *given)[0])
    assert torch.equal(dropping.forward(params, inputs[2]), plain.forward(params, inputs[2]))


@EVERY_BACKEND
def test_finite_differences(gradients):
    model, params, inputs, labels = problem("mlp", replicas=1, workers=1)
    found = gradients(model, params, inputs, labels)[0][0, 0]

    def loss(point):
        return float(cross_entropy(model.forward(point, inputs[0, 0]), labels[0, 0]))

    step = 1e-6
    for k in range(0, model.size, 97):
        shift = torch.zeros(model.size, dtype=torch.float64)
        shift[k] = step
        numeric = (loss(params[0] + shift) - loss(params[0] - shift)) / (2 * step)
        assert float(found[k]) == pytest.approx(numeric, abs=1e-8)


@EVERY_SMALL_MODEL_AND_BACKEND
def test_losses_are_the_cross_entropy_in_nats(name, gradients):
    model, params, inputs, labels = problem(name)
    losses = gradients(model, params, inputs, labels)[1]
    chances = model.forward(params[1], inputs[1, 2]).softmax(dim=-1)
    expected = -chances[range(4), labels[1, 2]].log().mean()
    torch.testing.assert_close(losses[1, 2], expected)


@EVERY_SMALL_MODEL_AND_BACKEND
def test_mean_over_workers_is_the_gradient_of_the_union_batch(name, gradients):
    model, params, inputs, labels = problem(name)
    union = gradients(model, params, inputs.reshape(2, 1, 12, *SHAPE), labels.reshape(2, 1, 12))
    for of_workers, of_union in zip(gradients(model, params, inputs, labels), union, strict=True):
        torch.testing.assert_close(of_workers.mean(dim=1), of_union[:, 0], rtol=1e-12, atol=1e-13)


@pytest.mark.company
@EVERY_SMALL_MODEL_AND_BACKEND
def test_a_replica_does_not_depend_on_its_batch_mates(name, gradients):
    """Bit for bit; convolutions of one call do, to rounding, which is why a CPU computes each replica's alone."""
    model, params, inputs, labels = problem(name, replicas=5, dtype=torch.float32)
    together = gradients(model, params, inputs, labels)[0]
    params[1] = 1e3
    changed = gradients(model, params, inputs, labels)[0]
    assert torch.equal(together[[0, 2, 3, 4]], changed[[0, 2, 3, 4]])
    alone = gradients(model, params[3:4], inputs[3:4], labels[3:4])[0]
    if gradients is vmap_gradients and model.convolutional:
        torch.testing.assert_close(together[3:4], alone, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(together[3:4], alone)


@EVERY_BACKEND
def test_the_input_is_left_alone(gradients, global_generators_untouched):
    model, params, inputs, labels = problem("mlp")
    before = params.clone(), inputs.clone(), labels.clone()
    gradients(model, params, inputs, labels)[0].fill_(1.0)
    assert all(torch.equal(*pair) for pair in zip(before, (params, inputs, labels), strict=True))
    assert not params.requires_grad


@EVERY_LEVEL_OF_LAYERS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_the_loop_over_workers_gives_the_bits_of_the_layers_one_after_the_other(hidden, dtype):
    """With units and samples that fill no piece of a loop, a worker that overflows and one that is sure of a label."""
    model = MODELS.parse({"name": "mlp", "hidden": hidden} if hidden else {"name": "logistic"}, "model")
    net, stream = model.network((1, 9, 9), CLASSES), torch.Generator().manual_seed(0)
    params = torch.stack([net.initial(seed) for seed in range(3)]).to(dtype)
    inputs = torch.randn(3, 4, 7, 1, 9, 9, generator=stream).to(dtype)
    inputs[0, 0] *= 1e4
    inputs[1, 1] = torch.inf
    labels = torch.randint(CLASSES, (3, 4, 7), generator=stream)
    fast = perceptron.gradients(params, net.linear_sizes(), inputs, labels)
    plain = perceptron.by_chain_rule(params, net.linear_sizes(), inputs.flatten(3), labels)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    assert fast[0][0].isfinite().all()
    assert fast[0][1, 1].isnan().any()
