"""Networks as functions of a flat vector."""

from math import sqrt

import oracles
import pytest
import torch
from inputs import examples, unequal_vectors
from oracles.reader import Reader
from torch import nn

from pipeline.core.errors import UserError
from pipeline.simulator.models import MODELS, Network
from pipeline.simulator.models.convolutional import SharedDropout

CLASSES = 10
SHAPE = (2, 16, 18)  # small images: the tests are about the functions, not about the data
DENSE = {"logistic": MODELS["logistic"](), "deep_mlp": MODELS["mlp"](hidden=(32, 5))}
SIZE = {"logistic": 576 * 10 + 10, "deep_mlp": 576 * 32 + 32 + 32 * 5 + 5 + 5 * 10 + 10}
MODEL = {**examples(MODELS), **DENSE}
PUBLISHED_SIZE = [
    ("cnn_mnist", (1, 28, 28), 10, 431_080),
    ("cnn_mnist", (1, 28, 28), 47, 431_080 + 37 * 501),
    ("cnn_bucketing", (1, 28, 28), 10, 1_199_882),
    ("cnn_cifar", (3, 32, 32), 10, 1_310_922),
    ("resnet18", (3, 32, 32), 10, 11_173_962),
    ("resnet20", (3, 32, 32), 10, 272_474),
    ("resnet20", (3, 32, 32), 100, 272_474 + 90 * 65),
]
EVERY_MODEL = pytest.mark.parametrize("name", MODEL)
EVERY_DENSE_MODEL = pytest.mark.parametrize("name", DENSE)


def network(name):
    return MODEL[name].network(SHAPE, CLASSES)


def by_hand(model, params, images):
    """The logits of the slow twin, which reads every parameter once."""
    take = Reader(params)
    logits = oracles.twin("models", model.name)(take, images, CLASSES, **model.model_dump(exclude={"name"}))
    assert take.position == len(params)
    return logits


def convolutional():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


@EVERY_MODEL
def test_metadata(name):
    assert MODELS.parse(MODEL[name].content(), "model") == MODEL[name]
    assert MODEL[name].formula


@EVERY_DENSE_MODEL
def test_size(name):
    assert network(name).size == SIZE[name] == network(name).initial(seed=0).numel()


@pytest.mark.parametrize(("name", "shape", "classes", "size"), PUBLISHED_SIZE)
def test_size_is_the_published_one(name, shape, classes, size):
    assert MODEL[name].network(shape, classes).size == size


@EVERY_MODEL
def test_forward_is_the_formula(name):
    params, images = network(name).initial(seed=0).double(), unequal_vectors(6, *SHAPE)
    params = params + 0.1 * torch.linspace(-1, 1, len(params)).sin()  # GroupNorm leaves its identity
    torch.testing.assert_close(network(name).forward(params, images), by_hand(MODEL[name], params, images))


@pytest.mark.parametrize("make", [convolutional, lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4))])
def test_forward_is_that_of_the_module_with_the_same_weights(make):
    module, images = make(), unequal_vectors(6, 3, 8, 8, dtype=torch.float32)
    expected = module(images)
    params = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    torch.testing.assert_close(Network(module).forward(params, images), expected)


@EVERY_DENSE_MODEL
def test_initial_weights_are_uniform_within_the_bounds(name):
    fan_ins = [576] if name == "logistic" else [576, 32, 5]
    outputs = [10] if name == "logistic" else [32, 5, 10]
    parts = network(name).initial(seed=0).split([(i + 1) * o for i, o in zip(fan_ins, outputs, strict=True)])
    for part, fan_in in zip(parts, fan_ins, strict=True):
        bound = 1 / sqrt(fan_in)
        assert 0.8 * bound < float(part.abs().max()) <= bound
        assert abs(float(part.mean())) < 4 * bound / sqrt(3 * part.numel())  # false alarm: 6e-5 a layer


def test_initial_weights_of_convolution_and_normalisation():
    initial = Network(convolutional()).initial(seed=0)
    convolution, scale, shift, _ = initial.split([3 * 9 * 4 + 4, 4, 4, 4 * 36 * 5 + 5])
    assert 0.8 / sqrt(27) < float(convolution.abs().max()) <= 1 / sqrt(27)
    assert scale.tolist() == [1.0] * 4
    assert shift.tolist() == [0.0] * 4


