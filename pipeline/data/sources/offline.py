"""Sources that need no network: the digits that come with scikit-learn, and synthetic images."""

from math import sqrt
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.core.rng import torch_stream
from pipeline.data.dataset import write_tensors
from pipeline.data.sources import SOURCES, Format, Source


@SOURCES.register
class Digits(Source):
    """1797 handwritten digits of 8 x 8 pixels with values 0 to 16, which come with scikit-learn: works offline.

    Mean and deviation are those of all 1797 images, because this source has no fixed training part.

    Reference: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (test part).
    """

    name: Literal["digits"] = "digits"
    formula: ClassVar[str] = "1797 grey images of 8 x 8 pixels in 10 classes; no download"
    reference: ClassVar[str] = "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (test part)"
    format: ClassVar[Format] = Format(
        shape=(1, 8, 8), classes=10, means=(0.3053,), deviations=(0.3760,), brightest=16, own_test=False
    )

    def download(self, folder: Path) -> None:
        """Write the images that are installed with scikit-learn; see :meth:`Source.download`."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images.astype(np.uint8)).unsqueeze(1)
        labels = torch.from_numpy(digits.target.astype(np.int64))
        write_tensors(self.raw_file(folder), {"train_images": images, "train_labels": labels})


@SOURCES.register
class Synthetic(Source):
    """Synthetic images of any shape: a smooth random picture for each class plus pixel noise; no download.

    image = (p_y + noise e) / sqrt(1 + noise^2), the classes y in turn, e standard normal; p_y is a 4 x 4 grid of
    standard normal numbers for each channel, upsampled bilinearly and scaled to unit deviation over all classes

    Pixels are 127.5 + 32 image, rounded and clipped to 0 and 255 (four deviations).

    Example:
        >>> fields = {"channels": 3, "height": 32, "width": 32, "classes": 100, "train": 50, "test": 10}
        >>> Synthetic(**fields, seed=0, noise=5.0).format.shape
        (3, 32, 32)
    """

    name: Literal["synthetic"] = "synthetic"
    channels: int = Field(ge=1)
    height: int = Field(ge=1, description="pixels")
    width: int = Field(ge=1, description="pixels")
    classes: int = Field(ge=2)
    train: int = Field(ge=1, description="training images, before the validation part is taken")
    test: int = Field(ge=1, description="test images")
    seed: int = Field(ge=0)
    noise: float = Field(ge=0, description="deviation of the pixel noise; that of the class pictures is 1")
    formula: ClassVar[str] = "a smooth random picture for each class plus pixel noise; no download"
    reference: ClassVar[str] = "this project, for benchmarks and for machines without a network"

    @property
    def format(self) -> Format:
        """Zero mean and unit deviation by construction, on the scale of the pixels."""
        shape = (self.channels, self.height, self.width)
        return Format(shape, self.classes, means=(0.5,) * self.channels, deviations=(32 / 255,) * self.channels)

    def download(self, folder: Path) -> None:
        """Draw the images and write them; see :meth:`Source.download`."""
        pictures = self._pictures()
        tensors: dict[str, Tensor] = {}
        for split, size in (("train", self.train), ("test", self.test)):
            labels = torch.arange(size) % self.classes
            stream = torch_stream(self.seed, f"synthetic {split}")
            parts = [self._pixels(pictures[some], stream) for some in torch.split(labels, 1000)]
            tensors |= {f"{split}_images": torch.cat(parts), f"{split}_labels": labels}
        write_tensors(self.raw_file(folder), tensors)

    def _pictures(self) -> Tensor:
        """Return the picture of every class, ``[classes, C, H, W]``."""
        stream = torch_stream(self.seed, "synthetic pictures")
        coarse = torch.randn(self.classes, self.channels, 4, 4, generator=stream)
        smooth: Tensor = interpolate(coarse, size=(self.height, self.width), mode="bilinear", align_corners=True)
        return (smooth - smooth.mean()) / smooth.std()

    def _pixels(self, pictures: Tensor, stream: torch.Generator) -> Tensor:
        """Return ``pictures [N, C, H, W]`` with noise, as uint8."""
        noisy = pictures + self.noise * torch.randn(pictures.shape, generator=stream)
        pixels = 127.5 + 32 * noisy / sqrt(1 + self.noise**2)
        return pixels.round().clamp(0, 255).to(torch.uint8)
