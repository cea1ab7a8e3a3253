"""A source becomes one file of normalised splits; wrong parameters and damaged raw files are told."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.core.component import parse
from pipeline.core.errors import UserError
from pipeline.data.dataset import load
from pipeline.data.prepare import Data, prepare
from pipeline.data.sources import SOURCES

DIGITS = {"source": {"name": "digits"}, "validation_fraction": 0.1, "test_fraction": 0.2, "split_seed": 0}


def data(**changes) -> Data:
    return parse(Data, {**DIGITS, **changes}, "data")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The folder data/raw after the download of digits."""
    folder = tmp_path_factory.mktemp("raw")
    SOURCES.parse({"name": "digits"}, "data.source").download(folder)
    return folder


def rows(tensor: torch.Tensor) -> list[bytes]:
    return [row.numpy().tobytes() for row in tensor]


def labelled(images: torch.Tensor, labels: torch.Tensor) -> list[tuple[bytes, int]]:
    return list(zip(rows(images), labels.tolist(), strict=True))


def test_digits_are_cut_into_splits_that_cover_everything_once(digits, tmp_path):
    prepare(data(), digits, tmp_path / "dataset.safetensors")
    dataset = load(tmp_path / "dataset.safetensors")
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split.labels) for split in splits] == [1294, 144, 359]
    assert dataset.classes == 10
    assert dataset.shape == (1, 8, 8)
    assert all(split.inputs.dtype == torch.float32 for split in splits)
    raw = load_file(digits / "digits.safetensors")
    everything = labelled(data().source.format.pixels.normalise(raw["train_images"]), raw["train_labels"])
    assert sorted(everything) == sorted(pair for split in splits for pair in labelled(split.inputs, split.labels))


def test_digits_are_normalised_with_constants_near_their_training_statistics(digits, tmp_path):
    prepare(data(), digits, tmp_path / "dataset.safetensors")
    train = load(tmp_path / "dataset.safetensors").train.inputs
    # The constants are of all images. The mean of 1294 of 1797 images has a standard error of 0.001 to 0.002.
    assert abs(train.mean()) < 0.01
    assert abs(train.std() - 1) < 0.01
    pixels = load_file(digits / "digits.safetensors")["train_images"].double() / 16
    assert pixels.mean().item() == pytest.approx(data().source.format.means[0], abs=5e-5)
    assert pixels.std().item() == pytest.approx(data().source.format.deviations[0], abs=1e-4)


def test_each_channel_is_normalised_by_its_own_constants():
    cifar = SOURCES.parse({"name": "cifar10"}, "data.source")
    white = cifar.format.pixels.normalise(torch.full((2, 3, 1, 1), 255, dtype=torch.uint8))
    expected = [
        (1 - mean) / deviation for mean, deviation in zip(cifar.format.means, cifar.format.deviations, strict=True)
    ]
    torch.testing.assert_close(white[1, :, 0, 0], torch.tensor(expected))


def test_equal_seeds_give_equal_bytes_and_other_seeds_another_split(digits, tmp_path):
    for name, seed in [("first", 0), ("again", 0), ("other", 1)]:
        prepare(data(split_seed=seed), digits, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()
    (tmp_path / "plain").touch()
    assert (tmp_path / "first").stat().st_mode == (tmp_path / "plain").stat().st_mode
    first, other = set(rows(load(tmp_path / "first").test.inputs)), set(rows(load(tmp_path / "other").test.inputs))
    assert 0 < len(first & other) < len(first)


def test_a_fraction_that_selects_no_image_is_refused(digits, tmp_path):
    for parameter in ("validation_fraction", "test_fraction"):
        with pytest.raises(UserError, match=rf"data.{parameter} = 1e-05: selects none of \d+ samples"):
            prepare(data(**{parameter: 1e-5}), digits, tmp_path / "dataset.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": {"name": "minst"}}, r"data.source.name = 'minst': unknown name; .* did you mean 'mnist'"),
        ({"source": {"name": "mnist", "mirrors": ["ftp://x/"]}}, r"data.source.mirrors.0 = 'ftp://x/': "),
        ({"validation_fraction": 0.0}, r"data.validation_fraction = 0.0: should be greater than 0"),
        ({"test_fraction": 0.51}, r"data.test_fraction = 0.51: should be less than or equal to 0.5"),
        ({"split_seed": -1}, r"data.split_seed = -1: should be greater than or equal to 0"),
        ({"validation": 0.1}, r"data.validation = 0.1: unknown key; .* did you mean 'validation_fraction'"),
    ],
)
def test_wrong_parameters_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        data(**changes)


def test_every_parameter_of_the_section_is_required():
    with pytest.raises(UserError) as error:
        parse(Data, {}, "data")
    assert set(str(error.value).splitlines()) == {f"data.{key}: missing" for key in DIGITS}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"train_images": torch.zeros(20, 8, 8, dtype=torch.uint8)}, "inputs are"),
        ({"train_images": torch.zeros(20, 1, 8, 8)}, "inputs are"),
        ({"train_images": torch.full((20, 1, 8, 8), 17, dtype=torch.uint8)}, "a pixel is 17, above 16"),
        ({"train_labels": torch.arange(19) % 10}, "labels are"),
        ({"train_labels": torch.arange(20, dtype=torch.int32)}, "labels are"),
        ({"train_labels": torch.arange(20)}, "labels run from 0 to 19"),
        ({"train_labels": torch.arange(20) % 10 - 1}, "labels run from -1 to 8"),
    ],
)
def test_a_damaged_raw_file_is_not_prepared(changes, fault, tmp_path):
    sound = {"train_images": torch.zeros(20, 1, 8, 8, dtype=torch.uint8), "train_labels": torch.arange(20) % 10}
    save_file({**sound, **changes}, tmp_path / "digits.safetensors")
    with pytest.raises(UserError, match=rf"digits.safetensors: .*{fault}.*rerun `dvc repro download`"):
        prepare(data(), tmp_path, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_a_missing_or_truncated_raw_file_asks_for_the_download(digits, tmp_path):
    with pytest.raises(UserError, match=r"digits.safetensors: no such file; run `dvc repro download`"):
        prepare(data(), tmp_path, tmp_path / "dataset")
    whole = (digits / "digits.safetensors").read_bytes()
    for size in (0, 5, 100, len(whole) - 1):
        (tmp_path / "digits.safetensors").write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"truncated, damaged .*rerun `dvc repro download`"):
            prepare(data(), tmp_path, tmp_path / "dataset")


def test_importing_the_module_imports_neither_torchvision_nor_scikit_learn():
    program = "import sys, pipeline.data.prepare; print(sorted({'torchvision', 'sklearn'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