@EVERY_MODEL
def test_initial_weights_are_distributed_as_pytorchs_own(name):
    """Uniform with the same bounds: extremes and deviations agree where there are enough numbers to tell."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = MODEL[name].module(SHAPE, CLASSES).named_parameters()
        expected = {key: parameter.detach() for key, parameter in theirs}
    ours = network(name)
    parts = ours.initial(seed=0).split([shape.numel() for shape in ours.shapes.values()])
    for (key, shape), part in zip(ours.shapes.items(), parts, strict=True):
        assert expected[key].shape == shape
        if part.unique().numel() == 1 or expected[key].unique().numel() == 1:
            assert torch.equal(part.view(shape), expected[key])
        elif part.numel() >= 400:
            torch.testing.assert_close(part.abs().max(), expected[key].abs().max(), rtol=0.02, atol=0)
            torch.testing.assert_close(part.std(), expected[key].std(), rtol=0.2, atol=0)


@EVERY_MODEL
def test_the_seed_determines_the_initial_weights(name):
    first = network(name).initial(seed=0)
    assert torch.equal(first, network(name).initial(seed=0))
    assert not torch.equal(first, network(name).initial(seed=1))


@EVERY_MODEL
def test_the_global_generator_has_no_influence(name):
    drawn = []
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 1):
            torch.manual_seed(seed)
            drawn.append(network(name).initial(seed=7))
    assert torch.equal(*drawn)


@EVERY_MODEL
def test_the_global_generators_are_left_alone(name, global_generators_untouched):
    network(name).forward(network(name).initial(seed=0), torch.zeros(2, *SHAPE))


@EVERY_MODEL
def test_a_network_holds_no_weights(name):
    """All state is the flat vector: the layers themselves have shapes, no memory and no device."""
    assert all(parameter.is_meta for parameter in network(name).module.parameters())


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(3), nn.InstanceNorm2d(3, track_running_stats=True)], ids=["batch", "instance"]
)
def test_layers_with_buffers_are_refused(layer):
    with pytest.raises(ValueError, match="BatchNorm"):
        Network(nn.Sequential(nn.Conv2d(3, 3, 1), layer))


def test_a_layer_without_an_initialisation_is_refused():
    with pytest.raises(ValueError, match="no initialisation is defined for the layer Embedding"):
        Network(nn.Embedding(3, 2)).initial(seed=0)


@pytest.mark.parametrize(("rate", "shape"), [(0.25, (32, 64, 3, 3)), (0.5, (32, 128))])
def test_shared_dropout_has_one_mask_for_each_place_in_the_minibatch(rate, shape):
    """The share that is dropped deviates from the rate by more than four standard deviations with chance 6e-5."""
    layer, signal = SharedDropout(rate), unequal_vectors(*shape)
    masked = layer(signal)
    kept = (masked != 0).flatten(2) if len(shape) > 2 else (masked != 0)[..., None]
    assert torch.equal(kept.all(dim=-1), kept.any(dim=-1))  # whole channels
    torch.testing.assert_close(masked, torch.where(masked != 0, signal / (1 - rate), 0.0))
    places = kept[..., 0].double()
    assert abs(float(places.mean()) - (1 - rate)) < 4 * sqrt(rate * (1 - rate) / places.numel())
    assert not torch.equal(places[0], places[1])
    assert torch.equal(layer(signal[:5]), masked[:5])
    assert torch.equal(layer.eval()(signal), signal)


@pytest.mark.parametrize("hidden", [0, [0], [-3], ["32"], [1.5], [True], "32", None])
def test_hidden_sizes_are_positive_integers(hidden):
    with pytest.raises(UserError, match=r"^model\.hidden"):
        MODELS.parse({"name": "mlp", "hidden": hidden}, "model")


def test_hidden_sizes_may_be_a_list_and_may_be_empty():
    assert MODELS.parse({"name": "mlp", "hidden": [32, 5]}, "model") == MODEL["deep_mlp"]
    assert MODELS["mlp"](hidden=()).network(SHAPE, CLASSES).size == SIZE["logistic"]


@pytest.mark.parametrize(("name", "side"), [("cnn_mnist", 15), ("cnn_bucketing", 5), ("cnn_cifar", 3)])
def test_images_that_are_too_small_are_told(name, side):
    with pytest.raises(UserError, match=rf"model\.name = '{name}': needs images of {side + 1} x {side + 1} pixels"):
        MODEL[name].network((1, 28, side), CLASSES)
    MODEL[name].network((1, side + 1, side + 1), CLASSES)
