"""Training draws around what evaluation shows, at any output size, and every use of random numbers has its own."""

from typing import get_args

import albumentations as A
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from swinft.cli import main
from swinft.data.augment.pipelines import apply, eval_pipeline, train_pipeline
from swinft.data.datamodule import CSVDataModule
from swinft.errors import InputError
from swinft.seeding import Use, seed_for
from tests.conftest import merged, power_gone_after, tiny_config, write_config
from tests.model.test_task import make_task

SIZES = [(128, 512), (224, 672), (64, 512), (224, 224)]
SHAPES = [(256, 1024), (300, 400), (400, 300)]
RULES = ["squash", "crop", "pad"]
DRAWS = 60


def coordinates(shape):
    """An image whose red says how far to the right a pixel lies, and green how far down; blue says that it is inside."""
    y, x = ((np.arange(side) + 0.5) / side * 250 + 2 for side in shape)
    return np.stack(np.broadcast_arrays(x, y[:, None], 200.0), axis=2).round().astype(np.uint8)


def spans(result, shape):
    """Pixels of the image per pixel of the result, along y and x; and the share of the result that is not black."""
    inside = result[:, :, 2] > 100
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    part = result[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(float)
    middle_row, middle_column = part[len(part) // 2, :, 0], part[:, part.shape[1] // 2, 1]
    steps = []
    for values, side in ((middle_column, shape[0]), (middle_row, shape[1])):
        slope = np.polyfit(np.arange(len(values)), values, 1)[0] if len(values) > 1 else np.nan
        steps.append(abs(slope) / 250 * side)
    return (*steps, inside.mean())


def drawn(preset, size, rule, shape):
    image = coordinates(shape)
    pipeline = train_pipeline(preset, size, rule)
    if preset == "heavy":  # its colours, holes and blurs would be taken for coordinates
        pipeline = A.Compose(pipeline.transforms[:1])
    training = np.array([spans(apply(pipeline, image, 0, 0, row), shape) for row in range(DRAWS)])
    return training, np.array(spans(apply(eval_pipeline(size, rule), image, 0, 0, 0), shape))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preset", ["crop", "heavy"])
def test_f072_f073_what_evaluation_shows_lies_inside_what_training_draws(preset, size, rule):
    for shape in SHAPES:
        training, evaluation = drawn(preset, size, rule, shape)
        stretched = training[:, 0] / training[:, 1]  # 1 where proportions are kept
        assert stretched.min() < evaluation[0] / evaluation[1] < stretched.max()
        assert stretched.max() / stretched.min() < (4 / 3) ** 2 * 1.15  # and no more than that
        for axis in range(2):
            assert training[:, axis].min() < evaluation[axis] < 1.2 * training[:, axis].max()
        assert training[:, 2].min() <= evaluation[2] + 0.01 <= training[:, 2].max() + 0.02
        assert len(np.unique(training.round(3), axis=0)) > DRAWS / 2  # not one crop again and again


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preset", ["crop", "heavy"])
def test_f072_every_part_of_an_image_is_seen(preset, size):
    image = np.zeros((size[0], size[1], 3), dtype=np.uint8)
    image[:, : size[1] // 8] = (255, 0, 0)
    image[:, -(size[1] // 8) :] = (0, 255, 0)
    pipeline = train_pipeline(preset, size, "crop")
    pipeline = A.Compose(pipeline.transforms[:1]) if preset == "heavy" else pipeline
    seen = np.array([apply(pipeline, image, 0, 0, row).max(axis=(0, 1)) > 200 for row in range(DRAWS)])
    assert seen[:, 0].mean() > 0.4 < seen[:, 1].mean()


def test_f073_heavy_takes_its_crop_from_what_was_decoded():
    stripes = np.zeros((256, 256, 3), dtype=np.uint8)
    stripes[:, ::4], stripes[:, 1::4] = 255, 255  # too fine for a crop of what was shrunk to 112 pixels
    pipeline = A.Compose(train_pipeline("heavy", (112, 112), "squash").transforms[:1])
    contrast = [apply(pipeline, stripes[:150, :150], 0, 0, row).std() for row in range(20)]
    twice = A.Compose([A.Resize(112, 112, area_for_downscale="image"), A.RandomResizedCrop((112, 112), scale=(0.5, 1))])
    assert np.mean(contrast) > np.mean([apply(twice, stripes[:150, :150], 0, 0, row).std() for row in range(20)]) + 3


@pytest.mark.parametrize(
    ("shape", "size", "rule"),
    [((1000, 1000), (224, 224), "crop"), ((584, 584), (64, 512), "squash"), ((584, 584), (64, 512), "pad")],
)
@pytest.mark.parametrize("preset", ["crop", "heavy"])
def test_f074_stripes_do_not_alias(shape, size, rule, preset):
    stripes = np.zeros((*shape, 3), dtype=np.uint8)
    stripes[::2] = 255
    pipeline = train_pipeline(preset, size, rule)
    pipeline = A.Compose(pipeline.transforms[:1]) if preset == "heavy" else pipeline
    for row in range(10):
        result = apply(pipeline, stripes, 0, 0, row)
        columns = np.flatnonzero(result.any((0, 2)))[2:-2]  # beside it, `pad` is black
        assert result[2:-2, columns].std() < 25  # sampling leaves 80 and more


def write(root, images):
    (root / "images").mkdir(parents=True)
    for row, image in enumerate(images):
        Image.fromarray(image).save(root / "images" / f"{row:02d}.png")
    lines = [f"{row:02d},{'ab'[row % 2]}\n" for row in range(len(images))]
    (root / "train.csv").write_text("id,color\n" + "".join(lines))
    return root


def module(root, **changes):
    arguments = {
        "root": str(root),
        "train": "train.csv",
        "image": "images/{id}.png",
        "target": "color",
        "target_kind": "classification",
        "folds": {"num": 2},
        "image_size": (32, 32),
        "batch_size": 4,
        "loading": {"cache_dir": str(root / "cache")},
    }
    data = CSVDataModule(**merged(arguments, changes))
    data.setup("fit")
    return data


def images_of(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return {
        row: image.float() for batch in loader for row, image in zip(batch["row"].tolist(), batch["image"], strict=True)
    }


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Noise that stands and lies, in several shapes: whatever is resized on the way loses contrast."""
    rng = np.random.default_rng(0)
    shapes = [(40, 56), (56, 40), (37, 37), (40, 90)] * 4
    noise = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    return write(tmp_path_factory.mktemp("mixed"), noise)


@pytest.mark.parametrize("resize", RULES)
def test_f077_images_of_mixed_shapes_are_as_sharp_on_the_device(mixed, resize):
    there = images_of(module(mixed, augment="crop", loading={"augment_on": "device", "resize": resize}))
    here = images_of(module(mixed, augment="crop", loading={"cache": True, "resize": resize}))
    assert list(there) == list(here)
    for row, image in here.items():
        inner = (there[row] - image)[:, 1:-1, 1:-1].abs()
        # Where a side is shrunk by more than half the device takes means of samples instead of a filter's.
        assert inner.median() < 12
        assert abs(float(there[row].std() / image.std()) - 1) < 0.12


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_f074_stripes_do_not_alias_on_the_device_either(tmp_path, resize):
    stripes = np.zeros((100, 100, 3), dtype=np.uint8)
    stripes[::2] = 255
    root = write(tmp_path, [stripes] * 8)
    there, here = (
        images_of(
            module(
                root, augment="crop", loading={"augment_on": on, "cache": True, "resize": resize}, image_size=(8, 64)
            )
        )
        for on in ("device", "cpu")
    )
    for row, image in there.items():
        assert float((image - here[row]).abs().mean()) < 16  # a mean of samples there, a filter here
        assert float(image[:, 1:-1, 31:33].std()) < 40


def test_f077_the_device_is_free_when_the_training_is_over(mixed):
    data = module(mixed, augment="crop", loading={"augment_on": "device"})
    images = data.train_dataloader().device_images
    assert len(images.pixels) > 0
    data.teardown("fit")
    assert len(images.pixels) == 0
    assert len(images_of(data)) > 0  # and comes back when it is wanted again


def test_f020_the_images_on_the_device_are_those_of_the_fold(mixed):
    data = module(mixed, augment="light", loading={"augment_on": "device"})
    first = images_of(data)
    data.fold = 1
    second = images_of(data)
    assert set(first) != set(second)
    assert torch.equal(
        *(
            torch.stack([value for _, value in sorted(images_of(one).items())])
            for one in (data, module(mixed, folds={"held_out": 1}, augment="light", loading={"augment_on": "device"}))
        )
    )


def test_f078_every_use_of_random_numbers_has_its_own(mixed):
    seeds = {
        (use, seed, fold): seed_for(use, seed, fold) for use in get_args(Use) for seed in range(9) for fold in range(9)
    }
    assert len(set(seeds.values())) == len(seeds)
    assert {value.bit_length() for value in seeds.values()} == {63}
    data = [
        module(mixed, augment="crop", loading={"cache": True}, folds={"held_out": fold, "file": None})
        for fold in (0, 1)
    ]
    loaders = [one.train_dataloader() for one in data]
    assert not np.array_equal(loaders[0].dataset.image(0, 3), loaders[1].dataset.image(0, 3))  # the fold counts
    assert np.array_equal(
        loaders[0].dataset.image(2, 3), module(mixed, augment="crop").train_dataloader().dataset.image(2, 3)
    )
    order, augmentation = (np.random.default_rng([seed_for(use, 42), 0]).random(4) for use in ("order", "augmentation"))
    assert not np.array_equal(order, augmentation)


def test_f078_dropout_and_mixing_do_not_share_their_numbers():
    task = make_task()
    task.trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    uses = ("dropout", "mixing")
    one, other = (task._rng(use, 3).random(9) for use in uses)
    assert not np.array_equal(one, other)
    assert np.array_equal(one, task._rng("dropout", 3).random(9))


def test_f078_mistyped_arguments_are_errors_in_python_too(mixed):
    with pytest.warns(UserWarning, match="are not valid for transform"):
        wrong = [A.OneOf([A.HorizontalFlip(prob=0.3)]), A.Resize(32, 32, higth=3)]
    for key, changes in (("augment", {"augment": wrong}), ("loading.preprocess", {"loading": {"preprocess": wrong}})):
        with pytest.raises(InputError) as caught:
            module(mixed, **changes)
        assert f"data.{key}: HorizontalFlip has no argument 'prob'" in str(caught.value)
        assert f"data.{key}: Resize has no argument 'higth'" in str(caught.value)


def steps(*transforms):
    """Transforms as YAML holds them."""
    return [{"class_path": f"albumentations.{name}", "init_args": options} for name, options in transforms]


RESIZE = ("Resize", {"height": 32, "width": 32})


def checked(tmp_path, root, capsys, **changes):
    """Exit code and words of `swinft check`."""
    changes = {f"data.{key}": value for key, value in changes.items()}
    base = {"data.root": str(root), "data.image": "images/{id}.png", "data.test": None, "data.sample_submission": None}
    config = write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path / "runs", **base, **changes))
    code = main(["check", "--config", str(config)])
    words = capsys.readouterr()
    return code, words.out + words.err


@pytest.fixture(scope="module")
def one_small(tmp_path_factory):
    """Images of 60 × 60 pixels, and one that is 30 wide; it is the last one."""
    rng = np.random.default_rng(0)
    shapes = [(60, 60)] * 11 + [(60, 30)]
    return write(tmp_path_factory.mktemp("one_small"), [rng.integers(90, 166, (*s, 3), dtype=np.uint8) for s in shapes])


def test_f075_a_list_is_tried_on_the_extremes_of_the_data(tmp_path, one_small, capsys):
    code, said = checked(tmp_path, one_small, capsys, augment=steps(("RandomCrop", {"height": 32, "width": 32})))
    assert code == 2
    assert "data.augment fails on an image of shape (60, 30, 3)" in said
    assert "id '11'" in said
    assert not (tmp_path / "runs").exists()


def test_f075_a_list_sees_the_images_that_it_was_written_for(tmp_path, one_small, capsys):
    # Right for every image, and refused when it was tried on noise of 32 x 32 pixels.
    transforms = steps(("RandomCrop", {"height": 48, "width": 28}), RESIZE)
    code, said = checked(tmp_path, one_small, capsys, augment=transforms)
    assert code == 0
    assert "your transforms see full-size images" in said
    code, said = checked(tmp_path, one_small, capsys, augment=transforms, loading={"shrink": True})
    assert code == 2
    assert "data.augment fails on an image of shape (37, 37, 3)" in said or "(60, 30, 3)" in said
    code, said = checked(tmp_path, one_small, capsys, augment=steps(RESIZE), loading={"shrink": True})
    assert code == 0
    assert "shrunk to cover 37 × 37 pixels" in said


def test_f076_preprocessing_is_applied_in_training_and_in_evaluation(tmp_path, one_small, capsys):
    invert = [A.InvertImg(p=1), A.CLAHE(clip_limit=(4, 4), p=1)]
    plain, own = (
        module(one_small, augment="none", loading={"shrink": False}),
        module(one_small, augment="none", loading={"preprocess": invert}),
    )
    for name in ("train", "val"):
        before, after = (next(iter(getattr(data, f"{name}_dataloader")()))["image"] for data in (plain, own))
        assert float(after.float().std()) > 2 * float(before.float().std())
    light = module(one_small, augment=[A.Resize(32, 32)], loading={"preprocess": [A.InvertImg(p=1)]})
    pair = [next(iter(loader()))["image"].float().mean() for loader in (light.train_dataloader, light.val_dataloader)]
    assert abs(pair[0] - pair[1]) < 3
    code, said = checked(tmp_path, one_small, capsys, augment=steps(RESIZE, ("InvertImg", {"p": 1})))
    assert code == 0
    assert "evaluation does not run data.augment" in said
    assert "data.loading.preprocess" in said


@pytest.mark.parametrize(
    ("transforms", "words"),
    [
        ([("CLAHE", {"p": 1})], ["draws at random: CLAHE", "p to 1"]),
        ([("InvertImg", {})], ["draws at random: InvertImg"]),
        ([("ToGray", {"p": 1}), ("Normalize", {"p": 1})], ["data.loading.preprocess ends in float32", "A.Normalize"]),
        ([("RandomCrop", {"height": 20, "width": 20})], ["draws at random: RandomCrop"]),
        (
            [("CenterCrop", {"height": 40, "width": 40})],
            ["data.loading.preprocess fails on an image of shape", "id '11'"],
        ),
    ],
    ids=["range", "probability", "float", "place", "too small"],
)
def test_f076_preprocessing_that_draws_or_cannot_work_is_refused(tmp_path, one_small, capsys, transforms, words):
    code, said = checked(tmp_path, one_small, capsys, loading={"preprocess": steps(*transforms)})
    assert code == 2
    assert all(word in said for word in words), said


def test_f076_preprocessing_runs_no_other_class_than_a_transform(tmp_path, one_small, capsys):
    for path in ("os.system", "torch.nn.Linear", "albumentations.core.composition.os.system"):
        code, said = checked(
            tmp_path, one_small, capsys, loading={"preprocess": [{"class_path": path, "init_args": {}}]}
        )
        assert code == 2
        assert path in said


def test_f076_preprocessing_does_not_go_with_a_device(mixed):
    with pytest.raises(InputError, match=r"data.loading.preprocess runs on the CPU"):
        module(mixed, augment="light", loading={"augment_on": "device", "preprocess": [A.ToGray(p=1)], "shrink": True})


def test_a_run_with_a_policy_resumes_to_the_same_bytes_and_takes_it_by_class_path(competition, tmp_path, capsys):
    def fitted(name, *options, **changes):
        config = tiny_config(competition, tmp_path / "runs", name=name, **changes)
        words = ["fit", "--config", str(write_config(tmp_path / f"{name}.yaml", config)), "--fold", "0", *options]
        assert main(words) == 0
        return (tmp_path / "runs" / name / "fold_0" / "weights.safetensors").read_bytes()

    whole = fitted("whole", **{"data.augment": "randaugment"})
    with power_gone_after(1):
        fitted("again", **{"data.augment": "randaugment"})
    assert fitted("again", "--resume", "--data.loading.num_workers", "1", **{"data.augment": "randaugment"}) == whole
    resize = {"class_path": "albumentations.Resize", "init_args": {"height": 32, "width": 32}}
    strong = {"class_path": "swinft.RandAugment", "init_args": {"magnitude": 20}}
    assert fitted("strong", **{"data.augment": [resize, strong]}) != whole
    changes = {"data.augment": "augmix", "data.loading.augment_on": "device"}
    config = write_config(tmp_path / "d.yaml", tiny_config(competition, tmp_path, **changes))
    assert main(["check", "--config", str(config)]) == 2
    assert "data.augment is 'augmix'; a device supports none, light, medium, crop" in capsys.readouterr().err
