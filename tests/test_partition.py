"""Who holds which samples. Statistical tests run on fixed seeds; their false-alarm probability is for a fresh one."""

import numpy as np
import pytest
import torch
from inputs import examples
from scipy import stats

from pipeline.core.errors import UserError
from pipeline.core.rng import Stream
from pipeline.data.partitions import PARTITIONS, Shares
from pipeline.data.partitions.base import label_histogram
from pipeline.simulator.sampling import minibatch

PARTITION = examples(PARTITIONS)
EQUAL = {name: PARTITION[name] for name in ("iid", "dirichlet_by_worker", "gamma_similarity", "extreme", "shards")}
EVERY_PARTITION = pytest.mark.parametrize("partition", PARTITION.values(), ids=PARTITION)
EVERY_EQUAL_PARTITION = pytest.mark.parametrize("partition", EQUAL.values(), ids=EQUAL)
LABELS = torch.arange(10).repeat(43)


def dirichlet(alpha):
    return PARTITIONS["dirichlet_by_worker"](alpha=alpha)


def by_class(alpha, minimum=1):
    return PARTITIONS["dirichlet_by_class"](alpha=alpha, minimum=minimum)


def assign(partition, labels, workers, seed):
    """The shares of workers who are all honest, a row each where they are equal."""
    shares = partition.shares(labels, workers, 0, seed)
    assert len(set(shares.sizes.tolist())) == 1
    assert shares.samples.shape == (workers, int(shares.sizes[0]))
    return shares.samples


def listed(shares):
    """The sample numbers of each worker, without the padding."""
    return [row[:size].tolist() for row, size in zip(shares.samples, shares.sizes.tolist(), strict=True)]


def class_counts(held, labels):
    return label_histogram(labels, Shares(held, torch.full((len(held),), held.shape[1])), int(labels.max()) + 1)


@EVERY_PARTITION
def test_metadata(partition):
    assert PARTITIONS.parse(partition.content(), "partition") == partition
    assert partition.formula


@EVERY_PARTITION
@pytest.mark.parametrize("workers", [1, 7, 17])
def test_no_sample_is_held_twice_and_nobody_holds_none(partition, workers):
    held = partition.assign(LABELS, workers, seed=0)
    assert len(held) == workers
    assert all(share.dtype == np.int64 and len(share) > 0 for share in held)
    together = np.concatenate(held)
    assert len(set(together.tolist())) == len(together)
    assert 0 <= together.min() <= together.max() < len(LABELS)


