"""Equal shares: random, sorted by label, or something between the two."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from pipeline.core.rng import numpy_stream
from pipeline.data.partitions import PARTITIONS, Partition


@PARTITIONS.register
class IID(Partition):
    """A random share for every worker.

    Example:
        >>> import torch
        >>> IID().shares(torch.zeros(10, dtype=torch.long), workers=3, byzantine=0, seed=0).samples.shape
        torch.Size([3, 3])
    """

    name: Literal["iid"] = "iid"
    formula: ClassVar[str] = "a random permutation, cut into n equal shares"

    def assign(self, labels: Tensor, workers: int, seed: int) -> list[np.ndarray]:
        """Return equal shares; the labels are not used."""
        return list(_shuffled(labels, workers, seed).reshape(workers, -1))


@PARTITIONS.register
class GammaSimilarity(Partition):
    """A fraction gamma of every share is random, the rest of it comes from contiguous pieces of the sorted labels.

    The first round(gamma m) samples of each worker are a random share; the others are sorted by label and cut into n
    contiguous pieces. gamma = 1 is ``iid``, gamma = 0 is ``extreme``. All shares have the same size.

    Differs from: elsewhere the same split is parametrised by s % or by 1 - gamma.

    Reference: Karimireddy et al., ICML 2020, arXiv:1910.06378; gamma as in Allouah et al., arXiv:2302.01772 (not
    checked against the papers' text).

    Example:
        >>> import torch
        >>> labels = torch.arange(2).repeat(10)
        >>> held = GammaSimilarity(gamma=0.0).shares(labels, workers=2, byzantine=0, seed=0).samples
        >>> labels[held].sum(dim=1)
        tensor([ 0, 10])
    """

    name: Literal["gamma_similarity"] = "gamma_similarity"
    gamma: float = Field(
        ge=0, le=1, description="fraction of random samples; 1 is iid, 0 sorted by label", examples=[0.4]
    )
    formula: ClassVar[str] = "a fraction gamma iid, the rest sorted by label in contiguous shares"
    reference: ClassVar[str] = "Karimireddy et al., ICML 2020, arXiv:1910.06378"

    def assign(self, labels: Tensor, workers: int, seed: int) -> list[np.ndarray]:
        """Return equal shares."""
        order = _shuffled(labels, workers, seed)
        mixed = workers * round(self.gamma * (len(order) // workers))
        parts = [order[:mixed], _sorted_by_label(order[mixed:], labels)]
        return list(np.concatenate([part.reshape(workers, -1) for part in parts], axis=1))


@PARTITIONS.register
class Extreme(Partition):
    """Sorted by label and cut into contiguous shares: most workers see one or two classes.

    Reference: Allouah et al., AISTATS 2023, arXiv:2302.01772 ("extreme heterogeneity"; not checked against its text).

    Example:
        >>> import torch
        >>> labels = torch.arange(2).repeat(3)
        >>> labels[Extreme().shares(labels, workers=3, byzantine=0, seed=0).samples]
        tensor([[0, 0],
                [0, 1],
                [1, 1]])
    """

    name: Literal["extreme"] = "extreme"
    formula: ClassVar[str] = "sorted by label, cut into n contiguous shares"
    reference: ClassVar[str] = "Allouah et al., AISTATS 2023, arXiv:2302.01772"

    def assign(self, labels: Tensor, workers: int, seed: int) -> list[np.ndarray]:
        """Return equal shares."""
        order = _sorted_by_label(_shuffled(labels, workers, seed), labels)
        return list(order.reshape(workers, -1))


@PARTITIONS.register
class Shards(Partition):
    """Sorted by label and cut into 2n contiguous shards, of which every worker gets two at random.

    m = 2 floor(N / (2n))

    Reference: McMahan et al., AISTATS 2017, arXiv:1602.05629.

    Example:
        >>> import torch
        >>> Shards().shares(torch.arange(10), workers=2, byzantine=0, seed=0).sizes
        tensor([4, 4])
    """

    name: Literal["shards"] = "shards"
    formula: ClassVar[str] = "sorted by label, cut into 2n shards, two for each worker"
    reference: ClassVar[str] = "McMahan et al., AISTATS 2017, arXiv:1602.05629"

    def assign(self, labels: Tensor, workers: int, seed: int) -> list[np.ndarray]:
        """Return equal shares."""
        order = _sorted_by_label(_shuffled(labels, 2 * workers, seed), labels)
        dealt = numpy_stream(seed, "shards").permutation(2 * workers)
        return list(order.reshape(2 * workers, -1)[dealt].reshape(workers, -1))


def _shuffled(labels: Tensor, shares: int, seed: int) -> np.ndarray:
    """Return the sample numbers in random order, without the remainder that equal ``shares`` leave."""
    order = numpy_stream(seed, "partition").permutation(len(labels))
    return order[: shares * (len(labels) // shares)]


def _sorted_by_label(samples: np.ndarray, labels: Tensor) -> np.ndarray:
    order: np.ndarray = samples[labels.numpy()[samples].argsort(kind="stable")]
    return order
