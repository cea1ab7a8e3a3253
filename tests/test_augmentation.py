"""Random crops and flips of training batches."""

from typing import get_args

import pytest
import torch
from torch.nn.functional import pad

from pipeline.core.rng import Stream
from pipeline.data.augmentation import PADDING, Augmentation, augment, crop_flip


def images(replicas=3, workers=4, batch=5, shape=(3, 8, 6), dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(replicas, workers, batch, *shape, generator=generator).to(dtype) + 1  # no pixel is zero


def stream(seeds=(0, 1, 2), step=0):
    return Stream.of(seeds, "augmentation").fork(step)


def variants(image):
    """Every result that one image can have: 81 positions, mirrored or not."""
    _, height, width = image.shape
    padded = pad(image, (PADDING,) * 4)
    cuts = [padded[:, y : y + height, x : x + width] for y in range(9) for x in range(9)]
    return cuts + [cut.flip(-1) for cut in cuts]


def place(image, candidates):
    """The number of the variant that ``image`` equals."""
    (found,) = [number for number, candidate in enumerate(candidates) if torch.equal(image, candidate)]
    return found


def test_every_image_is_one_of_its_own_variants():
    before, after = images(), crop_flip(images(), stream())
    assert after.shape == before.shape
    for old, new in zip(before.flatten(0, 2), after.flatten(0, 2), strict=True):
        place(new, variants(old))


def test_positions_and_flips_are_uniform():
    image = images(1, 1, 1)
    many = crop_flip(image.expand(1, 10, 2000, -1, -1, -1), stream((0,))).flatten(0, 2)
    candidates = torch.stack(variants(image[0, 0, 0]))
    counts = (many[:, None] == candidates).all(dim=(2, 3, 4)).sum(dim=0).double()
    expected = len(many) / 162
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert statistic < 242  # chi-squared, 161 degrees of freedom; false alarm: 4e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_replica_does_not_depend_on_its_batch_mates(dtype):
    together = crop_flip(images(dtype=dtype), stream())
    for r in range(3):
        alone = crop_flip(images(dtype=dtype)[r : r + 1], stream((r,)))
        assert alone.dtype == dtype
        assert torch.equal(alone[0], together[r])


def test_honest_workers_do_not_depend_on_the_workers_after_them():
    assert torch.equal(crop_flip(images()[:, :2], stream()), crop_flip(images(), stream())[:, :2])


def test_replicas_steps_workers_and_samples_draw_different_numbers():
    same = images(1, 1, 1).expand(2, 3, 4, -1, -1, -1)
    candidates = variants(same[0, 0, 0])
    found = [place(image, candidates) for image in crop_flip(same, stream((0, 1))).flatten(0, 2)]
    again = [place(image, candidates) for image in crop_flip(same, stream((0, 1), step=1)).flatten(0, 2)]
    assert len(set(found)) > 18  # 24 of 162 places; fewer than 19 different ones: 1e-3 for a random seed
    assert sum(a == b for a, b in zip(found, again, strict=True)) < 3


def test_equal_streams_give_equal_images():
    assert torch.equal(crop_flip(images(), stream()), crop_flip(images(), stream()))


def test_the_input_is_left_alone(global_generators_untouched):
    before = images()
    kept = before.clone()
    crop_flip(before, stream()).fill_(0.0)
    assert torch.equal(before, kept)


def test_channels_of_an_image_move_together():
    grey = images(shape=(1, 8, 6)).expand(-1, -1, -1, 3, -1, -1)
    after = crop_flip(grey, stream())
    assert torch.equal(after[..., 0, :, :], after[..., 1, :, :])
    assert torch.equal(after[..., 0, :, :], after[..., 2, :, :])


def test_the_kinds():
    assert get_args(Augmentation) == ("none", "crop_flip")
    assert augment("none", before := images(), stream()) is before
    assert torch.equal(augment("crop_flip", before, stream()), crop_flip(before, stream()))