@EVERY_EQUAL_PARTITION
@pytest.mark.parametrize(("samples", "workers"), [(430, 17), (430, 1), (430, 215), (29, 7), (430, 43)])
def test_shares_are_equal_and_disjoint(partition, samples, workers):
    held = assign(partition, LABELS[:samples], workers, seed=0)
    size = 2 * (samples // (2 * workers)) if partition.name == "shards" else samples // workers
    assert held.shape == (workers, size)
    assert held.dtype == torch.int64
    assert held.unique().numel() == held.numel()
    assert 0 <= int(held.min()) <= int(held.max()) < samples


@EVERY_PARTITION
def test_the_seed_determines_the_shares(partition):
    first = listed(partition.shares(LABELS, 17, 0, seed=0))
    assert first == listed(partition.shares(LABELS, 17, 0, seed=0))
    assert first != listed(partition.shares(LABELS, 17, 0, seed=1))


@EVERY_PARTITION
def test_by_default_the_shares_do_not_depend_on_who_is_byzantine(partition):
    assert partition.holders == "all"
    assert listed(partition.shares(LABELS, 17, 0, seed=0)) == listed(partition.shares(LABELS, 17, 5, seed=0))


@EVERY_PARTITION
def test_honest_holders_share_everything_and_byzantine_workers_read_along(partition):
    """More Byzantine than honest workers start again from the first."""
    honest = listed(partition.replace(holders="honest").shares(LABELS, 12, 7, seed=0))
    assert honest[:5] == listed(partition.shares(LABELS, 5, 0, seed=0))
    assert honest[5:] == [*honest[:5], *honest[:2]]


@EVERY_PARTITION
def test_byzantine_workers_may_hold_random_shares_beside_those_of_the_honest(partition):
    shared = partition.replace(holders="honest_and_iid")
    held = listed(shared.shares(LABELS, 12, 4, seed=0))
    assert held[:8] == listed(partition.shares(LABELS, 8, 0, seed=0))
    assert [len(samples) for samples in held[8:]] == [len(LABELS) // 8] * 4
    assert len({sample for samples in held[8:] for sample in samples}) == 4 * (len(LABELS) // 8)
    assert all(len(set(LABELS[samples].tolist())) > 5 for samples in held[8:])
    assert held[8:] != listed(shared.shares(LABELS, 12, 4, seed=1))[8:]


@EVERY_PARTITION
def test_too_few_samples_are_told(partition):
    with pytest.raises(UserError, match=rf"^partition {partition.name}: "):
        partition.shares(LABELS[:16], 17, 0, seed=0)


@EVERY_PARTITION
def test_the_global_generators_are_left_alone(partition, global_generators_untouched):
    partition.shares(LABELS, 17, 0, seed=0)
    minibatches(0, 2, 4, torch.tensor([5, 5, 5]))


@EVERY_PARTITION
@pytest.mark.parametrize(
    "labels",
    [torch.zeros(400, dtype=torch.long), torch.tensor([3] * 400), torch.tensor([0] * 399 + [9]), torch.arange(400)],
    ids=["one_class", "one_late_class", "rare_class", "all_different"],
)
def test_unusual_labels(partition, labels):
    shares = partition.shares(labels, 6, 0, seed=0)
    held = [sample for share in listed(shares) for sample in share]
    assert len(set(held)) == len(held) >= (396 if partition.name in EQUAL else 1)


@pytest.mark.parametrize("alpha", [5e-324, 1e-300, 1e-6, 1e-3, 0.1, 1e3, 1e38, 3.4e38])
def test_an_exhausted_class_never_crashes(alpha):
    for seed in range(5):
        held = assign(dirichlet(alpha), LABELS, 17, seed)
        assert held.unique().numel() == 17 * (430 // 17)


def test_with_alpha_near_zero_a_worker_takes_one_class_after_the_other():
    """It comes back to no class that it has left; numpy's Dirichlet draws underflow to one class and zeros."""
    for alpha in (5e-324, 1e-300, 1e-6):
        for seed in range(5):
            classes = LABELS[assign(dirichlet(alpha), LABELS, 17, seed)]
            for row in classes:
                runs = row.unique_consecutive().tolist()
                assert len(runs) == len(set(runs))


def mean_total_variation(alpha, seeds=30):
    """Between a worker's label mix and that of the data, over workers and seeds."""
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 10, 1222))
    whole = torch.bincount(labels) / len(labels)
    counts = [class_counts(assign(dirichlet(alpha), labels, 17, seed), labels) for seed in range(seeds)]
    mixes = torch.stack(counts).double() / counts[0].sum(dim=1, keepdim=True)
    return float((mixes - whole).abs().sum(dim=-1).mean()) / 2


def test_heterogeneity_decreases_with_alpha():
    """Below 0.01 nearly all workers take one class after the other, so there the means agree up to chance."""
    means = [mean_total_variation(alpha) for alpha in (1e-9, 1e-6, 1e-4, 0.01, 0.1, 1.0, 10.0, 1000.0)]
    assert min(means[:3]) > means[3]
    assert max(means[:3]) - min(means[:3]) < 0.005
    assert means[3:] == sorted(means[3:], reverse=True)


def chi_square_p(observed, probabilities):
    """The p-value of counts against probabilities, with neighbouring cells joined up to an expectation of 8."""
    cells, expected = [0.0], [0.0]
    for count, mean in zip(observed, probabilities * observed.sum(), strict=True):
        if expected[-1] >= 8:
            cells.append(0.0)
            expected.append(0.0)
        cells[-1] += count
        expected[-1] += mean
    if expected[-1] < 8:
        cells[-2:], expected[-2:] = [sum(cells[-2:])], [sum(expected[-2:])]
    scale = sum(cells) / sum(expected)
    return stats.chisquare(cells, np.array(expected) * scale).pvalue


def turns_of_class_0(alpha, seed):
    """How many of its first 20 samples each of 300 workers has from class 0 of 4, while no class is near its end."""
    labels = torch.arange(4).repeat(300 * 15)
    held = assign(dirichlet(alpha), labels, 300, seed)[:, :20]
    return np.bincount((labels[held] == 0).sum(dim=1).numpy(), minlength=21)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 10.0])
def test_class_proportions_follow_the_dirichlet(alpha):
    """One proportion of Dir(alpha) over 4 classes is Beta(alpha, 3 alpha). False alarm: 1e-3 for each alpha."""
    probabilities = stats.betabinom(20, alpha, 3 * alpha).pmf(np.arange(21))
    assert chi_square_p(turns_of_class_0(alpha, seed=0), probabilities) > 1e-3


@pytest.mark.parametrize(("alpha", "wrong"), [(0.3, 0.6), (1.0, 0.5), (10.0, 3.0)])
def test_the_dirichlet_test_refutes_another_alpha(alpha, wrong):
    probabilities = stats.betabinom(20, wrong, 3 * wrong).pmf(np.arange(21))
    assert chi_square_p(turns_of_class_0(alpha, seed=0), probabilities) < 1e-3


