"""The checked file of train, validation and test tensors that training reads, normalised as they are read."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.core.files import file_hash, replacing
from pipeline.data.format import Pixels

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
        stored: Images ``[N, C, H, W]`` or feature vectors ``[N, p]``: uint8 pixels, or normalised float32.
        labels: ``[N]``, int64.
        pixels: How pixels are normalised; None where ``stored`` is normalised.
    """

    stored: Tensor
    labels: Tensor
    pixels: Pixels | None = None

    def read(self, samples: Tensor | slice, dtype: torch.dtype) -> Tensor:
        """Return the normalised inputs ``[..., *shape]`` of ``samples [...]``, in ``dtype``."""
        chosen = self.stored[samples]
        return (chosen if self.pixels is None else self.pixels.normalise(chosen)).to(dtype)

    @property
    def inputs(self) -> Tensor:
        """All normalised inputs, ``[N, *shape]``, float32."""
        return self.read(slice(None), torch.float32)

    def to(self, device: torch.device | str) -> "Split":
        """Return the split on a device."""
        pixels = None if self.pixels is None else self.pixels.to(device)
        return Split(self.stored.to(device), self.labels.to(device), pixels)


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits of one source, and the number of its classes."""

    train: Split
    validation: Split
    test: Split
    classes: int

    def to(self, device: torch.device | str) -> "Dataset":
        """Return the data set on a device."""
        train, validation, test = (split.to(device) for split in (self.train, self.validation, self.test))
        return Dataset(train, validation, test, self.classes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input: (C, H, W) of an image, (p,) of a feature vector."""
        return tuple(self.train.stored.shape[1:])


def load(path: Path) -> Dataset:
    """Return the data set that ``pipeline.data.prepare.prepare`` wrote.

    The file is mapped into memory: processes that load it share what they read of it.

    Raises:
        UserError: The file is missing, damaged or something else.
    """
    with readable(path, "prepare"), safe_open(path, framework="pt") as file:
        prepared = json.loads((file.metadata() or {})["prepared"])
        splits = {split: (file.get_tensor(f"{split}_inputs"), file.get_tensor(f"{split}_labels")) for split in SPLITS}
        described, shape = prepared["described"], tuple(splits["train"][0].shape[1:])
        classes, scale = described["classes"], described["pixels"]
        if prepared["checksum"] != _checksum(described, (tensor for split in splits.values() for tensor in split)):
            raise ValueError("its checksum is another")
        for inputs, labels in splits.values():
            check(inputs, labels, torch.uint8 if scale else torch.float32, shape, classes)
        pixels = Pixels.of(**scale) if scale else None
    return Dataset(**{split: Split(*tensors, pixels) for split, tensors in splits.items()}, classes=classes)


def write(path: Path, dataset: Dataset) -> None:
    """Write a data set to a file that :func:`load` reads; equal data sets give equal bytes."""
    tensors: dict[str, Tensor] = {}
    for name, split in zip(SPLITS, (dataset.train, dataset.validation, dataset.test), strict=True):
        tensors |= {f"{name}_inputs": split.stored, f"{name}_labels": split.labels}
    pixels = dataset.train.pixels
    described = {"classes": dataset.classes, "pixels": None if pixels is None else pixels.content()}
    prepared = {"checksum": _checksum(described, tensors.values()), "described": described}
    write_tensors(path, tensors, {"prepared": json.dumps(prepared)})


def _checksum(described: dict[str, Any], tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
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
    if inputs.is_floating_point() and not inputs.isfinite().all():
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
    except IsADirectoryError:
        raise UserError(f"{path}: a folder stands in its place; move it away, then run `dvc repro {stage}`") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{path}: truncated, damaged or another file ({error}); rerun `dvc repro {stage}`") from None


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically; equal tensors give equal bytes, as long as ``metadata`` has one entry."""
    with replacing(path) as temporary:
        # save_file would make the file unreadable for everyone but its owner.
        temporary.write_bytes(save(tensors, metadata))
