"""Who holds which samples, and which of them a worker reads at each step."""

from abc import abstractmethod
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pipeline.core.component import Component, Registry
from pipeline.core.errors import UserError
from pipeline.core.rng import Stream, numpy_stream

REDRAWS = 10_000  # of a split with a share that is too small


class Shares(NamedTuple):
    """Who holds which samples.

    Attributes:
        samples: ``[n, m]``, int64, the sample numbers of each worker, those of a smaller share followed by zeros.
        sizes: ``[n]``, int64, how many samples each worker holds.
    """

    samples: Tensor
    sizes: Tensor


class Partition(Component):
    """A way to share N samples out over workers, none twice.

    With ``holders: all`` all n workers get a share, so that the honest shares do not depend on the attack; Byzantine
    workers read theirs under ``none`` and under data attacks only. With ``holders: honest`` everything is shared out
    over the h honest workers, and Byzantine worker i reads the share of honest worker i (again from the first where
    b > h).
    """

    holders: Literal["all", "honest"] = Field(
        "all", description="who gets a share: all n workers, or the h honest ones"
    )

    def shares(self, labels: Tensor, workers: int, byzantine: int, seed: int) -> Shares:
        """Return what each worker holds.

        Args:
            labels: ``[N]``, values from 0.
            workers: n, the honest ones first.
            byzantine: b.
            seed: The replica's seed.

        Raises:
            UserError: There are too few samples to give every holder some.
        """
        honest = workers - byzantine
        holders = workers if self.holders == "all" else honest
        held = self.assign(labels, holders, seed)
        if not all(map(len, held)):
            raise UserError(
                f"partition {self.name}: {len(labels)} training samples leave one of {holders} workers none"
            )
        held += [held[i % honest] for i in range(workers - holders)]
        samples = [torch.from_numpy(share) for share in held]
        return Shares(pad_sequence(samples, batch_first=True), torch.tensor([len(share) for share in held]))

    @abstractmethod
    def assign(self, labels: Tensor, workers: int, seed: int) -> list[np.ndarray]:
        """Return the sample numbers ``[m_i]``, int64, of each worker that gets a share; m = floor(N / n) unless stated.

        Args:
            labels: ``[N]``, values from 0.
            workers: How many get a share.
            seed: The replica's seed.
        """


PARTITIONS: Registry[Partition] = Registry("partition")


@PARTITIONS.register
class IID(Partition):
    """A random share for every worker.

    Example:
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
    contiguous pieces. gamma = 1 is ``iid``, gamma = 0 is ``extreme``. All shares have one size.

    Differs from: the same split named by s % or by 1 - gamma elsewhere.

    Reference: Karimireddy et al., ICML 2020, arXiv:1910.06378; gamma as in Allouah et al., arXiv:2302.01772 (not
    checked against the papers' text).

    Example:
        >>> labels = torch.arange(2).repeat(10)
        >>> held = GammaSimilarity(gamma=0.0).shares(labels, workers=2, byzantine=0, seed=0).samples
        >>> labels[held].sum(dim=1)
        tensor([ 0, 10])
    """

    name: Literal["gamma_similarity"] = "gamma_similarity"
    gamma: float = Field(ge=0, le=1, description="fraction of random samples; 1 is iid, 0 sorted by label")
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


