"""A user's own arrays: their checks, and the format that they have."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.core.component import allowed
from pipeline.core.errors import UserError
from pipeline.core.kernels.workers import moments
from pipeline.data.format import Format

Parts = dict[str, tuple[Tensor, Tensor]]  # inputs [N, *shape] and labels [N], int64, of "train" and perhaps "test"

TRAIN, TEST = ("train_inputs", "train_labels"), ("test_inputs", "test_labels")
LARGEST = float(np.finfo(np.float32).max)  # training reads float32


def checked(arrays: Mapping[str, Any]) -> tuple[Parts, Format]:
    """Return the parts that ``arrays`` hold, and their format.

    Means and deviations are those of ``train_inputs``: per channel for images, per feature for vectors, summed in
    float64 one sample after the other. A channel or feature that is constant has deviation 1. Where there are no arrays
    for the test, the test split is yet to be cut, so these are the statistics of all samples.

    Args:
        arrays: ``train_inputs`` (images ``[N, C, H, W]`` or ``[N, H, W]``, or feature vectors ``[N, p]``, of any real
            type), ``train_labels`` (``[N]``, integers 0 to C - 1, each of them present), and optionally
            ``test_inputs`` and ``test_labels``.

    Raises:
        UserError: Names the array that is missing or wrong, and what would be right.

    Example:
        >>> parts, format = checked({"train_inputs": [[0.0], [2.0]], "train_labels": [0, 1]})
        >>> format
        Format(shape=(1,), classes=2, means=(1.0,), deviations=(1.0,), brightest=None, own_test=False)
    """
    _check_names(arrays)
    inputs, labels = _part(arrays, *TRAIN)
    parts = {"train": (inputs, labels)}
    shape, classes, own_test = tuple(inputs.shape[1:]), _classes(labels), TEST[0] in arrays
    if own_test:
        parts["test"] = _part(arrays, *TEST)
        _check_test(*parts["test"], shape, classes)
    return parts, Format(shape, classes, *_statistics(inputs), brightest=None, own_test=own_test)


def _check_names(names: Collection[str]) -> None:
    """Raise UserError unless ``names`` are those of the arrays for training, or for training and test."""
    for name in names:
        if name not in TRAIN + TEST:
            raise UserError(f"{name}: unknown array; {allowed(name, TRAIN + TEST)}")
    for name in TRAIN + (TEST if any(name in names for name in TEST) else ()):
        if name not in names:
            raise UserError(f"{name}: missing; the arrays are {', '.join(names) or 'none'}")


def _part(arrays: Mapping[str, Any], of_inputs: str, of_labels: str) -> tuple[Tensor, Tensor]:
    inputs = _inputs(of_inputs, np.asarray(arrays[of_inputs]))
    labels = _labels(of_labels, np.asarray(arrays[of_labels]))
    if len(labels) != len(inputs):
        raise UserError(f"{of_labels}: {len(labels)} labels, but {of_inputs} has {len(inputs)} samples")
    return inputs, labels


def _inputs(name: str, array: np.ndarray) -> Tensor:
    """Return ``array`` as uint8, float32 or float64 ``[N, C, H, W]`` or ``[N, p]``."""
    shape = list(array.shape)
    if array.dtype.kind not in "buif":
        raise UserError(f"{name}: should be real numbers, got {array.dtype}")
    if array.ndim not in (2, 3, 4):
        raise UserError(f"{name}: should be images [N, C, H, W] or [N, H, W], or vectors [N, p]; got {shape}")
    if array.size == 0:
        raise UserError(f"{name}: has no elements; its shape is {shape}")
    if array.ndim == 4 and shape[3] in (1, 3, 4) and shape[1] == shape[2] > 4:
        raise UserError(f"{name}: should be [N, C, H, W], but {shape} has its channels last; transpose(0, 3, 1, 2)")
    plain = _plain(array)
    unusable = ~(np.abs(plain) <= LARGEST)
    if unusable.any():
        first = int(np.argwhere(unusable)[0, 0])
        raise UserError(
            f"{name}: {unusable.sum()} values are NaN, infinite or too large for float32, the first in sample {first}"
        )
    return torch.from_numpy(plain[:, None] if plain.ndim == 3 else plain)


def _plain(array: np.ndarray) -> np.ndarray:
    """Return the same numbers in a type that every route can store: uint8, float32 or float64."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    plain = np.uint8 if kind in "bu" and size == 1 else np.float32 if kind == "f" and size <= 4 else np.float64
    return np.ascontiguousarray(array, dtype=plain)


def _labels(name: str, array: np.ndarray) -> Tensor:
    """Return ``array`` as int64 ``[N]``."""
    if array.dtype.kind not in "iu":
        raise UserError(f"{name}: should be integers, got {array.dtype}")
    if array.ndim != 1:
        raise UserError(f"{name}: should be [N], one label per sample; got {list(array.shape)}")
    return torch.from_numpy(array.astype(np.int64))


def _classes(labels: Tensor) -> int:
    """Return the number of classes C of training labels that are 0 to C - 1."""
    present: list[int] = labels.unique().tolist()  # type: ignore[no-untyped-call]
    if present[0] < 0:
        raise UserError(f"train_labels: {present[0]} is negative; classes are counted from 0")
    absent = next((number for number, label in enumerate(present) if number != label), None)
    if absent is not None:
        raise UserError(
            f"train_labels: {absent} does not occur, but {present[-1]} does; every class from 0 to C - 1 should occur"
        )
    if len(present) < 2:
        raise UserError("train_labels: all are 0; there should be two classes or more")
    return len(present)


def _check_test(inputs: Tensor, labels: Tensor, shape: tuple[int, ...], classes: int) -> None:
    if tuple(inputs.shape[1:]) != shape:
        raise UserError(f"test_inputs: a sample is {list(inputs.shape[1:])}, but one of train_inputs is {list(shape)}")
    least, greatest = int(labels.min()), int(labels.max())
    if least < 0 or greatest >= classes:
        raise UserError(f"test_labels: run from {least} to {greatest}, but train_labels from 0 to {classes - 1}")


def _statistics(inputs: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of each channel or feature, in an order that does not depend on the processor."""
    rows = inputs.movedim(1, -1).reshape(-1, inputs.shape[1]).double()
    means, squares = (sums.numpy() for sums in moments(rows))
    least, greatest = rows.numpy().min(axis=0), rows.numpy().max(axis=0)
    deviations = np.sqrt(squares / len(rows))
    means = np.where(least == greatest, least, means)  # the mean of equal numbers may be off by a rounding error
    deviations = np.where((least == greatest) | (deviations == 0), 1.0, deviations)
    return tuple(means.tolist()), tuple(deviations.tolist())
