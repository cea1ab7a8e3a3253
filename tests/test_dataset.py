"""The prepared file is checked when it is read."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

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
    prepare(data(), digits, path)
    whole = path.read_bytes()
    foreign = (digits / "digits.safetensors").read_bytes()
    for content in (b"", whole[:5], whole[:100], whole[:-1], b"x" * 500, foreign):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"truncated, damaged .*rerun `dvc repro prepare`"):
            load(path)


@pytest.mark.parametrize(("key", "value"), [("test_inputs", torch.nan), ("train_labels", 10)])
def test_a_dataset_with_values_out_of_range_is_refused(key, value, digits, tmp_path):
    path = tmp_path / "dataset.safetensors"
    prepare(data(), digits, path)
    tensors = load_file(path)
    tensors[key].view(-1)[3] = value
    with safe_open(path, framework="pt") as file:
        save_file(tensors, path, file.metadata())
    with pytest.raises(UserError, match=r"its checksum is another.*; rerun `dvc repro prepare`"):
        load(path)
    splits = [Split(tensors[f"{name}_inputs"], tensors[f"{name}_labels"]) for name in SPLITS]
    write(path, Dataset(*splits, classes=10))
    with pytest.raises(UserError, match=r"NaN|outside 0 to 9"):
        load(path)
