"""What timm's modules do with tokens, against loops over rows and columns."""

import numpy as np
import pytest
import timm
import torch

from swinft.architecture.axis import PADDING
from swinft.architecture.layout import bias_of, bias_tables, layout_of, merged_by

SMALL = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "num_classes": 0}


def made(name, side, window):
    arguments = {**SMALL, "img_size": side, "window_size": window}
    torch.manual_seed(0)
    return timm.create_model(name, **arguments)


def expected(side, window, shift):
    """Window, and region under the shift, of every token, and the places of padding, by loops."""
    padded = -(-side // window) * window
    cells = {}
    for row in range(padded):
        for column in range(padded):
            is_real = row < side and column < side
            token = (row + shift) % side * side + (column + shift) % side if is_real else PADDING
            region = tuple(0 if place < padded - window else 1 + (place >= padded - shift) for place in (row, column))
            number = row // window * (padded // window) + column // window
            cells[number, row % window * window + column % window] = token, region if shift else None
    return cells


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_224"])
@pytest.mark.parametrize(("side", "window"), [(8, 4), (9, 4)])
def test_windows_and_mask_are_those_of_a_loop(name, side, window):
    model = made(name, 4 * side, window)
    stage = model.get_submodule(model.feature_info[0]["module"])
    for block, shift in zip(stage.blocks, (0, window // 2), strict=True):
        found = layout_of(block, (side, side), 8)
        cells = expected(side, window, shift)
        for (number, place), (token, region) in cells.items():
            assert found.tokens[number, place] == token
            for other in range(window**2):
                assert found.allowed[number, place, other] == (region == cells[number, other][1])
        seen = {token for token, _ in cells.values()} - {PADDING}
        assert all(token in found.keys_of(token) for token in seen)
        assert len(seen) == side**2


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_224"])
def test_merging_joins_two_by_two_neighbours(name):
    model = made(name, 32, 4)
    last = model.get_submodule(model.feature_info[1]["module"])
    sources = merged_by(last.downsample, (8, 8), 8)
    for row in range(4):
        for column in range(4):
            corner = 2 * row * 8 + 2 * column
            assert sources[row, column].tolist() == [corner, corner + 8, corner + 1, corner + 9]


def test_biases_are_those_of_the_table_and_of_the_network():
    attention = made("swin_tiny_patch4_window7_224", 32, 4).layers[1].blocks[0].attn
    with torch.no_grad():
        attention.qkv.bias.normal_()  # of queries and keys: it must not show
    tables = bias_tables(attention)
    assert tables.shape == (2, 7, 7)
    for first in range(16):
        for second in range(16):
            rows, columns = first // 4 - second // 4 + 3, first % 4 - second % 4 + 3
            value = attention.relative_position_bias_table[rows * 7 + columns].detach().numpy()
            assert np.allclose(bias_of(attention)[:, first, second], value)
            assert np.allclose(tables[:, rows, columns], value)
    continuous = made("swinv2_tiny_window8_256", 32, 4).layers[0].blocks[0].attn
    with torch.no_grad():
        network = continuous.cpb_mlp(continuous.relative_coords_table)
    assert np.allclose(bias_tables(continuous), (16 * network.sigmoid())[0].permute(2, 0, 1).numpy(), atol=1e-6)
