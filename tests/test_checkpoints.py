"""A cell under way goes on from its checkpoint to the bits of a run without interruption."""

import subprocess
import sys
import time

import numpy as np
import pytest
from inputs import example, examples
from support import CPU, ROOT, Unwatched, assert_identical, blobs, cell, parameters, train, trainer

from pipeline.attacks import ATTACKS, VectorAttack
from pipeline.core.component import parse
from pipeline.data.dataset import write
from pipeline.defences.aggregators import AGGREGATORS
from pipeline.defences.defence import Defence
from pipeline.runs import execution
from pipeline.runs.checkpoints import Checkpoints, keeping
from pipeline.runs.plan import replica_bytes
from pipeline.runs.train import train_row
from pipeline.simulator import loop as simulation
from pipeline.simulator.gradients import chain_gradients
from pipeline.simulator.loop import run
from pipeline.simulator.program import build

DATASET = blobs()
SAMPLED = {"threat.sampled": 5, "threat.tolerated": 1, "attacks.alie.strength": 1.0}
EVERY_STEP = 1e-9  # minutes
LIKE = DATASET.train.inputs.flatten(1)[None, :5]
REMEMBERING = [example(ATTACKS["mimic"], warmup=5)] + [
    attack
    for attack in examples(ATTACKS).values()
    if isinstance(attack, VectorAttack) and attack.init_state(LIKE) is not None
]
OTHERS = [example(ATTACKS[name]) for name in ("rop", "label_flip")]  # rop sees the aggregate before
ALIE = example(ATTACKS["alie"], strength=1.0)
RULES = [rule for rule in examples(AGGREGATORS).values() if rule.init_state(LIKE[:, 0]) is not None]
DEFENCES = [Defence(rule=rule) for rule in [AGGREGATORS["krum"](), *RULES]] + [
    parse(Defence, {"before": [{"name": "nnm"}], "rule": rule.content()}, "") for rule in RULES
]


def cells_of(attack=ALIE, count=2, **changes):
    plain = cell(changes=changes)
    return [plain.replace(attack=attack, defence=defence, seed=seed) for defence in DEFENCES for seed in range(count)]


def checkpoints(folder, cells, **measured):
    return Checkpoints.named(folder, [one.key("data", {}) for one in cells], **measured)


def trained(cells, kept, watch=lambda *_: None, memory_gb=None, **measured):
    """Train with a checkpoint at every step."""
    found = {}
    with trainer(DATASET, checkpoint_minutes=EVERY_STEP, memory_gb=memory_gb) as ready:
        for positions, results in execution.train(cells, ready, lambda _: watch, checkpoints=kept, **measured):
            found |= dict(zip(positions, results, strict=True))
    return [found[position] for position in range(len(cells))]


def interrupt_at(step):
    def watch(done, _):
        if done == step:
            raise KeyboardInterrupt

    return watch


def interrupted(cells, folder, step=4, **measured):
    """Train until an evaluation raises; return the checkpoints that are left."""
    with pytest.raises(KeyboardInterrupt):
        trained(cells, checkpoints(folder, cells, **measured), interrupt_at(step), **measured)
    return checkpoints(folder, cells, **measured)


@pytest.fixture
def steps_taken(monkeypatch):
    taken, step = [], simulation.step
    monkeypatch.setattr(simulation, "step", lambda program, state, t: (taken.append(t), step(program, state, t))[1])
    return taken


def one_cell_a_batch(cells):
    return 1.001 * replica_bytes(cells[0], DATASET) / 1e9


def test_there_are_attacks_and_defences_with_memory():
    assert {attack.name for attack in REMEMBERING} >= {"mimic"}
    assert {rule.name for rule in RULES} >= {"centered_clipping"}


@pytest.mark.parametrize("attack", [*REMEMBERING, *OTHERS, ALIE], ids=lambda attack: attack.content().__str__())
def test_interrupted_training_goes_on_to_the_same_bits_in_any_batch(attack, tmp_path, steps_taken):
    cells = cells_of(attack)
    kept = interrupted(cells, tmp_path)
    assert kept.done == [3] * len(cells)
    steps_taken.clear()
    found = trained(cells, kept, memory_gb=one_cell_a_batch(cells))
    assert steps_taken == [3, 4, 5] * len(cells)
    for result, expected in zip(found, train(cells, DATASET), strict=True):
        assert_identical(result, expected)
    assert list((tmp_path / ".cellcache" / "checkpoints").iterdir()) == []


