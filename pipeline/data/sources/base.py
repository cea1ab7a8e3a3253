"""The contract of a source of images."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.core.component import Component


@dataclass(frozen=True)
class Format:
    """What the images of a source look like.

    Attributes:
        shape: (channels C, height, width).
        classes: Labels run from 0 to ``classes`` - 1.
        means: A number a channel, of the training pixels after division by ``brightest``; a constant of the source, so
            that a split cannot change it.
        deviations: Likewise.
        brightest: Pixels are integers from 0 to this.
        own_test: Whether the source has a test part of its own.
    """

    shape: tuple[int, int, int]
    classes: int
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    brightest: int = 255
    own_test: bool = True


class Source(Component):
    """A set of labelled images: a name, and how to get it."""

    @property
    @abstractmethod
    def format(self) -> Format:
        """What the images look like."""

    @abstractmethod
    def download(self, folder: Path) -> None:
        """Write ``folder/<name>.safetensors``: ``<split>_images`` uint8 [N, C, H, W] and ``<split>_labels`` int64 [N].

        The splits are train and, where the source has its own, test.

        Raises:
            UserError: The files cannot be had; nothing incomplete is left under a final name.
        """

    def raw_file(self, folder: Path) -> Path:
        """Return the path that ``download`` writes."""
        return folder / f"{self.name}.safetensors"

    def normalise(self, images: Tensor) -> Tensor:
        """Return pixels [N, C, H, W] as float32 with about zero mean and unit deviation in each channel."""
        mean = torch.tensor(self.format.means).view(-1, 1, 1)
        deviation = torch.tensor(self.format.deviations).view(-1, 1, 1)
        return (images.float() / self.format.brightest - mean) / deviation
