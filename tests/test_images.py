"""Synthetic images: any shape, learnable, the same bytes for the same parameters, no network."""

import socket

import pytest
import torch
from safetensors.torch import load_file

from pipeline.core.component import parse
from pipeline.core.errors import UserError
from pipeline.data.dataset import Dataset, load
from pipeline.data.prepare import Data, prepare
from pipeline.data.sources import SOURCES

FIELDS = {
    "name": "synthetic",
    "channels": 2,
    "height": 7,
    "width": 9,
    "classes": 5,
    "train": 400,
    "test": 50,
    "seed": 0,
    "noise": 5.0,
}


def source(**changes):
    return SOURCES.parse({**FIELDS, **changes}, "data.source")


def prepared(folder, **changes) -> Dataset:
    data = {"source": {**FIELDS, **changes}, "validation_fraction": 0.25, "test_fraction": 0.2, "split_seed": 0}
    section = parse(Data, data, "data")
    section.source.download(folder)
    prepare(section, folder, folder / "dataset.safetensors")
    return load(folder / "dataset.safetensors")


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 28, 28), (3, 32, 32), (2, 7, 9)])
@pytest.mark.parametrize("classes", [2, 47])
def test_any_shape_and_number_of_classes(shape, classes, tmp_path):
    channels, height, width = shape
    dataset = prepared(tmp_path, channels=channels, height=height, width=width, classes=classes)
    assert (dataset.shape, dataset.classes) == (shape, classes)
    assert [len(split.labels) for split in (dataset.train, dataset.validation, dataset.test)] == [300, 100, 50]


def test_the_classes_have_equally_many_images(tmp_path):
    synthetic = source()
    synthetic.download(tmp_path)
    raw = load_file(synthetic.raw_file(tmp_path))
    assert raw["train_labels"].bincount().tolist() == [80] * 5
    assert raw["test_labels"].bincount().tolist() == [10] * 5


def test_pixels_are_normalised(tmp_path):
    train = prepared(tmp_path, channels=3, height=32, width=32, train=1000).train.inputs
    # 5 pictures with 16 free numbers a channel leave the mean of a channel a deviation of about 0.02.
    assert train.mean(dim=(0, 2, 3)).abs().max() < 0.08
    assert (train.std(dim=(0, 2, 3)) - 1).abs().max() < 0.03


@pytest.mark.parametrize("changes", [{"noise": 0.0}, {"noise": 3.0}])
def test_an_image_is_the_picture_of_its_class_plus_noise(changes, tmp_path):
    dataset = prepared(tmp_path, **changes)
    noise = changes["noise"]
    for split in (dataset.train, dataset.test):
        for c in range(5):
            images = split.inputs[split.labels == c]
            spread = (images - dataset.train.inputs[dataset.train.labels == c].mean(dim=0)).square().mean().sqrt()
            assert float(spread) == pytest.approx(noise / (1 + noise**2) ** 0.5, rel=0.1, abs=1e-6)


def test_the_nearest_class_mean_classifies_most_test_images(tmp_path):
    dataset = prepared(tmp_path, channels=1, height=12, width=12, train=2000, test=500)
    train, test = dataset.train, dataset.test
    means = torch.stack([train.inputs[train.labels == c].mean(dim=0).flatten() for c in range(5)])
    nearest = torch.cdist(test.inputs.flatten(1), means).argmin(dim=1)
    accuracy = float((nearest == test.labels).float().mean())
    assert 0.6 < accuracy < 0.999  # chance is 0.2: to be learned, and not trivial


def test_neighbouring_pixels_are_alike(tmp_path):
    images = prepared(tmp_path, height=32, width=32, noise=0.0).train.inputs
    jumps = (images[..., 1:] - images[..., :-1]).square().mean()
    assert float(jumps) < 0.1 * 2 * float(images.var())  # independent pixels: 2 variances


def test_equal_parameters_give_equal_bytes_and_another_seed_other_images(tmp_path):
    files = []
    for folder, seed in [("a", 0), ("b", 0), ("c", 1)]:
        synthetic = source(seed=seed)
        synthetic.download(tmp_path / folder)
        files.append(synthetic.raw_file(tmp_path / folder).read_bytes())
    assert files[0] == files[1] != files[2]


def test_train_and_test_images_differ(tmp_path):
    synthetic = source()
    synthetic.download(tmp_path)
    raw = load_file(synthetic.raw_file(tmp_path))
    assert not torch.equal(raw["train_images"][:50], raw["test_images"])


def test_no_network_and_no_global_generator_is_used(monkeypatch, global_generators_untouched, tmp_path):
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a connection"))
    source().download(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 0}, "data.source.channels = 0: should be greater than or equal to 1"),
        ({"classes": 1}, "data.source.classes = 1: should be greater than or equal to 2"),
        ({"noise": -1.0}, "data.source.noise = -1.0: should be greater than or equal to 0"),
        ({"heigth": 3}, "data.source.heigth = 3: unknown key; .* did you mean 'height'"),
    ],
)
def test_wrong_fields_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        source(**changes)


@pytest.mark.parametrize("name", sorted({*SOURCES.names} - {"file"}))
def test_every_source_of_images_describes_them(name):
    described = source().format if name == "synthetic" else SOURCES[name].format
    assert len(described.shape) == 3
    assert len(described.means) == len(described.deviations) == described.shape[0]
    assert min(described.deviations) > 0
    assert SOURCES[name].formula
    assert SOURCES[name].reference
