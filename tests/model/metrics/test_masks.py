"""Metrics of masks against scikit-learn and plain loops."""

import math

import numpy as np
import pytest
import sklearn.metrics as sk

from swinft.model.metrics.masks import dice_of, iou_of, map_over_iou_of, pooled_dice_of


def overlap(given, wanted):
    return np.array([(given & wanted).sum(), given.sum(), wanted.sum()])


def dice(given, wanted, **options):
    return dice_of(overlap(given, wanted)[None], **options)[0]


def map_over_iou(given, wanted):
    return map_over_iou_of(overlap(given, wanted)[None])[0]


EMPTY, FULL = np.zeros((4, 4), bool), np.ones((4, 4), bool)


@pytest.mark.parametrize("draws", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_dice_and_iou_are_scikit_learns(draws):
    rng = np.random.default_rng(0)
    pairs = [[rng.random((2, *rng.integers(1, 12, 2))) < rng.random((2, 1, 1))] for _ in range(draws)]
    counts = np.stack([overlap(*pair[0]) for pair in pairs])
    for (given, wanted), found, ious in zip((pair[0] for pair in pairs), dice_of(counts), iou_of(counts), strict=True):
        either = given.any() or wanted.any()
        assert found == pytest.approx(sk.f1_score(wanted.ravel(), given.ravel()) if either else 1)
        assert ious == pytest.approx(sk.jaccard_score(wanted.ravel(), given.ravel()) if either else 1)
    every = [np.concatenate([pair[0][side].ravel() for pair in pairs]) for side in (1, 0)]
    assert pooled_dice_of(counts) == pytest.approx(sk.f1_score(*every))


def test_known_values():
    above, below = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    above[:2], below[1:3] = True, True
    assert dice(above, below) == 0.5
    assert iou_of(overlap(above, below)[None])[0] == pytest.approx(1 / 3)
    for iou, expected in ((0.5, 0), (0.55, 0.1), (0.62, 0.3), (0.85, 0.7), (1, 1)):
        counts = [[round(100 * iou), round(100 * iou), 100]]  # the prediction is a part of the truth
        assert map_over_iou_of(counts)[0] == pytest.approx(expected)


def test_empty_masks():
    assert map_over_iou(EMPTY, EMPTY) == dice(EMPTY, EMPTY) == 1
    assert map_over_iou(EMPTY, FULL) == map_over_iou(FULL, EMPTY) == dice(EMPTY, FULL) == 0
    assert math.isnan(dice(EMPTY, EMPTY, both_empty=math.nan))
    assert math.isnan(pooled_dice_of([overlap(EMPTY, EMPTY)]))
