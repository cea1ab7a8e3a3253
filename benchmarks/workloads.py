"""What the measurements train: cells on random images, and plain SGD on as many samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.timing import Action
from pipeline.attacks import ATTACKS
from pipeline.core.component import parse
from pipeline.core.rng import torch_stream
from pipeline.data.dataset import Dataset, Split, write
from pipeline.data.partitions.by_label import IID
from pipeline.defences.defence import Defence
from pipeline.simulator import capture
from pipeline.simulator.cell import Cell, Threat, Training
from pipeline.simulator.gradients import chain_gradients, vmap_gradients
from pipeline.simulator.local_updates.sgd import Gradient
from pipeline.simulator.loop import step
from pipeline.simulator.models import MODELS, Model, Network
from pipeline.simulator.models.base import Shape
from pipeline.simulator.precision import backend, keep_freed_memory, kernels_chosen
from pipeline.simulator.program import Program, build
from pipeline.simulator.schedules.piecewise import Constant

Precision = Literal["float32", "float64"]
CLASSES = 10
RATE = 0.1
SHARE = 1000  # training images of a worker
STEPS = 1024  # of a run, more than a measurement ever takes

NNM_TRIMMED_MEAN = {"before": [{"name": "nnm"}], "rule": {"name": "trimmed_mean"}}
ALIE = {"name": "alie", "strength": 1.5}


@dataclass(frozen=True)
class Workload:
    """A training run to measure.

    Attributes:
        model: As in params.yaml.
        shape: Of an image.
        threat: n, b and f.
        batch_size: B.
        precision: Of training.
    """

    model: dict[str, Any]
    shape: Shape
    threat: Threat
    batch_size: int
    precision: Precision = "float32"

    def cell(self, seed: int, attack: dict[str, Any], defence: dict[str, Any], steps: int = STEPS) -> Cell:
        """Return a cell with worker momentum 0.9, evaluated at the start and at the end."""
        model: Model = MODELS.parse(self.model, "bench")
        return Cell(
            model=model,
            partition=IID(),
            threat=self.threat,
            training=_training(steps, self.batch_size, self.precision),
            defence=parse(Defence, defence, "bench"),
            attack=ATTACKS.parse(attack, "bench"),
            seed=seed,
        )

    def replicas(self, number: int) -> list[Cell]:
        """Return ``number`` seeds of ALIE against NNM and the trimmed mean."""
        return [self.cell(seed, ALIE, NNM_TRIMMED_MEAN) for seed in range(number)]

    def dataset(self) -> Dataset:
        """Return random images and labels."""
        train, other = _split(self.shape, SHARE * self.threat.workers), _split(self.shape, 500)
        return Dataset(train, other, other, classes=CLASSES)

    def write(self, path: Path) -> None:
        """Write the data to the file that training reads."""
        data = self.dataset()
        test = Split(data.test.inputs.clone(), data.test.labels.clone())  # a file holds no tensor twice
        write(path, Dataset(data.train, data.validation, test, data.classes))

    def program(self, number: int, device: torch.device) -> Program:
        """Return the program of :meth:`replicas`."""
        gradients = backend("auto", MODELS.parse(self.model, "bench"), device)
        return build(self.replicas(number), self.dataset(), gradients, device)

    @property
    def samples(self) -> int:
        """How many samples the honest workers read in a step."""
        return self.threat.honest * self.batch_size

    def numbers(self, replicas: int) -> int:
        """Return the size of ``[R, n, d]``."""
        network = MODELS.parse(self.model, "bench").network(self.shape, CLASSES)
        return replicas * self.threat.workers * network.size


def _training(steps: int, batch_size: int, precision: Precision) -> Training:
    return Training(
        steps=steps,
        batch_size=batch_size,
        local_update=Gradient(),
        clip=None,
        precision=precision,
        tf32=False,
        augment="none",
        learning_rate=RATE,
        schedule=Constant(),
        momentum=0.9,
        damped=True,
        server_momentum=0.0,
        weight_decay=0.0,
        evaluate_every=steps,
    )


@cache
def _split(shape: Shape, size: int) -> Split:
    numbers = torch_stream(0, "bench images")
    images = torch.randn(size, *shape, generator=numbers)
    return Split(images, torch.randint(CLASSES, (size,), generator=numbers))


def mnist(model: dict[str, Any], tiny: bool) -> Workload:
    """Return 10 honest and 3 Byzantine workers, 25 images of 28 x 28 pixels each; in toy size 5, 1 and 2."""
    if tiny:
        return Workload(model, (1, 28, 28), threat(6, 1), 2)
    return Workload(model, (1, 28, 28), threat(13, 3), 25)


def digits(tiny: bool, precision: Precision) -> Workload:
    """Return a workload of the size of a cell of params.yaml."""
    return Workload({"name": "mlp", "hidden": [4 if tiny else 32]}, (1, 8, 8), threat(17, 4), 16, precision)


def mnist_models(tiny: bool) -> dict[str, dict[str, Any]]:
    """Return the three models that are measured on images of MNIST's shape."""
    hidden = 4 if tiny else 100
    return {"cnn": {"name": "cnn_mnist"}, "mlp": {"name": "mlp", "hidden": [hidden]}, "logistic": {"name": "logistic"}}


def threat(workers: int, byzantine: int) -> Threat:
    """Return a threat with f = b."""
    return Threat(workers=workers, byzantine=byzantine, tolerated=byzantine, sampled=None)


def our_step(program: Program) -> Action:
    """Return an action that does one Byzantine step per call, as :func:`pipeline.runs.execution.train` does it."""
    keep_freed_memory()
    take_step, steps = capture.stepper(partial(step, program), program.start()), count()
    together = program.gradients in (chain_gradients, vmap_gradients)

    def action() -> None:
        with kernels_chosen(program.training, together):
            take_step(next(steps))

    return action


def plain_sgd(network: Network, dataset: Dataset, samples: int, device: torch.device) -> Action:
    """Return an action that does one step of SGD on ``samples`` images per call, by plain autograd."""
    data = dataset.to(device).train
    drawn = torch.randint(len(data.labels), (STEPS, samples), generator=torch_stream(0, "bench samples")).to(device)
    leaves = _leaves(network, device)
    steps = count()

    def action() -> None:
        torch.backends.mkldnn.set_flags(True)  # type: ignore[no-untyped-call]
        chosen = drawn[next(steps) % STEPS]
        logits = torch.func.functional_call(network.module, leaves, (data.inputs[chosen],))
        gradients = torch.autograd.grad(cross_entropy(logits, data.labels[chosen]), list(leaves.values()))
        with torch.no_grad():
            for leaf, gradient in zip(leaves.values(), gradients, strict=True):
                leaf.sub_(gradient, alpha=RATE)

    return action


def _leaves(network: Network, device: torch.device) -> dict[str, Tensor]:
    """Return the initial parameters by name, each a leaf of autograd."""
    parts = torch.split(network.initial(0), [shape.numel() for shape in network.shapes.values()])
    named = zip(network.shapes.items(), parts, strict=True)
    return {name: part.view(shape).clone().to(device).requires_grad_() for (name, shape), part in named}


def unwatched(_: Sequence[int]) -> Callable[..., None]:
    """Ignore every evaluation; a ``watch`` for :func:`pipeline.runs.execution.train`."""
    return lambda *_: None
