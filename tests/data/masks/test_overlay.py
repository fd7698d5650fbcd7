"""Masks drawn over images, in `show_batch` and in the report."""

import numpy as np

from swinft.data.masks.overlay import COLORS, filled_masks, outlined
from tests.data.masks.salt import disc
from tests.data.masks.test_masks import ready, salt  # noqa: F401, a fixture


def test_an_outline_has_the_colour_of_its_class_and_lies_on_the_border_of_the_mask():
    image, planes = np.full((60, 80, 3), 100, np.uint8), np.zeros((60, 80, 2), np.uint8)
    planes[..., 0], planes[:30, 50:, 1] = disc(3, (60, 80)), 1
    found = outlined(image, planes)
    for k in range(2):
        edge = (found == COLORS[k]).all(2)
        assert edge.any()
        assert (planes[edge][:, k] == 1).all()
    assert not (found[:28, 54:] != 100).any()  # the image's border is none of the mask
    dashed = outlined(image, planes, is_dashed=True)
    is_changed = (dashed != 100).any(2)
    np.testing.assert_array_equal(is_changed, (found != 100).any(2))
    share = (dashed[is_changed] == 255).all(1).mean()
    assert 0.3 < share < 0.7
    inside = filled_masks(image, planes)[10, 65]
    np.testing.assert_allclose(inside, 0.65 * 100 + 0.35 * np.array(COLORS[1]), atol=1)
    np.testing.assert_array_equal(filled_masks(image, planes)[50, 5], [100] * 3)


def test_show_batch_draws_the_masks_of_training_and_held_out_rows(salt):  # noqa: F811
    data = ready(salt)
    for split in ("train", "val"):
        axes = [each for each in data.show_batch(split, 4).axes if each.images]
        assert len(axes) == 4
        for each in axes:
            percent = float(each.get_title().split()[1])
            pixels = np.asarray(each.images[0].get_array()).astype(int)
            assert (np.ptp(pixels, axis=2) > 40).mean() > 0.002 or percent == 0
    assert data.show_batch("val", 1).axes[0].get_title().startswith("rle_mask")