def test_iid_shares_mix_the_classes():
    """Counts of 10 equally frequent classes by worker are independent of the worker. False alarm: 1e-3."""
    counts = class_counts(assign(PARTITION["iid"], LABELS, 10, seed=0), LABELS)
    assert stats.chi2_contingency(counts.numpy()).pvalue > 1e-3


def test_a_small_alpha_is_more_heterogeneous():
    def largest_share(alpha):
        counts = class_counts(assign(dirichlet(alpha), LABELS, 17, seed=0), LABELS)
        return float((counts.max(dim=1).values / counts.sum(dim=1)).mean())

    shares = [largest_share(alpha) for alpha in (0.01, 0.3, 3.0, 1000.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.5  # 430 samples over 17 workers exhaust classes, which evens the shares out
    assert shares[-1] < 0.35


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf"), "1", True, None])
def test_alpha_is_a_positive_number(alpha):
    with pytest.raises(UserError, match=r"^partition\.alpha = "):
        PARTITIONS.parse({"name": "dirichlet_by_worker", "alpha": alpha}, "partition")


def equal(workers, size):
    return torch.full((workers,), size)


def minibatches(seed, steps, size, sizes):
    """What the workers read in the first steps, ``[T, n, B]``."""
    stream = Stream.of([seed], "minibatches")
    return torch.cat([minibatch(stream.fork(t), sizes[None], size) for t in range(steps)])


def test_minibatches_stay_within_the_share_and_reach_all_of_it():
    drawn = minibatches(0, 50, 8, equal(4, 10))
    assert drawn.shape == (50, 4, 8)
    assert drawn.dtype == torch.int64
    assert all(drawn[:, worker].unique().tolist() == list(range(10)) for worker in range(4))
    assert torch.equal(drawn, minibatches(0, 50, 8, equal(4, 10)))
    assert not torch.equal(drawn, minibatches(1, 50, 8, equal(4, 10)))


def test_minibatches_are_uniform():
    """400 draws a value over 10 values. False alarm: 1e-3."""
    drawn = minibatches(0, 100, 10, equal(4, 10))
    assert stats.chisquare(torch.bincount(drawn.flatten()).numpy()).pvalue > 1e-3


def test_workers_and_steps_read_different_samples():
    drawn = minibatches(0, 20, 16, equal(5, 50))
    rows = drawn.view(-1, 16)
    assert rows.unique(dim=0).shape == rows.shape


def test_the_draws_of_replicas_together_are_those_of_each_alone():
    together = minibatch(Stream.of([0, 3], "minibatches").fork(7), torch.tensor([[9, 5], [2, 1000]]), 4)
    alone = minibatch(Stream.of([3], "minibatches").fork(7), torch.tensor([[2, 1000]]), 4)
    assert torch.equal(together[1:], alone)


def test_the_draws_are_as_they_were():
    """Written down, so that results do not move."""
    assert minibatches(0, 2, 3, equal(2, 1000)).tolist() == [
        [[571, 889, 939], [270, 485, 458]],
        [[915, 495, 191], [180, 98, 655]],
    ]


def test_the_last_sample_of_a_share_is_drawn_and_none_beyond():
    class Nearly(Stream):
        def uniform(self, count, start=0):
            return torch.full((1, count), 1 - 2.0**-53, dtype=torch.float64)

    sizes = torch.tensor([[1, 3, 10, 60_000, 2**31 - 1]])
    assert minibatch(Nearly(torch.zeros(1)), sizes, 1).flatten().tolist() == (sizes[0] - 1).tolist()


def test_minibatches_of_unequal_shares_are_uniform_over_each():
    """2000 draws over 3, 10 and 50 samples. False alarm: 3e-3."""
    drawn = minibatches(0, 100, 20, torch.tensor([3, 10, 50]))
    for worker, size in enumerate((3, 10, 50)):
        counts = torch.bincount(drawn[:, worker].flatten(), minlength=size)
        assert len(counts) == size
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_a_similarity_of_1_is_iid_and_of_0_is_extreme():
    def similar(gamma):
        return assign(PARTITIONS["gamma_similarity"](gamma=gamma), LABELS, 17, 0)

    assert torch.equal(similar(1.0), assign(PARTITION["iid"], LABELS, 17, 0))
    assert torch.equal(similar(0.0), assign(PARTITION["extreme"], LABELS, 17, 0))


@pytest.mark.parametrize(("gamma", "mixed"), [(0.5, 10), (0.3, 6), (0.29, 6), (0.0, 0)])
def test_a_share_of_gamma_similarity_has_its_random_part_first_and_then_sorted_labels(gamma, mixed):
    """20 workers of 20 samples. The random parts of all together hold 10 classes; the rest runs through the labels."""
    labels = torch.arange(10).repeat(40)
    held = assign(PARTITIONS["gamma_similarity"](gamma=gamma), labels, 20, 0)
    rest = labels[held[:, mixed:]].flatten()
    assert torch.equal(rest, rest.sort().values)
    assert mixed == 0 or (labels[held[:, :mixed]].diff(dim=1) < 0).any(dim=1).all()


def test_extreme_shares_are_contiguous_in_the_labels_and_random_within_a_class():
    held = assign(PARTITION["extreme"], LABELS, 10, 0)
    assert torch.equal(LABELS[held], torch.arange(10)[:, None].expand(10, 43))
    assert not torch.equal(held[0], held[0].sort().values)


def test_shards_give_every_worker_two_random_runs_of_labels():
    """10 workers, 20 shards, two a class: a worker sees one or two classes."""
    labels = torch.arange(10).repeat(40)
    held = labels[assign(PARTITION["shards"], labels, 10, 0)]
    assert (held.view(10, 2, 20) == held.view(10, 2, 20)[..., :1]).all()
    assert (held[:, 0] != held[:, 20]).any()
    assert torch.equal(torch.bincount(held.flatten()), torch.full((10,), 40))


def test_dirichlet_by_class_hands_out_every_sample_once():
    for seed in range(5):
        shares = by_class(0.5, minimum=3).shares(LABELS, 17, 0, seed)
        assert sorted(sample for share in listed(shares) for sample in share) == list(range(430))
        assert int(shares.sizes.min()) >= 3
        assert len(set(shares.sizes.tolist())) > 1


@pytest.mark.parametrize(("alpha", "right"), [(0.5, True), (5.0, True), (0.5, False), (5.0, False)])
def test_class_fractions_follow_the_dirichlet(alpha, right):
    """The first of 4 workers gets Beta(alpha, 3 alpha) of a class; 300 classes. False alarm: 1e-3 for each alpha.

    With 300 classes no share falls below the minimum, so no draw is repeated. The test refutes three times the alpha.
    """
    labels = torch.arange(300).repeat(4000)
    counts = label_histogram(labels, by_class(alpha).shares(labels, 4, 0, seed=0), 300)[0]
    assumed = alpha if right else 3 * alpha
    pvalue = stats.kstest((counts.numpy() + 0.5) / 4001, stats.beta(assumed, 3 * assumed).cdf).pvalue
    assert bool(pvalue > 1e-3) is right


def test_dirichlet_by_class_draws_again_until_the_minimum_is_met():
    few, many = (by_class(0.3, minimum).shares(LABELS, 5, 0, seed=3) for minimum in (1, 60))
    assert int(few.sizes.min()) < 60 <= int(many.sizes.min())


@pytest.mark.parametrize(("alpha", "minimum"), [(1.0, 26), (1e-3, 20), (1e-300, 1), (5e-324, 1)])
def test_dirichlet_by_class_gives_up_with_a_message(alpha, minimum):
    with pytest.raises(UserError, match=rf"minimum = {minimum}; lower the minimum or raise alpha"):
        by_class(alpha, minimum).shares(LABELS, 17, 0, seed=0)


@pytest.mark.parametrize("alpha", [5e-324, 1e-300, 1e-6])
def test_dirichlet_by_class_gives_whole_classes_with_alpha_near_zero(alpha):
    histogram = label_histogram(LABELS, by_class(alpha).shares(LABELS, 3, 0, seed=0), 10)
    assert ((histogram > 0).sum(dim=0) == 1).all()


def test_a_small_fraction_of_a_small_class_is_rounded_without_bias():
    """Over 2000 classes of one sample each, 4 workers get a quarter each. False alarm: 1e-3."""
    labels = torch.arange(2000)
    sizes = by_class(1e6).shares(labels, 4, 0, seed=0).sizes
    assert stats.chisquare(sizes.numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("name", "field", "wrong"),
    [
        ("gamma_similarity", "gamma", 1.1),
        ("gamma_similarity", "gamma", -0.1),
        ("dirichlet_by_class", "alpha", 0.0),
        ("dirichlet_by_class", "minimum", 0),
        ("iid", "holders", "byzantine"),
    ],
)
def test_a_wrong_field_is_told(name, field, wrong):
    with pytest.raises(UserError, match=rf"^partition\.{field} = "):
        PARTITIONS.parse({"name": name, **({"alpha": 1.0} if "dirichlet" in name else {}), field: wrong}, "partition")


def test_the_label_histogram_counts_what_a_worker_holds_and_no_padding():
    labels = torch.tensor([0, 2, 2, 1, 0])
    shares = Shares(torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([3, 1]))
    assert label_histogram(labels, shares, 4).tolist() == [[0, 1, 2, 0], [1, 0, 0, 0]]
