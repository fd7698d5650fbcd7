"""Tiles: where they are, random ones for training, and the whole images that are predicted in tiles."""

from itertools import pairwise

import numpy as np
import pytest

from swinft.data.masks.tiles import TileConfig, filled, starts
from swinft.errors import InputError
from tests.data.masks.salt import disc


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.75])
def test_tiles_cover_an_image_with_at_least_the_overlap(overlap):
    for length in (1, 31, 32, 33, 64, 65, 101, 500):
        found = starts(length, 32, overlap)
        covered = np.zeros(max(length, 32), int)
        for start in found:
            covered[start : start + 32] += 1
        assert covered.min() >= 1
        assert len(covered) == max(length, 32)
        assert all(b - a <= 32 * (1 - overlap) for a, b in pairwise(found))
        assert found == sorted(set(found))
    assert starts(64, 32, 0) == [0, 32]


def test_random_tiles_are_cut_at_the_scale_of_the_file_and_hold_mask_as_often_as_asked():
    planes = disc(3, (120, 150))[..., None].astype(np.uint8)
    y, x = np.mgrid[:120, :150]
    image = np.stack([y, x, 200 * planes[..., 0]], axis=2).astype(np.uint8)
    holds = {}
    for masked in (0, 1):
        config, holds[masked] = TileConfig(masked=masked), 0
        for row in range(40):
            tile, own = config.random(image, planes, (24, 32), (0, 1, row))
            top, left = tile[0, 0, :2].tolist()
            np.testing.assert_array_equal(tile, image[top : top + 24, left : left + 32])
            np.testing.assert_array_equal(own[..., 0] * 200, tile[..., 2])
            holds[masked] += bool(own.any())
            np.testing.assert_array_equal(config.random(image, planes, (24, 32), (0, 1, row))[0], tile)
    assert holds[1] == 40 > 2 * holds[0]
    half, own = TileConfig(scale=0.5, masked=1).random(image, planes, (24, 32), (0, 0, 0))
    assert (half.shape, own.shape) == ((24, 32, 3), (24, 32, 1))
    assert 44 <= int(half[-1, 0, 0]) - int(half[0, 0, 0]) <= 47  # rows of the file


def test_every_place_of_a_tile_with_mask_can_be_drawn_and_small_images_are_mirrored():
    planes = np.zeros((9, 11, 2), np.uint8)
    planes[8, 10, 1] = 1  # in the corner
    image = np.zeros((9, 11, 3), np.uint8)
    for row in range(30):
        assert TileConfig(masked=1).random(image, planes, (4, 4), (0, 0, row))[1].any()
    row = np.arange(5, dtype=np.uint8)[None, :, None].repeat(3, 2)
    found, mask = filled(row, row[..., :1] % 2, (3, 8))
    assert found[2, :, 0].tolist() == [0, 1, 2, 3, 4, 4, 3, 2]
    assert mask[1, :, 0].tolist() == [0, 1, 0, 1, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"overlap": 0.8}, "from 0 to 0.75"),
        ({"overlap": -0.1}, "from 0 to 0.75"),
        ({"scale": 0}, "above 0"),
        ({"masked": 1.5}, "from 0 to 1"),
        ({"per_image": 0}, "whole number from 1"),
    ],
)
def test_numbers_out_of_their_ranges_are_named(arguments, said):
    with pytest.raises(InputError, match=said):
        TileConfig(**arguments)
