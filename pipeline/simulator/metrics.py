"""What is measured: per-step diagnostics, evaluation, and the catalogue of their names, units and directions."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from pipeline.core.kernels.perceptron import cross_entropy, logits
from pipeline.core.kernels.products import OrderedProducts
from pipeline.core.order import moments_over_workers
from pipeline.core.vectors import norms, sum_over_columns
from pipeline.data.dataset import Split
from pipeline.data.partitions import Shares
from pipeline.simulator.gradients import Backend
from pipeline.simulator.models import Network
from pipeline.simulator.precision import one_at_a_time

SAMPLES_AT_ONCE = 1000


class Metric(NamedTuple):
    """What a metric means, its unit, and which direction is better."""

    meaning: str
    unit: str
    better: Literal["higher", "lower", "neither"]


STEP_METRICS = {
    "train_loss": Metric("mean loss of the honest workers on their minibatches", "nats", "lower"),
    "honest_norm": Metric("norm of the mean of the honest vectors", "1", "neither"),
    "aggregate_error": Metric("distance of the aggregate to the mean of the honest vectors", "1", "lower"),
    "cosine": Metric("cosine between the aggregate and the mean of the honest vectors", "1", "higher"),
    "empirical_kappa": Metric(
        "squared aggregate error over the mean squared spread of the honest vectors", "1", "lower"
    ),
    "byzantine_weight": Metric("share of the aggregate that comes from Byzantine vectors, where defined", "1", "lower"),
    "unconverged": Metric(
        "whether a rule that iterates to a tolerance stopped before it, at its most rounds; undefined for the others",
        "0 or 1",
        "lower",
    ),
    "byzantine_workers": Metric("Byzantine workers among those that take part in the step", "1", "neither"),
}
EVALUATION_METRICS = {
    "validation_accuracy": Metric("accuracy on the validation split", "fraction", "higher"),
    "validation_loss": Metric("mean cross-entropy on the validation split", "nats", "lower"),
}
HETEROGENEITY_METRICS = {
    "g_squared": Metric("mean squared distance of the honest workers' gradients to their mean: G^2", "1", "neither"),
    "b_squared": Metric("the same over the squared norm of the mean: B^2", "1", "neither"),
}
FINAL_METRICS = {
    **EVALUATION_METRICS,
    "test_accuracy": Metric("accuracy on the test split, read once, after the last step", "fraction", "higher"),
    "test_loss": Metric("mean cross-entropy on the test split, after the last step", "nats", "lower"),
    "diverged": Metric(
        "whether parameters or logits are not finite in float64; accuracy is then chance level", "0 or 1", "lower"
    ),
}


def diagnostics(
    honest: Tensor,
    losses: Tensor,
    aggregate: Tensor,
    byzantine_weight: Tensor,
    unconverged: Tensor,
    byzantine_workers: int,
) -> Tensor:
    """Return the ``STEP_METRICS`` of one step.

    Args:
        honest: ``[R, h, d]``, the honest vectors as sent.
        losses: ``[R, h]``, in nats.
        aggregate: ``[R, d]``.
        byzantine_weight: ``[R]``, NaN where the rule is not a weighted mean.
        unconverged: ``[R]``, 0 or 1, NaN where the rule does not iterate to a tolerance.
        byzantine_workers: How many Byzantine workers take part.

    Returns:
        ``[metrics, R]``, in the order of ``STEP_METRICS``.
    """
    mean, squares = moments_over_workers(honest)
    spread = sum_over_columns(squares) / honest.shape[-2]
    error, length, honest_length = norms(torch.stack([aggregate - mean, aggregate, mean]))
    mean_loss = sum_over_columns(losses) / losses.shape[-1]
    cosine = sum_over_columns(aggregate * mean) / (length * honest_length)
    kappa, count = error.square() / spread, torch.full_like(error, byzantine_workers)
    return torch.stack([mean_loss, honest_length, error, cosine, kappa, byzantine_weight, unconverged, count])


class Evaluation(NamedTuple):
    """Accuracy ``[R]`` (fraction) and loss ``[R]`` (nats), float64, and divergence ``[R]`` (bool) on one split."""

    accuracy: Tensor
    loss: Tensor
    diverged: Tensor


def evaluate(network: Network, params: Tensor, split: Split) -> Evaluation:
    """Return how well every replica classifies a split, in float64 whatever the precision of the training.

    A replica has diverged, and is at chance level, if its parameters or its logits are not finite: float32 parameters
    that are finite can have logits that float32 does not hold.

    Args:
        network: The model.
        params: ``[R, d]``.
        split: Inputs ``[N, *shape]`` and labels ``[N]``.
    """
    params = params.double()
    correct, loss = params.new_zeros(2, len(params))
    finite = params.isfinite().all(dim=-1)
    for start in range(0, len(split.labels), SAMPLES_AT_ONCE):
        piece = slice(start, start + SAMPLES_AT_ONCE)
        inputs, labels = split.read(piece, torch.float64), split.labels[piece]
        outputs = _outputs(network, params, inputs)
        correct += (outputs.argmax(dim=-1) == labels).sum(dim=-1)
        loss += sum_over_columns(cross_entropy(outputs, labels.expand(len(params), -1))[0])
        finite &= outputs.isfinite().all(dim=-1).all(dim=-1)
    samples, classes = len(split.labels), outputs.shape[-1]
    return Evaluation(torch.where(finite, correct / samples, 1 / classes), loss / samples, ~finite)


def _outputs(network: Network, params: Tensor, inputs: Tensor) -> Tensor:
    """Return ``[R, N, classes]``."""
    if network.chain:
        return logits(params, network.linear_sizes(), inputs)
    if one_at_a_time(network, params.device):
        return torch.stack([network.forward(replica.clone(), inputs) for replica in params])
    with OrderedProducts():
        return vmap(network.forward, in_dims=(0, None))(params, inputs)


class Dissimilarity(NamedTuple):
    """How much the gradients of n workers differ at one point, float64.

    (G, B)-gradient dissimilarity asks that ``mean_i |g_i - g|^2 <= G^2 + B^2 |g|^2`` at every point, g the mean of the
    g_i (Karimireddy et al. 2020, arXiv:1910.06378; Allouah et al. 2023, arXiv:2309.13591). One point gives no unique
    pair: the two numbers here are the least G with B = 0, and the least B with G = 0; every pair on the line between
    (G^2, 0) and (0, B^2) meets it as well.

    Attributes:
        g_squared: ``mean_i |g_i - g|^2``.
        b_squared: ``mean_i |g_i - g|^2 / |g|^2``; infinite where g = 0 and the g_i differ, NaN where all are 0.
    """

    g_squared: float
    b_squared: float


def dissimilarity(gradients: Tensor) -> Dissimilarity:
    """Return the measured heterogeneity of ``gradients [n, d]``, one per worker.

    Example:
        >>> dissimilarity(torch.tensor([[1.0, 2.0], [1.0, -2.0]]))
        Dissimilarity(g_squared=4.0, b_squared=4.0)
    """
    mean, squares = moments_over_workers(gradients.double())
    spread = sum_over_columns(squares) / len(gradients)
    return Dissimilarity(float(spread), float(spread / sum_over_columns(mean.square())))


def local_gradients(backend: Backend, network: Network, params: Tensor, split: Split, shares: Shares) -> Tensor:
    """Return every worker's gradient of the mean cross-entropy over all of its own samples.

    Args:
        backend: How gradients are computed.
        network: The model.
        params: ``[d]``.
        split: The training data.
        shares: Who holds which of its samples, n workers.

    Returns:
        ``[n, d]``, in nats.
    """
    gradients = []
    for samples, size in zip(shares.samples, shares.sizes.tolist(), strict=True):
        total = torch.zeros_like(params)
        for piece in samples[:size].to(split.labels.device).split(SAMPLES_AT_ONCE):
            inputs = split.read(piece, params.dtype)
            mean, _ = backend(network, params[None], inputs[None, None], split.labels[piece][None, None])
            total += mean[0, 0] * len(piece)
        gradients.append(total / size)
    return torch.stack(gradients)