@PARTITIONS.register
class DirichletByClass(Partition):
    """Every class is spread over the workers by a Dirichlet draw of its own; shares have unequal sizes.

    q_c ~ Dir(alpha, ..., alpha) over the workers; worker i gets the fraction q_c,i of the samples of class c

    Boundaries between workers fall at whole samples by systematic rounding (one uniform number a class is added, then
    all are rounded down), so that every expected number is q_c,i times the class. All q are drawn again until every
    worker has ``minimum`` samples, so with a small alpha the shares follow the Dirichlet law on that condition only.
    Minibatches have one size for all, so a worker with few samples reads each of them more often.

    Differs from: ``dirichlet_by_worker``, whose shares have one size; at one alpha their label mixes are about as far
    from that of the data (mean total variation 0.69 here and 0.61 there for 10 classes, n = 17, alpha = 0.1; 0.21 both
    for alpha = 3). Public code that gives no more of later classes to a worker that already has N / n samples.

    Reference: Yurochkin et al., ICML 2019, arXiv:1905.12022; the minimum of 10 as in public code (not checked against
    the paper's text).

    Example:
        >>> labels = torch.arange(10).repeat(60)
        >>> sizes = DirichletByClass(alpha=1.0).shares(labels, workers=5, byzantine=0, seed=0).sizes
        >>> int(sizes.sum()), bool((sizes >= 10).all())
        (600, True)
    """

    name: Literal["dirichlet_by_class"] = "dirichlet_by_class"
    alpha: float = Field(gt=0, description="concentration; small is heterogeneous")
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
    """Every worker mixes the classes by a Dirichlet draw of its own; all shares have one size.

    p_i ~ Dir(alpha, ..., alpha); in turns, worker i takes one sample of a class drawn from p_i

    A class that has run out is left out of p_i from then on. A small alpha gives workers with one or two classes,
    a large one tends to ``iid``.

    Differs from: ``dirichlet_by_class`` (each class spread over the workers by Dir(alpha)), which has unequal shares.

    Reference: Hsu, Qi, Brown 2019, arXiv:1909.06335.

    Example:
        >>> labels = torch.arange(10).repeat(6)
        >>> held = DirichletByWorker(alpha=0.1).shares(labels, workers=5, byzantine=0, seed=0).samples
        >>> held.shape, held.unique().numel()
        (torch.Size([5, 12]), 60)
    """

    name: Literal["dirichlet_by_worker"] = "dirichlet_by_worker"
    alpha: float = Field(gt=0, description="concentration; small is heterogeneous")
    formula: ClassVar[str] = "p_i ~ Dir(alpha); worker i draws its classes from p_i"
    reference: ClassVar[str] = "Hsu, Qi, Brown 2019, arXiv:1909.06335"

    def assign(self, labels: Tensor, workers: int, seed: int) -> list[np.ndarray]:
        """Return equal shares."""
        stream = numpy_stream(seed, "partition")
        supply = [stream.permutation(np.flatnonzero(labels.numpy() == c)) for c in range(int(labels.max()) + 1)]
        mixes = stream.dirichlet(np.full(len(supply), self.alpha), size=workers)
        share = len(labels) // workers
        turns = stream.random((share, workers))
        left = np.array([len(samples) for samples in supply])
        held = np.empty((workers, share), dtype=np.int64)
        for turn in range(share):
            for worker in range(workers):
                chosen = _draw_class(mixes[worker], left, turns[turn, worker])
                left[chosen] -= 1
                held[worker, turn] = supply[chosen][left[chosen]]
        return list(held)


def _draw_class(mix: np.ndarray, left: np.ndarray, uniform: float) -> int:
    """Return a class drawn from ``mix`` over the classes with samples ``left``; uniformly if mix gives them nothing."""
    available = left > 0
    weights = mix * available
    total = weights.sum()
    cumulative = np.cumsum(weights / total if total > 0 else available)  # subnormal weights would round to no class
    return int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))


def _shuffled(labels: Tensor, shares: int, seed: int) -> np.ndarray:
    """Return all sample numbers in a random order, short of those that do not fill equal ``shares``."""
    order = numpy_stream(seed, "partition").permutation(len(labels))
    return order[: shares * (len(labels) // shares)]


def _sorted_by_label(samples: np.ndarray, labels: Tensor) -> np.ndarray:
    order: np.ndarray = samples[labels.numpy()[samples].argsort(kind="stable")]
    return order


def minibatch(stream: Stream, sizes: Tensor, size: int) -> Tensor:
    """Return which of its samples each worker reads in one step, drawn with replacement.

    All workers draw, so the draws of one do not depend on which of them are honest.

    Args:
        stream: Random numbers of the step, ``[R]``.
        sizes: ``[R, n]``, how many samples each worker holds.
        size: How many each reads.

    Returns:
        ``[R, n, size]``, those of worker i from 0 to its size - 1, int64.

    Example:
        >>> minibatch(Stream.of([0], "minibatches"), torch.tensor([[1, 100]]), size=3)
        tensor([[[ 0,  0,  0],
                 [67, 72, 46]]])
    """
    drawn = stream.uniform(sizes.shape[-1] * size).view(*sizes.shape, size)
    return (drawn * sizes[..., None]).long()


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
