"""How the partitions of the grid differ: counts, measured heterogeneity, and their picture."""

import math

import numpy as np
import pytest
import torch
from support import CPU, blobs, parameters
from torch.nn.functional import cross_entropy

from pipeline.report.figures.partitions import NUMBERED, label_map
from pipeline.report.heterogeneity import label_counts, partitions_table

GRID = {
    "grid.partitions": ["iid", "extreme"],
    "grid.seeds": [3, 4],
    "partitions": {"iid": {"name": "iid"}, "extreme": {"name": "extreme"}, "alpha_03": {"name": "iid"}},
}
PARAMS, DATA = parameters(GRID), blobs()


def shares(partition, seed):
    """The sample numbers of every worker."""
    held = PARAMS.partitions[partition].shares(DATA.train.labels, 7, 2, seed)
    return [samples[:size] for samples, size in zip(held.samples, held.sizes.tolist(), strict=True)]


def gradient(params, samples):
    """One worker's gradient, without vmap or pieces."""
    network = PARAMS.model.network(DATA.shape, DATA.classes)
    params = params.clone().requires_grad_()
    loss = cross_entropy(network.forward(params, DATA.train.inputs[samples]), DATA.train.labels[samples])
    return torch.autograd.grad(loss, params)[0].double().numpy()


def slow_pair(partition, seed):
    """G and B of one replica, from their definition, over its five honest workers."""
    start = PARAMS.model.network(DATA.shape, DATA.classes).initial(seed)
    gradients = [gradient(start, samples) for samples in shares(partition, seed)[:5]]
    mean = sum(gradients) / 5
    spread = sum(((g - mean) ** 2).sum() for g in gradients) / 5
    return math.sqrt(spread), math.sqrt(spread / (mean**2).sum())


@pytest.fixture(scope="module")
def table():
    return partitions_table(PARAMS, DATA, CPU).set_index("partition")


@pytest.mark.parametrize("partition", ["iid", "extreme"])
def test_g_and_b_are_means_over_the_seeds_of_the_honest_workers_dissimilarity(table, partition):
    pairs = np.array([slow_pair(partition, seed) for seed in (3, 4)])
    row = table.loc[partition]
    np.testing.assert_allclose([row["G"], row["B"]], pairs.mean(axis=0), rtol=1e-5)
    half_widths = 12.7062 * np.abs(pairs[0] - pairs[1]) / 2  # of two values
    np.testing.assert_allclose([row["G_half_width"], row["B_half_width"]], half_widths, rtol=1e-3)
    assert row["seeds"] == 2


def test_sorted_labels_are_more_heterogeneous_than_random_ones(table):
    assert table.loc["extreme", "G"] > 1.5 * table.loc["iid", "G"]
    assert table.loc["extreme", "B"] > 1.5 * table.loc["iid", "B"]


def test_rows_keep_the_order_of_the_grid():
    backwards = parameters({**GRID, "grid.partitions": ["extreme", "iid"]})
    assert list(partitions_table(backwards, DATA, CPU)["partition"]) == ["extreme", "iid"]


def test_one_seed_gives_no_interval():
    table = partitions_table(parameters({**GRID, "grid.seeds": [3]}), DATA, CPU)
    assert table["G"].notna().all()
    assert table[["G_half_width", "B_half_width"]].isna().all(axis=None)


def test_counts_are_those_of_the_first_seed():
    counts = label_counts(PARAMS, DATA)
    assert list(counts) == ["iid", "extreme"]
    for name, held in counts.items():
        expected = [np.bincount(DATA.train.labels[samples], minlength=3) for samples in shares(name, 3)]
        np.testing.assert_array_equal(held, expected)


COUNTS = np.array([[0, 7, 1], [5, 2, 0], [9, 0, 3], [4, 4, 4]])


def panels(figure):
    return {axes.get_xlabel(): axes for axes in figure.axes if axes.get_xlabel()}


def test_the_picture_keeps_honest_and_byzantine_workers_apart():
    drawn = panels(label_map(COUNTS, 3, "extreme", 0))
    assert list(drawn) == ["honest workers", "Byzantine workers"]
    np.testing.assert_array_equal(drawn["honest workers"].images[0].get_array(), COUNTS[:3].T)
    np.testing.assert_array_equal(drawn["Byzantine workers"].images[0].get_array(), COUNTS[3:].T)
    assert [list(axes.get_xticks()) for axes in drawn.values()] == [[1, 2, 3], [4]]
    assert {axes.images[0].get_clim() for axes in drawn.values()} == {(0, 9)}


def test_without_byzantine_workers_there_is_one_panel():
    assert list(panels(label_map(COUNTS, 4, "extreme", 0))) == ["honest workers"]


def test_every_count_stands_in_its_cell():
    written = {
        text.get_position(): int(text.get_text())
        for axes in panels(label_map(COUNTS, 3, "extreme", 0)).values()
        for text in axes.texts
    }
    assert written == {(worker + 1, label): n for (worker, label), n in np.ndenumerate(COUNTS) if n}


def test_many_workers_have_no_numbers_and_few_ticks():
    counts = np.ones((5 * NUMBERED, 3), dtype=int)
    drawn = panels(label_map(counts, 4 * NUMBERED, "extreme", 0))
    assert not any(axes.texts for axes in drawn.values())
    assert sum(len(axes.get_xticks()) for axes in drawn.values()) == 20