def test_cells_of_several_batches_go_on_together_and_what_is_measured_besides_goes_on_too(tmp_path, steps_taken):
    cells, measured = cells_of(), {"detect": True, "heterogeneity": True}
    for one in cells:
        kept = interrupted([one], tmp_path, **measured)
    assert checkpoints(tmp_path, cells).done == [0] * len(cells)  # in which nothing is measured besides
    kept = checkpoints(tmp_path, cells, **measured)
    steps_taken.clear()
    found = trained(cells, kept, **measured)
    assert steps_taken == [3, 4, 5]
    for result, expected in zip(found, trained(cells, None, **measured), strict=True):
        assert_identical(result, expected)


@pytest.mark.parametrize("changes", [SAMPLED, {"training.precision": "float32"}], ids=str)
def test_sampled_workers_and_float32_go_on(changes, tmp_path):
    cells = cells_of(count=1, **changes)
    for result, expected in zip(trained(cells, interrupted(cells, tmp_path)), train(cells, DATASET), strict=True):
        assert_identical(result, expected)


def test_evaluations_are_told_again_from_the_first(tmp_path):
    """A new process tells them to a new run of MLflow."""
    cells, told = cells_of()[:2], []
    trained(cells, interrupted(cells, tmp_path, step=6), lambda done, values: told.append((done, values)))
    again = []
    trained(cells, None, lambda done, values: again.append((done, values)))
    assert [done for done, _ in told] == [0, 4, 6]
    for (_, values), (_, expected) in zip(told, again, strict=True):
        np.testing.assert_equal(values, expected)


def flipped(data):
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


