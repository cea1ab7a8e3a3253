"""Small parameters, data and cells that several test files share."""

from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML

from pipeline.data.dataset import Dataset, Split, write
from pipeline.runs import execution
from pipeline.runs.params import Params, validate
from pipeline.runs.plan import planned
from pipeline.simulator.cell import Cell
from pipeline.simulator.gradients import chain_gradients
from pipeline.simulator.loop import Result, run
from pipeline.simulator.program import build

ROOT = Path(__file__).parents[1]
PARAMS = ROOT / "tests" / "params.yaml"
REMOVED = object()
CPU = torch.device("cpu")

SMALL = {
    "model.hidden": [5],
    "threat": {"workers": 7, "byzantine": 2, "tolerated": 2, "sampled": None},
    "training.steps": 6,
    "training.batch_size": 3,
    "training.evaluate_every": 4,
}


@cache
def _raw() -> dict[str, Any]:
    return YAML(typ="safe").load(PARAMS.read_text(encoding="utf-8"))


def raw_parameters(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of the tests' params.yaml, with the values at some dotted paths replaced or ``REMOVED``."""
    raw = deepcopy(_raw())
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        section = raw
        for key in parents:
            section = section[key]
        if value is REMOVED:
            del section[last]
        else:
            section[last] = deepcopy(value)
    if isinstance((changes or {}).get("grid.seeds"), list) and "grid.max_seeds" not in changes:
        raw["grid"]["max_seeds"] = len(raw["grid"]["seeds"])  # a test says how many seeds it wants
    return raw


def parameters(changes: dict[str, Any] | None = None) -> Params:
    """The tests' parameters, made small, then changed."""
    return validate(raw_parameters({**SMALL, **(changes or {})}))


def cell(attack="sign_flip", defence="median", partition="alpha_03", seed=0, changes=None) -> Cell:
    return planned(parameters(changes), attack, defence, partition, seed).cell


def blobs(shape=(1, 2, 3), classes=3, sizes=(60, 30, 20), seed=0) -> Dataset:
    """Images around a random centre a class, in splits of the given sizes."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(classes, *shape))

    def split(size: int) -> Split:
        labels = generator.integers(0, classes, size)
        images = centres[labels] + generator.normal(size=(size, *shape))
        return Split(torch.from_numpy(images.astype(np.float32)), torch.from_numpy(labels))

    return Dataset(*map(split, sizes), classes=classes)


class Unwatched:
    """What follows a row of ``train_row`` that nobody looks at."""

    def watch(self, cells):
        return lambda *_: None

    def finish(self, records):
        pass

    def stop(self, status):
        pass


class InProcess:
    """Stands for ``pipeline.runs.pool.Pool`` where a test need not start processes: works on the tasks here."""

    size = 1

    def __init__(self, environments, prepare, *arguments):
        threads = torch.get_num_threads()
        self.prepared = prepare(*arguments)
        torch.set_num_threads(threads)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, waiting):
        while waiting:
            task = waiting.pop(0)
            yield task, task.function(self.prepared, *task.arguments, task.told)


@contextmanager
def trainer(dataset: Dataset, **settings):
    """What trains cells on a data set in memory; on the CPU, with further settings of the execution."""
    settings = parameters().execution.replace(device="cpu", **settings)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "dataset.safetensors"
        write(path, dataset)
        with execution.trainer(path, settings) as ready:
            yield ready


def train(cells, dataset, backend=chain_gradients, watch=lambda *_: None) -> list[Result]:
    return run(build(cells, dataset, backend, CPU), watch)


def assert_identical(result: Result, other: Result) -> None:
    """Every number of two results is the same, to the last bit."""
    assert result.evaluated == other.evaluated
    for series, others in [(result.steps, other.steps), (result.evaluations, other.evaluations)]:
        assert list(series) == list(others)
        for name in series:
            np.testing.assert_array_equal(series[name], others[name], err_msg=name)
    np.testing.assert_equal(result.final, other.final)
