"""Mixup and cutmix against loops."""

import numpy as np
import pytest
import torch

from swinft.errors import InputError
from swinft.model.training.mixup import MixConfig, cutmix, draw_box, mix, mixup

IMAGES = torch.randint(0, 256, (4, 3, 6, 8), dtype=torch.uint8)
TARGETS = torch.rand(4, 5)
ORDER = torch.tensor([2, 0, 3, 1])


def test_mixup_equals_a_loop_over_rows():
    images, targets = mixup(IMAGES, TARGETS, 0.3, ORDER)
    for row in range(4):
        other = int(ORDER[row])
        torch.testing.assert_close(images[row], 0.3 * IMAGES[row].float() + 0.7 * IMAGES[other].float())
        torch.testing.assert_close(targets[row], 0.3 * TARGETS[row] + 0.7 * TARGETS[other])


def test_cutmix_equals_a_loop_over_pixels():
    top, bottom, left, right = box = (1, 4, 2, 7)
    images, targets = cutmix(IMAGES, TARGETS, box, ORDER)
    pasted = 0
    for row in range(4):
        for y in range(6):
            for x in range(8):
                inside = top <= y < bottom and left <= x < right
                source = int(ORDER[row]) if inside else row
                assert torch.equal(images[row, :, y, x], IMAGES[source, :, y, x])
                pasted += inside
    share = pasted / (4 * 6 * 8)
    torch.testing.assert_close(targets, (1 - share) * TARGETS + share * TARGETS[ORDER])


def test_a_share_of_one_changes_nothing():
    images, targets = mixup(IMAGES, TARGETS, 1.0, ORDER)
    assert torch.equal(images, IMAGES.float())
    assert torch.equal(targets, TARGETS)


def test_boxes_stay_inside_and_have_about_the_right_area():
    rng = np.random.default_rng(0)
    boxes = [draw_box(64, 48, 0.75, rng) for _ in range(500)]
    assert all(0 <= t < b <= 64 and 0 <= left < r <= 48 for t, b, left, r in boxes)
    areas = [(b - t) * (r - left) / (64 * 48) for t, b, left, r in boxes]
    assert max(areas) == pytest.approx(0.25, abs=0.01)


def test_the_draw_follows_the_config():
    rng = np.random.default_rng(0)
    batches = [
        mix(IMAGES, TARGETS, MixConfig(mixup_alpha=1, cutmix_alpha=1, probability=0.5), rng)[0] for _ in range(400)
    ]
    untouched = sum(batch is IMAGES for batch in batches)
    blended = sum(batch.dtype == torch.float32 for batch in batches)
    assert 150 < untouched < 250
    assert 60 < blended < 140
    assert mix(IMAGES, TARGETS, MixConfig(), rng)[0] is IMAGES


@pytest.mark.parametrize("wrong", [{"mixup_alpha": -1}, {"cutmix_alpha": -0.1}, {"probability": 1.5}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match=r"model\.mix"):
        MixConfig(**wrong)
