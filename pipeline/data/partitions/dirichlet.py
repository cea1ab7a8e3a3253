"""Label mixes drawn from a Dirichlet distribution, one per class or one per worker."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.core.kernels.perceptron import exponential, logarithm
from pipeline.core.rng import numpy_stream
from pipeline.data.partitions import PARTITIONS, Partition

REDRAWS = 10_000  # of a split with a share that is too small
_exponentials, _logarithms = (np.vectorize(function, otypes=[np.float64]) for function in (exponential, logarithm))


@PARTITIONS.register
class DirichletByClass(Partition):
    """Every class is divided among the workers by its own Dirichlet draw; shares have unequal sizes.

    q_c ~ Dir(alpha, ..., alpha) over the workers; worker i gets the fraction q_c,i of the samples of class c

    The boundaries between workers are rounded systematically to whole samples (one uniform number per class is added to
    all of them, then they are rounded down), so that the expected number of samples is q_c,i times the size of the
    class. All q are drawn again until every worker has ``minimum`` samples, so for a small alpha the shares follow the
    Dirichlet distribution conditioned on that minimum. All workers have the same batch size, so a worker with few
    samples reads each of them more often.

    Differs from: ``dirichlet_by_worker``, whose shares have equal sizes; for the same alpha their label mixes are about
    as far from that of the data (mean total variation 0.69 here and 0.61 there for 10 classes, n = 17, alpha = 0.1;
    0.21 in both for alpha = 3). Also from public code in which a worker that has N / n samples gets no more of the
    classes that follow.

    Reference: Yurochkin et al., ICML 2019, arXiv:1905.12022; the minimum of 10 as in public code (not checked against
    the paper's text).

    Example:
        >>> import torch
        >>> labels = torch.arange(10).repeat(60)
        >>> sizes = DirichletByClass(alpha=1.0).shares(labels, workers=5, byzantine=0, seed=0).sizes
        >>> int(sizes.sum()), bool((sizes >= 10).all())
        (600, True)
    """

    name: Literal["dirichlet_by_class"] = "dirichlet_by_class"
    alpha: float = Field(gt=0, description="concentration; small is heterogeneous", examples=[1.0])
    minimum: int = Field(10, ge=1, description="samples of the smallest share; splits below are drawn again")
    formula: ClassVar[str] = "q_c ~ Dir(alpha) over the workers; worker i gets the fraction q_c,i of class c"
    reference: ClassVar[str] = "Yurochkin et al., ICML 2019, arXiv:1905.12022"

    def assign(self, labels: Tensor, workers: int, seed: int) -> list[np.ndarray]:
        """Return shares of unequal sizes that cover all samples.

        Raises:
            UserError: No draw gave every worker ``minimum`` samples.
        """
        stream = numpy_stream(seed, "partition")
        classes = [stream.permutation(np.flatnonzero(labels.numpy() == c)) for c in range(int(labels.max()) + 1)]
        cuts = self._cuts(np.array([len(samples) for samples in classes]), workers, stream)
        pieces = [np.split(samples, ends) for samples, ends in zip(classes, cuts, strict=True)]
        return [np.concatenate(share) for share in zip(*pieces, strict=True)]

    def _cuts(self, counts: np.ndarray, workers: int, stream: np.random.Generator) -> np.ndarray:
        """Return where the shares of workers 2 to n begin in every class, ``[classes, n - 1]``."""
        for _ in range(REDRAWS if workers * self.minimum <= counts.sum() else 0):
            fractions = stream.dirichlet(np.full(workers, self.alpha), size=len(counts))
            ends = fractions.cumsum(axis=1)[:, :-1] * counts[:, None] + stream.random((len(counts), 1))
            cuts: np.ndarray = np.minimum(ends, counts[:, None]).astype(np.int64)
            sizes = np.diff(cuts, axis=1, prepend=0, append=counts[:, None]).sum(axis=0)
            if sizes.min() >= self.minimum:
                return cuts
        raise UserError(
            f"partition {self.name}: no split of {counts.sum()} training samples with alpha = {self.alpha} gave each "
            f"of {workers} workers minimum = {self.minimum}; lower the minimum or raise alpha"
        )


@PARTITIONS.register
class DirichletByWorker(Partition):
    """Every worker draws its own class mix from a Dirichlet distribution; all shares have the same size.

    p_i ~ Dir(alpha, ..., alpha); the workers take turns, worker i takes one sample of a class drawn from p_i

    A class that has run out is left out of p_i from then on. A large alpha tends to ``iid``; as alpha goes to 0, a
    worker takes its favourite class until that runs out, then its next favourite. So p_i is held as logarithms, which
    tell apart what would underflow: log Gamma(alpha) variate = log Gamma(alpha + 1) variate + log(U) / alpha.

    Differs from: ``dirichlet_by_class`` (each class spread over the workers by Dir(alpha)), which has unequal shares.

    Reference: Hsu, Qi, Brown 2019, arXiv:1909.06335.

    Example:
        >>> import torch
        >>> labels = torch.arange(10).repeat(6)
        >>> held = DirichletByWorker(alpha=0.1).shares(labels, workers=5, byzantine=0, seed=0).samples
        >>> held.shape, held.unique().numel()
        (torch.Size([5, 12]), 60)
    """

    name: Literal["dirichlet_by_worker"] = "dirichlet_by_worker"
    alpha: float = Field(gt=0, description="concentration; small is heterogeneous", examples=[0.3])
    formula: ClassVar[str] = "p_i ~ Dir(alpha); worker i draws its classes from p_i"
    reference: ClassVar[str] = "Hsu, Qi, Brown 2019, arXiv:1909.06335"

    def assign(self, labels: Tensor, workers: int, seed: int) -> list[np.ndarray]:
        """Return equal shares."""
        stream = numpy_stream(seed, "partition")
        supply = [stream.permutation(np.flatnonzero(labels.numpy() == c)) for c in range(int(labels.max()) + 1)]
        logs = self._log_mixes(workers, len(supply), stream)
        share = len(labels) // workers
        turns = stream.random((share, workers))
        left = np.array([len(samples) for samples in supply])
        cumulative = self._cumulative(logs, left > 0)
        held = np.empty((workers, share), dtype=np.int64)
        for turn in range(share):
            for worker in range(workers):
                below = turns[turn, worker] * cumulative[worker, -1]
                chosen = np.searchsorted(cumulative[worker], below, side="right")
                left[chosen] -= 1
                held[worker, turn] = supply[chosen][left[chosen]]
                if left[chosen] == 0 and left.any():
                    cumulative = self._cumulative(logs, left > 0)
        return list(held)

    @property
    def _unit(self) -> float:
        """What the logarithms are multiplied by, so that log(U) / alpha does not overflow."""
        return min(self.alpha, 1.0)

    def _log_mixes(self, workers: int, classes: int, stream: np.random.Generator) -> np.ndarray:
        """Return log p_i up to a constant for each worker, in units of ``_unit``, ``[workers, classes]``."""
        gammas = stream.standard_gamma(self.alpha + 1, size=(workers, classes))
        uniform = 1 - stream.random((workers, classes))  # in (0, 1]
        logs: np.ndarray = self._unit * _logarithms(gammas) + self._unit / self.alpha * _logarithms(uniform)
        return logs

    def _cumulative(self, logs: np.ndarray, available: np.ndarray) -> np.ndarray:
        """Return the cumulative sums of the p_i over the ``available [classes]``, their largest weight being 1."""
        logs = np.where(available, logs, -np.inf)
        with np.errstate(over="ignore"):  # a weight of 0
            exponents = (logs - logs.max(axis=1, keepdims=True)) / self._unit
        weights: np.ndarray = _exponentials(exponents)
        return weights.cumsum(axis=1)
