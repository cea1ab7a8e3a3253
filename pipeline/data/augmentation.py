"""Random changes of training images, drawn anew at every step and on the images' own device."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipeline.core.rng import Stream

Augmentation = Literal["none", "crop_flip"]
PADDING = 4  # pixels on each side, as is usual for CIFAR


def augment(kind: Augmentation, inputs: Tensor, stream: Stream, place: int = 0) -> Tensor:
    """Return a training batch unchanged or changed by :func:`crop_flip`, whichever ``kind`` says.

    Args:
        kind: ``training.augment``.
        inputs: ``[R, w, B, *shape]``, normalised; images for ``crop_flip``.
        stream: Random numbers of the step, ``[R]``.
        place: Of the first of these workers among those of the step.
    """
    return crop_flip(inputs, stream, place) if kind == "crop_flip" else inputs


def crop_flip(inputs: Tensor, stream: Stream, place: int = 0) -> Tensor:
    """Return every image shifted by up to 4 pixels in each direction, and mirrored left to right with probability 1/2.

    Each image is padded with 4 zeros (the mean of the normalised pixels) on all sides and cut back to its size at a
    random position. What happens to a worker's images depends on its place among the workers, and not on the others.

    Differs from: elsewhere the padding is black, because images are padded before they are normalised.

    Reference: He et al., CVPR 2016, arXiv:1512.03385, section 4.2.

    Args:
        inputs: ``[R, w, B, C, H, W]``, normalised.
        stream: Random numbers of the step, ``[R]``.
        place: Of the first of these workers among those of the step.

    Returns:
        ``[R, w, B, C, H, W]``, a new tensor.

    Example:
        >>> images = torch.rand(2, 5, 3, 1, 28, 28)
        >>> crop_flip(images, Stream.of([0, 1], "augmentation")).shape
        torch.Size([2, 5, 3, 1, 28, 28])
    """
    replicas, workers, batch, channels, height, width = inputs.shape
    draws = stream.uniform(workers * batch * 3, place * batch * 3).view(replicas, workers, batch, 3, 1)
    down, right = (draws[..., :2, :] * (2 * PADDING + 1)).long().unbind(dim=-2)
    rows, columns = torch.arange(height, device=inputs.device), torch.arange(width, device=inputs.device)
    rows = rows + down  # [R, w, B, H]
    columns = torch.where(draws[..., 2, :] < 0.5, columns.flip(0), columns) + right  # [R, w, B, W]
    chosen = rows[..., :, None] * (width + 2 * PADDING) + columns[..., None, :]
    chosen = chosen.flatten(-2)[..., None, :].expand(-1, -1, -1, channels, -1)
    return pad(inputs, (PADDING,) * 4).flatten(-2).gather(-1, chosen).view(inputs.shape)
