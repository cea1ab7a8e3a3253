"""Cross-entropy, and its gradient by the parameters of linear layers with ReLU between them.

Every sum is added in one order: over the units of a layer, over a worker's samples, over the classes, each from the
first to the last. The exponential and the logarithm are written out, because those of the C library and of MKL, which
PyTorch uses, have other last bits on other processors.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from pipeline.core.kernels import basis
from pipeline.core.kernels.basis import array, compiled, inlined
from pipeline.core.kernels.products import matmul

TERMS = 64  # of a sum that are added for all rows before the next: a piece of the weights stays in the first cache
SAMPLES = 64  # whose exponentials are computed together


def gradients(params: Tensor, sizes: Sequence[int], inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return every worker's gradient ``[R, w, d]`` of its mean cross-entropy, and that of each sample ``[R, w, B]``.

    Args:
        params: ``[R, d]``, of each layer the weights ``[outputs, inputs]``, then the biases.
        sizes: Inputs of the first layer, then the outputs of each.
        inputs: ``[R, w, B, *shape]``.
        labels: ``[R, w, B]``, int64.
    """
    inputs = inputs.flatten(3)
    if not basis.on_cpu(params):
        return by_chain_rule(params, sizes, inputs, labels)
    found = np.empty((*labels.shape[:2], params.shape[-1]), params.numpy().dtype)
    entropies = np.empty(labels.shape, found.dtype)
    _gradients(array(params, 2), np.array(sizes), array(inputs, 4), labels.contiguous().numpy(), found, entropies)
    return torch.from_numpy(found), torch.from_numpy(entropies)


