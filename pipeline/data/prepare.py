"""From raw data to one checked file with train, validation and test tensors; the section ``data`` of params.yaml."""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors import safe_open
from torch import Tensor

from pipeline.core.component import Schema
from pipeline.core.errors import UserError
from pipeline.core.rng import torch_stream
from pipeline.data.arrays import Parts
from pipeline.data.dataset import Dataset, Split, check, readable, write
from pipeline.data.format import Format
from pipeline.data.sources import SOURCES, Source


class Cut(Schema):
    """How the splits are cut from what a source holds."""

    validation_fraction: Annotated[float, Field(gt=0, le=0.5, description="of the training samples")]
    test_fraction: Annotated[float, Field(gt=0, le=0.5, description="of all samples, for a source without a test part")]
    split_seed: Annotated[int, Field(ge=0)]

    def dataset(self, parts: Parts, format: Format) -> Dataset:
        """Return the splits of ``parts``: pixels as they are, other inputs normalised.

        One permutation of the training samples, drawn from ``split_seed``, is cut into test (only for a source without
        a test part), validation and train.

        Raises:
            UserError: A fraction is so small that its split would be empty.
        """
        inputs, labels = parts["train"]
        order = torch.randperm(len(labels), generator=torch_stream(self.split_seed, "split"))
        chosen = {}
        if not format.own_test:
            chosen["test"], order = _first(order, self.test_fraction, "test_fraction")
        chosen["validation"], chosen["train"] = _first(order, self.validation_fraction, "validation_fraction")
        cut = {**parts, **{split: (inputs[samples], labels[samples]) for split, samples in chosen.items()}}
        pixels = format.pixels
        splits = {
            split: Split(format.normalise(inputs) if pixels is None else inputs, labels, pixels)
            for split, (inputs, labels) in cut.items()
        }
        return Dataset(**splits, classes=format.classes)


class Data(Cut):
    """The section ``data`` of params.yaml."""

    source: Annotated[Source, SOURCES]


def prepare(data: Data, raw: Path, target: Path) -> None:
    """Split the raw file of ``data.source`` in the folder ``raw``, and write the result to ``target``.

    Equal arguments give equal bytes.

    Raises:
        UserError: The raw file is missing or damaged, or a fraction is so small that its split would be empty.
    """
    with readable(data.source.raw_file(raw), "download") as path:
        format = data.source.format_of(path)
        parts = {part: _read_raw(format, path, part) for part in format.parts}
    write(target, data.dataset(parts, format))


def _first(order: Tensor, fraction: float, parameter: str) -> tuple[Tensor, Tensor]:
    count = round(fraction * len(order))
    if count == 0:
        raise UserError(
            f"data.{parameter} = {fraction}: selects none of {len(order)} samples; choose a larger fraction"
        )
    return order[:count], order[count:]


def _read_raw(format: Format, path: Path, part: str) -> tuple[Tensor, Tensor]:
    with safe_open(path, framework="pt") as file:
        inputs, labels = file.get_tensor(f"{part}_images"), file.get_tensor(f"{part}_labels")
    check(inputs, labels, inputs.dtype if format.brightest is None else torch.uint8, format.shape, format.classes)
    if format.brightest is not None and inputs.max() > format.brightest:
        raise ValueError(f"a pixel is {int(inputs.max())}, above {format.brightest}")
    return inputs, labels
