"""Pipelines: what they end in, what they draw, and what is refused."""

import albumentations as A
import numpy as np
import pytest
from jsonargparse import ArgumentParser

from swinft.data.augment.pipelines import apply, eval_pipeline, train_pipeline
from swinft.data.datamodule import CSVDataModule
from swinft.errors import InputError

NOISE = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "preset", ["none", "light", "medium", "heavy", "crop", "randaugment", "trivialaugment", "augmix"]
)
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("shape", [(50, 90), (90, 50), (9, 7), (40, 64)])
def test_presets_end_at_the_image_size(preset, resize, shape):
    image = np.resize(NOISE, (*shape, 3))
    pipeline = train_pipeline(preset, (40, 64), resize)
    for row in range(4):
        result = apply(pipeline, image, 0, 0, row)
        assert (result.shape, result.dtype) == ((40, 64, 3), np.uint8)


def test_resize_rules_keep_what_they_say():
    image = np.zeros((20, 60, 3), dtype=np.uint8)
    image[:, :20], image[:, 20:40], image[:, 40:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    squash, crop, pad = (apply(eval_pipeline((30, 30), rule), image, 0, 0, 0) for rule in ("squash", "crop", "pad"))
    assert squash[15, 3].tolist() == [255, 0, 0]
    assert squash[15, 26].tolist() == [0, 0, 255]
    assert (crop[:, 3:-3] == (0, 255, 0)).all()  # only the middle third is left
    assert (pad[:9] == 0).all()
    assert (pad[-9:] == 0).all()
    assert pad[15, 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize("rule", ["squash", "crop", "pad"])
def test_shrinking_averages_all_pixels(rule):
    stripes = np.zeros((80, 80, 3), dtype=np.uint8)
    stripes[:, ::4] = 255
    result = apply(eval_pipeline((20, 20), rule), stripes, 0, 0, 0)
    assert abs(result.astype(int) - 64).max() <= 1  # sampling would give 0 or 255


def test_evaluation_draws_nothing():
    pipeline = eval_pipeline((40, 64), "squash")
    assert np.array_equal(apply(pipeline, NOISE, 1, 0, 0), apply(pipeline, NOISE, 2, 5, 9))


@pytest.mark.parametrize("preset", ["light", "medium", "heavy", "crop", "randaugment", "trivialaugment", "augmix"])
def test_what_is_drawn_depends_on_seed_epoch_and_row_alone(preset):
    one, other = (train_pipeline(preset, (40, 64), "squash") for _ in range(2))
    keys = [(seed, epoch, row) for seed in range(2) for epoch in range(4) for row in range(4)]
    forward = {key: apply(one, NOISE, *key) for key in keys}
    backward = {key: apply(other, NOISE, *key) for key in reversed(keys)}
    assert all(np.array_equal(forward[key], backward[key]) for key in keys)
    different = {image.tobytes() for image in forward.values()}
    assert len(different) == 2 if preset == "light" else len(different) > 24


def test_transforms_of_one_call_draw_independently():
    pipeline = A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.InvertImg(p=0.5)])
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    seen = [apply(pipeline, image, 0, 0, row).tobytes() for row in range(400)]
    counts = [seen.count(result) for result in set(seen)]
    assert len(counts) == 8  # with correlated draws only 2 of the 8 combinations occur
    assert min(counts) > 25


def test_a_users_pipeline_replaces_preset_and_resizing():
    pipeline = train_pipeline([A.Resize(40, 64), A.InvertImg(p=1)], (40, 64), "squash")
    expected = 255 - apply(A.Compose([A.Resize(40, 64)]), NOISE, 0, 0, 0)
    assert np.array_equal(apply(pipeline, NOISE, 0, 0, 0), expected)


@pytest.mark.parametrize(
    ("transforms", "expected"),
    [
        ([A.Resize(40, 64), A.Normalize()], "remove A.Normalize and A.ToFloat, the task normalises on the device"),
        ([A.Resize(40, 64), A.ToTensorV2()], "remove A.ToTensorV2"),
        ([A.HorizontalFlip()], r"end it with A.Resize\(height=40, width=64\)"),
        ([A.Resize(64, 40)], r"shape \(64, 40, 3\), not \(40, 64, 3\)"),
        ([A.Resize(40, 64), A.OneOf([A.Normalize(), A.Normalize()], p=1)], "remove A.Normalize"),
        ([A.RandomCrop(100, 100), A.Resize(40, 64)], "data.augment fails on an image of shape"),
    ],
)
def test_pipelines_that_cannot_work_are_refused(competition, transforms, expected):
    with pytest.raises(InputError, match=expected):
        competition.ready(augment=transforms, image_size=(40, 64))


def parse_augment(value):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(CSVDataModule, "data", skip={"fold", "seed", "schema"}, instantiate=False)
    config = parser.parse_object({"data": {"target": "y", "target_kind": "regression", "augment": value}})
    return parser.instantiate(config).data.augment


def test_yaml_makes_transforms():
    flip = {"class_path": "albumentations.HorizontalFlip", "init_args": {"p": 0.3}}
    nested = {"class_path": "albumentations.OneOf", "init_args": {"transforms": [flip], "p": 1.0}}
    one_of, bare = parse_augment([nested, {"class_path": "albumentations.Transpose"}])
    assert (type(one_of), one_of.transforms[0].p, type(bare)) == (A.OneOf, 0.3, A.Transpose)
    assert parse_augment("heavy") == "heavy"


@pytest.mark.parametrize(
    "value",
    [
        "hevy",
        [{"class_path": "albumentations.HorizontalFlop"}],
        [{"class_path": "albumentations.HorizontalFlip", "init_args": {"prob": 0.3}}],
        [
            {
                "class_path": "albumentations.OneOf",
                "init_args": {"transforms": [{"class_path": "albumentations.Blur", "init_args": {"blurr": 3}}]},
            }
        ],
    ],
)
def test_mistyped_transforms_and_arguments_are_errors(value):
    with pytest.raises(Exception, match=r"hevy|HorizontalFlop|prob|blurr"):
        parse_augment(value)
