"""Parameters become cells in a fixed order, and cells batches that fit in memory."""

import pytest
from support import blobs, cell, parameters

from pipeline.models import MODELS
from pipeline.plan import Planned, activations, batches, grid_row, planned, replica_bytes

DATASET = blobs()


def test_a_row_holds_every_combination_once_equal_defences_side_by_side():
    grid = {"grid.defences": ["krum", "mean"], "grid.partitions": ["alpha_03", "iid"], "grid.seeds": [5, 2, 0]}
    row = grid_row(parameters(grid), "alie")
    assert [item.folder for item in row] == [
        f"{defence}.{partition}.seed{seed}"
        for defence in ("krum", "mean")
        for partition in ("alpha_03", "iid")
        for seed in (5, 2, 0)
    ]
    assert {item.attack for item in row} == {"alie"}
    assert {item.group for item in row} == {("alie", d, p) for d in ("krum", "mean") for p in ("alpha_03", "iid")}


def test_a_planned_cell_holds_what_its_names_stand_for():
    params = parameters()
    item = planned(params, "ipm", "krum", "alpha_1", 3)
    assert item == Planned("ipm", "krum", "alpha_1", item.cell)
    assert item.cell.defence == params.defences["krum"]
    assert item.cell.partition == params.partitions["alpha_1"]
    assert item.cell.attack == params.attacks["ipm"].replace(strength=0.1)
    assert (item.cell.model, item.cell.threat, item.cell.training) == (params.model, params.threat, params.training)
    assert item.cell.seed == 3
    assert planned(params, "label_flip", "krum", "alpha_1", 3).cell.attack == params.attacks["label_flip"]


@pytest.mark.parametrize(("replicas", "sizes"), [(7, [7]), (3, [3, 3, 1]), (1, [1] * 7), (0.01, [1] * 7)])
def test_a_batch_takes_no_more_than_the_memory_and_at_least_one_cell(replicas, sizes):
    cells = [cell(seed=seed) for seed in range(7)]
    made = list(batches(cells, DATASET, replicas * 1.001 * replica_bytes(cells[0], DATASET)))
    assert [len(positions) for positions in made] == sizes
    assert [position for positions in made for position in positions] == list(range(7))


def test_a_batch_never_mixes_cells_that_cannot_share_one():
    cells = [cell(attack, seed=seed) for seed in range(3) for attack in ("alie", "ipm")]
    made = list(batches(cells, DATASET, 1e9))
    assert made == [[0, 2, 4], [1, 3, 5]]
    assert all(len({cells[position].shared for position in positions}) == 1 for positions in made)


def test_no_cells_make_no_batch():
    assert list(batches([], DATASET, 1e9)) == []


def test_the_memory_estimate_grows_with_what_takes_memory():
    here = replica_bytes(cell(), DATASET)
    for changes in ({"threat.workers": 9}, {"model.hidden": [50]}, {"training.batch_size": 30}):
        assert replica_bytes(cell(changes=changes), DATASET) > here
    assert replica_bytes(cell(), blobs((3, 20, 20))) > here


def test_the_memory_of_a_convolution_model_is_that_of_its_activations():
    """By hand: 1 x 28 x 28 in; 20 x 24 x 24, pooled 20 x 12 x 12; 50 x 8 x 8, pooled 50 x 4 x 4; 500; 10 out."""
    network = MODELS["cnn_mnist"]().network((1, 28, 28), 10)
    layers = [28 * 28, 20 * 24 * 24, 20 * 12 * 12, 50 * 8 * 8, 50 * 4 * 4, 500, 10]
    assert sum(layers) <= activations(network, (1, 28, 28)) <= 2 * sum(layers)
