"""Blended tiles of a network that computes a known function of the pixels are that function of the whole image."""

import numpy as np
import pytest
import torch

from swinft.data.masks.tiles import filled, starts
from swinft.model.tiles import Tiling, bands, shares

TILE = (16, 24)


def tiling_of(shape, overlap, per_pass=3):
    tops, lefts = (starts(length, side, overlap) for length, side in zip(shape, TILE, strict=True))
    return Tiling(TILE, per_pass, shape, tops, lefts)


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5])
@pytest.mark.parametrize("shape", [(16, 24), (1, 60), (7, 5), (33, 47), (64, 96), (50, 24)])
def test_tiles_are_the_whole(shape, overlap):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    whole = torch.from_numpy(filled(image, None, TILE)[0]).permute(2, 0, 1)
    sizes = []

    def predict(tiles, places):
        sizes.append(len(tiles))
        for tile, (top, left) in zip(tiles, places, strict=True):
            assert torch.equal(tile, whole[:, top : top + TILE[0], left : left + TILE[1]])
        return tiles[:, :2].float() / 255

    found = torch.cat(list(bands(predict, whole, tiling_of(shape, overlap))), dim=1)
    torch.testing.assert_close(
        found.permute(1, 2, 0).numpy(), image[..., :2].astype(np.float32) / 255, atol=1e-6, rtol=0
    )
    assert max(sizes) <= 3


def test_weights_sum_to_one_and_fall_towards_the_border_of_a_tile():
    for length in (24, 25, 47, 100):
        for overlap in (0, 0.3, 0.5, 0.75):
            found, total = starts(length, 24, overlap), np.zeros(length)
            for start, each in zip(found, shares(found, 24), strict=True):
                total[start : start + 24] += each
            np.testing.assert_allclose(total, 1, atol=1e-6)
    inner = shares(starts(100, 24, 0.5), 24)[2]
    assert inner[12] > 0.9 > 0.1 > inner[0] > 0
    assert (np.diff(inner[:12]) > 0).all()


def test_only_the_rows_that_tiles_still_add_to_are_held():
    shape, most = (400, 60), 0
    whole = torch.zeros(3, *shape, dtype=torch.uint8)
    for band in bands(lambda tiles, _: tiles[:, :1].float(), whole, tiling_of(shape, 0.5, per_pass=4)):
        most = max(most, band.untyped_storage().nbytes())
    assert most <= 4 * 60 * 3 * TILE[0]


def test_a_network_that_sees_its_border_is_smooth_across_tiles():
    """Each tile is wrong by another constant: blending leaves no step."""
    whole = torch.zeros(3, 80, 24, dtype=torch.uint8)

    def predict(tiles, places):
        return torch.stack([torch.full((1, *TILE), float(top % 3)) for top, _ in places])

    stripes = torch.cat(list(bands(predict, whole, tiling_of((80, 24), 0.5))), dim=1)[0, :, 0]
    assert stripes.diff().abs().max() < 0.25 * 2  # of a step of 2
    assert stripes.diff().abs().max() > 0
