"""The checked file of normalised train, validation and test tensors that training reads."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.core.files import file_hash, replacing

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Normalised images ``[N, C, H, W]`` or feature vectors ``[N, p]``, float32 in the file; labels ``[N]``, int64."""

    inputs: Tensor
    labels: Tensor

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Split":
        """Return the split on a device; where ``dtype`` is given, with inputs of that type."""
        return Split(self.inputs.to(device, dtype or self.inputs.dtype), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits of one source, and the number of its classes."""

    train: Split
    validation: Split
    test: Split
    classes: int

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Dataset":
        """Return the data set on a device; where ``dtype`` is given, with inputs of that type."""
        train, validation, test = (split.to(device, dtype) for split in (self.train, self.validation, self.test))
        return Dataset(train, validation, test, self.classes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input: (C, H, W) of an image, (p,) of a feature vector."""
        return tuple(self.train.inputs.shape[1:])


def load(path: Path) -> Dataset:
    """Return the data set that ``pipeline.data.prepare.prepare`` wrote.

    Raises:
        UserError: The file is missing, damaged or something else.
    """
    with readable(path, "prepare"), safe_open(path, framework="pt") as file:
        prepared = json.loads((file.metadata() or {})["prepared"])
        splits = {split: (file.get_tensor(f"{split}_inputs"), file.get_tensor(f"{split}_labels")) for split in SPLITS}
        classes, shape = int(prepared["classes"]), tuple(splits["train"][0].shape[1:])
        if prepared["checksum"] != _checksum(classes, (tensor for split in splits.values() for tensor in split)):
            raise ValueError("its checksum is another")
        for inputs, labels in splits.values():
            check(inputs, labels, torch.float32, shape, classes)
    return Dataset(**{split: Split(*tensors) for split, tensors in splits.items()}, classes=classes)


def write(path: Path, dataset: Dataset) -> None:
    """Write a data set to a file that :func:`load` reads; equal data sets give equal bytes."""
    tensors: dict[str, Tensor] = {}
    for name, split in zip(SPLITS, (dataset.train, dataset.validation, dataset.test), strict=True):
        tensors |= {f"{name}_inputs": split.inputs, f"{name}_labels": split.labels}
    prepared = {"checksum": _checksum(dataset.classes, tensors.values()), "classes": dataset.classes}
    write_tensors(path, tensors, {"prepared": json.dumps(prepared)})


def _checksum(classes: int, tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256(str(classes).encode())
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def data_hash(path: Path) -> str:
    """Return the hash of a prepared file, which is read and checked once for as long as it is not written anew.

    Raises:
        UserError: The file is missing, damaged or something else.
    """
    with readable(path, "prepare"):
        status = path.stat()
    return _hash_of_checked(path, status.st_mtime_ns, status.st_size, status.st_ino)


@cache
def _hash_of_checked(path: Path, *_: int) -> str:
    load(path)
    return file_hash(path)


def check(inputs: Tensor, labels: Tensor, dtype: torch.dtype, shape: tuple[int, ...], classes: int) -> None:
    """Raise ValueError unless inputs ``[N, *shape]`` and labels ``[N]`` fit together and lie in their ranges."""
    if inputs.dtype != dtype or len(shape) not in (1, 3) or tuple(inputs.shape[1:]) != shape:
        raise ValueError(
            f"inputs are {inputs.dtype} {list(inputs.shape)}, not {dtype} [N, C, H, W] or [N, p] of {shape}"
        )
    if labels.dtype != torch.int64 or labels.shape != inputs.shape[:1] or len(labels) == 0:
        raise ValueError(f"labels are {labels.dtype} {list(labels.shape)} for {len(inputs)} inputs")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels run from {int(labels.min())} to {int(labels.max())}, outside 0 to {classes - 1}")
    if not inputs.isfinite().all():
        raise ValueError("an input is NaN or infinite")


@contextmanager
def readable(path: Path, stage: str) -> Iterator[Path]:
    """Turn every fault of the file at ``path`` into the advice to repeat the stage that writes it.

    Raises:
        UserError: It is missing or damaged.
        OSError: It is there, but the system does not let it be read.
    """
    try:
        path.open("rb").close()  # to safetensors, every file that it cannot open is a missing one
        yield path
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `dvc repro {stage}`") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{path}: truncated, damaged or another file ({error}); rerun `dvc repro {stage}`") from None


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically; equal tensors give equal bytes, as long as ``metadata`` has one entry."""
    with replacing(path) as temporary:
        # save_file would make the file unreadable for everyone but its owner.
        temporary.write_bytes(save(tensors, metadata))
