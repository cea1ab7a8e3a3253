"""Parameters become cells in a fixed order, and cells batches that fit in memory."""

import pytest
from support import blobs, cell, parameters

from pipeline.runs.plan import Planned, activations, batches, grid_row, planned, replica_bytes
from pipeline.simulator.metrics import STEP_METRICS
from pipeline.simulator.models import MODELS

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
    assert item.cell.defence == params.defences["krum"].defence
    assert item.cell.partition == params.partitions["alpha_1"]
    assert item.cell.attack == params.attacks["ipm"].replace(strength=0.1)
    assert (item.cell.model, item.cell.threat, item.cell.training) == (params.model, params.threat, params.training)
    assert item.cell.seed == 3
    assert planned(params, "label_flip", "krum", "alpha_1", 3).cell.attack == params.attacks["label_flip"]


@pytest.mark.parametrize(
    ("count", "processes", "together", "sizes"),
    [
        (60, 1, 16, [15] * 4),
        (60, 2, 16, [15] * 4),
        (40, 2, 16, [10] * 4),
        (20, 2, 16, [10, 10]),
        (5, 2, 16, [2, 3]),
        (2, 3, 16, [1, 1]),
        (60, 64, 16, [1] * 60),
        (7, 1, 3, [2, 2, 3]),
        (7, 1, 7, [7]),
        (7, 1, 1, [1] * 7),
    ],
)
def test_all_processes_have_work_to_the_end_and_batches_are_equally_large(count, processes, together, sizes):
    cells = [cell(seed=seed) for seed in range(count)]
    made = list(batches(cells, processes, together))
    assert [len(positions) for positions in made] == sizes
    assert [position for positions in made for position in positions] == list(range(count))


def test_where_other_batches_keep_the_processes_busy_none_is_cut():
    cells = [cell(attack, seed=seed) for attack in ("alie", "ipm") for seed in range(8)]
    assert list(batches(cells, processes=2)) == [list(range(8)), list(range(8, 16))]


def test_a_batch_never_mixes_cells_that_cannot_share_one():
    cells = [cell(attack, seed=seed) for seed in range(3) for attack in ("alie", "ipm")]
    made = list(batches(cells))
    assert made == [[0, 2, 4], [1, 3, 5]]
    assert all(len({cells[position].shared for position in positions}) == 1 for positions in made)


def test_no_cells_make_no_batch():
    assert list(batches([])) == []


def test_the_memory_estimate_grows_with_what_takes_memory():
    here = replica_bytes(cell(), DATASET)
    local_sgd = {"training.local_update": {"name": "local_sgd", "steps": 3, "learning_rate": 0.1}}
    for changes in ({"threat.workers": 9}, {"model.hidden": [50]}, {"training.batch_size": 30}, local_sgd):
        assert replica_bytes(cell(changes=changes), DATASET) > here
    assert replica_bytes(cell(), blobs((3, 20, 20))) > here
    assert replica_bytes(cell(), blobs(sizes=(600, 30, 20))) > here


def test_a_thousand_times_the_steps_take_no_more_memory_than_their_recorded_history():
    short, long = (
        replica_bytes(cell(changes={"training.steps": steps, "training.precision": "float64"}), DATASET)
        for steps in (10**3, 10**6)
    )
    history = 8 * len(STEP_METRICS) * (10**6 - 10**3)
    assert history <= long - short <= 3 * history


def test_numbers_of_twice_the_size_take_twice_the_memory():
    single, double = (
        replica_bytes(cell(changes={"training.precision": precision}), DATASET) for precision in ("float32", "float64")
    )
    assert 1.8 < double / single <= 2


@pytest.mark.parametrize("hidden", [[], [4], [4, 3]])
def test_the_activations_of_linear_layers_are_those_that_the_layers_put_out(hidden):
    model = MODELS.parse({"name": "mlp", "hidden": hidden}, "model")
    network = model.network((1, 2, 3), classes=5)
    counted = activations(network, (1, 2, 3))
    network.chain = False  # the layers are run
    assert activations(network, (1, 2, 3)) == counted


def test_the_memory_of_a_convolution_model_is_that_of_its_activations():
    """By hand: 1 x 28 x 28 in; 20 x 24 x 24, pooled 20 x 12 x 12; 50 x 8 x 8, pooled 50 x 4 x 4; 500; 10 out."""
    network = MODELS["cnn_mnist"]().network((1, 28, 28), 10)
    layers = [28 * 28, 20 * 24 * 24, 20 * 12 * 12, 50 * 8 * 8, 50 * 4 * 4, 500, 10]
    assert sum(layers) <= activations(network, (1, 28, 28)) <= 2 * sum(layers)
