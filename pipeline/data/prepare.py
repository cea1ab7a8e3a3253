"""From raw images to one checked file with train, validation and test tensors; the section ``data`` of params.yaml."""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors import safe_open
from torch import Tensor

from pipeline.core.component import Schema
from pipeline.core.errors import UserError
from pipeline.core.rng import torch_stream
from pipeline.data.dataset import check, readable, write_tensors
from pipeline.data.sources import SOURCES, Source


class Data(Schema):
    """The section ``data`` of params.yaml."""

    source: Annotated[Source, SOURCES]
    validation_fraction: Annotated[float, Field(gt=0, le=0.5, description="of the training images")]
    test_fraction: Annotated[float, Field(gt=0, le=0.5, description="of all images, for a source without a test part")]
    split_seed: Annotated[int, Field(ge=0)]


def prepare(data: Data, raw: Path, target: Path) -> None:
    """Split and normalise the raw file of ``data.source`` in the folder ``raw``, and write the result to ``target``.

    One permutation of the training images, drawn from ``split_seed``, is cut into test (only for a source without
    its own), validation and train. Equal arguments give equal bytes.

    Raises:
        UserError: The raw file is missing or damaged, or a fraction is so small that its split is empty.
    """
    with readable(data.source.raw_file(raw), "download") as path:
        images, labels = _read_raw(data.source, path, "train")
        test = _read_raw(data.source, path, "test") if data.source.format.own_test else None
    indices = _cut(data, len(labels))
    pixels = {split: (images[chosen], labels[chosen]) for split, chosen in indices.items()}
    if test is not None:
        pixels["test"] = test
    tensors = {}
    for split, (split_images, split_labels) in pixels.items():
        tensors[f"{split}_inputs"] = data.source.normalise(split_images)
        tensors[f"{split}_labels"] = split_labels
    write_tensors(target, tensors, {"classes": str(data.source.format.classes)})


def _cut(data: Data, size: int) -> dict[str, Tensor]:
    """Return the indices [N'] of each split that is cut from ``size`` training images."""
    order = torch.randperm(size, generator=torch_stream(data.split_seed, "split"))
    indices = {}
    if not data.source.format.own_test:
        indices["test"], order = _first(order, data.test_fraction, "test_fraction")
    indices["validation"], indices["train"] = _first(order, data.validation_fraction, "validation_fraction")
    return indices


def _first(order: Tensor, fraction: float, parameter: str) -> tuple[Tensor, Tensor]:
    count = round(fraction * len(order))
    if count == 0:
        raise UserError(f"data.{parameter} = {fraction}: selects none of {len(order)} images; choose a larger fraction")
    return order[:count], order[count:]


def _read_raw(source: Source, path: Path, split: str) -> tuple[Tensor, Tensor]:
    with safe_open(path, framework="pt") as file:
        images, labels = file.get_tensor(f"{split}_images"), file.get_tensor(f"{split}_labels")
    check(images, labels, torch.uint8, source.format.shape, source.format.classes)
    if images.max() > source.format.brightest:
        raise ValueError(f"a pixel is {int(images.max())}, above {source.format.brightest}")
    return images, labels
