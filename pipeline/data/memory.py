"""A data set from arrays in memory."""

from typing import Any

from pipeline.core.component import parse
from pipeline.data.arrays import checked
from pipeline.data.dataset import Dataset
from pipeline.data.prepare import Cut


def from_arrays(
    train_inputs: Any,
    train_labels: Any,
    test_inputs: Any = None,
    test_labels: Any = None,
    *,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    split_seed: int = 0,
) -> Dataset:
    """Return the data set that the stages ``download`` and ``prepare`` make of a file with the same arrays.

    Args:
        train_inputs: Images ``[N, C, H, W]`` or ``[N, H, W]``, or feature vectors ``[N, p]``.
        train_labels: ``[N]``, integers 0 to C - 1, each of them present.
        test_inputs: Likewise; None: the test split is cut from the training arrays.
        test_labels: Likewise.
        validation_fraction: Of the training samples.
        test_fraction: Of all samples, where there are no test arrays.
        split_seed: Of the random split.

    Raises:
        UserError: Names the array or number that is wrong, and what would be right.

    Example:
        >>> from_arrays([[0.0], [1.0]] * 10, [0, 1] * 10).train.inputs.shape
        torch.Size([14, 1])
    """
    given = {
        "train_inputs": train_inputs,
        "train_labels": train_labels,
        "test_inputs": test_inputs,
        "test_labels": test_labels,
    }
    cut = {"validation_fraction": validation_fraction, "test_fraction": test_fraction, "split_seed": split_seed}
    arrays = {name: array for name, array in given.items() if array is not None}
    splitting: Cut = parse(Cut, cut, "data")
    return splitting.dataset(*checked(arrays))
