"""Masks of maps: decided, counted and written alike."""

import numpy as np
import pytest
import torch

from swinft.data.masks.masks import Masks
from swinft.data.masks.rle import decode, encode, parse
from swinft.errors import InputError
from swinft.inference.maps import Maps, levels_of
from swinft.inference.tta import VIEWS, View, check_views, predict_views
from swinft.run.mask_counts import MaskDecision, count_pixels
from swinft.run.submission.run_lengths import RunLengths

RNG = np.random.default_rng(0)
SIZES = np.array([[6, 8], [12, 16], [5, 9]])
MAPS = Maps(RNG.integers(0, 256, (3, 2, 6, 8)).astype(np.uint8), SIZES)
TRUE = [RNG.random((*size, 2)) < 0.5 for size in SIZES.tolist()]
MASKS = Masks([[encode(planes[..., k]) for k in range(2)] for planes in TRUE], SIZES.astype(np.int32), "columns", 2)
DECISION = MaskDecision([0.3, 0.7], [0, 30])


def test_counts_of_a_decision_are_those_of_its_masks():
    counts = count_pixels(MAPS, MASKS, [0, 1, 2], "squash")
    found = counts.decided(DECISION)
    is_empty = []
    for row in range(3):
        for k in range(2):
            mask, true = DECISION.mask(MAPS.full(row, k, "squash"), k), TRUE[row][..., k]
            assert mask.shape == true.shape
            assert found[row, k].tolist() == [(mask & true).sum(), mask.sum()]
            assert counts.true[row, k] == true.sum()
            is_empty.append(not mask.any())
    assert 0 < sum(is_empty) < 6  # the smallest area acts
    assert DECISION.mask(np.array([[76, 77]], np.uint8), 0).tolist() == [[False, True]]


def test_a_map_of_an_image_of_another_size_is_refused():
    other = Masks(MASKS.runs, np.array([[6, 8], [16, 12], [5, 9]], np.int32), "columns", 2)
    with pytest.raises(InputError, match="another size"):
        count_pixels(MAPS, other, [0, 1, 2], "squash")


@pytest.mark.parametrize("order", ["columns", "rows"])
def test_cells_are_the_masks_in_the_order_of_the_competition(order):
    cells = RunLengths(["a", "b"], {"B": 1, "A": 0}, order, "squash", DECISION).cells(MAPS)
    for column, k in {"A": 0, "B": 1}.items():
        for row, cell in enumerate(cells[column]):
            mask = DECISION.mask(MAPS.full(row, k, "squash"), k)
            np.testing.assert_array_equal(decode(parse(cell), mask.shape, order), mask)
    assert "" in cells["B"]


@pytest.mark.parametrize("name", [name for name in VIEWS if name != "scale"])
def test_views_bring_maps_back_to_where_the_images_were(name):
    images = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    found = predict_views(lambda each: each[:, :2] / 255, images, [name])
    torch.testing.assert_close(found, images[:, :2] / 255)
    assert levels_of(found).tolist() == images[:, :2].to(torch.uint8).tolist()


def test_views_that_lose_pixels_or_say_nothing_of_maps_are_refused():
    class Brighter(View):
        def apply(self, images):
            return (images.float() + 1).clamp(0, 255)

    for view in ("scale", Brighter()):
        check_views(["identity", view], (8, 8))
        with pytest.raises(InputError, match="cannot bring masks back"):
            check_views(["identity", view], (8, 8), are_maps=True)


@pytest.mark.parametrize("rows", [[0, 1, 2], [1, 2], [2], [2, 1], [0, 2], []])
def test_consecutive_rows_of_maps_are_taken_without_a_copy(rows):
    found = MAPS.take(rows)
    np.testing.assert_array_equal(found.levels, MAPS.levels[np.array(rows, int)])
    assert found.sizes.tolist() == SIZES[np.array(rows, int)].tolist()
    assert np.shares_memory(found.levels, MAPS.levels) == (rows in ([0, 1, 2], [1, 2], [2]))
