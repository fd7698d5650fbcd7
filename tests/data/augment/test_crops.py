"""Crops are drawn where they should be, and are the part that was drawn, resized without a loss of precision."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from swinft.data.augment.crops import RATIO, _box, _uniform_numbers, random_crop

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 85, 3), dtype=np.uint8)


def crop(row, epoch=0, seed=0, image=IMAGE, size=(32, 48), **options):
    return random_crop(image, np.empty((*size, 3), np.uint8), seed, epoch, row, **options)


def bilinear(part, size):
    """In float64 by torch, not rounded."""
    planes = torch.from_numpy(part.copy()).permute(2, 0, 1)[None].double()
    return functional.interpolate(planes, size, mode="bilinear")[0].permute(1, 2, 0).numpy()


def test_it_is_the_resized_part_and_flips():
    has_library = "Intel IPP:                   2" in cv2.getBuildInformation()
    for row in range(20):
        top, left, height, width = _box(64, 85, (32, 48), (0.08, 0.5), "crop", tuple(_uniform_numbers(0, 0, row)[:4]))
        part = IMAGE[top : top + height, left : left + width]
        for flip, expected in ((0.0, part), (1.0, part[:, ::-1])):
            difference = np.abs(crop(row, flip=flip, scale=(0.08, 0.5)) - bilinear(expected, (32, 48))).max()
            assert difference < (0.52 if has_library else 0.8)


def test_it_leaves_opencv_as_it_was():
    cv2.ipp.setUseIPP_NotExact(False)
    before = cv2.resize(IMAGE, (48, 32))
    crop(0)
    assert np.array_equal(cv2.resize(IMAGE, (48, 32)), before)


def test_it_depends_on_seed_epoch_and_row_alone():
    results = [crop(1), crop(2), crop(1, epoch=1), crop(1, seed=1)]
    assert len({result.tobytes() for result in results}) == 4
    assert np.array_equal(crop(1), results[0])
    assert len({tuple(_uniform_numbers(*three)) for three in [(1, 11, 1), (11, 1, 1), (1, 1, 11), (1, 1, 1)]}) == 4


def test_it_writes_into_the_row_of_a_batch_and_reads_read_only_views():
    batch, view = np.zeros((2, 32, 48, 3), np.uint8), IMAGE.copy()
    view.flags.writeable = False
    for flip in (0.0, 1.0):
        batch[:] = 0
        assert random_crop(view, batch[1], 0, 0, 5, flip=flip) is not None
        assert np.array_equal(batch[1], crop(5, flip=flip))
        assert not batch[0].any()


@pytest.mark.parametrize("shape", [(256, 341), (341, 256), (100, 400), (1, 1), (1, 300)])
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_boxes_lie_inside_and_keep_their_proportions(shape, resize):
    for row in range(500):
        top, left, height, width = _box(*shape, (32, 48), (0.08, 1.0), resize, tuple(_uniform_numbers(0, 0, row)[:4]))
        assert min(top, left) >= 0
        assert height >= 1 <= width
        assert top + height <= shape[0]
        assert left + width <= shape[1]
        aspect = 1.5 if resize == "crop" else shape[1] / shape[0]
        if min(height, width) > 1:
            relative = width / height / aspect
            assert max(relative, 1 / relative) <= RATIO * (1 + 2 / min(height, width))


def test_area_place_and_flip_are_spread_as_asked():
    draws = np.array([_uniform_numbers(7, epoch, row) for epoch in range(20) for row in range(200)])
    assert abs(draws.mean(axis=0) - 0.5).max() < 0.02
    assert abs(draws.std(axis=0) - 12**-0.5).max() < 0.01
    assert abs(np.corrcoef(draws.T) - np.eye(5)).max() < 0.06
    boxes = np.array([_box(1000, 1000, (9, 9), (0.1, 0.5), "crop", tuple(row[:4])) for row in draws])
    areas = boxes[:, 2] * boxes[:, 3] / 1e6
    assert 0.099 < areas.min() < 0.11
    assert 0.49 < areas.max() < 0.501
    for start, length in ((0, 2), (1, 3)):
        assert boxes[:, start].min() == 0
        assert (boxes[:, start] + boxes[:, length]).max() > 990
