"""A user's own arrays: from a file through the stages, from memory, and every mistake in them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.numpy import save_file
from support import SMALL, assert_identical, cell, raw_parameters, train

from pipeline.__main__ import main
from pipeline.core.errors import UserError
from pipeline.core.files import file_hash
from pipeline.data.arrays import checked
from pipeline.data.dataset import Dataset, load
from pipeline.data.memory import from_arrays
from pipeline.runs import params
from pipeline.simulator.gradients import loop_gradients
from pipeline.simulator.models import MODELS

SPLITTING = {"validation_fraction": 0.25, "test_fraction": 0.2, "split_seed": 3}
VECTORS = {"model": {"name": "logistic"}}


def samples(shape=(5,), count=60, classes=3, seed=0, kind=np.float64) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.uniform(0, 200, (count, *shape)).astype(kind), np.arange(count) % classes


def arrays(shape=(5,), kind=np.float64, test=False) -> dict[str, np.ndarray]:
    found = dict(zip(("train_inputs", "train_labels"), samples(shape, kind=kind), strict=True))
    if test:
        found |= dict(zip(("test_inputs", "test_labels"), samples(shape, 20, seed=1, kind=kind), strict=True))
    return found


def save(path: Path, held: dict[str, np.ndarray]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **held)
    else:
        save_file(held, path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The project's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def described(path: Path, **changes) -> dict[str, str]:
    return {"name": "file", "path": path.name, "sha256": file_hash(path), **changes}


def run_stage(here: Path, stage: str, source: dict[str, str], changes=None) -> int:
    raw = raw_parameters({"data": {"source": source, **SPLITTING}, **SMALL, **VECTORS, **(changes or {})})
    with (here / "params.yaml").open("w") as stream:
        YAML(typ="safe").dump(raw, stream)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pipeline", stage])
        return main()


def prepared(here: Path, path: Path, changes=None) -> Dataset:
    for stage in ("download", "prepare"):
        assert run_stage(here, stage, described(path), changes) == 0
    return load(here / "data" / "dataset.safetensors")


def told(here: Path, capsys, source: dict[str, str], changes=None) -> str:
    """What a stage says that fails."""
    capsys.readouterr()
    assert run_stage(here, "download", source, changes) == 1
    assert not (here / "data" / "raw").exists()
    return capsys.readouterr().err


def tensors(dataset: Dataset) -> list[torch.Tensor]:
    splits = (dataset.train, dataset.validation, dataset.test)
    return [tensor for split in splits for tensor in (split.inputs, split.labels)]


def assert_equal(first: Dataset, second: Dataset) -> None:
    assert first.classes == second.classes
    for one, other in zip(tensors(first), tensors(second), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("given", "shape", "kind"),
    [
        ((5,), (5,), np.float64),
        ((5,), (5,), np.int16),
        ((4, 6), (1, 4, 6), np.uint8),
        ((3, 4, 6), (3, 4, 6), np.float32),
        ((3, 4, 6), (3, 4, 6), np.float16),
    ],
)
@pytest.mark.parametrize("test", [False, True])
def test_both_formats_and_memory_give_the_same_bits(given, shape, kind, test, here):
    held = arrays(given, kind, test)
    first, second = (prepared(here, save(here / name, held)) for name in ("own.npz", "own.safetensors"))
    assert (first.shape, first.classes) == (shape, 3)
    assert_equal(first, second)
    assert_equal(first, from_arrays(**held, **SPLITTING))
    sizes = [len(split.labels) for split in (first.train, first.validation, first.test)]
    assert sizes == ([45, 15, 20] if test else [36, 12, 12])


def test_the_type_of_the_numbers_does_not_matter():
    held = arrays((3, 4, 6), np.uint8)
    for kind in (np.int64, np.float32, ">f8", np.longdouble):
        other = {**held, "train_inputs": held["train_inputs"].astype(kind)}
        assert_equal(from_arrays(**held), from_arrays(**other))
    assert_equal(from_arrays(*held.values()), from_arrays(*(array.tolist() for array in held.values())))


@pytest.mark.parametrize(("shape", "axes"), [((5,), 0), ((3, 4, 6), (0, 2, 3))])
def test_inputs_are_normalised_by_channel_or_feature_of_the_training_arrays(shape, axes):
    held = arrays(shape, test=True)
    dataset = from_arrays(**held)
    mean = held["train_inputs"].mean(axis=axes, keepdims=True)[0]
    deviation = held["train_inputs"].std(axis=axes, keepdims=True)[0]
    expected = (held["test_inputs"] - mean) / deviation
    np.testing.assert_allclose(dataset.test.inputs, expected, rtol=1e-6, atol=1e-6)
    assert dataset.test.labels.tolist() == held["test_labels"].tolist()


def test_without_test_arrays_the_statistics_are_those_of_all_samples_whatever_the_split():
    inputs, labels = samples()
    for seed in (0, 1):
        dataset = from_arrays(inputs, labels, split_seed=seed)
        everything = torch.cat([split.inputs for split in (dataset.train, dataset.validation, dataset.test)]).double()
        assert len(everything) == len(labels)
        torch.testing.assert_close(everything.mean(dim=0), torch.zeros(5).double(), rtol=0, atol=1e-6)
        torch.testing.assert_close(everything.std(dim=0, correction=0), torch.ones(5).double(), rtol=1e-6, atol=0)


def test_a_constant_feature_becomes_zero():
    """The rounded mean of sixty times 0.1 is not 0.1, so that a deviation computed from it would not be zero."""
    inputs, labels = samples()
    inputs[:, 2] = 0.1
    dataset = from_arrays(inputs, labels)
    assert dataset.train.inputs[:, 2].abs().max() == 0
    assert dataset.train.inputs[:, 1].abs().max() > 1


def test_a_small_spread_around_a_large_number_survives():
    inputs, labels = samples()
    shifted = from_arrays(inputs + 2.0**40, labels)
    torch.testing.assert_close(shifted.train.inputs, from_arrays(inputs, labels).train.inputs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("model", [{"name": "logistic"}, {"name": "mlp", "hidden": [4]}])
@pytest.mark.parametrize("update", [{"name": "gradient"}, {"name": "local_sgd", "steps": 2, "learning_rate": 0.1}])
def test_vectors_train_as_the_images_with_the_same_numbers(model, update, here):
    """From a file of vectors [N, 6] to a result, which that of [N, 6, 1, 1] must equal: a channel for each feature."""
    inputs, labels = samples((6,))
    dataset = prepared(here, save(here / "own.npz", {"train_inputs": inputs, "train_labels": labels}), {"model": model})
    assert dataset.shape == (6,)
    cells = [cell(attack, changes={"model": model, "training.local_update": update}) for attack in ("none", "ipm")]
    images = from_arrays(inputs[..., None, None], labels, **SPLITTING)
    for one in cells:
        (result,), (other,) = train([one], dataset), train([one], images)
        assert_identical(result, other)
        (slow,) = train([one], dataset, loop_gradients)
        assert np.abs(result.evaluations["validation_loss"] - slow.evaluations["validation_loss"]).max() < 1e-9
        assert result.evaluations["validation_loss"][0] != result.evaluations["validation_loss"][-1]


@pytest.mark.parametrize("name", ["cnn_mnist", "cnn_cifar", "resnet18", "resnet20"])
def test_a_model_for_images_refuses_vectors_before_anything_is_computed(name, here, capsys):
    path = save(here / "own.npz", arrays())
    message = told(here, capsys, described(path), {"model": {"name": name}, "training.augment": "crop_flip"})
    assert f"  model.name = '{name}': needs images, but the data are vectors of 5 features" in message
    assert "  training.augment = 'crop_flip': needs images, but the data are vectors; use 'none'" in message
    with pytest.raises(UserError, match=f"model.name = '{name}': needs images"):
        MODELS.parse({"name": name}, "model").network((5,), 3)


def test_other_mistakes_are_told_beside_those_of_the_file(here, capsys):
    message = told(here, capsys, {"name": "file", "path": "absent.npz"}, {"model": {"name": "mpl"}})
    assert "data.source.path = 'absent.npz': no such file in " in message
    assert "model.name = 'mpl': unknown name" in message


def test_the_hash_is_told_where_it_is_missing_or_another_one(here, capsys):
    path = save(here / "own.npz", arrays())
    wanted = file_hash(path)
    message = told(here, capsys, {"name": "file", "path": "own.npz"})
    assert f"data.source.sha256: missing; that of own.npz is {wanted}" in message
    message = told(here, capsys, described(path, sha256="abc"))
    assert f"data.source.sha256 = 'abc': is not that of own.npz, which is {wanted}" in message


def test_a_changed_file_is_noticed_by_every_stage(here, capsys):
    path = save(here / "own.npz", arrays())
    prepared(here, path)
    before = described(path)
    save(path, arrays(test=True))
    for stage in ("download", "prepare"):
        assert run_stage(here, stage, before) == 1
        assert f"sha256 = '{before['sha256']}': is not that of own.npz, which is {file_hash(path)}" in (
            capsys.readouterr().err
        )
    assert run_stage(here, "prepare", described(path)) == 1  # the raw file is that of the file before
    assert "made from a file with another sha256); rerun `dvc repro download`" in capsys.readouterr().err
    assert len(prepared(here, path).test.labels) == 20


def test_once_downloaded_the_file_may_be_absent(here, capsys):
    path = save(here / "own.npz", arrays())
    source = described(path)
    assert run_stage(here, "download", source) == 0
    path.unlink()
    assert run_stage(here, "prepare", source) == 0
    assert params.load(here / "params.yaml").data.source.format.shape == (5,)
    assert run_stage(here, "download", source) == 1
    assert "data.source.path = 'own.npz': no such file" in capsys.readouterr().err


def test_equal_files_give_equal_raw_bytes(here):
    path = save(here / "own.npz", arrays())
    written = []
    for _ in range(2):
        assert run_stage(here, "download", described(path)) == 0
        written.append((here / "data" / "raw" / "file.safetensors").read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own.csv", "unknown suffix '.csv'; one of '.npz', '.safetensors'"),
        ("own.nzp", "unknown suffix '.nzp'; one of '.npz', '.safetensors' - did you mean '.npz'?"),
        ("own", "unknown suffix ''; one of '.npz', '.safetensors'"),
    ],
)
def test_an_unknown_suffix_is_told(name, message, here, capsys):
    (here / name).write_text("a,b\n")
    assert f"data.source.path = '{name}': {message}" in told(here, capsys, {"name": "file", "path": name})


def test_a_folder_is_no_file(here, capsys):
    (here / "own.npz").mkdir()
    assert "data.source.path = 'own.npz': is a folder" in told(here, capsys, {"name": "file", "path": "own.npz"})


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_truncated_or_foreign_file_is_told(suffix, here, capsys):
    path = save(here / f"own{suffix}", arrays())
    whole = path.read_bytes()
    flipped = whole[:300] + bytes([whole[300] ^ 255]) + whole[301:]
    for content in [b"", whole[:5], whole[:100], whole[:-1], b"x" * 500, *([flipped] if suffix == ".npz" else [])]:
        path.write_bytes(content)
        message = told(here, capsys, described(path))
        assert f"data.source.path = 'own{suffix}': cannot be read as {suffix} with arrays of numbers (" in message


def test_a_pickle_is_not_opened(here, capsys):
    path = here / "own.npz"
    np.savez(path, train_inputs=np.array([{}, []], dtype=object), train_labels=np.arange(2))
    message = told(here, capsys, described(path))
    assert (
        "cannot be read as .npz with arrays of numbers (Object arrays cannot be loaded when allow_pickle=False)"
        in message
    )


def test_a_type_that_numpy_lacks_is_told(here, capsys):
    from safetensors.torch import save_file as save_tensors

    path = here / "own.safetensors"
    save_tensors({"train_inputs": torch.zeros(4, 2).bfloat16(), "train_labels": torch.arange(4)}, path)
    assert "bfloat16" in told(here, capsys, described(path))


def test_a_fault_of_the_arrays_names_the_file(here, capsys):
    path = save(here / "own.npz", {"train_inputs": np.zeros((2, 2))})
    assert "data.source.path = 'own.npz': train_labels: missing; the arrays are train_inputs" in told(
        here, capsys, described(path)
    )


IMAGES, LABELS = samples((3, 4, 6), 12)
BROKEN = IMAGES.copy()
BROKEN[7, 0, 0, 0], BROKEN[9, 1, 1, 1] = np.nan, -np.inf


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_inputs": None}, r"train_inputs: missing; the arrays are train_labels"),
        ({"train_labels": None}, r"train_labels: missing; the arrays are train_inputs"),
        ({"train_label": LABELS}, r"train_label: unknown array; one of .* - did you mean 'train_labels'\?"),
        ({"test_inputs": IMAGES}, r"test_labels: missing; the arrays are train_inputs, train_labels, test_inputs"),
        ({"test_labels": LABELS}, r"test_inputs: missing; the arrays are"),
        ({"train_inputs": LABELS}, r"train_inputs: should be images .* or vectors \[N, p\]; got \[12\]"),
        ({"train_inputs": IMAGES[None]}, r"train_inputs: should be images .*; got \[1, 12, 3, 4, 6\]"),
        ({"train_inputs": IMAGES.astype(complex)}, r"train_inputs: should be real numbers, got complex128"),
        ({"train_inputs": IMAGES.astype(str)}, r"train_inputs: should be real numbers, got <U"),
        ({"train_inputs": IMAGES[:0], "train_labels": LABELS[:0]}, r"train_inputs: has no elements"),
        ({"train_inputs": IMAGES[:, :0]}, r"train_inputs: has no elements; its shape is \[12, 0, 4, 6\]"),
        ({"train_inputs": np.zeros((12, 8, 8, 3))}, r"\[12, 8, 8, 3\] has its channels last; transpose\(0, 3, 1, 2\)"),
        ({"train_inputs": BROKEN}, r"train_inputs: 2 values are NaN, infinite .*, the first in sample 7"),
        ({"train_inputs": BROKEN.astype(np.float16)}, r"train_inputs: 2 values are NaN"),
        ({"train_inputs": IMAGES * 1e37}, r"train_inputs: \d+ values are NaN, infinite or too large for float32"),
        ({"train_labels": LABELS[:-1]}, r"train_labels: 11 labels, but train_inputs has 12 samples"),
        ({"train_labels": LABELS[:, None]}, r"train_labels: should be \[N\], one label per sample; got \[12, 1\]"),
        ({"train_labels": LABELS.astype(float)}, r"train_labels: should be integers, got float64"),
        ({"train_labels": LABELS + 1}, r"train_labels: 0 does not occur, but 3 does; every class from 0 to C - 1"),
        ({"train_labels": LABELS * 2}, r"train_labels: 1 does not occur, but 4 does"),
        ({"train_labels": LABELS - 1}, r"train_labels: -1 is negative"),
        ({"train_labels": LABELS * 0}, r"train_labels: all are 0; there should be two classes or more"),
        ({"test_inputs": IMAGES[:, :2], "test_labels": LABELS}, r"test_inputs: a sample is \[2, 4, 6\], but one of"),
        ({"test_inputs": IMAGES[:, 0], "test_labels": LABELS}, r"test_inputs: a sample is \[1, 4, 6\], but one of"),
        (
            {"test_inputs": IMAGES, "test_labels": LABELS + 1},
            r"test_labels: run from 1 to 3, but train_labels from 0 t",
        ),
        ({"test_inputs": IMAGES[:0], "test_labels": LABELS[:0]}, r"test_inputs: has no elements"),
        ({"test_inputs": BROKEN, "test_labels": LABELS}, r"test_inputs: 2 values are NaN"),
    ],
)
def test_a_fault_of_the_arrays_is_told(changes, message):
    held = {"train_inputs": IMAGES, "train_labels": LABELS, **changes}
    with pytest.raises(UserError, match=message):
        checked({name: array for name, array in held.items() if array is not None})


def test_a_split_that_would_be_empty_is_told():
    with pytest.raises(UserError, match=r"data.test_fraction = 0.01: selects none of 12 samples"):
        from_arrays(IMAGES, LABELS, test_fraction=0.01)
    with pytest.raises(UserError, match=r"data.validation_fraction = 0.9: should be less than or equal to 0.5"):
        from_arrays(IMAGES, LABELS, validation_fraction=0.9)