DAMAGES = {
    "flipped": lambda data, other: flipped(data),
    "cut": lambda data, other: data[:-8],
    "empty": lambda data, other: b"",
    "no header": lambda data, other: b"\xff" * len(data),
    "of another cell": lambda data, other: other,
    "of another version": lambda data, other: data.replace(b'version\\": 1', b'version\\": 0'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_its_cell_starts_anew(damage, tmp_path, capsys):
    cells = cells_of()[:3]
    kept = interrupted(cells, tmp_path)
    first, other, _ = (tmp_path / ".cellcache" / "checkpoints" / f"{name}.safetensors" for name in kept.names)
    before = first.read_bytes()
    first.write_bytes(DAMAGES[damage](before, other.read_bytes()))
    assert first.read_bytes() != before
    found = trained(cells, kept)
    for result, expected in zip(found, train(cells, DATASET), strict=True):
        assert_identical(result, expected)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f".cellcache/checkpoints/{first.name}: damaged (")
    assert len(list((tmp_path / ".cellcache").glob("damaged-*"))) == 1


def test_a_process_that_ends_while_it_writes_leaves_cells_at_two_steps_and_all_go_on(
    tmp_path, steps_taken, monkeypatch
):
    cells, planned = cells_of()[:3], execution._planned
    kept = interrupted(cells, tmp_path, step=6)
    interrupted(cells, tmp_path / "older", step=4)
    file = f".cellcache/checkpoints/{kept.names[0]}.safetensors"

    def torn(*arguments):
        yield from list(planned(*arguments))
        (tmp_path / file).write_bytes((tmp_path / "older" / file).read_bytes())

    monkeypatch.setattr(execution, "_planned", torn)
    steps_taken.clear()
    found = trained(cells, kept)
    assert steps_taken == [3, 4, 5, 5]
    for result, expected in zip(found, train(cells, DATASET), strict=True):
        assert_identical(result, expected)


def test_what_the_system_refuses_is_told_and_training_goes_on(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.runs.checkpoints.write_tensors", full)
    cells = cells_of()[:1]
    assert_identical(*trained(cells, checkpoints(tmp_path, cells)), *train(cells, DATASET))
    assert "checkpoint not written ([Errno 28] No space left on device); training goes on" in capsys.readouterr().err


def test_a_memory_that_is_not_tensors_is_told_and_training_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(type(RULES[0]), "init_state", lambda self, like: (like.clone(), 0))
    monkeypatch.setattr(
        type(RULES[0]), "_aggregate", lambda self, vectors, *_: AGGREGATORS["median"]().aggregate(vectors, 0)
    )
    cells = [cell().replace(defence=Defence(rule=RULES[0]))]
    trained(cells, checkpoints(tmp_path, cells))
    assert "no checkpoints: a memory that is not tensors of one entry a replica" in capsys.readouterr().err


def test_checkpoints_are_written_by_the_clock(tmp_path, monkeypatch):
    now, written = [0.0], []
    monkeypatch.setattr("pipeline.runs.checkpoints.monotonic", lambda: now[0])
    monkeypatch.setattr(Checkpoints, "write", lambda self, slices: written.append(now[0]))
    keep = keeping(checkpoints(tmp_path, [cell()]), build([cell()], DATASET, chain_gradients, CPU), 10, None)
    snapshots = []
    run(build([cell()], DATASET, chain_gradients, CPU), lambda *_: None, keep=lambda _, take: snapshots.append(take()))
    for minute in range(1, 35):
        now[0] = 60.0 * minute
        keep(minute, lambda: snapshots[0])
    assert written == [600.0, 1200.0, 1800.0]


# A row of the grid


ROW = {
    "grid.attacks": ["none", "ipm"],
    "grid.defences": ["mean", "krum"],
    "grid.partitions": ["iid"],
    "grid.seeds": [0, 1],
    "search.studies": [],
    "execution.checkpoint_minutes": EVERY_STEP,
    "execution.device": "cpu",
}


def written(folder):
    return {path.relative_to(folder): path.read_bytes() for path in (folder / "results").rglob("*") if path.is_file()}


class InterruptedAt(Unwatched):
    def __init__(self, step):
        self.step = step

    def watch(self, cells):
        return interrupt_at(self.step)


def test_an_interrupted_row_goes_on_with_other_settings_of_the_execution_and_counts_from_where_it_was(tmp_path, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        write(folder / "data" / "dataset.safetensors", DATASET)
    train_row(whole, parameters(ROW), "ipm", lambda *_: Unwatched())
    with pytest.raises(KeyboardInterrupt):
        train_row(broken, parameters(ROW), "ipm", lambda *_: InterruptedAt(4))
    assert not list((broken / "results").rglob("cell.json"))
    capsys.readouterr()
    changed = {"execution.memory_gb": 1e-5, "execution.processes": 1, "execution.checkpoint_minutes": 100}
    train_row(broken, parameters({**ROW, **changed}), "ipm", lambda *_: Unwatched())
    assert written(broken) == written(whole)
    told = [line for line in capsys.readouterr().out.splitlines() if " % " in line]
    assert [line.split(" % ")[0] for line in told] == ["train ipm: 75", "train ipm: 100"]
    assert list((broken / ".cellcache" / "checkpoints").iterdir()) == []


LONG = {
    **ROW,
    "training.steps": 400,
    "training.evaluate_every": 200,
    "execution.checkpoint_minutes": 1e-4,
}
STAGE = """
import sys; sys.path.insert(0, "tests")
from pathlib import Path
from support import InProcess, Unwatched, parameters
from test_checkpoints import LONG
from pipeline.runs import execution
from pipeline.runs.train import train_row
execution.Pool = InProcess  # real processes are killed in tests/soak
train_row(Path(sys.argv[1]), parameters(LONG), "ipm", lambda *_: Unwatched())
"""


def all_under_way(folder):
    names = tuple(path.stem for path in folder.rglob("checkpoints/*.safetensors"))
    return len(names) == 4 and min(Checkpoints(folder, names).done) > 0


def test_a_row_killed_in_the_middle_of_its_cells_goes_on_to_the_same_bytes(tmp_path, steps_taken):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        write(folder / "data" / "dataset.safetensors", DATASET)
    stage = subprocess.Popen([sys.executable, "-c", STAGE, str(killed)], cwd=ROOT)
    deadline = time.monotonic() + 300
    try:
        while not all_under_way(killed):
            assert stage.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        stage.kill()
        stage.wait()
    rarely = parameters({**LONG, "execution.checkpoint_minutes": 10})
    train_row(killed, rarely, "ipm", lambda *_: Unwatched())
    assert 0 < steps_taken[0] < 400
    train_row(whole, rarely, "ipm", lambda *_: Unwatched())
    assert written(killed) == written(whole)