def by_chain_rule(params: Tensor, sizes: Sequence[int], inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same as :func:`gradients`, layer by layer.

    s_0 = inputs, s_k = relu(s_(k-1) W_k^T + c_k); with D the derivative of the loss by a layer's output before ReLU,
    dW_k = D^T s_(k-1), dc_k = sum D, and D W_k where s_(k-1) > 0 is the D of the layer below
    """
    layers, signals = list(_layers(params, sizes)), _signals(params, sizes, inputs)
    entropies, derivative = cross_entropy(signals.pop(), labels)
    derivative = derivative / labels.shape[-1]
    ones, parts = torch.ones_like(derivative[..., :1]).mT, list[Tensor]()
    for (weight, _), signal in zip(reversed(layers), reversed(signals), strict=True):
        parts = [matmul(derivative.mT, signal).flatten(2), matmul(ones, derivative).flatten(2), *parts]
        derivative = matmul(derivative, weight).masked_fill(signal <= 0, 0.0)
    return torch.cat(parts, dim=-1), entropies


def logits(params: Tensor, sizes: Sequence[int], inputs: Tensor) -> Tensor:
    """Return the outputs ``[R, N, classes]`` of the last layer for ``inputs [N, *shape]``, the same for all replicas.

    Args:
        params: ``[R, d]``, as for :func:`gradients`.
        sizes: As there.
        inputs: ``[N, *shape]``.
    """
    return _signals(params, sizes, inputs.flatten(1)[None, None])[-1][:, 0]


def _signals(params: Tensor, sizes: Sequence[int], inputs: Tensor) -> list[Tensor]:
    """Return what each layer reads, ``[R, w, B, units]``, from the ``inputs`` on, and what the last one puts out."""
    signals, output = list[Tensor](), inputs
    for weight, bias in _layers(params, sizes):
        signals.append(output.relu() if signals else inputs)
        output = matmul(signals[-1], weight.mT) + bias
    return [*signals, output]


def _layers(params: Tensor, sizes: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the weight ``[R, 1, outputs, inputs]`` and the bias ``[R, 1, 1, outputs]`` of each layer."""
    first = 0
    for inputs, outputs in pairwise(sizes):
        bias, after = first + outputs * inputs, first + outputs * (inputs + 1)
        yield params[:, first:bias].view(-1, 1, outputs, inputs), params[:, None, None, bias:after]
        first = after


@compiled
def _gradients(
    params: np.ndarray,
    sizes: np.ndarray,
    inputs: np.ndarray,
    labels: np.ndarray,
    gradients: np.ndarray,
    entropies: np.ndarray,
) -> None:
    replicas, workers, samples, _ = inputs.shape
    room = samples * sizes.max()
    signals = np.empty((len(sizes), room), params.dtype)
    derivative, below = np.empty(room, params.dtype), np.empty(room, params.dtype)
    transposed = np.empty(params.shape[1], params.dtype)
    for r in range(replicas):
        _transpose(params[r], sizes, transposed)
        for w in range(workers):
            for i in range(samples):
                for c in range(sizes[0]):
                    signals[0, i * sizes[0] + c] = inputs[r, w, i, c]
            _forward(params[r], transposed, sizes, samples, signals)
            logits = _matrix(signals[len(sizes) - 1], samples, sizes[-1])
            by_logits = _matrix(derivative, samples, sizes[-1])
            _softmax(logits, labels[r, w], entropies[r, w], by_logits)
            for i in range(samples):
                for c in range(sizes[-1]):
                    by_logits[i, c] /= samples
            _backward(params[r], sizes, samples, signals, derivative, below, gradients[r, w])


@inlined
def _matrix(room: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return the first numbers of ``room`` as a matrix."""
    return room[: rows * columns].reshape(rows, columns)


@inlined
def _forward(params: np.ndarray, transposed: np.ndarray, sizes: np.ndarray, samples: int, signals: np.ndarray) -> None:
    """Bring ``signals`` to hold the outputs of each layer above its inputs."""
    first = 0
    for layer in range(len(sizes) - 1):
        inner, units = sizes[layer], sizes[layer + 1]
        weight, bias = _matrix(transposed[first:], inner, units), params[first + inner * units :]
        output = _matrix(signals[layer + 1], samples, units)
        _multiply(_matrix(signals[layer], samples, inner), weight, output)
        for i in range(samples):
            for c in range(units):
                value = output[i, c] + bias[c]
                output[i, c] = 0 if value < 0 and layer + 1 < len(sizes) - 1 else value
        first += (inner + 1) * units


@inlined
def _backward(
    params: np.ndarray,
    sizes: np.ndarray,
    samples: int,
    signals: np.ndarray,
    derivative: np.ndarray,
    below: np.ndarray,
    gradient: np.ndarray,
) -> None:
    """Bring ``gradient [d]`` to hold dW and dc of each layer; ``derivative`` is that of the last layer's output."""
    first = len(params)
    for layer in range(len(sizes) - 2, -1, -1):
        inner, units = sizes[layer], sizes[layer + 1]
        first -= (inner + 1) * units
        signal, by_output = _matrix(signals[layer], samples, inner), _matrix(derivative, samples, units)
        _multiply(by_output.T, signal, _matrix(gradient[first:], units, inner))
        _sum_rows(by_output, gradient[first + inner * units :])
        if layer > 0:
            by_signal = _matrix(below, samples, inner)
            _multiply(by_output, _matrix(params[first:], units, inner), by_signal)
            for i in range(samples):
                for c in range(inner):
                    derivative[i * inner + c] = 0 if signal[i, c] <= 0 else by_signal[i, c]


@inlined
def _transpose(params: np.ndarray, sizes: np.ndarray, transposed: np.ndarray) -> None:
    """Bring ``transposed`` to hold the weights of each layer as ``[inputs, outputs]``, where ``params`` has them."""
    first = 0
    for layer in range(len(sizes) - 1):
        k, units = sizes[layer], sizes[layer + 1]
        for i in range(units):
            for c in range(k):
                transposed[first + c * units + i] = params[first + i * k + c]
        first += (k + 1) * units


@compiled
def _multiply(left: np.ndarray, right: np.ndarray, product: np.ndarray) -> None:
    """Bring ``product`` to hold ``left @ right``, each entry a sum in the order of its terms."""
    product[:] = 0
    for start in range(0, left.shape[1], TERMS):
        _add_product(left[:, start : start + TERMS], right[start : start + TERMS], product)


@inlined
def _add_product(left: np.ndarray, right: np.ndarray, product: np.ndarray) -> None:
    (rows, inner), columns = left.shape, right.shape[1]
    whole = inner // 4 * 4
    for i in range(rows):
        sums = product[i]
        for k in range(0, whole, 4):  # four terms at a time, added one after the other
            p, q, s, t = left[i, k], left[i, k + 1], left[i, k + 2], left[i, k + 3]
            u, v, w, x = right[k], right[k + 1], right[k + 2], right[k + 3]
            for c in range(columns):
                sums[c] = sums[c] + p * u[c] + q * v[c] + s * w[c] + t * x[c]
        for k in range(whole, inner):
            p, u = left[i, k], right[k]
            for c in range(columns):
                sums[c] += p * u[c]


@inlined
def _sum_rows(rows: np.ndarray, sums: np.ndarray) -> None:
    """Bring the first entries of ``sums`` to hold the sums over the rows."""
    for c in range(rows.shape[1]):
        sums[c] = 0
    for i in range(rows.shape[0]):
        for c in range(rows.shape[1]):
            sums[c] += rows[i, c]


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy ``[...]`` (nats) of ``logits [..., C]``, and its derivative by them ``[..., C]``.

    Args:
        logits: ``[..., C]``.
        labels: ``[...]``, int64, 0 to C - 1.

    Example:
        >>> cross_entropy(torch.zeros(1, 2), torch.tensor([1]))
        (tensor([0.6931]), tensor([[ 0.5000, -0.5000]]))
    """
    if not basis.on_cpu(logits):
        logarithms, chosen = log_softmax(logits, dim=-1), labels[..., None]
        is_label = chosen == torch.arange(logits.shape[-1], device=labels.device)
        return -logarithms.gather(-1, chosen).squeeze(-1), logarithms.exp() - is_label.to(logits.dtype)
    values = array(logits, 2)
    losses, derivative = np.empty(len(values), values.dtype), np.empty_like(values)
    _softmax(values, labels.reshape(-1).numpy(), losses, derivative)
    return torch.from_numpy(losses).view(labels.shape), torch.from_numpy(derivative).view(logits.shape)


@compiled
def _softmax(logits: np.ndarray, labels: np.ndarray, losses: np.ndarray, derivative: np.ndarray) -> None:
    samples, classes = logits.shape
    powers, room = np.empty(SAMPLES * classes), np.empty((3, SAMPLES * classes))
    for first in range(0, samples, SAMPLES):
        count = min(SAMPLES, samples - first)
        for i in range(count):
            largest = _largest(logits[first + i])
            for c in range(classes):
                powers[i * classes + c] = np.float64(logits[first + i, c]) - np.float64(largest)
        _exponentials(powers[: count * classes], room)
        for i in range(count):
            row, label, total = logits[first + i], labels[first + i], 0.0
            for c in range(classes):
                total += powers[i * classes + c]
            losses[first + i] = logarithm(total) - (np.float64(row[label]) - np.float64(_largest(row)))
            for c in range(classes):
                derivative[first + i, c] = powers[i * classes + c] / total
            derivative[first + i, label] -= 1


@inlined
def _largest(row: np.ndarray) -> float:
    largest: float = row[0]
    for c in range(1, len(row)):
        largest = max(largest, row[c])
    return largest


LN2, LN2_REST = 0.6931471803691238, 1.9082149292705877e-10  # their sum is ln 2 to 1e-26; k LN2 is exact for |k| < 2^20
NORMAL = -708.0  # from here on no power of e, nor 2^k, is a subnormal number
POWERS_OF_TWO = 2.0 ** -np.arange(1023.0)


@inlined
def _exponentials(values: np.ndarray, room: np.ndarray) -> None:
    """Replace all ``values`` by their :func:`exponential`, bit for bit, in loops that a processor runs side by side."""
    wholes, rests, series = room
    for i in range(len(values)):
        x = values[i] if values[i] > NORMAL else 0.0
        wholes[i] = np.floor(x / (LN2 + LN2_REST) + 0.5)
        rests[i] = (x - wholes[i] * LN2) - wholes[i] * LN2_REST
        series[i] = 1.0
    for term in range(13, 0, -1):
        for i in range(len(values)):
            series[i] = 1.0 + series[i] * rests[i] / term
    for i in range(len(values)):
        values[i] = series[i] * POWERS_OF_TWO[-int(wholes[i])] if values[i] > NORMAL else exponential(values[i])


@compiled
def exponential(x: float) -> float:
    """Return e^x for x <= 0, to 2 units in the last place; NaN for NaN.

    x = k ln 2 + r with |r| <= ln 2 / 2, and e^r by its series up to r^13 / 13!, whose rest is below 1e-17.

    Example:
        >>> exponential(-1.0)
        0.36787944117144233
    """
    if not x > -745.0:
        return x if x != x else 0.0
    k = math.floor(x / (LN2 + LN2_REST) + 0.5)
    r = (x - k * LN2) - k * LN2_REST
    series = 1.0
    for i in range(13, 0, -1):
        series = 1.0 + series * r / i
    return math.ldexp(series, int(k))


@compiled
def logarithm(x: float) -> float:
    """Return ln x for finite x > 0 that is not subnormal, to 2 units in the last place; NaN for NaN.

    x = 2^k m with m in [1/sqrt 2, sqrt 2), and ln m = 2 (f + f^3 / 3 + f^5 / 5 + ...) with f = (m - 1) / (m + 1), up to
    f^23, whose rest is below 1e-18.

    Example:
        >>> logarithm(10.0)
        2.302585092994046
    """
    if not x < math.inf:
        return x
    m, k = math.frexp(x)
    if m < 0.7071067811865476:
        m, k = 2 * m, k - 1
    f = (m - 1) / (m + 1)
    series = 0.0
    for i in range(23, 0, -2):
        series = series * f * f + 2.0 / i
    return k * LN2 + (series * f + k * LN2_REST)
