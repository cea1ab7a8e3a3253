"""One cell on MNIST from the archives to its result, with 300 images that the test makes."""

import numpy as np
import torch
from support import Unwatched, parameters
from test_download import idx, md5

from pipeline.core.paths import DATASET, RAW
from pipeline.data.dataset import load
from pipeline.data.prepare import prepare
from pipeline.data.sources import SOURCES
from pipeline.runs.store import read_row
from pipeline.runs.train import train_row

COUNTS = {"train": 240, "t10k": 60}
CHANGES = {
    "data.validation_fraction": 0.1,
    "model": {"name": "logistic"},
    "training.steps": 50,
    "training.batch_size": 8,
    "grid.attacks": ["none", "ipm"],
    "grid.defences": ["median"],
    "grid.partitions": ["iid"],
    "grid.seeds": [0],
    "search.studies": [],
}


def archives(folder):
    """Writes images with one bright row of pixels for each class, on noise, in the format of the archives."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for part, count in COUNTS.items():
        images = generator.integers(0, 100, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        images[np.arange(count), 2 * labels + 3] = 255
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    return {path.name: md5(path.read_bytes()) for path in folder.iterdir()}


def test_a_cell_from_the_archives_to_its_result(tmp_path, monkeypatch):
    monkeypatch.setattr(SOURCES["mnist"], "archives", archives(tmp_path / "archives"))
    source = {"name": "mnist", "mirrors": [str(tmp_path / "archives")]}
    params = parameters({**CHANGES, "data.source": source})
    params.data.source.download(tmp_path / RAW)
    prepare(params.data, tmp_path / RAW, tmp_path / DATASET)
    dataset = load(tmp_path / DATASET)
    assert [len(split.labels) for split in (dataset.train, dataset.validation, dataset.test)] == [216, 24, 60]
    assert dataset.train.stored.dtype == torch.uint8
    train_row(tmp_path, params, "ipm", lambda *_: Unwatched())
    (record,) = read_row(tmp_path, params, "ipm")
    assert record.final["test_accuracy"] > 0.9
    assert record.evaluations["validation_accuracy"][0] < 0.5
    assert record.steps["train_loss"][-1] < 0.5 < record.steps["train_loss"][0]
