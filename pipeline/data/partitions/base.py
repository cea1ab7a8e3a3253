"""The contract of a partition, and what it returns: who holds which samples."""

from abc import abstractmethod
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pipeline.core.component import Component
from pipeline.core.errors import UserError
from pipeline.core.rng import numpy_stream


class Shares(NamedTuple):
    """Who holds which samples.

    Attributes:
        samples: ``[n, m]``, int64, the sample numbers of each worker, those of a smaller share followed by zeros.
        sizes: ``[n]``, int64, how many samples each worker holds.
    """

    samples: Tensor
    sizes: Tensor


class Partition(Component):
    """A way to divide N samples among the workers, no sample twice.

    With ``holders: all`` all n workers get a share, so that the honest shares do not depend on the attack; Byzantine
    workers use theirs only under ``none`` and under data attacks. With ``holders: honest`` all samples are divided
    among the h honest workers, and Byzantine worker i uses the share of honest worker i (starting over from the first
    if b > h). With ``holders: honest_and_iid`` they are divided likewise, but the Byzantine workers use random shares
    of all samples, of floor(N / h) each, disjoint as long as b <= h.
    """

    holders: Literal["all", "honest", "honest_and_iid"] = Field(
        "all", description="who gets a share: all n workers; the h honest ones; these, and random ones the others"
    )

    def shares(self, labels: Tensor, workers: int, byzantine: int, seed: int) -> Shares:
        """Return what each worker holds.

        Args:
            labels: ``[N]``, values from 0.
            workers: n, the honest ones first.
            byzantine: b.
            seed: The replica's seed.

        Raises:
            UserError: There are too few samples for every holder to get one.
        """
        honest = workers - byzantine
        holders = workers if self.holders == "all" else honest
        held = self.assign(labels, holders, seed)
        if not all(map(len, held)):
            raise UserError(
                f"partition {self.name}: {len(labels)} training samples leave one of {holders} workers none"
            )
        of_others = self._random_shares(len(labels), honest, seed) if self.holders == "honest_and_iid" else held
        held += [of_others[i % honest] for i in range(workers - holders)]
        samples = [torch.from_numpy(share) for share in held]
        return Shares(pad_sequence(samples, batch_first=True), torch.tensor([len(share) for share in held]))

    def _random_shares(self, samples: int, count: int, seed: int) -> list[np.ndarray]:
        order = numpy_stream(seed, "byzantine shares").permutation(samples)
        return list(order[: count * (samples // count)].reshape(count, -1))

    @abstractmethod
    def assign(self, labels: Tensor, workers: int, seed: int) -> list[np.ndarray]:
        """Return the sample numbers ``[m_i]``, int64, of each worker that gets a share.

        Shares have m = floor(N / n) samples unless a partition states otherwise.

        Args:
            labels: ``[N]``, values from 0.
            workers: How many get a share.
            seed: The replica's seed.
        """


def label_histogram(labels: Tensor, shares: Shares, classes: int) -> Tensor:
    """Return how many samples of each class every worker holds, ``[n, classes]``, int64.

    Args:
        labels: ``[N]``, values 0 to ``classes`` - 1.
        shares: Of n workers.
        classes: C.

    Example:
        >>> label_histogram(torch.tensor([0, 1, 1]), Shares(torch.tensor([[0, 1], [2, 0]]), torch.tensor([2, 1])), 2)
        tensor([[1, 1],
                [0, 1]])
    """
    held = [samples[:size] for samples, size in zip(shares.samples, shares.sizes.tolist(), strict=True)]
    return torch.stack([torch.bincount(labels[samples], minlength=classes) for samples in held])
