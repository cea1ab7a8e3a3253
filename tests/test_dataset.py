"""The prepared file is checked when it is read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support import blobs

from pipeline.core.component import parse
from pipeline.core.errors import UserError
from pipeline.data.dataset import SPLITS, Dataset, Split, load, write
from pipeline.data.prepare import SOURCES, Data, prepare

DIGITS = {"source": {"name": "digits"}, "validation_fraction": 0.1, "test_fraction": 0.2, "split_seed": 0}


def data(**changes) -> Data:
    return parse(Data, {**DIGITS, **changes}, "data")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The folder data/raw after the download of digits."""
    folder = tmp_path_factory.mktemp("raw")
    SOURCES.parse({"name": "digits"}, "data.source").download(folder)
    return folder


def test_a_dataset_moves_to_a_device_as_a_whole(digits, tmp_path):
    prepare(data(), digits, tmp_path / "dataset.safetensors")
    moved = load(tmp_path / "dataset.safetensors").to("meta")
    tensors = [t for split in (moved.train, moved.validation, moved.test) for t in (split.inputs, split.labels)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.classes == 10


def test_a_missing_truncated_or_foreign_dataset_asks_for_prepare(digits, tmp_path):
    path = tmp_path / "dataset.safetensors"
    with pytest.raises(UserError, match=r"dataset.safetensors: no such file; run `dvc repro prepare`"):
        load(path)
    path.mkdir()
    with pytest.raises(UserError, match=r"dataset.safetensors: a folder .*move it away, then run `dvc repro prepare`"):
        load(path)
    path.rmdir()
    prepare(data(), digits, path)
    whole = path.read_bytes()
    foreign = (digits / "digits.safetensors").read_bytes()
    for content in (b"", whole[:5], whole[:100], whole[:-1], b"x" * 500, foreign):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"truncated, damaged .*rerun `dvc repro prepare`"):
            load(path)


@pytest.mark.parametrize(("key", "value"), [("test_inputs", torch.nan), ("train_labels", 10)])
def test_a_dataset_with_values_out_of_range_is_refused(key, value, tmp_path):
    path = tmp_path / "dataset.safetensors"
    write(path, blobs())
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    save_file(tensors, path, metadata)
    load(path)
    tensors[key].view(-1)[3] = value
    save_file(tensors, path, metadata)
    with pytest.raises(UserError, match=r"its checksum is another.*; rerun `dvc repro prepare`"):
        load(path)
    splits = [Split(tensors[f"{name}_inputs"], tensors[f"{name}_labels"]) for name in SPLITS]
    write(path, Dataset(*splits, classes=10))
    with pytest.raises(UserError, match=r"NaN|outside 0 to 9"):
        load(path)


@pytest.mark.parametrize("name", [name for name in SOURCES.names if name not in ("file", "synthetic")])
def test_every_pixel_becomes_the_float32_number_of_the_formula(name):
    """Bit for bit, and the same number in both precisions of training."""
    format = SOURCES[name].format
    pixels = np.arange(format.brightest + 1, dtype=np.uint8)
    stored = torch.from_numpy(pixels).expand(format.shape[0], -1).reshape(1, format.shape[0], 1, -1)
    split = Split(stored, torch.tensor([0]), format.pixels)
    for channel, (mean, deviation) in enumerate(zip(format.means, format.deviations, strict=True)):
        shares = pixels.astype(np.float32) / np.float32(format.brightest)
        expected = (shares - np.float32(mean)) / np.float32(deviation)
        for dtype in (torch.float32, torch.float64):
            read = split.read(torch.tensor([[0]]), dtype)[0, 0, channel, 0]
            assert read.dtype == dtype
            assert np.array_equal(read.numpy(), expected.astype(read.numpy().dtype))


def test_pixels_are_stored_in_one_byte_each_and_mapped_into_memory(digits, tmp_path):
    path = tmp_path / "dataset.safetensors"
    prepare(data(), digits, path)
    dataset = load(path)
    assert dataset.train.stored.dtype == torch.uint8
    assert path.stat().st_size < 1797 * (64 + 8) + 2000
    assert load_file(path)["train_inputs"].equal(dataset.train.stored)
    starts = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in starts]
    assert any(start <= dataset.train.stored.data_ptr() < end for start, end in spans)


def test_a_dataset_is_written_as_it_was_read(digits, tmp_path):
    prepare(data(), digits, tmp_path / "first")
    write(tmp_path / "second", load(tmp_path / "first"))
    assert (tmp_path / "second").read_bytes() == (tmp_path / "first").read_bytes()
