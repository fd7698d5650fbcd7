"""Windows along one side, against a loop over positions and against the mask of timm's own block."""

import numpy as np
import pytest
from timm.models.swin_transformer import SwinTransformerBlock

from swinft.architecture.axis import PADDING, Axis

SIDES = [(8, 4, 0), (8, 4, 2), (9, 4, 2), (7, 7, 0), (14, 7, 3), (10, 7, 3), (5, 3, 1), (6, 5, 2)]


@pytest.mark.parametrize(("length", "window", "shift"), SIDES)
def test_positions_and_reach_are_those_of_a_loop(length, window, shift):
    axis = Axis(length, window, shift)
    padded = -(-length // window) * window
    places, regions = [], []
    for place in range(padded):
        places.append((place + shift) % length if place < length else PADDING)
        last = place >= padded - window
        regions.append((2 if place >= padded - shift else 1) if shift and last else 0)
    assert axis.positions.ravel().tolist() == places
    for position in range(length):
        own = places.index(position)
        near = {
            places[other]
            for other in range(padded)
            if other // window == own // window and regions[other] == regions[own] and places[other] != PADDING
        }
        assert axis.reached([position]) == near
    far = [(a, b) for a in range(length) for b in axis.reached([a]) if abs(a - b) >= window]
    assert axis.wrapped == len(far)
    assert not far or (shift and length % window)


def test_padding_after_the_shift_joins_opposite_edges():
    assert Axis(64, 7, 3).reached([63]) == {0, 1, 59, 60, 61, 62, 63}
    assert Axis(64, 7, 3).wrapped
    assert Axis(56, 7, 3).reached([55]) == {52, 53, 54, 55}
    assert not Axis(56, 7, 3).wrapped


def test_the_regions_are_those_of_the_mask_of_timms_block():
    block = SwinTransformerBlock(8, (10, 12), num_heads=2, window_size=(4, 6), shift_size=(2, 3))
    rows, columns = Axis(10, 4, 2), Axis(12, 6, 3)
    expected = [np.kron(a, b) for a in rows.allowed for b in columns.allowed]
    assert np.array_equal(block.attn_mask.numpy() == 0, np.array(expected, dtype=bool))
