"""Views of an image."""

import pytest
import torch

from swinft.errors import InputError
from swinft.inference.tta import VIEWS, check_views, predict_views

IMAGES = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)


def test_one_view_equals_no_tta():
    def predict(images):
        return images.float().flatten(1)[:, :5]

    assert torch.equal(predict_views(predict, IMAGES, ["identity"]), predict(IMAGES))


def test_the_mean_is_taken_after_decoding():
    def probability(images):
        return torch.sigmoid(images.float()[:, :1, 0, 0] / 50 - 3)

    merged = predict_views(probability, IMAGES, ["identity", "hflip"])
    corners = torch.stack([IMAGES[:, :1, 0, 0], IMAGES[:, :1, 0, -1]]).float()
    torch.testing.assert_close(merged, torch.sigmoid(corners / 50 - 3).mean(0))


@pytest.mark.parametrize(
    ("view", "pixel"),
    [
        ("identity", (0, 1)),
        ("hflip", (0, 6)),
        ("vflip", (7, 1)),
        ("rot180", (7, 6)),
        ("transpose", (1, 0)),
        ("rot90", (1, 7)),
        ("rot270", (6, 0)),
    ],
)
def test_each_view_puts_the_right_pixel_first_row_second_column(view, pixel):
    assert torch.equal(VIEWS[view].apply(IMAGES)[..., 0, 1], IMAGES[..., pixel[0], pixel[1]])


def test_views_are_distinct_and_keep_the_shape():
    seen = [VIEWS[view].apply(IMAGES).float() for view in VIEWS]
    assert all(view.shape == IMAGES.shape for view in seen)
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_the_zoom_keeps_the_centre():
    ramp = torch.arange(64.0).reshape(1, 1, 8, 8).expand(1, 3, 8, 8)
    zoomed = VIEWS["scale"].apply(ramp)
    assert zoomed.mean().item() == pytest.approx(ramp.mean().item(), abs=1e-3)
    assert zoomed[0, 0, 0, 0] > ramp[0, 0, 0, 0]
    assert zoomed[0, 0, -1, -1] < ramp[0, 0, -1, -1]


@pytest.mark.parametrize("views", [[], ["hflip", "hflip"]])
def test_no_view_and_a_doubled_view_are_refused(views):
    with pytest.raises(InputError, match="at least one view, each once"):
        check_views(views, (8, 8))


def test_a_view_that_swaps_sides_needs_a_square():
    with pytest.raises(InputError, match=r"\['rot90'\] swap height and width"):
        check_views(["identity", "rot90"], (8, 16))
    check_views(["identity", "rot90"], (8, 8))
